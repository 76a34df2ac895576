// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Send all copies of an expert to its first replica.
#include <fairlead/concepts/token_scheduler.hpp>
#include <fairlead/schedule/detail/counts.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Send every copy of an expert to the expert's first replica: the scheduler of a layer without replication.
///
/// Further replicas, if a placement has them, stay idle.
struct sole_replica {
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
    FAIRLEAD_EXPECTS(load.cols() == where.experts(), "the load needs one column an expert of the placement",
                     load.cols(), where.experts());
    FAIRLEAD_EXPECTS(out.rows() == load.rows() && out.cols() == where.replicas(),
                     "the schedule needs one row a source rank and one column a replica", out.rows(), out.cols(),
                     load.rows(), where.replicas());
    for (index_t source = 0; source < out.rows(); ++source) { std::fill_n(out.row(source), out.cols(), count_t{0}); }
    if (detail::loses_copies(load, where)) { return {.status = status::lost_expert}; }
    for (index_t e = 0; e < load.cols(); ++e) {
      auto const expert = static_cast<expert_id>(e);
      if (where.replicas(expert).empty()) { continue; }
      index_t const column = where.replica_offset(expert);
      for (index_t source = 0; source < load.rows(); ++source) {
        FAIRLEAD_EXPECTS_2(load(source, e) >= 0, "a load must not be negative", source, e, load(source, e));
        out(source, column) = load(source, e);
      }
    }
    return {.value = static_cast<double>(detail::largest_rank_load(where, out))};
  }
  /// @returns 0: it needs no scratch
  [[nodiscard]] constexpr std::size_t workspace_bytes(placement const&) const noexcept { return 0; }
};
static_assert(token_scheduler<sole_replica>);

FAIRLEAD_NAMESPACE_END
