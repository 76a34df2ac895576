// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Checks and sums that splits and routers share.
#include <fairlead/core/load.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/token_schedule.hpp>
#include <fairlead/schedule/detail/counts.hpp>

#include <algorithm>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

inline void check_split(std::span<index_t const> totals, placement const& where, std::span<count_t> shares) {
  FAIRLEAD_EXPECTS(static_cast<index_t>(totals.size()) == where.experts(), "a split needs one total an expert of the placement",
                   totals.size(), where.experts());
  FAIRLEAD_EXPECTS(static_cast<index_t>(shares.size()) == where.replicas(), "a split needs room for one share a replica",
                   shares.size(), where.replicas());
#if FAIRLEAD_CONTRACT_LEVEL >= 2
  for (std::size_t e = 0; e < totals.size(); ++e) {
    FAIRLEAD_EXPECTS_2(totals[e] >= 0 && totals[e] <= std::numeric_limits<count_t>::max(),
                       "the total of an expert must be >= 0 and < 2^31: schedule fewer tokens at once", e, totals[e]);
  }
#endif
}

inline void check_route(load_view load, placement const& where, std::span<count_t const> shares, token_schedule_view out) {
  FAIRLEAD_EXPECTS(load.cols() == where.experts() && load.rows() == where.ranks(),
                   "the load needs one row a rank and one column an expert of the placement", load.rows(), load.cols(),
                   where.ranks(), where.experts());
  FAIRLEAD_EXPECTS(static_cast<index_t>(shares.size()) == where.replicas(), "one share a replica is needed", shares.size(),
                   where.replicas());
  FAIRLEAD_EXPECTS(out.rows() == load.rows() && out.cols() == where.replicas(),
                   "the schedule needs one row a source rank and one column a replica", out.rows(), out.cols(), load.rows(),
                   where.replicas());
#if FAIRLEAD_CONTRACT_LEVEL >= 2
  for (index_t e = 0; e < where.experts(); ++e) {
    index_t rest = 0;
    for (index_t source = 0; source < load.rows(); ++source) {
      FAIRLEAD_EXPECTS_2(load(source, e) >= 0, "a load must not be negative", source, e, load(source, e));
      rest += load(source, e);
    }
    auto column = static_cast<std::size_t>(where.replica_offset(static_cast<expert_id>(e)));
    auto const replicas = where.replicas(static_cast<expert_id>(e)).size();
    for (std::size_t k = 0; k < replicas; ++k, ++column) {
      FAIRLEAD_EXPECTS_2(shares[column] >= 0, "a share must not be negative", e, k, shares[column]);
      rest -= shares[column];
    }
    FAIRLEAD_EXPECTS_2(rest == 0 || replicas == 0, "the shares of an expert must sum to its load", e, rest);
  }
#endif
}

inline void check_schedule(load_view load, placement const& where, token_schedule_view out) {
  FAIRLEAD_EXPECTS(load.cols() == where.experts() && load.rows() == where.ranks(),
                   "the load needs one row a rank and one column an expert of the placement", load.rows(), load.cols(),
                   where.ranks(), where.experts());
  FAIRLEAD_EXPECTS(out.rows() == load.rows() && out.cols() == where.replicas(),
                   "the schedule needs one row a source rank and one column a replica", out.rows(), out.cols(), load.rows(),
                   where.replicas());
#if FAIRLEAD_CONTRACT_LEVEL >= 2
  for (index_t source = 0; source < load.rows(); ++source) {
    for (index_t e = 0; e < load.cols(); ++e) {
      FAIRLEAD_EXPECTS_2(load(source, e) >= 0, "a load must not be negative", source, e, load(source, e));
    }
  }
#endif
}

// Whether an expert with load has no replica.
[[nodiscard]] inline bool loses_copies(std::span<index_t const> totals, placement const& where) noexcept {
  for (std::size_t e = 0; e < totals.size(); ++e) {
    if (totals[e] != 0 && where.replicas(static_cast<expert_id>(e)).empty()) { return true; }
  }
  return false;
}

inline void clear(token_schedule_view out) noexcept {
  for (index_t source = 0; source < out.rows(); ++source) { std::fill_n(out.row(source), out.cols(), count_t{0}); }
}

// The largest number of copies of a rank. Slots are walked by rank, so that no array of sums is needed.
template <class Count>
[[nodiscard]] index_t largest_rank_load(placement const& where, std::span<Count> shares) noexcept {
  index_t largest = 0;
  for (index_t r = 0; r < where.ranks(); ++r) {
    auto const rank = static_cast<rank_id>(r);
    index_t sum = 0;
    for (index_t slot = 0; slot < where.slots(rank); ++slot) {
      index_t const column = where.replica_at(rank, static_cast<local_slot_id>(slot));
      sum += column >= 0 ? shares[static_cast<std::size_t>(column)] : 0;
    }
    largest = std::max(largest, sum);
  }
  return largest;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
