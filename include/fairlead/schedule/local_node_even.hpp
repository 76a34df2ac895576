// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Split each source's copies evenly over the replicas of its own node.
#include <fairlead/concepts/token_scheduler.hpp>
#include <fairlead/schedule/detail/even_rows.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Each source uses the replicas on its node, or all of them if there is none, and gives each the same number.
///
/// A source needs its own counts only, so no exchange of counts precedes it and copies leave a node only if they must. It
/// does not look at how busy a rank is: where every node has every expert, a node keeps its whole load.
/// The copies left over go one each to consecutive replicas. The published rule starts at the first one and so favours it
/// for every source and every expert, which shows when batches are small; `rotate` starts at the source's number.
/// @source{LAER-MoE, Algorithm 3: lite routing; `rotate` is this library's}
struct local_node_even {
  topology cluster;    ///< which rank sits on which node; as many ranks as the placement
  bool rotate = true;  ///< whether remainders start at replica (source mod replicas used) instead of at the first

  /// @brief Schedule the copies of one source rank, from its own counts only.
  /// @param copies copies an expert of that source. @shape{experts}
  /// @param source the rank that has them
  /// @param where the placement
  /// @param[out] quota copies a replica. @shape{where.replicas()}
  /// @returns `status::ok`, or `status::lost_expert` with `quota` zero if an expert with copies has no replica
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) on a negative count
  /// @complexity O(experts + replicas) time, no allocation
  /// @determinism exact integer arithmetic
  report row(std::span<count_t const> copies, rank_id source, placement const& where, std::span<count_t> quota) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(copies.size()) == where.experts() && static_cast<index_t>(quota.size()) == where.replicas(),
                     "a row needs one count an expert and room for one a replica", copies.size(), quota.size(), where.experts(),
                     where.replicas());
    FAIRLEAD_EXPECTS(to_index(source) >= 0 && to_index(source) < where.ranks(), "no such rank", source, where.ranks());
    check(where);
    return {.status = detail::spread_row<false>(cluster, rotate, copies, to_index(source), where, quota)};
  }

  /// @brief Schedule the copies of all ranks.
  /// @param load copies per source and expert. @shape{ranks x experts}
  /// @param where the placement
  /// @param[out] out copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws not used
  /// @returns `status::ok`, or `status::lost_expert` with `out` zero if an expert with load has no replica; `value` is
  ///          the largest number of copies that a rank receives
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) on a negative load
  /// @complexity O(ranks x (experts + replicas)) time, no allocation
  /// @determinism exact integer arithmetic
  report schedule(load_view load, placement const& where, token_schedule_view out, workspace& ws) const {
    (void)ws;
    check(where);
    return detail::spread_rows<false>(cluster, rotate, load, where, out);
  }
  /// @returns 0: it needs no scratch
  [[nodiscard]] constexpr std::size_t workspace_bytes(placement const&) const noexcept { return 0; }

 private:
  void check(placement const& where) const {
    FAIRLEAD_EXPECTS(cluster.ranks() == where.ranks(), "local_node_even needs the cluster that the placement is for: set .cluster",
                     cluster.ranks(), where.ranks());
  }
};
static_assert(token_scheduler<local_node_even>);

FAIRLEAD_NAMESPACE_END
