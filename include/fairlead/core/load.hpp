// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How many token copies each source rank has for each expert.
#include <fairlead/core/matrix_view.hpp>

#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// Copies of one rank for one expert; sums over ranks need `index_t`.
using count_t = std::int32_t;

/// Copies per (source rank, expert), equal on every rank once gathered. @shape{ranks x experts}
using load_view = matrix_view<count_t const>;

/// @brief Sum a load over the source ranks.
/// @param load @shape{ranks x experts}
/// @param[out] totals copies an expert. @shape{experts}
/// @throws contract_violation (level 1) on a shape mismatch
/// @complexity O(ranks x experts), no allocation
inline void sum_over_ranks(load_view load, std::span<index_t> totals) {
  FAIRLEAD_EXPECTS(static_cast<index_t>(totals.size()) == load.cols(), "one total an expert", totals.size(),
                   load.cols());
  for (index_t& total : totals) { total = 0; }
  for (index_t rank = 0; rank < load.rows(); ++rank) {
    count_t const* const row = load.row(rank);
    for (std::size_t expert = 0; expert < totals.size(); ++expert) { totals[expert] += row[expert]; }
  }
}

/// @brief What a planner knows about coming loads; views of numbers that the caller owns, equal on every rank.
///
/// 64-bit counts, so that sums over many micro-batches are exact. What a planner does not need may be empty.
struct load_estimate {
  std::span<index_t const> totals;             ///< copies an expert, >= 0. @shape{experts}
  matrix_view<index_t const> by_source{};      ///< copies a source rank and expert, columns sum to `totals`. @shape{ranks x experts}, or empty
  matrix_view<index_t const> samples{};        ///< `totals` of single micro-batches, oldest first. @shape{samples x experts}, or empty
};

FAIRLEAD_NAMESPACE_END
