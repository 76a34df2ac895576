// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How many copies of each (source rank, expert) go to which replica.
#include <fairlead/core/load.hpp>
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/core/placement.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Copies per (source rank, replica). @shape{ranks x placement.replicas()}
///
/// Columns follow the placement's list of all replicas: those of expert e start at `placement.replica_offset(e)`.
/// A source's copies of an expert go to its replicas in that order: the first ones, in service order, to the first.
using token_schedule_view = matrix_view<count_t>;
using const_token_schedule_view = matrix_view<count_t const>;  ///< the same, read-only

/// @brief Whether a schedule sends each copy of the load exactly once.
/// @param load @shape{ranks x experts}
/// @param where the placement that the schedule refers to
/// @param schedule @shape{ranks x where.replicas()}
/// @returns true if all counts are >= 0 and each (source, expert) sums to its load
/// @throws contract_violation (level 1) on a shape mismatch
/// @complexity O(ranks x (experts + replicas)), no allocation
[[nodiscard]] inline bool conserves(load_view load, placement const& where, const_token_schedule_view schedule) {
  FAIRLEAD_EXPECTS(load.cols() == where.experts(), "the load needs one column an expert of the placement", load.cols(),
                   where.experts());
  FAIRLEAD_EXPECTS(schedule.rows() == load.rows() && schedule.cols() == where.replicas(),
                   "the schedule needs one row a source rank and one column a replica", schedule.rows(),
                   schedule.cols(), load.rows(), where.replicas());
  for (index_t rank = 0; rank < load.rows(); ++rank) {
    for (index_t e = 0; e < load.cols(); ++e) {
      auto const expert = static_cast<expert_id>(e);
      index_t const first = where.replica_offset(expert);
      index_t const count = static_cast<index_t>(where.replicas(expert).size());
      index_t sum = 0;
      for (index_t r = first; r < first + count; ++r) {
        if (schedule(rank, r) < 0) { return false; }
        sum += schedule(rank, r);
      }
      if (sum != load(rank, e)) { return false; }
    }
  }
  return true;
}

FAIRLEAD_NAMESPACE_END
