// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The k best keys of rows, by the total order of `core/order.hpp`.
#include <fairlead/core/ids.hpp>
#include <fairlead/core/order.hpp>
#include <fairlead/route/detail/weights.hpp>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// Most experts a token: bounds the arrays on the stack.
inline constexpr index_t max_fan_out = 64;
/// Most experts of a router: ids are packed into 16 bits.
inline constexpr index_t max_experts = 65536;

namespace detail {

/// Tokens that a host router handles together: a whole number of vector registers of every width.
inline constexpr int route_lanes = 16;

/// Chosen keys and ids of `route_lanes` tokens; slot j of lane i is [j * route_lanes + i].
struct chosen_block {
  float keys[max_fan_out * route_lanes];
  std::int32_t ids[max_fan_out * route_lanes];
};

/// One row by insertion: ids ascend and a key moves up only past smaller ones, hence ties keep the lower id in front.
FAIRLEAD_HD inline void select_row(float const* keys, index_t experts, index_t fan_out, index_t stride, float* best,
                                   std::int32_t* ids) noexcept {
  for (index_t j = 0; j < fan_out; ++j) {
    best[j * stride] = minus_infinity;
    ids[j * stride] = -1;
  }
  for (index_t e = 0; e < experts; ++e) {
    float const key = keys[e];
    if (!(key > best[(fan_out - 1) * stride])) { continue; }  // also NaN and -inf
    index_t j = fan_out - 1;
    for (; j > 0 && key > best[(j - 1) * stride]; --j) {
      best[j * stride] = best[(j - 1) * stride];
      ids[j * stride] = ids[(j - 1) * stride];
    }
    best[j * stride] = key;
    ids[j * stride] = static_cast<std::int32_t>(e);
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
