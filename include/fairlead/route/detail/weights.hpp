// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Weights of the chosen experts from their logits, and the gradient back; host and device.
#include <fairlead/core/ids.hpp>
#include <fairlead/core/order.hpp>
#include <fairlead/route/score.hpp>

#include <limits>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

inline constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
inline constexpr float largest_float = std::numeric_limits<float>::max();

/// A logit as the formulas take it: NaN counts as -inf, +inf as the largest finite number, so that weights are finite.
[[nodiscard]] FAIRLEAD_HD inline float clean_logit(float logit) noexcept {
  float const candidate = logit > minus_infinity ? logit : minus_infinity;
  return candidate < largest_float ? candidate : largest_float;
}

/// Largest logit of a row and the sum of exp(logit - largest).
struct softmax_row {
  float largest = 0.0F;
  float sum = 1.0F;
};

/// Sixteen partial sums and a fixed tree: the same bits with every vector width.
[[nodiscard]] FAIRLEAD_HD inline softmax_row softmax_of(float const* logits, index_t experts) noexcept {
  constexpr int lanes = 16;
  float best[lanes];
  for (int i = 0; i < lanes; ++i) { best[i] = minus_infinity; }
  index_t e = 0;
  for (; e + lanes <= experts; e += lanes) {
    for (int i = 0; i < lanes; ++i) { best[i] = logits[e + i] > best[i] ? logits[e + i] : best[i]; }
  }
  for (int i = 0; e + i < experts; ++i) { best[i] = logits[e + i] > best[i] ? logits[e + i] : best[i]; }
  softmax_row row;
  row.largest = best[0];
  for (int i = 1; i < lanes; ++i) { row.largest = best[i] > row.largest ? best[i] : row.largest; }
  if (!(row.largest > minus_infinity)) { return {0.0F, 1.0F}; }
  row.largest = row.largest < largest_float ? row.largest : largest_float;
  float sums[lanes] = {};
  for (e = 0; e + lanes <= experts; e += lanes) {
    for (int i = 0; i < lanes; ++i) { sums[i] += numeric::exp(clean_logit(logits[e + i]) - row.largest); }
  }
  for (int i = 0; e + i < experts; ++i) { sums[i] += numeric::exp(clean_logit(logits[e + i]) - row.largest); }
  for (int width = lanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) { sums[i] += sums[i + width]; }
  }
  row.sum = sums[0];
  return row;
}

/// Weights and gradients of `Lanes` tokens at a time; element (slot j, lane) of an array is [j * Lanes + lane]. One
/// lane is the form for device threads, sixteen the form for vector registers; both compute the same bits.
/// A slot whose logit is no candidate gets weight 0 and gradient 0.
template <class Score, class Renormalisation>
struct weighting {
  static constexpr bool renormalised = !std::is_same_v<Renormalisation, not_renormalised>;
  /// Whether the weight needs the softmax over the whole row.
  static constexpr bool needs_row = Score::over_row && !renormalised;
  /// Whether the weight is a softmax over the chosen logits.
  static constexpr bool over_chosen =
      (Score::over_row && renormalised) ||
      (std::is_same_v<Score, raw_score> && std::is_same_v<Renormalisation, softmax_over_chosen>);
  static_assert(over_chosen || !std::is_same_v<Renormalisation, softmax_over_chosen>,
                "softmax_over_chosen goes with raw_score: other scores are renormalised by sum_over_chosen");
  static_assert(!std::is_same_v<Score, raw_score> || over_chosen || !renormalised,
                "raw logits have no sign: renormalise them by softmax_over_chosen");
  static constexpr float tiny = 1e-20F;

  template <int Lanes>
  FAIRLEAD_HD static void weights(float const* chosen, index_t fan_out, float scale, softmax_row const* rows,
                                  float* out) noexcept {
    float total[Lanes] = {};
    if constexpr (over_chosen) {
      float largest[Lanes];
      for (int i = 0; i < Lanes; ++i) { largest[i] = clean_logit(chosen[i]); }
      for (index_t j = 1; j < fan_out; ++j) {
        for (int i = 0; i < Lanes; ++i) {
          float const logit = clean_logit(chosen[j * Lanes + i]);
          largest[i] = logit > largest[i] ? logit : largest[i];
        }
      }
      for (int i = 0; i < Lanes; ++i) { largest[i] = largest[i] > minus_infinity ? largest[i] : 0.0F; }
      for (index_t j = 0; j < fan_out; ++j) {
        for (int i = 0; i < Lanes; ++i) {
          out[j * Lanes + i] = numeric::exp(clean_logit(chosen[j * Lanes + i]) - largest[i]);
        }
        for (int i = 0; i < Lanes; ++i) { total[i] = numeric::sum(total[i], out[j * Lanes + i]); }
      }
      for (int i = 0; i < Lanes; ++i) { total[i] = total[i] > 0.0F ? total[i] : 1.0F; }
    } else if constexpr (needs_row) {
      for (index_t j = 0; j < fan_out; ++j) {
        for (int i = 0; i < Lanes; ++i) {
          out[j * Lanes + i] = numeric::exp(clean_logit(chosen[j * Lanes + i]) - rows[i].largest);
        }
      }
      for (int i = 0; i < Lanes; ++i) { total[i] = rows[i].sum; }
    } else {
      for (index_t j = 0; j < fan_out; ++j) {
        for (int i = 0; i < Lanes; ++i) {
          float const logit = clean_logit(chosen[j * Lanes + i]);
          float const value = Score::value(logit > minus_infinity ? logit : 0.0F);
          out[j * Lanes + i] = logit > minus_infinity ? value : 0.0F;
        }
        for (int i = 0; i < Lanes; ++i) { total[i] = numeric::sum(total[i], out[j * Lanes + i]); }
      }
      bool const divides = renormalised && fan_out > 1;
      for (int i = 0; i < Lanes; ++i) { total[i] = divides ? numeric::sum(total[i], tiny) : 1.0F; }
    }
    for (index_t j = 0; j < fan_out; ++j) {
      for (int i = 0; i < Lanes; ++i) {
        out[j * Lanes + i] = numeric::product(numeric::quotient(out[j * Lanes + i], total[i]), scale);
      }
    }
  }

  /// Gradient of one token with respect to its chosen logits. `weight` is scratch of fan_out floats.
  /// @returns for row-wide softmax the factor f such that every logit gets -p f besides; else 0
  FAIRLEAD_HD static float gradient(float const* chosen, float const* grad_weight, index_t fan_out, float scale,
                                    softmax_row row, float* weight, float* grad_chosen) noexcept {
    if constexpr (over_chosen || needs_row) {
      weights<1>(chosen, fan_out, scale, &row, weight);
      float dot = 0.0F;
      for (index_t j = 0; j < fan_out; ++j) { dot = numeric::fused(grad_weight[j], weight[j], dot); }
      if constexpr (needs_row) {
        for (index_t j = 0; j < fan_out; ++j) { grad_chosen[j] = numeric::product(weight[j], grad_weight[j]); }
        return dot;
      }
      // Sum of g w / scale, because the weights carry the scale already.
      float const mean = scale != 0.0F ? numeric::quotient(dot, scale) : 0.0F;
      for (index_t j = 0; j < fan_out; ++j) { grad_chosen[j] = weight[j] * numeric::sum(grad_weight[j], -mean); }
    } else {
      bool const divides = renormalised && fan_out > 1;
      float total = 0.0F;
      for (index_t j = 0; j < fan_out; ++j) {
        weight[j] = is_candidate(chosen[j]) ? Score::value(clean_logit(chosen[j])) : 0.0F;
        total = numeric::sum(total, weight[j]);
      }
      total = divides ? numeric::sum(total, tiny) : 1.0F;
      float mean = 0.0F;
      if (divides) {
        for (index_t j = 0; j < fan_out; ++j) {
          mean = numeric::fused(grad_weight[j], numeric::quotient(weight[j], total), mean);
        }
      }
      for (index_t j = 0; j < fan_out; ++j) {
        // The derivative goes first through the quotient: score' / total stays in range when both are tiny.
        float const slope =
            is_candidate(chosen[j]) ? numeric::quotient(Score::derivative(clean_logit(chosen[j])), total) : 0.0F;
        grad_chosen[j] = slope * scale * numeric::sum(grad_weight[j], -mean);
      }
    }
    return 0.0F;
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
