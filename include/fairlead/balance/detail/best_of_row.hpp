// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The best keys of a row, for losses that count what a router would have chosen.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>
#include <fairlead/core/order.hpp>

#include <cstdint>
#include <limits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Most keys asked for: the choices of a token and the next one.
inline constexpr index_t most_best_of_row = 65;

inline void expect_few_choices(index_t fan_out) {
  FAIRLEAD_EXPECTS(fan_out < most_best_of_row, "this loss counts at most 64 choices a token", fan_out);
}

/// Writes the ids of the `count` best allowed keys in order, -1 where there are none.
inline void best_of_row(float const* keys, std::uint8_t const* allowed, index_t experts, index_t count,
                        std::int32_t* ids) noexcept {
  float best[most_best_of_row];
  for (index_t j = 0; j < count; ++j) {
    best[j] = -std::numeric_limits<float>::infinity();
    ids[j] = -1;
  }
  for (index_t e = 0; e < experts; ++e) {
    float const key = keys[e];
    // Ids ascend, so that of equal keys the lower id stays in front; false for NaN and -inf.
    if (!(key > best[count - 1]) || (allowed != nullptr && allowed[e] == 0)) { continue; }
    index_t j = count - 1;
    for (; j > 0 && key > best[j - 1]; --j) {
      best[j] = best[j - 1];
      ids[j] = ids[j - 1];
    }
    best[j] = key;
    ids[j] = static_cast<std::int32_t>(e);
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
