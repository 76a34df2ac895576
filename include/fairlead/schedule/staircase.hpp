// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Feed replicas from sources in order, what is already there first.
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/schedule/detail/row_walk.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Local copies stay; the others fill the replicas in order, source by source.
///
/// Per expert: each replica first takes what its own rank has, then sources and replicas are walked together, as a
/// staircase through the matrix of counts. The walks of all experts go down the sources together, row by row. Whole numbers with exact row and column sums whenever the shares sum to the
/// load, and at most sources + replicas - 1 counts beyond the local ones are not zero, so messages are few and long.
/// All sources that come early feed the first replica; `rotate` starts expert e at source e mod ranks instead.
/// @source{MicroMoE, Algorithm 1; the merge of two pointers and the rotation are this library's}
struct staircase {
  bool rotate = false;  ///< whether the walk of expert e starts at source e mod ranks, against many sources on one receiver

  /// @brief Route all copies.
  /// @param load copies per source and expert. @shape{ranks x experts}
  /// @param where the placement
  /// @param shares copies of each replica, with the sums of the load. @shape{where.replicas()}
  /// @param[out] out copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws scratch
  /// @returns `status::ok`, or `status::lost_expert` with `out` zero if an expert with load has no replica; `value` is the
  ///          number of copies that stay on their rank
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) if sums of load and shares differ
  /// @complexity O(ranks x (experts + replicas)) time, little more than reading load and writing out once; no allocation
  /// @determinism exact integer arithmetic
  report route(load_view load, placement const& where, std::span<count_t const> shares, token_schedule_view out, workspace& ws) const {
    detail::check_route(load, where, shares, out);
    workspace::scope const scope(ws);
    detail::row_walk walk(where, ws);
    walk.begin(load, shares, out);
    if (detail::loses_copies(load, where)) { return {.status = status::lost_expert}; }
    index_t const local = walk.keep_local(where, out);
    walk.fill(out, rotate);
    return {.value = static_cast<double>(local)};
  }
  /// @param where the placement
  /// @returns bytes for what is left of sources and replicas, and where each expert's walk is
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const noexcept { return detail::row_walk::bytes(where); }
};
static_assert(source_router<staircase>);
/// Replicas first take what their own rank has.
template <>
inline constexpr bool keeps_local<staircase> = true;

FAIRLEAD_NAMESPACE_END
