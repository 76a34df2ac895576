// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Sums that every token scheduler needs.
#include <fairlead/core/load.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/token_schedule.hpp>

#include <algorithm>
#include <array>
#include <cstddef>

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

// Copies that each rank receives, for ranks that fit the array: columns are summed in blocks, row by row.
template <std::size_t size>
[[nodiscard]] index_t largest_of_few_ranks(placement const& where, const_token_schedule_view out) noexcept {
  constexpr index_t block = 64;
  std::array<index_t, size> totals;
  std::fill_n(totals.begin(), where.ranks(), index_t{0});
  index_t e = 0;
  std::size_t k = 0;
  for (index_t first = 0; first < out.cols(); first += block) {
    index_t const count = std::min(block, out.cols() - first);
    std::array<index_t, block> sums{};
    for (index_t source = 0; source < out.rows(); ++source) {
      count_t const* const row = out.row(source) + first;
      for (index_t c = 0; c < count; ++c) { sums[static_cast<std::size_t>(c)] += row[c]; }
    }
    for (index_t c = 0; c < count; ++c) {
      while (k == where.replicas(static_cast<expert_id>(e)).size()) { ++e, k = 0; }
      totals[static_cast<std::size_t>(where.replicas(static_cast<expert_id>(e))[k++].rank)] += sums[static_cast<std::size_t>(c)];
    }
  }
  index_t largest = 0;
  for (index_t r = 0; r < where.ranks(); ++r) { largest = std::max(largest, totals[static_cast<std::size_t>(r)]); }
  return largest;
}

// The largest number of copies that one rank receives, without scratch of the caller's.
[[nodiscard]] inline index_t largest_rank_load(placement const& where, const_token_schedule_view out) noexcept {
  constexpr std::size_t few = 512;
  if (where.ranks() <= static_cast<index_t>(few)) { return largest_of_few_ranks<few>(where, out); }
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
