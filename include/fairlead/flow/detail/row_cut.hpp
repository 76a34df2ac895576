// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The fan_out-th and (fan_out + 1)-th best of a row under prices, and columns of what a token would pay.
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

inline constexpr double no_key = -std::numeric_limits<double>::infinity();

/// The worst key a token holds and the best key it does not hold; -inf where there is none.
struct row_cut {
  double held = no_key;
  double next = no_key;
};

/// @param best scratch of fan_out + 1 keys
template <class Score>
[[nodiscard]] row_cut cut_row(Score const* row, double const* prices, index_t experts, index_t fan_out, double* best) {
  if (fan_out == 1) {
    row_cut cut;
    for (index_t e = 0; e < experts; ++e) {
      double const key = assignable(row[e]) - prices[e];
      if (key > cut.next) {
        cut.next = std::min(key, cut.held);
        cut.held = std::max(key, cut.held);
      }
    }
    return cut;
  }
  index_t const kept = fan_out + 1;
  std::fill_n(best, kept, no_key);  // descending
  for (index_t e = 0; e < experts; ++e) {
    double const key = assignable(row[e]) - prices[e];
    if (!(key > best[fan_out])) { continue; }
    index_t place = fan_out;
    for (; place > 0 && best[place - 1] < key; --place) { best[place] = best[place - 1]; }
    best[place] = key;
  }
  return {fan_out == 0 ? std::numeric_limits<double>::infinity() : best[fan_out - 1], best[fan_out]};
}

/// The `rank`-th largest (counted from 0) and the smallest of those before it; +inf where there is none before it.
struct ranked_keys {
  double before = std::numeric_limits<double>::infinity();
  double at = no_key;
};

/// Reorders `keys`. A rank beyond the end finds -inf.
[[nodiscard]] inline ranked_keys select_ranked(std::span<double> keys, index_t rank) {
  auto const size = static_cast<index_t>(keys.size());
  ranked_keys found;
  if (rank > size) {
    found.before = no_key;
    return found;
  }
  if (rank < size) {
    std::nth_element(keys.begin(), keys.begin() + rank, keys.end(), std::greater<>{});
    found.at = keys[static_cast<std::size_t>(rank)];
  }
  if (rank > 0) { found.before = *std::min_element(keys.begin(), keys.begin() + rank); }
  return found;
}

/// Columns that are gathered together: one cache line of fp32 scores.
inline constexpr index_t columns_at_once = 16;

}  // namespace detail
FAIRLEAD_NAMESPACE_END
