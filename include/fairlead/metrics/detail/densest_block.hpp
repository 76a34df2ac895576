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
/// price * |low|. Returns the largest, with its subset in `where` if it is above `beat`. @shape{table: 2^bits}
template <class Value>
[[nodiscard]] inline Value largest_in_block(std::span<Value> table, int bits, std::uint32_t high, std::int64_t scale,
                                            std::int64_t price, std::int64_t beat, std::span<weighted_set const> sets,
                                            std::uint32_t& where) noexcept {
  std::size_t const size = std::size_t{1} << static_cast<unsigned>(bits);
  auto const low_mask = static_cast<std::uint32_t>(size - 1);
  Value* const at = table.data();
  std::fill_n(at, size, Value{0});
  // Sets that differ in the first four ranks only are the lanes of a vector: each summand is added to all lanes that it
  // belongs to at once, so that the sums over subsets below have no short strides.
  constexpr std::uint32_t lanes = 16;
  std::uint32_t const width = size >= lanes ? lanes : 1;
  for (std::uint32_t lane = 0; lane < width; ++lane) { at[lane] = static_cast<Value>(-price * std::popcount(lane)); }
  for (std::size_t bit = width; bit < size; bit *= 2) { std::fill_n(at + bit, width, static_cast<Value>(-price)); }
  for (weighted_set const& one : sets) {
    if (((one.set >> static_cast<unsigned>(bits)) & ~high) != 0) { continue; }
    auto const summand = static_cast<Value>(scale * one.weight);
    std::uint32_t const low = one.set & low_mask;
    std::uint32_t const needed = low & (width - 1);
    Value* const to = at + (low - needed);
    if (width == 1) { *to = static_cast<Value>(*to + summand); }
    else {
      for (std::uint32_t lane = 0; lane < lanes; ++lane) {
        to[lane] = static_cast<Value>(to[lane] + ((needed & ~lane) == 0 ? summand : Value{0}));
      }
    }
  }
  std::size_t stride = width;
  for (; 2 * stride < size; stride *= 4) {  // two ranks at a time: half the loads and stores
    for (std::size_t i = 0; i < size; i += 4 * stride) {
      Value const* const none = at + i;
      Value* const one = at + i + stride;
      Value* const two = one + stride;
      Value* const both = two + stride;
      for (std::size_t j = 0; j < stride; ++j) {
        auto const with_one = static_cast<Value>(none[j] + one[j]);
        both[j] = static_cast<Value>(with_one + static_cast<Value>(two[j] + both[j]));
        two[j] = static_cast<Value>(none[j] + two[j]);
        one[j] = with_one;
      }
    }
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
  if (best > beat) { where = static_cast<std::uint32_t>(std::find(at, at + size, best) - at); }
  return best;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
