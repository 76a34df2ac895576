// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Feed replicas from their own rank first, then from their node, then from elsewhere.
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/schedule/detail/row_walk.hpp>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

inline report route_in_tiers(topology const& cluster, bool rotate, load_view load, placement const& where, std::span<count_t const> shares,
                             token_schedule_view out, workspace& ws) {
  check_route(load, where, shares, out);
  workspace::scope const scope(ws);
  row_walk walk(where, ws);
  walk.begin(load, shares, out);
  if (loses_copies(load, where)) { return {.status = status::lost_expert}; }
  index_t const local = walk.keep_local(where, out);
  walk.keep_on_node(where, cluster, out);
  walk.fill(out, rotate);
  return {.value = static_cast<double>(local)};
}

}  // namespace detail

/// @brief `staircase` with a tier between rank and rest: copies that can stay on their node do.
///
/// For given shares both numbers are the largest possible: per expert and rank (node) the smaller of what starts and what
/// ends there. What is left crosses nodes as a staircase. Use it where links inside a node are faster.
/// @source{MicroMoE, topology-aware routing; given in words only}
struct tiered {
  topology cluster;     ///< which rank sits on which node; as many ranks as the placement
  bool rotate = false;  ///< whether the last walk of expert e starts at source e mod ranks

  /// @brief Route all copies.
  /// @param load copies per source and expert. @shape{ranks x experts}
  /// @param where the placement
  /// @param shares copies of each replica, with the sums of the load. @shape{where.replicas()}
  /// @param[out] out copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws scratch
  /// @returns `status::ok`, or `status::lost_expert` with `out` zero if an expert with load has no replica; `value` is the
  ///          number of copies that stay on their rank
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) if sums of load and shares differ
  /// @complexity O((ranks + nodes) x (experts + replicas)) time; no allocation
  /// @determinism exact integer arithmetic
  report route(load_view load, placement const& where, std::span<count_t const> shares, token_schedule_view out, workspace& ws) const {
    FAIRLEAD_EXPECTS(cluster.ranks() == where.ranks(), "tiered needs the cluster that the placement is for: set .cluster",
                     cluster.ranks(), where.ranks());
    return detail::route_in_tiers(cluster, rotate, load, where, shares, out, ws);
  }
  /// @param where the placement
  /// @returns bytes for what is left of sources and replicas, and where each expert's walk is
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const noexcept { return detail::row_walk::bytes(where); }
};
static_assert(source_router<tiered>);
/// Replicas first take what their own rank has.
template <>
inline constexpr bool keeps_local<tiered> = true;

FAIRLEAD_NAMESPACE_END
