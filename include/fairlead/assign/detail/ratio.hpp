// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Ratios of 64-bit counts without overflow.
#include <fairlead/core/ids.hpp>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

__extension__ using wide_count = __int128;

// ceil(numerator total / (denominator ranks)), all positive or zero.
[[nodiscard]] constexpr index_t ceil_ratio(index_t numerator, index_t total, index_t denominator, index_t ranks) noexcept {
  wide_count const part = static_cast<wide_count>(denominator) * ranks;
  return static_cast<index_t>((static_cast<wide_count>(numerator) * total + part - 1) / part);
}

// floor(numerator value / denominator).
[[nodiscard]] constexpr index_t floor_ratio(index_t numerator, index_t value, index_t denominator) noexcept {
  return static_cast<index_t>(static_cast<wide_count>(numerator) * value / denominator);
}

// most / (total / parts) >= numerator / denominator.
[[nodiscard]] constexpr bool at_least(index_t most, index_t parts, index_t numerator, index_t denominator, index_t total) noexcept {
  // Two factors of 64 bits fill 128: the ratio is small and takes the rest.
  return static_cast<wide_count>(most) * parts * denominator >= static_cast<wide_count>(numerator) * total;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
