// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What one row of logits adds to a balance loss, and its derivative; fp32 in the library, double in tests.
#include <fairlead/core/ids.hpp>
#include <fairlead/core/numeric.hpp>

#include <cmath>
#include <cstdint>
#include <limits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Keeps the share of a row whose sigmoids are all zero defined. @source{Megatron-core, sigmoid scores of the router}
inline constexpr double smallest_score_sum = 1e-20;

// A loss selects nothing, so its last bit is free: the vectorisable text where fused multiply-add is an instruction,
// the library function where it would be a call.
[[nodiscard]] FAIRLEAD_HD inline float exponential(float x) noexcept {
#if defined(__CUDA_ARCH__) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return numeric::exp(x);
#else
  return std::exp(x);
#endif
}
[[nodiscard]] FAIRLEAD_HD inline double exponential(double x) noexcept { return std::exp(x); }
[[nodiscard]] FAIRLEAD_HD inline float logistic(float x) noexcept {
#if defined(__CUDA_ARCH__) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return numeric::sigmoid(x);
#else
  return 1.0F / (1.0F + std::exp(-x));
#endif
}
[[nodiscard]] FAIRLEAD_HD inline double logistic(double x) noexcept { return 1.0 / (1.0 + std::exp(-x)); }

/// Partial sums of a row: a fixed number of lanes keeps the order of additions, and so the bits, on every target,
/// while compilers may hold the lanes in vector registers.
inline constexpr index_t row_lanes = 16;

/// Replace NaN and what the expert mask forbids by -inf; the maximum of the rest.
template <class Value>
FAIRLEAD_HD Value usable_logits(Value const* logits, std::uint8_t const* allowed, index_t experts, Value* usable) {
  constexpr Value never = -std::numeric_limits<Value>::infinity();
  Value tops[row_lanes];
  for (index_t lane = 0; lane < row_lanes; ++lane) { tops[lane] = never; }
  if (allowed == nullptr) {
    for (index_t e = 0; e < experts; ++e) { usable[e] = logits[e] == logits[e] ? logits[e] : never; }
  } else {
    for (index_t e = 0; e < experts; ++e) {
      usable[e] = allowed[e] != 0 && logits[e] == logits[e] ? logits[e] : never;
    }
  }
  index_t const whole = experts / row_lanes * row_lanes;
  for (index_t first = 0; first < whole; first += row_lanes) {
    for (index_t lane = 0; lane < row_lanes; ++lane) {
      Value const logit = usable[first + lane];
      tops[lane] = logit > tops[lane] ? logit : tops[lane];
    }
  }
  Value top = never;
  for (index_t lane = 0; lane < row_lanes; ++lane) { top = tops[lane] > top ? tops[lane] : top; }
  for (index_t e = whole; e < experts; ++e) { top = usable[e] > top ? usable[e] : top; }
  return top;
}

/// A sum of scores, and the same sum weighted by factors.
template <class Value>
struct row_sums {
  Value plain;
  Value weighted;
};
template <class Value>
FAIRLEAD_HD row_sums<Value> sum_row(Value const* scores, Value const* factors, index_t experts) {
  Value plain[row_lanes];
  Value weighted[row_lanes];
  for (index_t lane = 0; lane < row_lanes; ++lane) { plain[lane] = weighted[lane] = Value{0}; }
  index_t const whole = experts / row_lanes * row_lanes;
  for (index_t first = 0; first < whole; first += row_lanes) {
    for (index_t lane = 0; lane < row_lanes; ++lane) {
      plain[lane] += scores[first + lane];
      weighted[lane] += scores[first + lane] * factors[first + lane];
    }
  }
  row_sums<Value> sums{Value{0}, Value{0}};
  for (index_t lane = 0; lane < row_lanes; ++lane) {
    sums.plain += plain[lane];
    sums.weighted += weighted[lane];
  }
  for (index_t e = whole; e < experts; ++e) {
    sums.plain += scores[e];
    sums.weighted += scores[e] * factors[e];
  }
  return sums;
}

template <class Value>
[[nodiscard]] FAIRLEAD_HD constexpr bool is_finite_top(Value top) noexcept {
  return top > -std::numeric_limits<Value>::infinity() && top < std::numeric_limits<Value>::infinity();
}

/// sum_e factors[e] p_e with p = softmax(logits); grad += scale p_j (factors[j] - that sum). `scratch` holds a row.
template <class Value>
FAIRLEAD_HD Value softmax_term(Value const* logits, std::uint8_t const* allowed, index_t experts, Value const* factors,
                               Value scale, Value* grad, Value* scratch) {
  Value const top = usable_logits(logits, allowed, experts, scratch);
  if (!is_finite_top(top)) { return Value{0}; }
  for (index_t e = 0; e < experts; ++e) { scratch[e] = exponential(scratch[e] - top); }
  auto const [sum, weighted] = sum_row(scratch, factors, experts);
  Value const mean = weighted / sum;
  Value const step = scale / sum;
  for (index_t e = 0; e < experts; ++e) { grad[e] += step * scratch[e] * (factors[e] - mean); }
  return mean;
}

/// As `softmax_term` with p = sigmoid(logits) / (their sum + 1e-20).
template <class Value>
FAIRLEAD_HD Value sigmoid_term(Value const* logits, std::uint8_t const* allowed, index_t experts, Value const* factors,
                               Value scale, Value* grad, Value* scratch) {
  Value const top = usable_logits(logits, allowed, experts, scratch);
  if (!is_finite_top(top)) { return Value{0}; }
  constexpr Value never = -std::numeric_limits<Value>::infinity();
  for (index_t e = 0; e < experts; ++e) { scratch[e] = scratch[e] > never ? logistic(scratch[e]) : Value{0}; }
  auto const [scores, weighted] = sum_row(scratch, factors, experts);
  Value const sum = scores + static_cast<Value>(smallest_score_sum);
  Value const mean = weighted / sum;
  for (index_t e = 0; e < experts; ++e) {
    // The share first: scale / sum alone would overflow fp32 when all sigmoids vanish.
    grad[e] += scale * (scratch[e] / sum) * (Value{1} - scratch[e]) * (factors[e] - mean);
  }
  return mean;
}

/// logsumexp(logits)^2; grad += scale 2 logsumexp p_j.
template <class Value>
FAIRLEAD_HD Value log_sum_term(Value const* logits, std::uint8_t const* allowed, index_t experts, Value scale,
                               Value* grad, Value* scratch) {
  Value const top = usable_logits(logits, allowed, experts, scratch);
  if (!is_finite_top(top)) { return Value{0}; }
  for (index_t e = 0; e < experts; ++e) { scratch[e] = exponential(scratch[e] - top); }
  // The weighted sum beside it is not used, and compilers drop it.
  Value const sum = sum_row(scratch, scratch, experts).plain;
  Value const log_sum = top + std::log(sum);
  Value const step = scale * Value{2} * log_sum / sum;
  for (index_t e = 0; e < experts; ++e) { grad[e] += step * scratch[e]; }
  return log_sum * log_sum;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
