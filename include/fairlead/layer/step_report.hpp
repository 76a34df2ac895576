// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What one forward pass of a layer did: loads, drops, traffic. Equal on every rank but for `growths`.
#include <fairlead/core/load.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/core/token_schedule.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Summary of one forward pass over all ranks.
struct [[nodiscard]] step_report {
  fairlead::status status = fairlead::status::ok;  ///< what the scheduler said; `lost_expert`: no copy is computed
  index_t tokens = 0;             ///< valid tokens of all ranks
  index_t routed_copies = 0;      ///< copies that the routers of all ranks gave an expert
  index_t computed_copies = 0;    ///< copies that reached an expert
  index_t crossing_copies = 0;    ///< copies computed on another rank than their token's
  index_t max_expert_copies = 0;  ///< routed copies of the most wanted expert
  index_t max_rank_copies = 0;    ///< computed copies of the busiest rank
  index_t experts = 0;            ///< logical experts
  index_t ranks = 0;              ///< ranks
  /// Bytes of token rows that cross between ranks in dispatch and combine together, one row a copy; a dispatcher that
  /// lets copies share a row moves fewer.
  index_t rows_crossing_bytes = 0;
  index_t growths = 0;            ///< buffers of this rank that had to grow; 0 after warm-up

  /// @returns max / mean of the copies per expert, before capacity; 1 if there are none
  [[nodiscard]] double imbalance() const noexcept {
    return routed_copies == 0 ? 1.0 : static_cast<double>(max_expert_copies) * static_cast<double>(experts) / static_cast<double>(routed_copies);
  }
  /// @returns max / mean of the copies computed per rank; 1 if there are none
  [[nodiscard]] double rank_imbalance() const noexcept {
    return computed_copies == 0 ? 1.0 : static_cast<double>(max_rank_copies) * static_cast<double>(ranks) / static_cast<double>(computed_copies);
  }
  /// @returns copies that lost their expert to capacity / routed copies
  [[nodiscard]] double dropped_share() const noexcept {
    return routed_copies == 0 ? 0.0 : 1.0 - static_cast<double>(computed_copies) / static_cast<double>(routed_copies);
  }
};

/// @brief Summarise a step from what every rank knows.
/// @param gathered count rows. @shape{ranks x (2 experts + 1)}
/// @param where placement
/// @param schedule @shape{ranks x where.replicas()}
/// @param row_bytes bytes of one row in each direction, summed
/// @param[out] totals routed copies per expert over all ranks, before capacity. @shape{experts}
/// @param rank_copies scratch. @shape{ranks}
/// @returns the summary; `status` and `growths` are left to the caller
/// @complexity O(ranks x (experts + replicas)), no allocation
inline step_report summarise(matrix_view<count_t const> gathered, placement const& where,
                             const_token_schedule_view schedule, index_t row_bytes, std::span<index_t> totals,
                             std::span<index_t> rank_copies) {
  step_report result;
  result.experts = where.experts();
  result.ranks = where.ranks();
  std::fill(totals.begin(), totals.end(), 0);
  std::fill(rank_copies.begin(), rank_copies.end(), 0);
  for (index_t rank = 0; rank < gathered.rows(); ++rank) {
    count_t const* const raw = gathered.row(rank) + result.experts;
    for (std::size_t e = 0; e < totals.size(); ++e) { totals[e] += raw[e]; }
    result.tokens += raw[result.experts];
  }
  for (index_t const total : totals) {
    result.routed_copies += total;
    result.max_expert_copies = std::max(result.max_expert_copies, total);
  }
  for (index_t e = 0; e < result.experts; ++e) {
    auto const expert = static_cast<expert_id>(e);
    auto const replicas = where.replicas(expert);
    for (std::size_t i = 0; i < replicas.size(); ++i) {
      index_t const column = where.replica_offset(expert) + static_cast<index_t>(i);
      for (index_t source = 0; source < schedule.rows(); ++source) {
        index_t const copies = schedule(source, column);
        rank_copies[static_cast<std::size_t>(replicas[i].rank)] += copies;
        if (to_index(replicas[i].rank) != source) { result.crossing_copies += copies; }
      }
    }
  }
  for (index_t const copies : rank_copies) {
    result.computed_copies += copies;
    result.max_rank_copies = std::max(result.max_rank_copies, copies);
  }
  result.rows_crossing_bytes = result.crossing_copies * row_bytes;
  return result;
}

FAIRLEAD_NAMESPACE_END
