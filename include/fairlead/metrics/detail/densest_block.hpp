// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The subsets of a few ranks, gone through block by block so that a table of them stays in the cache.
#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// The bits of a word at the places that `where` marks, moved together.
[[nodiscard]] constexpr std::uint32_t gather_bits(std::uint64_t word, std::uint64_t where) noexcept {
  std::uint32_t out = 0;
  for (int to = 0; where != 0; where &= where - 1, ++to) {
    out |= static_cast<std::uint32_t>((word >> std::countr_zero(where)) & 1U) << to;
  }
  return out;
}

/// The inverse of `gather_bits`.
[[nodiscard]] constexpr std::uint64_t scatter_bits(std::uint32_t word, std::uint64_t where) noexcept {
  std::uint64_t out = 0;
  for (int from = 0; where != 0; where &= where - 1, ++from) {
    out |= static_cast<std::uint64_t>((word >> from) & 1U) << std::countr_zero(where);
  }
  return out;
}

/// Weight of a set of ranks that an expert is confined to.
struct weighted_set {
  std::uint32_t set;    ///< its ranks
  std::int64_t weight;  ///< its load
};

/// For all subsets `low` of `bits` ranks: the sum over the sets inside (high, low) of scale * weight, minus
/// price * |low|. Returns the largest, with its subset. @shape{table: 2^bits}
template <class Value>
[[nodiscard]] inline Value largest_in_block(std::span<Value> table, int bits, std::uint32_t high, std::int64_t scale,
                                            std::int64_t price, std::span<weighted_set const> sets,
                                            std::uint32_t& where) noexcept {
  std::size_t const size = std::size_t{1} << static_cast<unsigned>(bits);
  auto const low_mask = static_cast<std::uint32_t>(size - 1);
  Value* const at = table.data();
  std::fill_n(at, size, Value{0});
  for (int bit = 0; bit < bits; ++bit) { at[std::size_t{1} << static_cast<unsigned>(bit)] = static_cast<Value>(-price); }
  for (weighted_set const& one : sets) {
    if (((one.set >> static_cast<unsigned>(bits)) & ~high) == 0) {
      at[one.set & low_mask] = static_cast<Value>(at[one.set & low_mask] + static_cast<Value>(scale * one.weight));
    }
  }
  // Sums over subsets, one rank at a time. The first three ranks in one pass over groups of eight.
  std::size_t stride = 1;
  if (bits >= 3) {
    for (std::size_t i = 0; i < size; i += 8) {
      Value* const p = at + i;
      Value const b1 = p[0] + p[1], b3 = p[2] + p[3], b5 = p[4] + p[5], b7 = p[6] + p[7];
      Value const c2 = p[2] + p[0], c3 = b3 + b1, c6 = p[6] + p[4], c7 = b7 + b5;
      Value const a0 = p[0], a4 = p[4];
      p[1] = b1;
      p[2] = c2;
      p[3] = c3;
      p[4] = a4 + a0;
      p[5] = b5 + b1;
      p[6] = c6 + c2;
      p[7] = c7 + c3;
    }
    stride = 8;
  }
  for (; stride < size; stride *= 2) {
    for (std::size_t i = 0; i < size; i += 2 * stride) {
      Value* const to = at + i + stride;
      Value const* const from = at + i;
      for (std::size_t j = 0; j < stride; ++j) { to[j] = static_cast<Value>(to[j] + from[j]); }
    }
  }
  Value best = at[0];
  for (std::size_t i = 1; i < size; ++i) { best = std::max(best, at[i]); }
  where = static_cast<std::uint32_t>(std::find(at, at + size, best) - at);
  return best;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
