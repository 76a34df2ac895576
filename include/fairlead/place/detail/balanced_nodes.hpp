// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The steps of `balanced_hierarchy`: groups to nodes, then a search on each node that is above the bound.
#include <fairlead/core/report.hpp>
#include <fairlead/place/detail/group_search.hpp>
#include <fairlead/place/detail/node_search.hpp>
#include <fairlead/place/detail/share_plan.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail::packing {

class balanced_nodes {
 public:
  static std::size_t bytes(topology const& cluster, index_t experts, index_t groups) {
    return packing_scratch::bytes(experts, cluster.slots(), cluster.ranks()) +
           group_scratch::bytes(groups, cluster.nodes()) + 3 * fairlead::workspace_bytes<std::uint32_t>(groups) +
           2 * fairlead::workspace_bytes<index_t>(cluster.nodes()) +
           fairlead::workspace_bytes<std::uint32_t>(cluster.nodes()) +
           fairlead::workspace_bytes<std::uint64_t>(experts) + 3 * fairlead::workspace_bytes<std::uint32_t>(experts) +
           fairlead::workspace_bytes<std::uint64_t>(cluster.ranks()) +
           fairlead::workspace_bytes<std::uint32_t>(cluster.slots()) +
           fairlead::workspace_bytes<expert_id>(cluster.slots());
  }
  balanced_nodes(topology const& cluster, std::span<index_t const> load, index_t groups, workspace& ws)
      : cluster_(cluster),
        load_(load),
        experts_(static_cast<index_t>(load.size())),
        groups_(groups),
        s_(experts_, cluster.slots(), cluster.ranks(), ws),
        g_(groups, cluster.nodes(), ws),
        home_(ws.take<std::uint32_t>(groups).data()),
        best_home_(ws.take<std::uint32_t>(groups).data()),
        used_(ws.take<index_t>(cluster.nodes()).data()),
        cap_(ws.take<index_t>(cluster.nodes()).data()),
        last_home_(ws.take<std::uint32_t>(groups).data()),
        trial_(ws.take<expert_id>(cluster.slots()).data()),
        order_(ws.take<std::uint32_t>(cluster.nodes()).data()),
        scaled_(ws.take<std::uint64_t>(experts_).data()),
        names_(ws.take<std::uint32_t>(experts_).data()),
        by_weight_(ws.take<std::uint32_t>(experts_).data()),
        best_replicas_(ws.take<std::uint32_t>(experts_).data()),
        sum_(ws.take<std::uint64_t>(cluster.ranks()).data()),
        best_placed_(ws.take<std::uint32_t>(cluster.slots()).data()) {}

  // Whole groups to nodes, as many as fit. Returns whether there is such a packing.
  bool pack_groups(index_t limit) {
    nodes_ = list_nodes(cluster_, g_);
    if (nodes_ > groups_) { return false; }
    scale();
    for (index_t group = 0; group < groups_; ++group) {
      g_.order[group] = static_cast<std::uint32_t>(group);
      g_.load[group] = 0;
      for (index_t e = group_begin(group, groups_, experts_); e < group_begin(group + 1, groups_, experts_); ++e) {
        g_.load[group] += scaled_[e];
      }
    }
    group_search search{g_, groups_, nodes_, experts_, home_, best_home_, used_, g_.room};
    search.search(limit);
    if (!search.found) { return false; }
    search.write();
    bound_ = search.proved ? search.best_mean : search.lower_bound();
    // An expert has at most the slots that the largest node has beyond the others of its group.
    auto const room = static_cast<std::uint64_t>(*std::max_element(g_.room, g_.room + nodes_));
    for (index_t group = 0; group < groups_; ++group) {
      index_t const begin = group_begin(group, groups_, experts_);
      index_t const end = group_begin(group + 1, groups_, experts_);
      std::uint64_t const largest = begin < end ? *std::max_element(scaled_ + begin, scaled_ + end) : 0;
      if (begin < end) { bound_ = std::max(bound_, {largest, room - static_cast<std::uint64_t>(end - begin) + 1}); }
    }
    return true;
  }

  // Plans on the packing of groups, and where that stays above the bound on packings that spread experts more evenly
  // over nodes: one may have too few slots left for replicas.
  report plan_groups(std::span<expert_id> next, index_t limit, index_t attempts, index_t closeness, index_t exchanges) {
    report best = plan(next, attempts, closeness, exchanges, ~std::uint64_t{0});
    std::uint64_t best_reached = reached_;
    index_t const largest = (experts_ + groups_ - 1) / groups_;
    for (index_t const parts : {0, 1}) {  // the share of a node in all slots; halfway between that and its slots
      if (best_reached <= close_enough(closeness)) { break; }
      for (std::uint32_t node = 0; node < nodes_; ++node) {
        index_t const share = (experts_ * g_.room[node] + cluster_.slots() - 1) / cluster_.slots() + largest - 1;
        cap_[node] = std::min(g_.room[node], share + parts * (g_.room[node] - std::min(share, g_.room[node])) / 2);
      }
      std::copy_n(best_home_, groups_, last_home_);
      group_search search{g_, groups_, nodes_, experts_, home_, best_home_, used_, cap_};
      search.search(limit);
      if (!search.found || std::equal(best_home_, best_home_ + groups_, last_home_)) { continue; }
      search.write();
      report const other = plan(std::span(trial_, next.size()), attempts, closeness, exchanges, best_reached);
      best.iterations += other.iterations;
      if (reached_ >= best_reached) { continue; }
      best_reached = reached_;
      best.value = other.value;
      std::copy_n(trial_, next.size(), next.begin());
    }
    best.bound = std::min(best.value, bound_.value() * unit_);
    return best;
  }

  // No groups: the whole cluster as one node.
  void join_nodes() {
    groups_ = 1;
    nodes_ = 1;
    scale();
    g_.list[0] = 0;
    g_.held[0] = 1;
    g_.sum[0] = std::accumulate(scaled_, scaled_ + experts_, std::uint64_t{0});
    g_.room[0] = cluster_.slots();
    g_.hosts[0] = cluster_.hosting_ranks();
    g_.first_rank[0] = 0;
    g_.last_rank[0] = cluster_.ranks();
    bound_ = {g_.sum[0], static_cast<std::uint64_t>(g_.hosts[0])};
  }

  // Plans every node; stops as soon as one needs `worst` or more.
  report plan(std::span<expert_id> next, index_t attempts, index_t closeness, index_t exchanges, std::uint64_t worst) {
    // The heaviest node first: what it reaches is good enough for the others.
    std::iota(order_, order_ + nodes_, 0U);
    std::sort(order_, order_ + nodes_, [this](std::uint32_t a, std::uint32_t b) {
      rank_mean const left{g_.sum[a], static_cast<std::uint64_t>(g_.hosts[a])};
      rank_mean const right{g_.sum[b], static_cast<std::uint64_t>(g_.hosts[b])};
      return right < left || (!(left < right) && a < b);
    });
    std::fill(next.begin(), next.end(), expert_id::none);
    reached_ = close_enough(closeness);
    report result;
    for (std::uint32_t i = 0; i < nodes_ && reached_ < worst; ++i) {
      std::uint32_t const node = order_[i];
      if (g_.held[node] == 0) { continue; }
      result.iterations += plan_node(node, attempts, static_cast<std::uint32_t>(exchanges), next, result.value);
    }
    if (nodes_ == 1 && bound_.load > 0) { bound_ = std::max(bound_, {least_share_, 1}); }
    result.bound = std::min(result.value, bound_.value() * unit_);
    return result;
  }

 private:
  // Loads without their common divisor, times a power of two that leaves room for sums and the number of a rank.
  void scale() {
    std::uint64_t total = copy_loads(load_, scaled_);
    std::uint64_t divisor = 0;
    for (index_t e = 0; e < experts_ && divisor != 1; ++e) { divisor = std::gcd(divisor, scaled_[e]); }
    divisor = std::max<std::uint64_t>(divisor, 1);
    total /= divisor;
    int const rank_bits =
        std::countr_zero(std::bit_ceil(static_cast<std::uint64_t>(std::max<index_t>(cluster_.ranks(), 1))));
    // Forty bits below a load are plenty.
    int const shift = total == 0 ? 0 : std::min(40, std::countl_zero(total) - rank_bits - 2);
    for (index_t e = 0; e < experts_; ++e) {
      std::uint64_t const load = divisor == 1 ? scaled_[e] : scaled_[e] / divisor;
      scaled_[e] = shift >= 0 ? load << shift : load >> -shift;
    }
    unit_ = shift >= 0 ? static_cast<double>(divisor) / static_cast<double>(std::uint64_t{1} << shift)
                       : static_cast<double>(divisor) * static_cast<double>(std::uint64_t{1} << -shift);
  }

  [[nodiscard]] std::uint64_t close_enough(index_t closeness) const noexcept {
    if (bound_.load == 0) { return ~std::uint64_t{0} >> 2U; }  // no load: anything will do
    std::uint64_t const least = (bound_.load + bound_.ranks - 1) / bound_.ranks;
    return least + least / static_cast<std::uint64_t>(closeness);
  }

  // Plans one node; raises `reached_` to what the node needs. Returns the number of packings tried.
  index_t plan_node(std::uint32_t node, index_t attempts, std::uint32_t exchanges, std::span<expert_id> next,
                    double& value) {
    std::uint32_t n = 0;
    std::uint64_t total = 0;
    for (std::uint32_t i = 0; i < g_.held[node]; ++i) {
      index_t const group = g_.list[node * groups_ + i];
      for (index_t e = group_begin(group, groups_, experts_); e < group_begin(group + 1, groups_, experts_); ++e) {
        names_[n] = static_cast<std::uint32_t>(e);
        s_.given[n] = scaled_[e];
        total += s_.given[n++];
      }
    }
    if (n == 0) { return 0; }
    std::uint32_t const ranks = list_bins(cluster_, g_.first_rank[node], g_.last_rank[node], s_.bins);
    sort_loads(s_, n, total);
    node_search search{s_,   n,          ranks,        static_cast<std::uint32_t>(g_.room[node]),
                       sum_, by_weight_, best_placed_, best_replicas_};
    index_t const tried = search.run(reached_, attempts, exchanges);
    least_share_ = search.least_share;
    if (total > 0) { reached_ = std::max(reached_, search.best); }
    // The table, and loads of ranks from the loads as they were given.
    for (std::uint32_t b = 0; b < ranks; ++b) {
      double rank_load = 0.0;
      for (std::uint32_t slot = s_.bins[b].first; slot < s_.bins[b].first + s_.bins[b].room; ++slot) {
        std::uint32_t const at = best_placed_[slot];
        std::uint32_t const expert = names_[s_.order[at]];
        next[slot] = static_cast<expert_id>(expert);
        rank_load += static_cast<double>(load_[expert]) / static_cast<double>(best_replicas_[at]);
      }
      value = std::max(value, rank_load);
    }
    return tried;
  }

  topology const& cluster_;
  std::span<index_t const> load_;
  index_t experts_;
  index_t groups_;
  packing_scratch s_;
  group_scratch g_;
  std::uint32_t* home_;
  std::uint32_t* best_home_;
  index_t* used_;
  index_t* cap_;
  std::uint32_t* last_home_;
  expert_id* trial_;
  std::uint32_t* order_;
  std::uint64_t* scaled_;
  std::uint32_t* names_;
  std::uint32_t* by_weight_;
  std::uint32_t* best_replicas_;
  std::uint64_t* sum_;
  std::uint32_t* best_placed_;
  std::uint32_t nodes_ = 0;
  rank_mean bound_;
  std::uint64_t least_share_ = 0;
  std::uint64_t reached_ = 0;
  double unit_ = 1.0;
};

}  // namespace detail::packing
FAIRLEAD_NAMESPACE_END
