// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How many experts each rank has to read in a step: what memory-bound decoding pays for.
#include <fairlead/core/placement.hpp>
#include <fairlead/core/token_schedule.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace metrics {

/// @brief Count the replicas of each rank that get at least one copy.
/// @param where the placement
/// @param schedule copies from each source to each replica. @shape{ranks x where.replicas()}
/// @param[out] active number of distinct experts with work. @shape{where.ranks()}
/// @returns the largest of them: the experts that the busiest rank reads
/// @throws contract_violation (level 1) on a shape mismatch
/// @complexity O(ranks x replicas + slots^2 of a rank), no allocation
[[nodiscard]] inline index_t activated_experts(placement const& where, const_token_schedule_view schedule,
                                               std::span<index_t> active) {
  FAIRLEAD_EXPECTS(static_cast<index_t>(active.size()) == where.ranks(), "one count a rank", active.size(),
                   where.ranks());
  FAIRLEAD_EXPECTS(schedule.cols() == where.replicas(), "the schedule has one column a replica", schedule.cols(),
                   where.replicas());
  index_t largest = 0;
  for (index_t rank = 0; rank < where.ranks(); ++rank) {
    auto const resident = where.experts_on(static_cast<rank_id>(rank));
    index_t count = 0;
    for (std::size_t slot = 0; slot < resident.size(); ++slot) {
      // Two replicas of an expert on one rank are one read: the first one that has work counts.
      auto const works = [&](std::size_t at) {
        index_t const column = where.replica_at(static_cast<rank_id>(rank), static_cast<local_slot_id>(at));
        if (column < 0) { return false; }
        for (index_t source = 0; source < schedule.rows(); ++source) {
          if (schedule(source, column) > 0) { return true; }
        }
        return false;
      };
      bool first = resident[slot] != expert_id::none && works(slot);
      for (std::size_t before = 0; first && before < slot; ++before) {
        first = resident[before] != resident[slot] || !works(before);
      }
      count += first ? 1 : 0;
    }
    active[static_cast<std::size_t>(rank)] = count;
    largest = std::max(largest, count);
  }
  return largest;
}

}  // namespace metrics
FAIRLEAD_NAMESPACE_END
