// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What an assignment solver is asked, and what it answers: tokens to experts under capacities.
#include <fairlead/core/bfloat16.hpp>
#include <fairlead/core/ids.hpp>
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/core/report.hpp>

#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The worth of a pair as every solver reads it: the one place of the rule about NaN and infinities.
/// @tparam Score `float` or `bfloat16`
/// @param score any score
/// @returns the score; -inf (a forbidden pair) for -inf and NaN; the largest finite number of its type for +inf
/// @complexity O(1)
template <class Score>
[[nodiscard]] FAIRLEAD_HD constexpr double assignable(Score score) noexcept {
  constexpr float largest = std::is_same_v<Score, bfloat16> ? 0x1.FEp+127F : std::numeric_limits<float>::max();
  auto const value = static_cast<float>(score);
  float const finite = value > largest ? largest : value;
  return finite >= -std::numeric_limits<float>::infinity() ? static_cast<double>(finite)
                                                           : -std::numeric_limits<double>::infinity();
}

/// @brief Maximise the sum of scores where each token takes `fan_out` distinct experts and each expert takes between
/// `lower` and `upper` copies.
///
/// A score of -inf or NaN forbids its pair; +inf counts as the largest finite number of its type (`assignable`).
/// Masked tokens take no expert and count nowhere.
/// @tparam Score `float` or `bfloat16`
template <class Score>
struct assignment_problem {
  matrix_view<Score const> scores;              ///< worth of (token, expert). @shape{tokens x experts}
  index_t fan_out = 1;                          ///< experts a token, 0 ... experts
  std::span<index_t const> lower{};             ///< fewest copies an expert takes, >= 0. @shape{experts}
  std::span<index_t const> upper{};             ///< most copies an expert takes, >= lower. @shape{experts}
  std::span<std::uint8_t const> token_mask{};   ///< zero = padding; empty = all valid. @shape{tokens or 0}
  /// Prices to start from, of an earlier solve for instance; empty = none. Any finite values are allowed: they change
  /// the time, not the value of the result. @shape{experts or 0}
  std::span<double const> warm_prices{};

  /// @returns number of tokens, masked ones included
  [[nodiscard]] constexpr index_t tokens() const noexcept { return scores.rows(); }
  /// @returns number of experts
  [[nodiscard]] constexpr index_t experts() const noexcept { return scores.cols(); }
  /// @returns whether each expert must take an exact number of copies
  [[nodiscard]] constexpr bool equality() const noexcept {
    for (std::size_t e = 0; e < lower.size(); ++e) {
      if (lower[e] != upper[e]) { return false; }
    }
    return true;
  }
  /// @returns number of tokens that are not masked
  [[nodiscard]] constexpr index_t valid_tokens() const noexcept {
    if (token_mask.empty()) { return tokens(); }
    index_t count = 0;
    for (std::uint8_t const valid : token_mask) { count += valid != 0 ? 1 : 0; }
    return count;
  }
};

/// @brief Where a solver writes.
struct assignment_result {
  /// Experts of a token by descending score - price, then ascending id; none for masked tokens and where no assignment
  /// exists. @shape{tokens x fan_out}
  matrix_view<expert_id> owner;
  /// Dual prices: every token's experts are its best by score - price (up to ties). Empty = not wanted.
  /// @shape{experts or 0}
  std::span<double> prices{};
};

/// @brief What a solver says: `value` is the sum of the assigned scores, `bound` an upper bound on every assignment's
/// value that the returned prices prove (weak duality); +inf if the solver has no prices.
struct assignment_report : report {
  index_t augmentations = 0;  ///< copies moved one by one, in the solver's own sense
  index_t scans = 0;          ///< passes over all scores
  /// @returns how far the value may lie below the optimum, relative to the value; 0 = proved optimal
  [[nodiscard]] constexpr double gap() const noexcept {
    double const scale = value < 0.0 ? -value : value;
    double const distance = bound - value;
    return distance <= 0.0 ? 0.0 : distance / (scale > 1e-300 ? scale : 1.0);
  }
};

/// @brief Check the shapes of a problem and of the place for its result.
/// @param problem the problem
/// @param result where the answer goes
/// @throws contract_violation (level 1) on a shape mismatch, fan_out > experts, or capacities that are negative or cross
/// @complexity O(experts), no allocation
template <class Score>
constexpr void check_assignment(assignment_problem<Score> const& problem, assignment_result const& result) {
  index_t const experts = problem.experts();
  FAIRLEAD_EXPECTS(problem.fan_out >= 0 && problem.fan_out <= experts, "fan_out must be 0 ... experts", problem.fan_out,
                   experts);
  FAIRLEAD_EXPECTS(static_cast<index_t>(problem.lower.size()) == experts &&
                       static_cast<index_t>(problem.upper.size()) == experts,
                   "one lower and one upper capacity an expert", problem.lower.size(), problem.upper.size(), experts);
  FAIRLEAD_EXPECTS(problem.token_mask.empty() || static_cast<index_t>(problem.token_mask.size()) == problem.tokens(),
                   "the mask must have one byte a token or be empty", problem.token_mask.size(), problem.tokens());
  FAIRLEAD_EXPECTS(problem.warm_prices.empty() || static_cast<index_t>(problem.warm_prices.size()) == experts,
                   "warm prices must be one an expert or none", problem.warm_prices.size(), experts);
  FAIRLEAD_EXPECTS(result.owner.rows() == problem.tokens() && result.owner.cols() == problem.fan_out,
                   "owner must be tokens x fan_out", result.owner.rows(), result.owner.cols());
  FAIRLEAD_EXPECTS(result.prices.empty() || static_cast<index_t>(result.prices.size()) == experts,
                   "prices must be one an expert or none", result.prices.size(), experts);
  for (std::size_t e = 0; e < problem.lower.size(); ++e) {
    FAIRLEAD_EXPECTS(problem.lower[e] >= 0 && problem.lower[e] <= problem.upper[e],
                     "capacities must be 0 <= lower <= upper", e, problem.lower[e], problem.upper[e]);
  }
}

/// @brief Split `copies` as evenly as integers allow: the first experts take one more.
/// @param copies tokens x fan_out, >= 0
/// @param[out] capacity copies of each expert; their sum is `copies`. @shape{experts, >= 1 unless copies is 0}
/// @throws contract_violation (level 1) on negative copies, or copies without experts
/// @complexity O(experts), no allocation
constexpr void even_capacity(index_t copies, std::span<index_t> capacity) {
  auto const experts = static_cast<index_t>(capacity.size());
  FAIRLEAD_EXPECTS(copies >= 0 && (experts > 0 || copies == 0), "copies need experts", copies, experts);
  for (index_t e = 0; e < experts; ++e) {
    capacity[static_cast<std::size_t>(e)] = copies / experts + (e < copies % experts ? 1 : 0);
  }
}

FAIRLEAD_NAMESPACE_END
