// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief One home for every expert, and second replicas of the hottest along a fixed graph of ranks.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/planner.hpp>
#include <fairlead/place/detail/hosting_ranks.hpp>
#include <fairlead/place/rank_graphs.hpp>

#include <algorithm>
#include <numeric>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Which experts get a second replica.
enum class duplicated {
  hottest,  ///< as many of each rank as the graph has columns; the others have one host
  all       ///< every expert, or the plan is infeasible
};

/// @brief Pack experts onto ranks by load, then give the hottest of each rank a second host that a fixed graph names.
///
/// 1. Experts by descending load go to the least loaded rank that has a home slot left, each rank taking the same number
///    (give or take one).
/// 2. Hosting ranks are cut into groups of `graph.ranks()`. Spare slot k of a rank keeps the k-th hottest expert of rank
///    `graph.source(rank, k)` of its group; with `combined` = c, the k-th bundle of c experts in c slots.
///
/// Spare slots are the last of a rank. Every duplicated expert has exactly two hosts, so that a scheduler has one number
/// an expert to choose, and communication follows a pattern that never changes. The graph caps the gain: no split beats
/// `metrics::induced_density`.
/// @tparam Graph a `rank_graph`
/// @tparam Which which experts get a second replica
/// @source{LPLB}, topology and procedure, known through copies of the code; packing by load without redundancy is EPLB's
template <rank_graph Graph = cube_graph, duplicated Which = duplicated::hottest>
struct fixed_graph_duplicate {
  Graph graph{};         ///< whose expert sits in which spare slot
  index_t combined = 1;  ///< experts that a spare slot of the graph stands for, >= 1

  /// What a second replica is for.
  static constexpr replica_meaning meaning = replica_meaning::host;

  /// @brief Place the experts for a load.
  /// @param cluster the cluster; ranks without slots are left out of the groups
  /// @param load the loads; only `totals` are looked at
  /// @param now not looked at
  /// @param[out] next expert of each slot. @shape{cluster.slots()}
  /// @param ws scratch, see `workspace_bytes`
  /// @returns `ok`; `value` the largest load of a rank under equal shares, `bound` the mean load of a hosting rank.
  ///          `infeasible` with all slots none if the hosting ranks are no multiple of the group, a rank has fewer slots
  ///          than the graph needs, home slots do not suffice, or, with `duplicated::all`, a rank has more experts than
  ///          the graph duplicates
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) if a column of the graph is no permutation, or
  ///         leaves an expert where it is
  /// @complexity O(experts log experts + experts ranks + slots), no allocation
  /// @determinism exact: ties to the lower expert and the lower rank
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now, std::span<expert_id> next,
              workspace& ws) const {
    (void)now;
    FAIRLEAD_EXPECTS(static_cast<index_t>(next.size()) == cluster.slots(), "one entry a slot of the cluster", next.size(), cluster.slots());
    FAIRLEAD_EXPECTS(combined >= 1 && graph.ranks() >= 2 && graph.columns() >= 1, "a graph needs two ranks and a column, a bundle an expert",
                     combined, graph.ranks(), graph.columns());
    FAIRLEAD_EXPECTS_2(permutes_columns(graph), "every column of the graph must be a permutation without a fixed point");
    workspace::scope const scope(ws);
    std::fill(next.begin(), next.end(), expert_id::none);
    auto const experts = static_cast<index_t>(load.totals.size());
    if (experts == 0) { return {}; }
    std::span<std::int32_t> const hosts = ws.take<std::int32_t>(cluster.ranks());
    index_t const ranks = detail::ranks_with_row(cluster, 0, hosts);
    index_t const spare = graph.columns() * combined;
    if (ranks == 0 || ranks % graph.ranks() != 0) { return {.status = status::infeasible}; }

    // Home slots: the same number everywhere, as far as there are so many.
    std::span<index_t> const room = ws.take<index_t>(cluster.ranks());
    index_t const even = (experts + ranks - 1) / ranks;
    index_t few = 0;
    index_t many = 0;
    for (index_t i = 0; i < ranks; ++i) {
      index_t const homes = cluster.slots(hosts[static_cast<std::size_t>(i)]) - spare;
      if (homes < 0) { return {.status = status::infeasible}; }
      room[static_cast<std::size_t>(i)] = homes;
      few += std::min(homes, even);
      many += homes;
    }
    if (many < experts) { return {.status = status::infeasible}; }
    for (index_t i = 0; few >= experts && i < ranks; ++i) { room[static_cast<std::size_t>(i)] = std::min(room[static_cast<std::size_t>(i)], even); }

    std::span<std::int32_t> const order = ws.take<std::int32_t>(experts);
    std::iota(order.begin(), order.end(), 0);
    std::span<index_t const> const totals = load.totals;
    std::sort(order.begin(), order.end(), [totals](std::int32_t a, std::int32_t b) {
      index_t const x = totals[static_cast<std::size_t>(a)];
      index_t const y = totals[static_cast<std::size_t>(b)];
      return x != y ? x > y : a < b;
    });
    std::span<index_t> const sums = ws.take<index_t>(cluster.ranks());
    std::span<index_t> const homes = ws.take<index_t>(cluster.ranks());
    std::fill(sums.begin(), sums.end(), index_t{0});
    std::fill(homes.begin(), homes.end(), index_t{0});
    for (std::int32_t const expert : order) {
      index_t best = -1;
      for (index_t i = 0; i < ranks; ++i) {
        auto const at = static_cast<std::size_t>(i);
        if (homes[at] < room[at] && (best < 0 || sums[at] < sums[static_cast<std::size_t>(best)])) { best = i; }
      }
      auto const at = static_cast<std::size_t>(best);
      next[slot_of(cluster, hosts[at], homes[at]++)] = static_cast<expert_id>(expert);
      sums[at] += totals[static_cast<std::size_t>(expert)];
    }
    for (index_t i = 0; i < ranks; ++i) {
      if (Which == duplicated::all && homes[static_cast<std::size_t>(i)] > spare) {
        std::fill(next.begin(), next.end(), expert_id::none);
        return {.status = status::infeasible};
      }
      index_t const first = i / graph.ranks() * graph.ranks();
      std::int32_t const rank = hosts[static_cast<std::size_t>(i)];
      for (index_t k = 0; k < graph.columns(); ++k) {
        auto const from = static_cast<std::size_t>(first + graph.source(i - first, k));
        for (index_t c = 0; c < combined && k * combined + c < homes[from]; ++c) {  // homes are by descending load
          next[slot_of(cluster, rank, cluster.slots(rank) - spare + k * combined + c)] = next[slot_of(cluster, hosts[from], k * combined + c)];
        }
      }
    }
    std::span<index_t> const counts = ws.take<index_t>(experts);
    return {.value = detail::largest_share(cluster, totals, next, counts), .bound = detail::mean_share(cluster, totals)};
  }

  /// @brief Scratch of `plan`.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    return fairlead::workspace_bytes<std::int32_t>(cluster.ranks()) + 3 * fairlead::workspace_bytes<index_t>(cluster.ranks()) +
           fairlead::workspace_bytes<std::int32_t>(experts) + fairlead::workspace_bytes<index_t>(experts);
  }

 private:
  [[nodiscard]] static std::size_t slot_of(topology const& cluster, index_t rank, index_t slot) noexcept {
    return static_cast<std::size_t>(cluster.slot_offsets()[static_cast<std::size_t>(rank)] + slot);
  }
};
static_assert(load_planner<fixed_graph_duplicate<>>);
/// Home and one other.
template <class Graph>
inline constexpr bool two_hosts_an_expert<fixed_graph_duplicate<Graph, duplicated::all>> = true;

FAIRLEAD_NAMESPACE_END
