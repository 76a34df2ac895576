// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The one total order behind every selection: key descending, then id ascending; NaN below -inf.
#include <fairlead/core/ids.hpp>

#include <bit>
#include <cstdint>
#include <limits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Map an fp32 key to an integer that sorts the same way.
///
/// NaN maps to 0, below the image of -inf; -0.0 and +0.0 map to the same integer, so that ids decide between them.
/// @param key any float
/// @returns unsigned integer, larger for larger keys
/// @complexity O(1)
/// @determinism exact: equal on host and device
[[nodiscard]] FAIRLEAD_HD constexpr std::uint32_t ordered_bits(float key) noexcept {
  if (key != key) { return 0U; }
  std::uint32_t const bits = std::bit_cast<std::uint32_t>(key == 0.0F ? 0.0F : key);
  return (bits & 0x80000000U) != 0U ? ~bits : bits | 0x80000000U;
}

/// @brief Pack key and id into one integer whose maximum is the winner of the total order.
/// @param key any float
/// @param id expert id, 0 <= id < 65536
/// @returns `ordered_bits(key) << 16 | (65535 - id)`
[[nodiscard]] FAIRLEAD_HD constexpr std::uint64_t packed_key(float key, std::int32_t id) noexcept {
  return (std::uint64_t{ordered_bits(key)} << 16U) | static_cast<std::uint64_t>(65535 - id);
}

/// @brief The id inside a packed key.
/// @param packed what `packed_key` returned
/// @returns the id
[[nodiscard]] FAIRLEAD_HD constexpr std::int32_t packed_id(std::uint64_t packed) noexcept {
  return 65535 - static_cast<std::int32_t>(packed & 0xFFFFU);
}

/// @brief Whether a key may be chosen at all: neither NaN nor -inf.
/// @param key any float
/// @returns true if a selection may take it
[[nodiscard]] FAIRLEAD_HD constexpr bool is_candidate(float key) noexcept {
  return key > -std::numeric_limits<float>::infinity();
}

/// @brief Whether (key_a, id_a) comes before (key_b, id_b) in the total order.
/// @param key_a first key
/// @param id_a first id
/// @param key_b second key
/// @param id_b second id
/// @returns true if the first pair is to be preferred
[[nodiscard]] FAIRLEAD_HD constexpr bool comes_before(float key_a, std::int32_t id_a, float key_b,
                                                      std::int32_t id_b) noexcept {
  std::uint32_t const a = ordered_bits(key_a);
  std::uint32_t const b = ordered_bits(key_b);
  return a != b ? a > b : id_a < id_b;
}

FAIRLEAD_NAMESPACE_END
