// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Scores that break careless selectors: ties, saturation, infinities, NaN, quantisation, one-sided loads.
#include <fairlead/core/bfloat16.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>

FAIRLEAD_NAMESPACE_BEGIN
namespace workload {

/// @brief The catalogue of adversarial scores; unless said otherwise on top of standard normal numbers.
enum class adversarial {
  all_equal,              ///< every score 0.25
  duplicate_rows,         ///< every row the same (one token id everywhere)
  duplicate_columns,      ///< pairs of experts with equal scores
  bfloat16_quantised,     ///< rounded to 8 significant bits: many ties
  three_levels,           ///< only -1, 0 and 1
  sixteen_levels,         ///< sixteen values
  all_negative,           ///< shifted by -1000
  saturated,              ///< +40 or -40: an fp32 sigmoid is 0 or 1
  underflow,              ///< shifted by -200: every sigmoid and exponential is 0
  one_outlier,            ///< a single score of +1000
  one_dominant,           ///< one expert higher by 5
  two_dominant,           ///< two experts higher by 5
  one_hot,                ///< one expert at 0, all others at -1e30
  masked_experts,         ///< every third expert -inf
  too_few_finite,         ///< one finite score a row, all others -inf
  all_masked,             ///< -inf everywhere
  positive_infinity,      ///< a score of +inf in every other row
  nan_entries,            ///< a NaN in every row, of either sign
  nan_rows,               ///< every other row NaN
  all_nan,                ///< NaN everywhere
  signed_zeros,           ///< +0 and -0: equal keys with unequal bits
  denormals,              ///< multiples of the smallest positive number
  huge                    ///< near +-3e38: sums overflow
};

/// Every pattern of the catalogue, in order.
inline constexpr std::array<adversarial, 23> all_adversarial = {
    adversarial::all_equal,      adversarial::duplicate_rows, adversarial::duplicate_columns,
    adversarial::bfloat16_quantised, adversarial::three_levels, adversarial::sixteen_levels,
    adversarial::all_negative,   adversarial::saturated,      adversarial::underflow,
    adversarial::one_outlier,    adversarial::one_dominant,   adversarial::two_dominant,
    adversarial::one_hot,        adversarial::masked_experts, adversarial::too_few_finite,
    adversarial::all_masked,     adversarial::positive_infinity, adversarial::nan_entries,
    adversarial::nan_rows,       adversarial::all_nan,        adversarial::signed_zeros,
    adversarial::denormals,      adversarial::huge};

/// @brief The name of a pattern, for messages.
/// @param pattern the pattern
/// @returns its enumerator as text
[[nodiscard]] constexpr std::string_view name(adversarial pattern) noexcept {
  constexpr std::array<std::string_view, 23> names = {
      "all_equal",  "duplicate_rows", "duplicate_columns", "bfloat16_quantised", "three_levels",   "sixteen_levels",
      "all_negative", "saturated",    "underflow",         "one_outlier",        "one_dominant",   "two_dominant",
      "one_hot",    "masked_experts", "too_few_finite",    "all_masked",         "positive_infinity", "nan_entries",
      "nan_rows",   "all_nan",        "signed_zeros",      "denormals",          "huge"};
  return names[static_cast<std::size_t>(pattern)];
}

/// @brief Whether a pattern holds finite scores only, so that losses and gradients are defined.
/// @param pattern the pattern
/// @returns true if neither infinities nor NaN occur
[[nodiscard]] constexpr bool all_finite(adversarial pattern) noexcept {
  switch (pattern) {
    case adversarial::masked_experts:
    case adversarial::too_few_finite:
    case adversarial::all_masked:
    case adversarial::positive_infinity:
    case adversarial::nan_entries:
    case adversarial::nan_rows:
    case adversarial::all_nan: return false;
    default: return true;
  }
}

/// @brief Describe scores of one adversarial pattern.
struct adversarial_scores {
  index_t tokens = 0;                            ///< number of rows, >= 0
  index_t experts = 0;                           ///< number of columns, >= 0
  adversarial pattern = adversarial::all_equal;  ///< what is wrong with them
  std::uint64_t seed = 0;                        ///< names the numbers

  /// @brief Draw the scores.
  /// @returns the matrix @shape{tokens x experts}
  /// @throws contract_violation (level 1) on a negative size; std::bad_alloc
  /// @complexity O(tokens x experts), allocates the result
  /// @determinism a function of the fields for a given libm
  [[nodiscard]] matrix<float> make() const {
    FAIRLEAD_EXPECTS(tokens >= 0 && experts >= 0, "sizes must not be negative", tokens, experts);
    matrix<float> result(tokens, experts);
    for (index_t token = 0; token < tokens; ++token) {
      for (index_t expert = 0; expert < experts; ++expert) { result(token, expert) = score(token, expert); }
    }
    return result;
  }

 private:
  [[nodiscard]] float normal(index_t token, index_t expert) const noexcept {
    auto const stream = (std::uint64_t{0x616476} << 40U) + static_cast<std::uint64_t>(token);
    return static_cast<float>(philox::normal(seed, stream, static_cast<std::uint64_t>(expert)));
  }
  /// An expert that the seed names; different for different `which`, unless there are too few experts.
  [[nodiscard]] index_t chosen(index_t which) const noexcept {
    std::uint32_t const word = philox::draw(seed, 0x63686F, 0)[0];
    return (philox::below(word, static_cast<std::uint32_t>(experts)) + which) % experts;
  }
  [[nodiscard]] float score(index_t token, index_t expert) const noexcept {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    float const base = normal(token, expert);
    switch (pattern) {
      case adversarial::all_equal: return 0.25F;
      case adversarial::duplicate_rows: return normal(0, expert);
      case adversarial::duplicate_columns: return normal(token, expert / 2);
      case adversarial::bfloat16_quantised: return static_cast<float>(bfloat16(base));
      case adversarial::three_levels: return base < -0.43F ? -1.0F : (base > 0.43F ? 1.0F : 0.0F);
      case adversarial::sixteen_levels: return std::floor(std::fmin(std::fmax(base * 4.0F, -8.0F), 7.0F)) * 0.25F;
      case adversarial::all_negative: return base - 1000.0F;
      case adversarial::saturated: return base < 0.0F ? -40.0F : 40.0F;
      case adversarial::underflow: return base - 200.0F;
      case adversarial::one_outlier: return token == tokens / 2 && expert == chosen(0) ? 1000.0F : base;
      case adversarial::one_dominant: return expert == chosen(0) ? base + 5.0F : base;
      case adversarial::two_dominant: return expert == chosen(0) || expert == chosen(1) ? base + 5.0F : base;
      case adversarial::one_hot: return expert == chosen(token) ? 0.0F : -1e30F;
      case adversarial::masked_experts: return expert % 3 == 2 ? -infinity : base;
      case adversarial::too_few_finite: return expert == chosen(token) ? base : -infinity;
      case adversarial::all_masked: return -infinity;
      case adversarial::positive_infinity: return token % 2 == 0 && expert == chosen(token) ? infinity : base;
      case adversarial::nan_entries:
        return expert == chosen(token) ? (token % 2 == 0 ? nan : -nan) : base;
      case adversarial::nan_rows: return token % 2 == 0 ? nan : base;
      case adversarial::all_nan: return nan;
      case adversarial::signed_zeros: return base < 0.0F ? -0.0F : 0.0F;
      case adversarial::denormals: return std::trunc(base * 8.0F) * std::numeric_limits<float>::denorm_min();
      case adversarial::huge: return base < 0.0F ? -3e38F : 3e38F;
    }
    return base;
  }
};

}  // namespace workload
FAIRLEAD_NAMESPACE_END
