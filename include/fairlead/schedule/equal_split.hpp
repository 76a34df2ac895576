// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Split the copies of an expert evenly over its replicas.
#include <fairlead/concepts/token_scheduler.hpp>
#include <fairlead/schedule/detail/counts.hpp>
#include <fairlead/schedule/detail/even_rows.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Split each source's copies of an expert evenly over the expert's replicas, whatever the other experts do.
///
/// With r replicas and c copies, each replica gets floor(c / r) and the c mod r left over go one each to the replicas
/// (source mod r), (source + 1 mod r), ..., so that the remainders of different sources fall on different replicas.
/// Right for `replica_meaning::equal_share`; it does not look at how busy a rank is.
struct equal_split {
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
    if (detail::loses_copies(load, where)) {
      for (index_t source = 0; source < out.rows(); ++source) { std::fill_n(out.row(source), out.cols(), count_t{0}); }
      return {.status = status::lost_expert};
    }
    for (index_t e = 0; e < load.cols(); ++e) {
      auto const expert = static_cast<expert_id>(e);
      auto const replicas = static_cast<index_t>(where.replicas(expert).size());
      index_t const first = where.replica_offset(expert);
      for (index_t source = 0; replicas > 0 && source < load.rows(); ++source) {
        FAIRLEAD_EXPECTS_2(load(source, e) >= 0, "a load must not be negative", source, e, load(source, e));
        detail::spread_evenly(out.row(source) + first, {0, static_cast<std::size_t>(replicas)}, load(source, e), source);
      }
    }
    return {.value = static_cast<double>(detail::largest_rank_load(where, out))};
  }
  /// @returns 0: it needs no scratch
  [[nodiscard]] constexpr std::size_t workspace_bytes(placement const&) const noexcept { return 0; }
};
static_assert(token_scheduler<equal_split>);

FAIRLEAD_NAMESPACE_END
