// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Sums that every token scheduler needs.
#include <fairlead/core/load.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/token_schedule.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// Whether an expert with load has no replica.
[[nodiscard]] inline bool loses_copies(load_view load, placement const& where) noexcept {
  for (index_t e = 0; e < load.cols(); ++e) {
    if (!where.replicas(static_cast<expert_id>(e)).empty()) { continue; }
    for (index_t source = 0; source < load.rows(); ++source) {
      if (load(source, e) != 0) { return true; }
    }
  }
  return false;
}

// The largest number of copies that one rank receives. Slots are walked by rank, so that no array of sums is needed.
[[nodiscard]] inline index_t largest_rank_load(placement const& where, const_token_schedule_view out) noexcept {
  index_t largest = 0;
  for (index_t r = 0; r < where.ranks(); ++r) {
    auto const rank = static_cast<rank_id>(r);
    index_t sum = 0;
    for (index_t slot = 0; slot < where.slots(rank); ++slot) {
      index_t const column = where.replica_at(rank, static_cast<local_slot_id>(slot));
      for (index_t source = 0; column >= 0 && source < out.rows(); ++source) { sum += out(source, column); }
    }
    largest = std::max(largest, sum);
  }
  return largest;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
