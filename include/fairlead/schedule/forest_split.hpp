// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Make the shares of another split sparse: few fragments, the same load on every rank.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/schedule/forest_support.hpp>
#include <fairlead/schedule/host_graph.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Split, then cancel cycles of positive shares (`forest_support`): the form of it that goes into a scheduler.
///
/// At most experts + ranks - 1 shares are positive, not counting second replicas of an expert on one rank. Rank loads and
/// totals stay those of the inner split, hence also what it proves about the largest one.
/// @tparam Split what splits (`replica_split`)
/// @source{2511.16947, MicroMoE, LPP 1} - its LP solver returns a basic solution; the cancelling is this library's
template <class Split>
struct forest_split {
  Split split_first{};  ///< splits; its shares are then made sparse

  /// @brief Split.
  /// @param totals copies an expert, in [0, 2^31). @shape{experts}
  /// @param where the placement
  /// @param[out] shares copies a replica. @shape{where.replicas()}
  /// @param ws scratch
  /// @returns the report of the inner split
  /// @throws contract_violation as the inner split and `make_host_graph`
  /// @complexity that of the inner split, plus O(replicas x (ranks + experts)); no allocation
  /// @determinism that of the inner split
  report split(std::span<index_t const> totals, placement const& where, std::span<count_t> shares, workspace& ws) const {
    static_assert(replica_split<Split>, ".split_first must model fairlead::replica_split (concepts/replica_split.hpp), e.g. fairlead::min_max_flow");
    report const ended = split_first.split(totals, where, shares, ws);
    if (ended.status != status::ok && ended.status != status::iteration_limit && ended.status != status::no_improvement) { return ended; }
    workspace::scope const scope(ws);
    (void)forest_support(make_host_graph(where, ws), shares, ws);
    return ended;
  }
  /// @param where the placement
  /// @returns bytes of scratch: the larger need of the inner split and of the cancelling
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const {
    index_t const nodes = where.ranks() + where.experts();
    return std::max<std::size_t>(split_first.workspace_bytes(where), host_graph_bytes(where) + forest_support_bytes(nodes));
  }
};

/// Shares move between replicas, so they are no longer equal and fit no fixed number of places.
template <class Split, replica_meaning Meaning>
inline constexpr bool schedules_meaning<forest_split<Split>, Meaning> =
    Meaning != replica_meaning::capacity_unit && schedules_meaning<Split, Meaning>;
/// Rank loads do not change.
template <class Split>
inline constexpr bool optimal_split<forest_split<Split>> = optimal_split<Split>;

FAIRLEAD_NAMESPACE_END
