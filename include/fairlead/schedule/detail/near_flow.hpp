// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The least expensive flow that puts copies near their sources: ranks first, then nodes.
#include <fairlead/core/load.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// Copies flow expert -> group (its hosts on one node) -> rank -> sink. The first `want` copies on an arc to a rank gain
// `rank_gain`, the first `group_want` on an arc to a group gain `group_gain`, all others nothing: concave, hence a flow
// problem in whole numbers. rank_gain exceeds what a cycle can collect from groups, so the order is lexicographic.
//
// Start: every arc carries exactly what it wants, which is optimal for what it carries. The rest (copies without local
// host, and ranks above their limit) is pushed to the sink along cheapest paths: distances by label correction, then
// depth-first pushes over arcs of cheapest paths until none is left, then new distances. Being optimal is kept throughout.
// Among paths of equal cost the ones with fewest arcs count as cheapest: without that, pushes wander (Dinic's idea).
class near_flow {
 public:
  // Without node tier all hosts of an expert are one group.
  near_flow(placement const& where, topology const& cluster, workspace& ws)
      : where_(where), cluster_(cluster), two_tiers_(has_tiers(cluster)), ranks_(where.ranks()), experts_(where.experts()),
        columns_(where.replicas()) {
    rank_of_ = ws.take<std::int32_t>(columns_);
    group_of_ = ws.take<std::int32_t>(columns_);
    group_first_ = ws.take<std::int32_t>(columns_ + 1);
    group_expert_ = ws.take<std::int32_t>(columns_);
    expert_group_ = ws.take<std::int32_t>(experts_ + 1);
    rank_first_ = ws.take<std::int32_t>(ranks_ + 1);
    rank_columns_ = ws.take<std::int32_t>(columns_);
    flow_ = ws.take<index_t>(columns_);
    want_ = ws.take<index_t>(columns_);
    group_flow_ = ws.take<index_t>(columns_);
    group_want_ = ws.take<index_t>(columns_);
    group_excess_ = ws.take<index_t>(columns_);
    expert_excess_ = ws.take<index_t>(experts_);
    rank_excess_ = ws.take<index_t>(ranks_);
    room_ = ws.take<index_t>(ranks_);
    node_loads_ = ws.take<index_t>(two_tiers_ ? cluster_.nodes() * experts_ : 0);
    rank_distance_ = ws.take<index_t>(ranks_);
    group_distance_ = ws.take<index_t>(columns_);
    expert_distance_ = ws.take<index_t>(experts_);
    queue_ = ws.take<std::int32_t>(ranks_);
    queued_ = ws.take<std::int32_t>(ranks_);
    compile();
  }
  [[nodiscard]] static std::size_t bytes(placement const& where, topology const& cluster) noexcept {
    index_t const ranks = where.ranks();
    index_t const experts = where.experts();
    index_t const columns = where.replicas();
    auto const words = [](index_t count) { return workspace_bytes<std::int32_t>(count); };
    auto const longs = [](index_t count) { return workspace_bytes<index_t>(count); };
    return 4 * words(columns) + words(columns + 1) + words(experts + 1) + words(ranks + 1) + 2 * words(ranks) +
           6 * longs(columns) + 2 * longs(experts) + 3 * longs(ranks) + longs(has_tiers(cluster) ? cluster.nodes() * experts : 0);
  }

  // Puts every copy on a host. limits: copies a rank takes. False if they do not suffice.
  [[nodiscard]] bool solve(load_view load, std::span<index_t const> totals, std::span<index_t const> limits) {
    begin(load, totals, limits);
    while (left_ > 0) {
      measure();
      index_t const before = left_;
      for (index_t r = 0; r < ranks_; ++r) { drain(rank_excess_[at(r)], rank_distance_[at(r)], [&](index_t amount) { return push_rank(r, amount); }); }
      for (index_t g = 0; g < groups_; ++g) { drain(group_excess_[at(g)], group_distance_[at(g)], [&](index_t amount) { return push_group(g, amount); }); }
      for (index_t e = 0; e < experts_; ++e) { drain(expert_excess_[at(e)], expert_distance_[at(e)], [&](index_t amount) { return push_expert(e, amount); }); }
      if (left_ == before) { return false; }
    }
    return true;
  }
  // What each replica gets; the second one of an expert on a rank nothing.
  void shares(std::span<count_t> out) const noexcept {
    for (std::size_t c = 0; c < out.size(); ++c) { out[c] = static_cast<count_t>(flow_[c]); }
  }
  [[nodiscard]] index_t pushes() const noexcept { return pushes_; }

 private:
  static constexpr index_t far = std::numeric_limits<index_t>::max() / 4;     // no way at all
  static constexpr index_t closed = std::numeric_limits<index_t>::max() / 2;  // exhausted
  static constexpr index_t hop = 1;                                           // what every arc costs beside its gain
  [[nodiscard]] static constexpr std::size_t at(index_t i) noexcept { return static_cast<std::size_t>(i); }
  // Nodes of one rank, or one node of all ranks, add nothing to ranks.
  [[nodiscard]] static bool has_tiers(topology const& cluster) noexcept { return cluster.nodes() > 1 && cluster.nodes() < cluster.ranks(); }

  void compile() noexcept {
    std::fill(rank_first_.begin(), rank_first_.end(), 0);
    for (index_t e = 0; e < experts_; ++e) {
      expert_group_[at(e)] = static_cast<std::int32_t>(groups_);
      auto const hosts = where_.replicas(static_cast<expert_id>(e));
      index_t column = where_.replica_offset(static_cast<expert_id>(e));
      for (std::size_t k = 0; k < hosts.size(); ++k, ++column) {
        index_t const rank = to_index(hosts[k].rank);
        bool const twin = k > 0 && hosts[k - 1].rank == hosts[k].rank;
        if (k == 0 || (two_tiers_ && cluster_.node_of(rank) != cluster_.node_of(to_index(hosts[k - 1].rank)))) {
          group_first_[at(groups_)] = static_cast<std::int32_t>(column);
          group_expert_[at(groups_++)] = static_cast<std::int32_t>(e);
        }
        group_of_[at(column)] = static_cast<std::int32_t>(groups_ - 1);
        rank_of_[at(column)] = twin ? -1 : static_cast<std::int32_t>(rank);
        if (!twin) { ++rank_first_[at(rank) + 1]; }
      }
    }
    group_first_[at(groups_)] = static_cast<std::int32_t>(columns_);
    expert_group_[at(experts_)] = static_cast<std::int32_t>(groups_);
    for (index_t r = 0; r < ranks_; ++r) { rank_first_[at(r) + 1] += rank_first_[at(r)]; }
    std::copy(rank_first_.begin(), rank_first_.end() - 1, queue_.begin());
    for (index_t c = 0; c < columns_; ++c) {
      if (rank_of_[at(c)] >= 0) { rank_columns_[at(queue_[at(rank_of_[at(c)])]++)] = static_cast<std::int32_t>(c); }
    }
  }

  void begin(load_view load, std::span<index_t const> totals, std::span<index_t const> limits) noexcept {
    // A way without repetition has at most four arcs a rank: a gain outweighs all hops, a local copy all groups.
    group_gain_ = 4 * ranks_ + 8;
    rank_gain_ = group_gain_ * group_gain_;
    if (two_tiers_) {
      auto const nodes = cluster_.node_offsets();
      for (index_t node = 0; node < cluster_.nodes(); ++node) {
        auto const sums = node_loads_.subspan(at(node * experts_), at(experts_));
        std::fill(sums.begin(), sums.end(), index_t{0});
        for (index_t rank = nodes[at(node)]; rank < nodes[at(node) + 1]; ++rank) {
          count_t const* const row = load.row(rank);
          for (std::size_t e = 0; e < sums.size(); ++e) { sums[e] += row[e]; }
        }
      }
    }
    std::fill(rank_excess_.begin(), rank_excess_.end(), index_t{0});
    std::fill(expert_excess_.begin(), expert_excess_.end(), index_t{0});
    left_ = 0;
    for (index_t e = 0; e < experts_; ++e) {
      index_t const first = expert_group_[at(e)];
      index_t const end = expert_group_[at(e) + 1];
      index_t rest = totals[at(e)];
      for (index_t g = first; g < end; ++g) {
        index_t const rank = rank_of_[at(group_first_[at(g)])];
        // A single group has to take everything, so its gain is the same whatever happens.
        index_t const mine = end - first == 1 ? rest : node_loads_[at(cluster_.node_of(rank) * experts_ + e)];
        group_flow_[at(g)] = mine;
        group_want_[at(g)] = mine;
        rest -= mine;
        index_t inside = mine;
        for (index_t c = group_first_[at(g)]; c < group_first_[at(g) + 1]; ++c) {
          index_t const host = rank_of_[at(c)];
          index_t const here = host < 0 ? 0 : load(host, e);
          flow_[at(c)] = here;
          want_[at(c)] = here;
          inside -= here;
          if (host >= 0) { rank_excess_[at(host)] += here; }
        }
        group_excess_[at(g)] = inside;
        left_ += inside;
      }
      if (end > first) {
        expert_excess_[at(e)] = rest;
        left_ += rest;
      }
    }
    for (index_t r = 0; r < ranks_; ++r) {
      index_t const stays = std::min(rank_excess_[at(r)], limits[at(r)]);
      room_[at(r)] = limits[at(r)] - stays;
      rank_excess_[at(r)] -= stays;
      left_ += rank_excess_[at(r)];
    }
    pushes_ = 0;
  }

  // Cost of one copy more, or one less, on an arc.
  [[nodiscard]] index_t more(index_t c) const noexcept { return hop - (flow_[at(c)] < want_[at(c)] ? rank_gain_ : 0); }
  [[nodiscard]] index_t less(index_t c) const noexcept { return hop + (flow_[at(c)] <= want_[at(c)] ? rank_gain_ : 0); }
  [[nodiscard]] index_t group_more(index_t g) const noexcept { return hop - (group_flow_[at(g)] < group_want_[at(g)] ? group_gain_ : 0); }
  [[nodiscard]] index_t group_less(index_t g) const noexcept { return hop + (group_flow_[at(g)] <= group_want_[at(g)] ? group_gain_ : 0); }
  // How many copies keep that cost.
  [[nodiscard]] static index_t room_up(index_t flow, index_t want) noexcept { return flow < want ? want - flow : far; }
  [[nodiscard]] static index_t room_down(index_t flow, index_t want) noexcept { return flow > want ? flow - want : flow; }
  [[nodiscard]] bool has_siblings(index_t g) const noexcept {
    auto const e = at(group_expert_[at(g)]);
    return expert_group_[e + 1] - expert_group_[e] > 1;
  }

  // Cheapest way from everywhere to a rank with room.
  void measure() noexcept {
    std::fill(group_distance_.begin(), group_distance_.end(), far);
    std::fill(expert_distance_.begin(), expert_distance_.end(), far);
    std::fill(queued_.begin(), queued_.end(), 0);
    head_ = 0;
    waiting_ = 0;
    for (index_t r = 0; r < ranks_; ++r) {
      rank_distance_[at(r)] = far;
      if (room_[at(r)] > 0) { shorten_rank(r, hop); }
    }
    while (waiting_ > 0) {
      index_t const r = queue_[at(head_)];
      head_ = head_ + 1 == ranks_ ? 0 : head_ + 1;
      --waiting_;
      queued_[at(r)] = 0;
      for (index_t i = rank_first_[at(r)]; i < rank_first_[at(r) + 1]; ++i) {
        index_t const c = rank_columns_[at(i)];
        shorten_group(group_of_[at(c)], more(c) + rank_distance_[at(r)], true);
      }
    }
  }
  void shorten_rank(index_t r, index_t distance) noexcept {
    if (distance >= rank_distance_[at(r)]) { return; }
    rank_distance_[at(r)] = distance;
    if (queued_[at(r)] == 0) {
      queued_[at(r)] = 1;
      index_t const tail = head_ + waiting_++;
      queue_[at(tail >= ranks_ ? tail - ranks_ : tail)] = static_cast<std::int32_t>(r);
    }
  }
  void shorten_group(index_t g, index_t distance, bool upwards) noexcept {
    if (distance >= group_distance_[at(g)]) { return; }
    group_distance_[at(g)] = distance;
    for (index_t c = group_first_[at(g)]; c < group_first_[at(g) + 1]; ++c) {
      if (flow_[at(c)] > 0) { shorten_rank(rank_of_[at(c)], less(c) + distance); }
    }
    if (!upwards || !has_siblings(g)) { return; }
    index_t const e = group_expert_[at(g)];
    index_t const through = group_more(g) + distance;
    if (through >= expert_distance_[at(e)]) { return; }
    expert_distance_[at(e)] = through;
    for (index_t other = expert_group_[at(e)]; other < expert_group_[at(e) + 1]; ++other) {
      if (other != g && group_flow_[at(other)] > 0) { shorten_group(other, group_less(other) + through, false); }
    }
  }

  // Pushes from one place until nothing more fits.
  template <class Push>
  void drain(index_t& excess, index_t distance, Push const& push) {
    while (excess > 0 && distance < far) {
      index_t const sent = push(excess);
      if (sent == 0) { return; }
      excess -= sent;
      left_ -= sent;
      ++pushes_;
    }
  }

  // Arcs of shortest ways form no cycle, and a push makes none of them: what is exhausted stays so for the phase.
  [[nodiscard]] index_t push_rank(index_t r, index_t amount) {
    index_t& distance = rank_distance_[at(r)];
    index_t sent = 0;
    if (distance == hop && room_[at(r)] > 0) {
      sent = std::min(amount, room_[at(r)]);
      room_[at(r)] -= sent;
    }
    for (index_t i = rank_first_[at(r)]; sent < amount && i < rank_first_[at(r) + 1]; ++i) {
      index_t const c = rank_columns_[at(i)];
      index_t const g = group_of_[at(c)];
      if (flow_[at(c)] == 0 || group_distance_[at(g)] + less(c) != distance) { continue; }
      index_t const moved = push_group(g, std::min(amount - sent, room_down(flow_[at(c)], want_[at(c)])));
      flow_[at(c)] -= moved;
      sent += moved;
    }
    if (sent < amount) { distance = closed; }
    return sent;
  }
  [[nodiscard]] index_t push_group(index_t g, index_t amount) {
    index_t& distance = group_distance_[at(g)];
    index_t sent = 0;
    for (index_t c = group_first_[at(g)]; sent < amount && c < group_first_[at(g) + 1]; ++c) {
      index_t const r = rank_of_[at(c)];
      if (r < 0 || rank_distance_[at(r)] + more(c) != distance) { continue; }
      index_t const moved = push_rank(r, std::min(amount - sent, room_up(flow_[at(c)], want_[at(c)])));
      flow_[at(c)] += moved;
      sent += moved;
    }
    if (sent < amount && group_flow_[at(g)] > 0 && has_siblings(g)) {
      index_t const e = group_expert_[at(g)];
      if (expert_distance_[at(e)] + group_less(g) == distance) {
        index_t const moved = push_expert(e, std::min(amount - sent, room_down(group_flow_[at(g)], group_want_[at(g)])));
        group_flow_[at(g)] -= moved;
        sent += moved;
      }
    }
    if (sent < amount) { distance = closed; }
    return sent;
  }
  [[nodiscard]] index_t push_expert(index_t e, index_t amount) {
    index_t& distance = expert_distance_[at(e)];
    index_t sent = 0;
    for (index_t g = expert_group_[at(e)]; sent < amount && g < expert_group_[at(e) + 1]; ++g) {
      if (group_distance_[at(g)] + group_more(g) != distance) { continue; }
      index_t const moved = push_group(g, std::min(amount - sent, room_up(group_flow_[at(g)], group_want_[at(g)])));
      group_flow_[at(g)] += moved;
      sent += moved;
    }
    if (sent < amount) { distance = closed; }
    return sent;
  }

  placement const& where_;
  topology const& cluster_;
  bool two_tiers_;
  index_t ranks_, experts_, columns_;
  index_t groups_ = 0, left_ = 0, rank_gain_ = 0, group_gain_ = 0, head_ = 0, waiting_ = 0, pushes_ = 0;
  std::span<std::int32_t> rank_of_, group_of_, group_first_, group_expert_, expert_group_, rank_first_, rank_columns_;
  std::span<index_t> flow_, want_, group_flow_, group_want_, group_excess_, expert_excess_, rank_excess_, room_, node_loads_;
  std::span<index_t> rank_distance_, group_distance_, expert_distance_;
  std::span<std::int32_t> queue_, queued_;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
