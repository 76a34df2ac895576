// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Counting the sets of failed units that take no expert's last replica, for a few units, as bits.
#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Units of which a table of all sets fits the first-level cache.
inline constexpr int losing_block_units = 15;
/// Words of such a table.
inline constexpr index_t losing_block_words = index_t{1} << (losing_block_units - 6);

/// Numbers 0 to 63 that have bit i, as bits of a word.
inline constexpr std::array<std::uint64_t, 6> has_bit{0xAAAAAAAAAAAAAAAAULL, 0xCCCCCCCCCCCCCCCCULL, 0xF0F0F0F0F0F0F0F0ULL,
                                                      0xFF00FF00FF00FF00ULL, 0xFFFF0000FFFF0000ULL, 0xFFFFFFFF00000000ULL};

/// Numbers 0 to 63 with a given number of bits, as bits of a word.
[[nodiscard]] constexpr std::array<std::uint64_t, 7> numbers_by_bits() noexcept {
  std::array<std::uint64_t, 7> out{};
  for (unsigned number = 0; number < 64; ++number) {
    out[static_cast<std::size_t>(std::popcount(number))] |= std::uint64_t{1} << number;
  }
  return out;
}

/// For k = 0 to `units`: adds to survivors[k] the number of sets of k failed units that hold none of `sets` whole.
/// @shape{table: losing_block_words} @shape{survivors: units + 1}
inline void count_survivors(int units, std::span<std::uint32_t const> sets, std::span<std::uint64_t> table,
                            std::span<index_t> survivors) noexcept {
  constexpr std::array<std::uint64_t, 7> by_bits = numbers_by_bits();
  int const low_units = std::min(units, losing_block_units);
  std::size_t const words = low_units > 6 ? std::size_t{1} << static_cast<unsigned>(low_units - 6) : 1;
  std::uint64_t const valid = low_units >= 6 ? ~std::uint64_t{0} : (std::uint64_t{1} << (std::uint64_t{1} << static_cast<unsigned>(low_units))) - 1;
  std::uint32_t const low_mask = (std::uint32_t{1} << static_cast<unsigned>(low_units)) - 1;
  std::uint32_t const blocks = std::uint32_t{1} << static_cast<unsigned>(units - low_units);
  std::uint64_t* const bad = table.data();
  for (std::uint32_t high = 0; high < blocks; ++high) {
    std::fill_n(bad, words, std::uint64_t{0});
    for (std::uint32_t const set : sets) {
      if (((set >> static_cast<unsigned>(low_units)) & ~high) == 0) {
        std::uint32_t const low = set & low_mask;
        bad[low >> 6U] |= std::uint64_t{1} << (low & 63U);
      }
    }
    // A set of failures that takes an expert goes on taking it when more fail.
    for (std::size_t w = 0; w < words; ++w) {
      std::uint64_t word = bad[w];
      for (unsigned bit = 0; bit < 6; ++bit) { word |= (word & ~has_bit[bit]) << (1U << bit); }
      bad[w] = word;
    }
    for (std::size_t stride = 1; stride < words; stride *= 2) {
      for (std::size_t i = 0; i < words; i += 2 * stride) {
        for (std::size_t j = 0; j < stride; ++j) { bad[i + stride + j] |= bad[i + j]; }
      }
    }
    int const outside = std::popcount(high);
    for (std::size_t w = 0; w < words; ++w) {
      std::uint64_t const good = ~bad[w] & valid;
      if (good == 0) { continue; }
      int const fixed = outside + std::popcount(static_cast<std::uint64_t>(w));
      for (int more = 0; more <= std::min(6, units - fixed); ++more) {
        survivors[static_cast<std::size_t>(fixed + more)] += std::popcount(good & by_bits[static_cast<std::size_t>(more)]);
      }
    }
  }
}

/// n choose k as a double: exact below 2^53.
[[nodiscard]] constexpr double choose(index_t n, index_t k) noexcept {
  if (k < 0 || k > n) { return 0.0; }
  double value = 1.0;
  index_t const few = std::min(k, n - k);
  // The product stays whole after each division, so that it is exact while it is below 2^53 times few.
  for (index_t i = 1; i <= few; ++i) { value = value * static_cast<double>(n - few + i) / static_cast<double>(i); }
  return value;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
