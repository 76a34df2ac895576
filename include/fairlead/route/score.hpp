// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How a logit becomes a score, and how the scores of the chosen experts become weights.
#include <fairlead/core/numeric.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The score of an expert is its logit.
struct raw_score {
  /// Whether a score depends on the whole row.
  static constexpr bool over_row = false;
  /// @param logit the logit
  /// @returns the score
  [[nodiscard]] FAIRLEAD_HD static float value(float logit) noexcept { return logit; }
  /// @returns d score / d logit
  [[nodiscard]] FAIRLEAD_HD static float derivative(float) noexcept { return 1.0F; }
};
/// @brief The score of an expert is its share of the softmax over all experts that may be chosen.
struct softmax_score {
  /// Whether a score depends on the whole row.
  static constexpr bool over_row = true;
};
/// @brief The score of an expert is the logistic function of its logit.
struct sigmoid_score {
  /// Whether a score depends on the whole row.
  static constexpr bool over_row = false;
  /// @param logit the logit
  /// @returns the score
  [[nodiscard]] FAIRLEAD_HD static float value(float logit) noexcept { return numeric::sigmoid(logit); }
  /// @param logit the logit
  /// @returns d score / d logit
  [[nodiscard]] FAIRLEAD_HD static float derivative(float logit) noexcept {
    float const s = numeric::sigmoid(logit);
    return s * (1.0F - s);
  }
};
/// @brief The score of an expert is sqrt(log(1 + exp(logit))).
struct sqrt_softplus_score {
  /// Whether a score depends on the whole row.
  static constexpr bool over_row = false;
  /// @param logit the logit
  /// @returns the score
  [[nodiscard]] FAIRLEAD_HD static float value(float logit) noexcept { return numeric::sqrt_softplus(logit); }
  /// @param logit the logit
  /// @returns d score / d logit
  [[nodiscard]] FAIRLEAD_HD static float derivative(float logit) noexcept {
    return numeric::sqrt_softplus_derivative(logit);
  }
};

/// @brief A weight is the score (times the scale).
struct not_renormalised {};
/// @brief A weight is the score over the sum of the chosen scores plus 1e-20 (times the scale).
///
/// With one choice a token a score that does not depend on the row stays as it is: dividing it by itself would give the
/// weight 1 and no gradient. For the softmax score the full denominator cancels and is never computed.
struct sum_over_chosen {};
/// @brief A weight is the softmax over the chosen scores only (times the scale).
struct softmax_over_chosen {};

FAIRLEAD_NAMESPACE_END
