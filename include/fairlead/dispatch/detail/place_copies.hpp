// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Give each copy its outer row and weight, and each buffer row its inner row: the second half of a counting sort.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/exchange_plan.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/dispatch/detail/plan_tables.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// What a denominator of a renormalisation never falls below.
inline constexpr float renormalisation_floor = 1e-20F;

/// Operation: fill copy_to_outer, outer_to_copy and weights from positions and tables. Text per memory space.
template <bool KeepsOwnRow, bool Renormalises>
struct place_copies {
  std::int32_t const* expert_first;
  std::int32_t const* run_end;
  std::int32_t const* run_base;
  expert_id const* chosen;
  std::int32_t const* positions;
  float const* routed_weights;
  index_t routed_stride;
  index_t fan_out;
  float* weights;
  float* weight_sums;  // used if Renormalises
  std::int32_t* copy_to_outer;
  std::int32_t* outer_to_copy;

  /// Places the copies of one token; returns how many were dropped.
  FAIRLEAD_HD std::int32_t operator()(index_t token) const {
    std::int32_t dropped = 0;
    float sum = 0.0F;
    for (index_t j = 0; j < fan_out; ++j) {
      index_t const copy = token * fan_out + j;
      index_t const expert = to_index(chosen[copy]);
      float weight = 0.0F;
      std::int32_t row = no_row;
      if (expert >= 0) {
        std::int32_t const position = positions[copy];
        std::int32_t run = expert_first[expert];
        std::int32_t const last = expert_first[expert + 1];
        while (run < last && position >= run_end[run]) { ++run; }
        weight = routed_weights[token * routed_stride + j];
        if (run < last) {
          row = run_base[run] + position;
          outer_to_copy[row] = static_cast<std::int32_t>(copy);
          sum += weight;
        } else {
          ++dropped;
          if constexpr (KeepsOwnRow) {
            row = own_row;
          } else {
            weight = 0.0F;
          }
        }
      }
      weights[copy] = weight;
      copy_to_outer[copy] = row;
    }
    if constexpr (Renormalises) {
      weight_sums[token] = sum;
      float const scale = 1.0F / (sum > renormalisation_floor ? sum : renormalisation_floor);
      for (index_t j = 0; j < fan_out; ++j) { weights[token * fan_out + j] *= scale; }
    }
    return dropped;
  }
};

/// The same when every expert has one replica: run e is that of expert e, and copies are placed one by one.
template <bool KeepsOwnRow>
struct place_sole_copies {
  std::int32_t const* run_end;
  std::int32_t const* run_base;
  expert_id const* chosen;
  std::int32_t const* positions;
  float const* routed_weights;  // contiguous
  index_t fan_out;
  float* weights;
  std::int32_t* copy_to_outer;
  std::int32_t* outer_to_copy;

  /// Places the copies of tokens [first, last); returns how many were dropped.
  std::int32_t range(index_t first, index_t last) const {
    std::int32_t dropped = 0;
    for (index_t copy = first * fan_out; copy < last * fan_out; ++copy) {
      index_t const expert = to_index(chosen[copy]);
      std::int32_t const position = positions[copy];
      float weight = routed_weights[copy];
      std::int32_t row;
      if (position >= 0 && position < run_end[expert]) [[likely]] {
        row = run_base[expert] + position;
        outer_to_copy[row] = static_cast<std::int32_t>(copy);
      } else if (position < 0) {
        row = no_row;
        weight = 0.0F;
      } else {
        ++dropped;
        row = KeepsOwnRow ? own_row : no_row;
        weight = KeepsOwnRow ? weight : 0.0F;
      }
      weights[copy] = weight;
      copy_to_outer[copy] = row;
    }
    return dropped;
  }
};

/// Operation: from gradients of renormalised weights to those of the router's weights, for one token.
struct renormalise_backward {
  float const* weights;
  float const* weight_sums;
  std::int32_t const* copy_to_outer;
  index_t fan_out;
  float* grad;
  index_t grad_stride;
  FAIRLEAD_HD void operator()(index_t token) const {
    float const* const weight = weights + token * fan_out;
    float* const g = grad + token * grad_stride;
    float const sum = weight_sums[token];
    bool const floored = !(sum > renormalisation_floor);
    float mean = 0.0F;
    for (index_t j = 0; j < fan_out; ++j) { mean += g[j] * weight[j]; }
    for (index_t j = 0; j < fan_out; ++j) {
      if (copy_to_outer[token * fan_out + j] < 0) {
        g[j] = 0.0F;
      } else {
        g[j] = floored ? g[j] / renormalisation_floor : (g[j] - mean) / sum;
      }
    }
  }
};

/// Operation: fill buffer_to_inner and inner_to_buffer for one run of received rows.
struct regroup_rows {
  std::int32_t const* inner;
  std::int32_t const* buffer;
  std::int32_t const* count;
  std::int32_t* buffer_to_inner;
  std::int32_t* inner_to_buffer;
  void operator()(index_t run) const {
    for (std::int32_t i = 0; i < count[run]; ++i) {
      buffer_to_inner[buffer[run] + i] = inner[run] + i;
      inner_to_buffer[inner[run] + i] = buffer[run] + i;
    }
  }
};

inline constexpr index_t tokens_per_place_block = 1024;

template <class Place>
struct place_block {
  static constexpr index_t tokens_per_block = tokens_per_place_block;
  Place place;
  index_t tokens;
  std::int32_t* dropped;  // one a block
  void operator()(index_t block) const {
    index_t const begin = block * tokens_per_block;
    index_t const end = std::min(tokens, begin + tokens_per_block);
    if constexpr (requires { place.range(begin, end); }) {
      dropped[block] = place.range(begin, end);
    } else {
      std::int32_t sum = 0;
      for (index_t token = begin; token < end; ++token) { sum += place(token); }
      dropped[block] = sum;
    }
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
