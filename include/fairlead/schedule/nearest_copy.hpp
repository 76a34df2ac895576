// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Send each source's copies to the nearest replicas: its own rank, its node, anywhere.
#include <fairlead/concepts/token_scheduler.hpp>
#include <fairlead/schedule/detail/even_rows.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Each source uses the replicas on its own rank; if there is none, those on its node; else all; evenly.
///
/// The least traffic that a source can arrange without knowing the others, and no care for busy ranks: right where
/// copies were placed for the loads of the coming step, as planners of short-lived copies do. The order of what is left
/// over is this library's choice: the paper does not say.
/// @source{Hecate, dispatch}
struct nearest_copy {
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
    return {.status = detail::spread_row<true>(cluster, rotate, copies, to_index(source), where, quota)};
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
    return detail::spread_rows<true>(cluster, rotate, load, where, out);
  }
  /// @returns 0: it needs no scratch
  [[nodiscard]] constexpr std::size_t workspace_bytes(placement const&) const noexcept { return 0; }

 private:
  void check(placement const& where) const {
    FAIRLEAD_EXPECTS(cluster.ranks() == where.ranks(), "nearest_copy needs the cluster that the placement is for: set .cluster",
                     cluster.ranks(), where.ranks());
  }
};
static_assert(token_scheduler<nearest_copy>);

FAIRLEAD_NAMESPACE_END
