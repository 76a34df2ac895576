// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The bfloat16 storage type; arithmetic happens in fp32.
#include <fairlead/core/config.hpp>

#include <bit>
#include <cstdint>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Store a number in 16 bits: sign, 8 exponent bits, 7 mantissa bits.
///
/// Conversion from fp32 rounds to nearest, ties to even; NaN stays NaN (quiet). Same layout as `__nv_bfloat16`.
struct bfloat16 {
  std::uint16_t bits = 0;  ///< the upper half of the fp32 pattern

  /// Zero.
  constexpr bfloat16() noexcept = default;
  /// @param value rounded to nearest even
  FAIRLEAD_HD constexpr explicit bfloat16(float value) noexcept {
    std::uint32_t const pattern = std::bit_cast<std::uint32_t>(value);
    bool const nan = (pattern & 0x7FFFFFFFU) > 0x7F800000U;
    std::uint32_t const rounded = (pattern + 0x7FFFU + ((pattern >> 16U) & 1U)) >> 16U;
    bits = static_cast<std::uint16_t>(nan ? ((pattern >> 16U) | 0x0040U) : rounded);
  }
  /// @returns the exact fp32 value
  FAIRLEAD_HD constexpr operator float() const noexcept {  // NOLINT(google-explicit-constructor)
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
  }
};
static_assert(sizeof(bfloat16) == 2 && std::is_trivially_copyable_v<bfloat16>);

FAIRLEAD_NAMESPACE_END
