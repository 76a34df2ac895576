// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Copy as many of the hottest experts as hide under other work and fit into spare memory.
#include <fairlead/concepts/copy_planner.hpp>
#include <fairlead/place/detail/copy_load.hpp>

#include <algorithm>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Sparse materialisation: the `degree` hottest experts get copies, which cost nothing because they travel under
/// the part of the layer that is not experts (`overlap_degree` in cluster/overlap.hpp).
///
/// If degree <= memory_slots, each of them goes to every rank. Else all memory slots are shared among them by load
/// (each next slot to the largest load per replica; ties to the lowest expert), on the node with the fewest of its
/// replicas, there on the rank with the fewest copies. Tokens go to a replica on their rank, else evenly to those on
/// their node, else evenly to all. Loads are usually the mean of the last five iterations. Ranks without slots get no
/// copy. If the modelled time does not fall, nothing is copied. How slots are shared by load and what a step costs is
/// this library's choice: the paper does not say.
/// @source{Hecate, sparse materialisation and its dispatch}
struct sparse_copies {
  index_t degree = 0;             ///< experts that can be copied unseen, >= 0
  index_t memory_slots = 0;       ///< copies that a rank has room for, >= 0
  double row_bytes = 0.0;         ///< one row of activations. @unit{B}
  double bytes_per_s = 0.0;       ///< bandwidth of a rank, > 0. @unit{B/s}
  double seconds_per_copy = 0.0;  ///< time to compute a row forward. @unit{s}
  double exchanges = 4.0;         ///< passes over the wire
  double passes = 3.0;            ///< forward and backward in units of the forward computation

  /// @brief Choose the copies of one step.
  /// @param cluster the cluster
  /// @param load `totals` for the choice, `by_source` for the modelled time
  /// @param base the resident placement
  /// @param[in,out] out the copies are appended
  /// @param ws scratch
  /// @returns `iterations` = copies made, `value` = modelled time with, `bound` = without copies;
  ///          `status::no_improvement` if they do not help, `status::lost_expert` without copies if an expert with load
  ///          has no replica
  /// @throws contract_violation (level 1) on a shape mismatch, a negative size, a bandwidth that is not positive, or a
  ///         full list
  /// @complexity O(E log E + copies (degree + ranks + nodes) + E ranks replicas) time, O(E ranks) scratch, no
  /// allocation
  /// @determinism integers, loads per replica compared exactly; ties: lowest expert, lowest rank
  report copies(topology const& cluster, load_estimate const& load, placement const& base, copy_list& out,
                workspace& ws) const {
    detail::check_copy_arguments(cluster, load, base, true);
    FAIRLEAD_EXPECTS(degree >= 0 && memory_slots >= 0 && bytes_per_s > 0.0,
                     "sizes must not be negative and the bandwidth must be positive", degree, memory_slots,
                     bytes_per_s);
    if (detail::loses_load(load, base)) { return {.status = status::lost_expert}; }
    workspace::scope const undo(ws);
    index_t const ranks = cluster.ranks();
    state const s{ws.take<std::uint8_t>(base.experts() * ranks),
                  ws.take<std::int32_t>(base.experts()),
                  ws.take<std::int32_t>(base.experts()),
                  ws.take<std::int32_t>(ranks),
                  ws.take<std::int32_t>(cluster.nodes()),
                  ws.take<std::int32_t>(ranks),
                  ws.take<index_t>(ranks),
                  ws.take<index_t>(ranks)};
    std::fill(s.has.begin(), s.has.end(), std::uint8_t{0});
    std::fill(s.used.begin(), s.used.end(), 0);
    for (std::int32_t e = 0; e < base.experts(); ++e) {
      s.order[static_cast<std::size_t>(e)] = e;
      s.replicas[static_cast<std::size_t>(e)] = 0;
      for (replica const& one : base.replicas(static_cast<expert_id>(e))) {
        std::uint8_t& mark = s.has[static_cast<std::size_t>(e * ranks + to_index(one.rank))];
        s.replicas[static_cast<std::size_t>(e)] += mark == 0 ? 1 : 0;
        mark = 1;
      }
    }
    std::sort(s.order.begin(), s.order.end(), detail::heavier{load.totals.data()});
    index_t chosen = 0;
    while (chosen < std::min(degree, base.experts()) &&
           load.totals[static_cast<std::size_t>(s.order[static_cast<std::size_t>(chosen)])] > 0) {
      ++chosen;
    }
    double const none = time_of(cluster, load, base, s);
    index_t const before = out.size;
    if (degree <= memory_slots) {
      for (std::int32_t const expert : s.order.first(static_cast<std::size_t>(chosen))) {
        detail::copy_everywhere(cluster, base, expert, out);
      }
      for (replica_copy const copy : out.view().subspan(static_cast<std::size_t>(before))) {
        s.has[static_cast<std::size_t>(to_index(copy.expert) * ranks + to_index(copy.rank))] = 1;
      }
    } else {
      share_slots(cluster, load, s, chosen, out);
    }
    double const with = time_of(cluster, load, base, s);
    bool const helps = with < none;
    if (!helps) { out.size = before; }
    return {.status = helps ? status::ok : status::no_improvement,
            .iterations = out.size - before,
            .value = helps ? with : none,
            .bound = none};
  }
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns most copies that it appends
  [[nodiscard]] index_t most_copies(topology const& cluster, index_t experts) const noexcept {
    return cluster.hosting_ranks() * std::min({experts, memory_slots});
  }
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes of scratch
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    return fairlead::workspace_bytes<std::uint8_t>(experts * cluster.ranks()) +
           2 * fairlead::workspace_bytes<std::int32_t>(experts) +
           2 * fairlead::workspace_bytes<std::int32_t>(cluster.ranks()) +
           fairlead::workspace_bytes<std::int32_t>(cluster.nodes()) +
           2 * fairlead::workspace_bytes<index_t>(cluster.ranks());
  }

 private:
  struct state {
    std::span<std::uint8_t> has;       // [experts x ranks]
    std::span<std::int32_t> order;     // experts by load
    std::span<std::int32_t> replicas;  // ranks that have an expert
    std::span<std::int32_t> used;      // copies on a rank
    std::span<std::int32_t> on_node;   // replicas of one expert
    std::span<std::int32_t> hosts;     // ranks that have one expert
    std::span<index_t> computed;       // rows of a rank
    std::span<index_t> received;       // rows from other ranks
  };

  void share_slots(topology const& cluster, load_estimate const& load, state const& s, index_t chosen,
                   copy_list& out) const {
    __extension__ using wide = __int128;
    for (;;) {
      std::int32_t hottest = -1;
      for (std::int32_t& entry : s.order.first(static_cast<std::size_t>(chosen))) {
        if (entry < 0) { continue; }
        auto const e = static_cast<std::size_t>(entry);
        // load[e] / replicas[e] > load[hottest] / replicas[hottest]; `order` is not by id, so ties compare it.
        wide const mine =
            hottest < 0 ? 1 : static_cast<wide>(load.totals[e]) * s.replicas[static_cast<std::size_t>(hottest)];
        wide const theirs =
            hottest < 0 ? 0 : static_cast<wide>(load.totals[static_cast<std::size_t>(hottest)]) * s.replicas[e];
        if (mine > theirs || (mine == theirs && entry < hottest)) { hottest = entry; }
      }
      if (hottest < 0) { return; }
      index_t const rank = room_for(cluster, hottest, s);
      if (rank < 0) {  // every rank with room has it
        std::replace(s.order.begin(), s.order.begin() + chosen, hottest, std::int32_t{-1});
        continue;
      }
      s.has[static_cast<std::size_t>(hottest * cluster.ranks() + rank)] = 1;
      ++s.replicas[static_cast<std::size_t>(hottest)];
      ++s.used[static_cast<std::size_t>(rank)];
      out.add({static_cast<expert_id>(hottest), static_cast<rank_id>(rank)});
    }
  }
  [[nodiscard]] index_t room_for(topology const& cluster, std::int32_t expert, state const& s) const {
    std::uint8_t const* const has = s.has.data() + expert * cluster.ranks();
    std::fill(s.on_node.begin(), s.on_node.end(), 0);
    for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
      s.on_node[static_cast<std::size_t>(cluster.node_of(rank))] += has[rank];
    }
    index_t best = -1;
    for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
      if (cluster.slots(rank) == 0 || has[rank] != 0 || s.used[static_cast<std::size_t>(rank)] >= memory_slots) {
        continue;
      }
      if (best < 0) {
        best = rank;
        continue;
      }
      std::int32_t const here = s.on_node[static_cast<std::size_t>(cluster.node_of(rank))];
      std::int32_t const there = s.on_node[static_cast<std::size_t>(cluster.node_of(best))];
      if (here < there ||
          (here == there && s.used[static_cast<std::size_t>(rank)] < s.used[static_cast<std::size_t>(best)])) {
        best = rank;
      }
    }
    return best;
  }
  [[nodiscard]] double time_of(topology const& cluster, load_estimate const& load, placement const& base,
                               state const& s) const {
    std::fill(s.computed.begin(), s.computed.end(), index_t{0});
    std::fill(s.received.begin(), s.received.end(), index_t{0});
    for (index_t e = 0; e < base.experts(); ++e) {
      std::uint8_t const* const has = s.has.data() + e * cluster.ranks();
      std::size_t count = 0;
      for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
        if (has[rank] != 0) { s.hosts[count++] = static_cast<std::int32_t>(rank); }
      }
      // Ranks of a node are neighbours, and so are its hosts in the list.
      std::size_t near = 0;
      for (std::size_t node = 0; node + 1 < cluster.node_offsets().size(); ++node) {
        std::size_t near_end = near;
        while (near_end < count && s.hosts[near_end] < cluster.node_offsets()[node + 1]) { ++near_end; }
        auto const hosts = near_end > near ? s.hosts.subspan(near, near_end - near) : s.hosts.first(count);
        for (index_t source = cluster.node_offsets()[node]; source < cluster.node_offsets()[node + 1]; ++source) {
          index_t const rows = load.by_source(source, e);
          if (has[source] != 0) {
            s.computed[static_cast<std::size_t>(source)] += rows;
          } else if (rows > 0 && count > 0) {
            spread(hosts, source, rows, s);
          }
        }
        near = near_end;
      }
    }
    index_t const computed = s.computed.empty() ? 0 : *std::max_element(s.computed.begin(), s.computed.end());
    index_t const received = s.received.empty() ? 0 : *std::max_element(s.received.begin(), s.received.end());
    return exchanges * static_cast<double>(received) * row_bytes / bytes_per_s +
           passes * seconds_per_copy * static_cast<double>(computed);
  }
  // Evenly over the ranks of the list; what does not divide starts at number (source mod their number).
  static void spread(std::span<std::int32_t const> hosts, index_t source, index_t rows, state const& s) {
    auto const replicas = static_cast<index_t>(hosts.size());
    index_t const share = rows / replicas;
    index_t const left = rows % replicas;
    index_t turn = (replicas - source % replicas) % replicas;
    for (std::int32_t const rank : hosts) {
      index_t const mine = share + (turn < left ? 1 : 0);
      s.computed[static_cast<std::size_t>(rank)] += mine;
      s.received[static_cast<std::size_t>(rank)] += mine;
      turn = turn + 1 == replicas ? 0 : turn + 1;
    }
  }
};
static_assert(copy_planner<sparse_copies>);

FAIRLEAD_NAMESPACE_END
