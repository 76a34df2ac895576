// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Every source feeds every replica in proportion to its room, in whole numbers with exact sums.
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/schedule/detail/controlled_rounding.hpp>
#include <fairlead/schedule/detail/expert_rest.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Local copies stay; source i sends the part room(j) / (sum of rooms) of its others to replica j.
///
/// Every count is the fractional one rounded down or up, and rows and columns sum exactly to load and shares: controlled
/// rounding. Rounding each source for itself, as the published listing leaves open, breaks the sums that ranks must
/// agree on. Traffic is even over pairs of ranks, at the price of up to sources x replicas small messages an expert;
/// `staircase` sends few long ones. With `equal_shares` as the split it is the dispatch of Lazarus.
/// @source{Lazarus, Algorithm 1}
/// @source{cox1987, controlled rounding of a table; that each count may be rounded to a neighbour with all sums kept}
struct proportional {
  /// @brief Route all copies.
  /// @param load copies per source and expert. @shape{ranks x experts}
  /// @param where the placement
  /// @param shares copies of each replica, with the sums of the load. @shape{where.replicas()}
  /// @param[out] out copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws scratch
  /// @returns `status::ok`, or `status::lost_expert` with `out` zero if an expert with load has no replica; `value` is the
  ///          number of copies that stay on their rank
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) if sums of load and shares differ
  /// @complexity O(ranks x (experts + replicas)) time with up to two replicas an expert; beyond, O(ranks x d^2) more for an
  ///             expert with d replicas, and O(ranks x d^2) for each path that repairs a rounding; no allocation
  /// @determinism exact integer arithmetic
  report route(load_view load, placement const& where, std::span<count_t const> shares, token_schedule_view out, workspace& ws) const {
    detail::check_route(load, where, shares, out);
    workspace::scope const scope(ws);
    detail::expert_rest rest(where, ws);
    detail::controlled_rounding rounding(where.replicas(), ws);
    detail::clear(out);
    if (detail::loses_copies(load, where)) { return {.status = status::lost_expert}; }
    index_t local = 0;
    for (index_t e = 0; e < where.experts(); ++e) {
      if (!rest.begin(load, where, shares, e)) { continue; }
      local += rest.keep_local(out);
      rounding.spread(rest.sources(), rest.replicas(), out, rest.column());
    }
    return {.value = static_cast<double>(local)};
  }
  /// @param where the placement
  /// @returns bytes for what is left of the sources and replicas of one expert, and for the search of a repair
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const noexcept {
    return detail::expert_rest::bytes(where) + detail::controlled_rounding::bytes(where.replicas());
  }
};
static_assert(source_router<proportional>);
/// Replicas first take what their own rank has.
template <>
inline constexpr bool keeps_local<proportional> = true;

FAIRLEAD_NAMESPACE_END
