// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Two replicas of every expert on the edges of a symmetric graph: no load needs to be known.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/planner.hpp>
#include <fairlead/place/detail/graph_rows.hpp>
#include <fairlead/place/detail/hosting_ranks.hpp>

#include <algorithm>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Put the two replicas of expert e on the two ranks of edge e of a graph in which few ranks share few edges.
///
/// Ranks are vertices, experts edges. The largest load that must stay on a set of ranks is the load of the edges inside
/// the set (`metrics::induced_density`), so the graph should have no dense part: then a scheduler that may split an
/// expert's copies freely evens out any mild skew. Use it before loads are known and wherever moving experts costs too
/// much; beyond a share of ranks / 2 for the hottest expert no graph helps, and counts must follow the load
/// (`monte_carlo_placement`).
///
/// Each local slot is a row: a set of pairs of ranks that covers every rank at most once, so that both replicas of an
/// expert sit in the same local slot. The rows of n ranks (one more if n is odd, whose partner then rests) are complete
/// graphs while they fit, each taken apart like a tournament, and then for the remaining degree
/// - up to n / 2: rank i of one half and rank i + s of the other, for shifts s of Z_(n/2) whose differences repeat as
///   little as possible. That is a Cayley graph of the dihedral group: the cycle for degree 2, K4,4 for 8 ranks of
///   degree 4, a perfect matching for degree 1;
/// - the 4 x 4 torus for 16 ranks of degree 4;
/// - more than n / 2: the two halves joined completely and the rest inside each, or for odd halves rounds of the
///   tournament.
///
/// The paper gives the graphs of four sizes (8 ranks of degree 2, 4, 8 and 16 ranks of degree 4), which this gives up to
/// the names of the ranks; other sizes are this library's choice.
/// @source{2511.16947, symmetric placement}
struct cayley_placement {
  /// What a second replica is for.
  static constexpr replica_meaning meaning = replica_meaning::host;

  /// @brief Fill the slots, whatever the load.
  /// @param cluster the cluster. Ranks without slots are left out; others may have different numbers of slots
  /// @param load the loads; only their number and, for `value`, their sizes are looked at
  /// @param now not looked at
  /// @param[out] next expert of each slot. @shape{cluster.slots()}
  /// @param ws scratch, see `workspace_bytes`
  /// @returns `ok`; `value` is the largest load of a rank under equal shares, `bound` the mean load of a hosting rank.
  ///          `infeasible` with all slots none if experts / floor(n / 2), rounded up, exceeds the slots of a hosting
  ///          rank: fewer than two hosting ranks, too few slots, or an odd number of ranks without a slot to spare (an
  ///          odd cycle has no perfect matching)
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(slots + experts), and O(ranks^3) for the choice of shifts, no allocation
  /// @determinism exact
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now, std::span<expert_id> next,
              workspace& ws) const {
    (void)now;
    FAIRLEAD_EXPECTS(static_cast<index_t>(next.size()) == cluster.slots(), "one entry a slot of the cluster", next.size(), cluster.slots());
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(load.totals.size());
    std::fill(next.begin(), next.end(), expert_id::none);
    if (experts == 0) { return {}; }
    std::span<std::int32_t> const hosts = ws.take<std::int32_t>(cluster.ranks());
    index_t const ranks = detail::ranks_with_row(cluster, 0, hosts);
    index_t const pairs = ranks / 2;
    if (pairs == 0) { return {.status = status::infeasible}; }
    index_t const rows = (experts + pairs - 1) / pairs;
    for (index_t i = 0; i < ranks; ++i) {
      if (cluster.slots(hosts[static_cast<std::size_t>(i)]) < rows) { return {.status = status::infeasible}; }
    }
    index_t const vertices = ranks + ranks % 2;
    std::span<index_t> const shifts = ws.take<index_t>(vertices / 2);
    std::span<index_t> const repeats = ws.take<index_t>(vertices / 2);
    detail::graph_rows const graph(vertices, rows, shifts, repeats);
    index_t expert = 0;
    for (index_t row = 0; row < rows; ++row) {
      for (index_t i = 0; i < vertices / 2 && expert < experts; ++i) {
        auto const [a, b] = graph.match(row, i);
        if (a >= ranks || b >= ranks) { continue; }  // the partner of the vertex that stands for nobody rests
        for (index_t const vertex : {a, b}) {
          auto const rank = static_cast<std::size_t>(hosts[static_cast<std::size_t>(vertex)]);
          next[static_cast<std::size_t>(cluster.slot_offsets()[rank] + row)] = static_cast<expert_id>(expert);
        }
        ++expert;
      }
    }
    std::span<index_t> const counts = ws.take<index_t>(experts);
    return {.value = detail::largest_share(cluster, load.totals, next, counts), .bound = detail::mean_share(cluster, load.totals)};
  }

  /// @brief Scratch of `plan`.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    return fairlead::workspace_bytes<std::int32_t>(cluster.ranks()) + 2 * fairlead::workspace_bytes<index_t>(cluster.ranks() / 2 + 1) +
           fairlead::workspace_bytes<index_t>(experts);
  }
};
static_assert(load_planner<cayley_placement>);
/// Both replicas sit in one row.
template <>
inline constexpr bool replicas_share_local_slot<cayley_placement> = true;
/// An edge has two ends.
template <>
inline constexpr bool two_hosts_an_expert<cayley_placement> = true;

FAIRLEAD_NAMESPACE_END
