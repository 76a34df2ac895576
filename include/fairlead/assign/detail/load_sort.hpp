// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Sort experts by load, as fast as a few hundred of them can be.
#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

struct load_key {
  std::uint64_t load;
  std::int32_t expert;
};

// Descending load; equal loads keep their order, which is ascending expert. The result is in one of the two arrays.
[[nodiscard]] inline std::span<load_key> sort_by_load(std::span<load_key> keys, std::span<load_key> other) {
  std::uint64_t most = 0;
  for (load_key const& key : keys) { most = std::max(most, key.load); }
  if (keys.size() <= 24) {
    for (std::size_t i = 1; i < keys.size(); ++i) {
      load_key const moving = keys[i];
      std::size_t at = i;
      for (; at > 0 && keys[at - 1].load < moving.load; --at) { keys[at] = keys[at - 1]; }
      keys[at] = moving;
    }
    return keys;
  }
  // Least significant digit first, on the distance from the largest load. The digits that matter are those that differ.
  int const bits = static_cast<int>(std::bit_width(most));
  constexpr int digit_bits = 8;
  constexpr std::uint64_t digits = std::uint64_t{1} << digit_bits;
  for (int shift = 0; shift < bits; shift += digit_bits) {
    std::uint32_t starts[digits] = {};
    for (load_key const& key : keys) { ++starts[((most - key.load) >> shift) & (digits - 1)]; }
    std::uint32_t sum = 0;
    for (std::uint32_t& start : starts) { sum += std::exchange(start, sum); }
    for (load_key const& key : keys) { other[starts[((most - key.load) >> shift) & (digits - 1)]++] = key; }
    std::swap(keys, other);
  }
  return keys;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
