// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How `layout_cost` works.
#include <fairlead/place/layout_cost.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// Counts of replicas an expert; false if an expert with load has none.
[[nodiscard]] inline bool count_replicas(source_loads const& sources, std::span<expert_id const> slots,
                                         std::span<std::int32_t> replicas) {
  std::fill(replicas.begin(), replicas.end(), 0);
  for (expert_id const expert : slots) {
    if (expert == expert_id::none) { continue; }
    FAIRLEAD_EXPECTS_2(to_index(expert) >= 0 && to_index(expert) < static_cast<index_t>(replicas.size()),
                       "a slot holds an unknown expert", expert, replicas.size());
    ++replicas[static_cast<std::size_t>(expert)];
  }
  for (std::size_t e = 0; e < replicas.size(); ++e) {
    if (replicas[e] == 0 && sources.totals[e] > 0) { return false; }
  }
  return true;
}

// One slot table under whole quotas. A group is the set of replicas that a source splits an expert over: those of its
// node, or all of them. A source adds floor(copies / group) to each replica of the group and one more to some of them; per
// group the floors are summed, and the ones more are kept as differences between neighbours, so that a source costs O(1).
// With Ports, what each rank sends and receives is counted too.
template <class Count, bool Rotated, bool Ports = false>
class even_split {
 public:
  even_split(topology const& cluster, std::span<expert_id const> slots, std::span<std::int32_t const> replicas, workspace& ws)
      : cluster_(cluster),
        slots_(slots.data()),
        replicas_(replicas.data()),
        experts_(static_cast<index_t>(replicas.size())),
        hosted_(ws.take<std::int32_t>(experts_).data()),
        at_(ws.take<std::int32_t>(experts_).data()),
        next_(ws.take<std::int32_t>(experts_).data()),
        far_at_(ws.take<std::int32_t>(experts_).data()),
        far_sources_(ws.take<std::int32_t>(experts_).data()),
        inverse_(ws.take<double>(experts_).data()),
        divisor_(ws.take<Count>(experts_).data()),
        quota_(ws.take<Count>(experts_).data()),
        left_(ws.take<Count>(experts_).data()),
        start_(ws.take<Count>(experts_).data()),
        sums_(ws.take<Count>(experts_).data()),
        far_sums_(ws.take<Count>(experts_).data()),
        more_(ws.take<Count>(turns * (2 * cluster.slots() + experts_)).data()) {}

  // Adds to `rank_loads`; fills `ports` if they are wanted.
  [[nodiscard]] layout_traffic run(Count const* copies, source_loads const& sources, index_t* rank_loads,
                                   rank_exchange* ports = nullptr) {
    ports_ = ports;
    open_far_groups();
    index_t other_node = 0;
    index_t same_rank = 0;
    bool any_far = false;
    for (index_t node = 0; node < cluster_.nodes(); ++node) {
      index_t const* const sums = sources.node_sums.data() + node * experts_;
      any_far = open_node(node, sums, other_node) || any_far;
      same_rank += add_sources(node, copies);
      close_node(node, rank_loads);
    }
    if constexpr (Ports) {
      for (index_t rank = 0; rank < cluster_.ranks(); ++rank) { ports[rank].received_near = rank_loads[rank] - ports[rank].stays; }
    }
    if (any_far) { close_far_groups(rank_loads); }
    if constexpr (Ports) {
      for (index_t rank = 0; rank < cluster_.ranks(); ++rank) {
        ports[rank].received_far = rank_loads[rank] - ports[rank].stays - ports[rank].received_near;
      }
    }
    index_t total = 0;
    for (index_t const sum : sources.totals) { total += sum; }
    index_t busiest = 0;
    for (index_t rank = 0; rank < cluster_.ranks(); ++rank) { busiest = std::max(busiest, rank_loads[rank]); }
    return {static_cast<double>(same_rank), static_cast<double>(total - other_node - same_rank),
            static_cast<double>(other_node), static_cast<double>(busiest)};
  }

 private:
  static constexpr std::int32_t turns = Rotated ? 2 : 1;

  [[nodiscard]] index_t first_slot(index_t node) const noexcept {
    return cluster_.slot_offsets()[static_cast<std::size_t>(cluster_.node_offsets()[static_cast<std::size_t>(node)])];
  }

  // Groups of all replicas, behind the marks of one node. An expert without replicas has no copies; it gets one mark.
  void open_far_groups() noexcept {
    auto at = static_cast<std::int32_t>(turns * cluster_.slots());
    std::int32_t const begin = at;
    for (index_t e = 0; e < experts_; ++e) {
      far_at_[e] = at;
      at += turns * std::max(replicas_[e], 1);
      far_sources_[e] = 0;
      far_sums_[e] = 0;
    }
    std::fill(more_ + begin, more_ + at, Count{0});
  }

  // Groups for the sources of a node; whether some are not inside it.
  bool open_node(index_t node, index_t const* node_sums, index_t& other_node) noexcept {
    std::fill(hosted_, hosted_ + experts_, 0);
    for (index_t slot = first_slot(node); slot < first_slot(node + 1); ++slot) {
      if (slots_[slot] != expert_id::none) { ++hosted_[to_index(slots_[slot])]; }
    }
    std::int32_t at = 0;
    for (index_t e = 0; e < experts_; ++e) {
      at_[e] = at;
      at += turns * hosted_[e];
    }
    std::fill(more_, more_ + at, Count{0});
    auto const node_sources = static_cast<std::int32_t>(sources_of(node));
    index_t far = 0;
    for (index_t e = 0; e < experts_; ++e) {
      bool const here = hosted_[e] > 0;
      std::int32_t const size = here ? hosted_[e] : std::max(replicas_[e], 1);
      divisor_[e] = size;
      inverse_[e] = 1.0 / size;
      at_[e] = here ? at_[e] : far_at_[e];
      far_sources_[e] += here ? 0 : node_sources;
      other_node += here ? 0 : node_sums[e];
      far += here ? 0 : 1;
      sums_[e] = 0;
      next_[e] = 0;
    }
    return far > 0;
  }

  [[nodiscard]] index_t sources_of(index_t node) const noexcept {
    auto const first = cluster_.node_offsets().data() + node;
    return first[1] - first[0];
  }

  // Adds the copies of a node's sources to their groups; returns how many stay on their rank.
  index_t add_sources(index_t node, Count const* copies) noexcept {
    index_t const first = cluster_.node_offsets()[static_cast<std::size_t>(node)];
    index_t all_stay = 0;
    for (index_t rank = first; rank < first + sources_of(node); ++rank) {
      split(copies + rank * experts_, static_cast<Count>(rank), quota_, left_, start_, sums_);
      for (index_t e = 0; e < experts_; ++e) { mark(e); }
      index_t stay = 0;
      for (index_t slot = slot_offset(rank); slot < slot_offset(rank + 1); ++slot) {
        if (slots_[slot] == expert_id::none) { continue; }
        index_t const e = to_index(slots_[slot]);
        stay += quota_[e] + (gets_more(e, next_[e]++) ? 1 : 0);
      }
      all_stay += stay;
      if constexpr (Ports) { ports_[rank] = sent(copies + rank * experts_, stay); }
    }
    return all_stay;
  }

  [[nodiscard]] rank_exchange sent(Count const* row, index_t stay) const noexcept {
    index_t sum = 0;
    index_t far = 0;
    for (index_t e = 0; e < experts_; ++e) {
      sum += row[e];
      far += hosted_[e] > 0 ? 0 : row[e];
    }
    return {.stays = stay, .sent_near = sum - stay - far, .sent_far = far};
  }

  // Quotas and remainders of one source; a function of its own for the promise that its arrays do not overlap.
  void split(Count const* __restrict row, Count rank, Count* __restrict quota, Count* __restrict left,
             Count* __restrict start, Count* __restrict sums) const noexcept {
    for (index_t e = 0; e < experts_; ++e) {
      Count const floor = divided(row[e], e);
      quota[e] = floor;
      left[e] = row[e] - floor * divisor_[e];
      sums[e] += floor;
      if constexpr (Rotated) { start[e] = rank - divided(rank, e) * divisor_[e]; }
    }
  }

  [[nodiscard]] index_t slot_offset(index_t rank) const noexcept {
    return cluster_.slot_offsets()[static_cast<std::size_t>(rank)];
  }

  // Exact: half a unit away from every whole quotient is far more than the rounding of a 31-bit number's product.
  [[nodiscard]] Count divided(Count copies, index_t e) const noexcept {
    if constexpr (sizeof(Count) == sizeof(std::int32_t)) {
      return static_cast<Count>((static_cast<double>(copies) + 0.5) * inverse_[e]);
    } else {
      return copies / divisor_[e];
    }
  }

  // Replicas [start, start + left) of the group get one copy more. Those beyond its end are the first ones: rotated
  // groups have room for two turns of the ring.
  void mark(index_t e) noexcept {
    Count* const group = more_ + at_[e];
    if constexpr (Rotated) {
      ++group[start_[e]];
      --group[start_[e] + left_[e]];
    } else {
      --group[left_[e]];  // closing the group starts with one more for all sources
    }
  }

  [[nodiscard]] bool gets_more(index_t e, std::int32_t place) const noexcept {
    if constexpr (Rotated) {
      Count const from_start = place - start_[e];
      return (from_start < 0 ? from_start + divisor_[e] : from_start) < left_[e];
    } else {
      return place < left_[e];
    }
  }

  // Turns the marks of a group into the copies of each replica.
  void close_group(Count* group, std::int32_t size, std::int32_t group_sources, Count sum) const noexcept {
    Count running = sum + (Rotated ? 0 : group_sources);
    for (std::int32_t k = 0; k < size; ++k) {
      running += group[k];
      group[k] = running;
    }
    if constexpr (Rotated) {
      running -= sum;
      for (std::int32_t k = 0; k < size; ++k) {
        running += group[size + k];
        group[k] += running;
      }
    }
  }

  void close_node(index_t node, index_t* rank_loads) noexcept {
    auto const node_sources = static_cast<std::int32_t>(sources_of(node));
    for (index_t e = 0; e < experts_; ++e) {
      if (hosted_[e] > 0) {
        close_group(more_ + at_[e], hosted_[e], node_sources, sums_[e]);
        next_[e] = at_[e];
      } else {
        far_sums_[e] += sums_[e];
      }
    }
    index_t const first = cluster_.node_offsets()[static_cast<std::size_t>(node)];
    for (index_t rank = first; rank < first + sources_of(node); ++rank) { collect(rank, next_, rank_loads); }
  }

  void close_far_groups(index_t* rank_loads) noexcept {
    for (index_t e = 0; e < experts_; ++e) {
      close_group(more_ + far_at_[e], replicas_[e], far_sources_[e], far_sums_[e]);
    }
    for (index_t rank = 0; rank < cluster_.ranks(); ++rank) { collect(rank, far_at_, rank_loads); }
  }

  void collect(index_t rank, std::int32_t* next, index_t* rank_loads) const noexcept {
    index_t sum = rank_loads[rank];
    for (index_t slot = slot_offset(rank); slot < slot_offset(rank + 1); ++slot) {
      if (slots_[slot] != expert_id::none) { sum += more_[next[to_index(slots_[slot])]++]; }
    }
    rank_loads[rank] = sum;
  }

  topology const& cluster_;
  expert_id const* slots_;
  std::int32_t const* replicas_;  // replicas of each expert in all
  index_t experts_;
  std::int32_t* hosted_;       // replicas on the node
  std::int32_t* at_;           // where the marks of its group begin
  std::int32_t* next_;         // place, inside the group, of the next replica of the node
  std::int32_t* far_at_;       // where the marks of the group of all replicas begin
  std::int32_t* far_sources_;  // sources that split over all replicas
  double* inverse_;            // 1 / divisor
  Count* divisor_;             // replicas of the group
  Count* quota_;               // of the source at hand: copies to each replica of the group ...
  Count* left_;                // ... copies left over ...
  Count* start_;               // ... and who gets the first of them
  Count* sums_;                // quotas of the node's sources
  Count* far_sums_;            // quotas of the sources that split over all replicas
  Count* more_;                // marks of one node's groups, then those of the groups of all replicas
  rank_exchange* ports_ = nullptr;
};

// The same with quotas that are fractions: sums of nodes suffice, apart from what stays on its rank.
template <class Count>
[[nodiscard]] layout_traffic divide_evenly(topology const& cluster, source_loads const& sources, Count const* copies,
                                           std::span<expert_id const> slots, std::span<std::int32_t const> replicas,
                                           std::span<double> rank_loads, workspace& ws) {
  auto const experts = static_cast<index_t>(replicas.size());
  auto const hosted = ws.take<std::int32_t>(experts);
  auto const share = ws.take<double>(experts);
  auto const far = ws.take<index_t>(experts);
  std::fill(far.begin(), far.end(), index_t{0});
  std::fill(rank_loads.begin(), rank_loads.end(), 0.0);
  auto const first_slot = cluster.slot_offsets().data();
  auto const first_rank = cluster.node_offsets().data();
  layout_traffic traffic;
  index_t other_node = 0;
  index_t total = 0;
  for (index_t const sum : sources.totals) { total += sum; }
  for (index_t node = 0; node < cluster.nodes(); ++node) {
    std::fill(hosted.begin(), hosted.end(), 0);
    for (index_t slot = first_slot[first_rank[node]]; slot < first_slot[first_rank[node + 1]]; ++slot) {
      expert_id const expert = slots[static_cast<std::size_t>(slot)];
      if (expert != expert_id::none) { ++hosted[static_cast<std::size_t>(expert)]; }
    }
    index_t const* const sums = sources.node_sums.data() + node * experts;
    for (std::size_t e = 0; e < hosted.size(); ++e) {
      share[e] = hosted[e] > 0 ? static_cast<double>(sums[e]) / hosted[e] : 0.0;
      far[e] += hosted[e] > 0 ? 0 : sums[e];
      other_node += hosted[e] > 0 ? 0 : sums[e];
    }
    for (index_t rank = first_rank[node]; rank < first_rank[node + 1]; ++rank) {
      for (index_t slot = first_slot[rank]; slot < first_slot[rank + 1]; ++slot) {
        expert_id const expert = slots[static_cast<std::size_t>(slot)];
        if (expert == expert_id::none) { continue; }
        auto const e = static_cast<std::size_t>(expert);
        rank_loads[static_cast<std::size_t>(rank)] += share[e];
        traffic.same_rank += static_cast<double>(copies[rank * experts + to_index(expert)]) / hosted[e];
      }
    }
  }
  for (index_t rank = 0; other_node > 0 && rank < cluster.ranks(); ++rank) {
    for (index_t slot = first_slot[rank]; slot < first_slot[rank + 1]; ++slot) {
      expert_id const expert = slots[static_cast<std::size_t>(slot)];
      if (expert == expert_id::none) { continue; }
      auto const e = static_cast<std::size_t>(expert);
      rank_loads[static_cast<std::size_t>(rank)] += static_cast<double>(far[e]) / replicas[e];
    }
  }
  traffic.other_node = static_cast<double>(other_node);
  // Rounding of the sum must not make a negative number of copies out of none.
  traffic.same_node = std::max(0.0, static_cast<double>(total - other_node) - traffic.same_rank);
  for (double const load : rank_loads) { traffic.busiest = std::max(traffic.busiest, load); }
  return traffic;
}

// One slot table under the chosen rule; `rank_loads` is overwritten.
template <class Count>
[[nodiscard]] layout_traffic count_traffic(even_remainder remainder, topology const& cluster, source_loads const& sources,
                                           Count const* copies, std::span<expert_id const> slots,
                                           std::span<std::int32_t const> replicas, std::span<double> rank_loads,
                                           workspace& ws) {
  if (remainder == even_remainder::divided) {
    return divide_evenly(cluster, sources, copies, slots, replicas, rank_loads, ws);
  }
  auto const whole = ws.take<index_t>(cluster.ranks());
  std::fill(whole.begin(), whole.end(), index_t{0});
  layout_traffic const traffic =
      remainder == even_remainder::rotated
          ? even_split<Count, true>(cluster, slots, replicas, ws).run(copies, sources, whole.data())
          : even_split<Count, false>(cluster, slots, replicas, ws).run(copies, sources, whole.data());
  for (std::size_t rank = 0; rank < whole.size(); ++rank) { rank_loads[rank] = static_cast<double>(whole[rank]); }
  return traffic;
}

inline source_loads prepare_sources(topology const& cluster, load_estimate const& load, workspace& ws) {
  auto const experts = static_cast<index_t>(load.totals.size());
  index_t const ranks = cluster.ranks();
  bool const given = !load.by_source.empty() || ranks == 0 || experts == 0;
  FAIRLEAD_EXPECTS(load.by_source.empty() || (load.by_source.rows() == ranks && load.by_source.cols() == experts),
                   "loads by source need one row a rank and one column an expert", load.by_source.rows(),
                   load.by_source.cols(), ranks, experts);
  auto const wide = ws.take<index_t>(ranks * experts);
  auto const node_sums = ws.take<index_t>(cluster.nodes() * experts);
  auto const totals = ws.take<index_t>(experts);
  auto const narrow = std::span(reinterpret_cast<std::int32_t*>(wide.data()), wide.size());
  auto const row = [&](index_t rank, index_t* into) noexcept {  // for sources that were not given
    for (std::size_t e = 0; e < load.totals.size(); ++e) {
      into[e] = load.totals[e] / ranks + (rank < load.totals[e] % ranks ? 1 : 0);
    }
  };
  // The 32-bit copy is made on the way and holds only if every total has 31 bits; sums decide, not what `totals` says.
  index_t bits = 0;
  std::fill(totals.begin(), totals.end(), index_t{0});
  for (index_t node = 0; node < cluster.nodes(); ++node) {
    index_t* const sums = node_sums.data() + node * experts;
    std::fill(sums, sums + experts, index_t{0});
    auto const first = cluster.node_offsets().data() + node;
    for (index_t rank = first[0]; rank < first[1]; ++rank) {
      index_t const* counts = nullptr;
      if (given) {
        counts = load.by_source.row(rank);
      } else {
        index_t* const here = totals.data();  // free until the sums are known
        row(rank, here);
        counts = here;
      }
      std::int32_t* const out = narrow.data() + rank * experts;
      for (index_t e = 0; e < experts; ++e) {
        index_t const count = counts[e];
        out[e] = static_cast<std::int32_t>(count);
        sums[e] += count;
        bits |= count;
      }
    }
  }
  FAIRLEAD_EXPECTS(bits >= 0, "loads must not be negative");
  std::fill(totals.begin(), totals.end(), index_t{0});
  for (index_t node = 0; node < cluster.nodes(); ++node) {
    index_t const* const sums = node_sums.data() + node * experts;
    for (index_t e = 0; e < experts; ++e) { totals[static_cast<std::size_t>(e)] += sums[e]; }
  }
  bool small = true;
  for (std::size_t e = 0; e < totals.size(); ++e) {
    FAIRLEAD_EXPECTS_2(totals[e] == load.totals[e] || ranks == 0, "loads by source must sum to the totals", e, totals[e],
                       load.totals[e]);
    small = small && totals[e] <= std::numeric_limits<std::int32_t>::max();
  }
  if (small) { return {narrow, {}, node_sums, totals}; }
  for (index_t rank = 0; rank < ranks; ++rank) {
    index_t* const out = wide.data() + rank * experts;
    if (given) {
      std::copy_n(load.by_source.row(rank), experts, out);
    } else {
      row(rank, out);
    }
  }
  return {{}, wide, node_sums, totals};
}

inline void check_table(topology const& cluster, source_loads const& sources, std::span<expert_id const> slots) {
  FAIRLEAD_EXPECTS(static_cast<index_t>(slots.size()) == cluster.slots(), "one entry a slot of the cluster", slots.size(),
                   cluster.slots());
  FAIRLEAD_EXPECTS(cluster.slots() < (index_t{1} << 28U), "the number of slots must be below 2^28", cluster.slots());
  FAIRLEAD_EXPECTS(sources.node_sums.size() == static_cast<std::size_t>(cluster.nodes()) * sources.totals.size(),
                   "these loads were prepared for another cluster", sources.node_sums.size(), cluster.nodes());
}

// Busiest rank if all ranks with a slot had the same load.
[[nodiscard]] inline double least_busiest(topology const& cluster, source_loads const& sources, bool whole) noexcept {
  index_t total = 0;
  for (index_t const sum : sources.totals) { total += sum; }
  index_t const hosts = std::max<index_t>(cluster.hosting_ranks(), 1);
  return whole ? static_cast<double>((total + hosts - 1) / hosts) : static_cast<double>(total) / static_cast<double>(hosts);
}

}  // namespace detail

inline source_loads layout_cost::prepare(topology const& cluster, load_estimate const& load, workspace& ws) const {
  return detail::prepare_sources(cluster, load, ws);
}

inline double layout_cost::bound(topology const& cluster, source_loads const& sources) const noexcept {
  bool const whole = remainder != even_remainder::divided;
  return model.cost_of(0.0, 0.0, detail::least_busiest(cluster, sources, whole)).total_s();
}

inline layout_traffic layout_cost::traffic(topology const& cluster, source_loads const& sources,
                                           std::span<expert_id const> slots, std::span<double> rank_loads,
                                           workspace& ws) const {
  detail::check_table(cluster, sources, slots);
  FAIRLEAD_EXPECTS(static_cast<index_t>(rank_loads.size()) == cluster.ranks(), "one load a rank of the cluster",
                   rank_loads.size(), cluster.ranks());
  workspace::scope const scope(ws);
  auto const replicas = ws.take<std::int32_t>(static_cast<index_t>(sources.totals.size()));
  bool const complete = detail::count_replicas(sources, slots, replicas);
  FAIRLEAD_EXPECTS(complete, "each expert with load needs a slot");
  return sources.wide.empty()
             ? detail::count_traffic(remainder, cluster, sources, sources.narrow.data(), slots, replicas, rank_loads, ws)
             : detail::count_traffic(remainder, cluster, sources, sources.wide.data(), slots, replicas, rank_loads, ws);
}

inline step_cost layout_cost::cost(topology const& cluster, source_loads const& sources, std::span<expert_id const> slots,
                                   workspace& ws) const {
  workspace::scope const scope(ws);
  {
    workspace::scope const check(ws);
    auto const replicas = ws.take<std::int32_t>(static_cast<index_t>(sources.totals.size()));
    if (!detail::count_replicas(sources, slots, replicas)) {
      return {.communication_s = std::numeric_limits<double>::infinity(), .compute_s = 0.0};
    }
  }
  auto const rank_loads = ws.take<double>(cluster.ranks());
  layout_traffic const copies = traffic(cluster, sources, slots, rank_loads, ws);
  return model.cost_of(copies.same_node, copies.other_node, copies.busiest);
}

FAIRLEAD_NAMESPACE_END
