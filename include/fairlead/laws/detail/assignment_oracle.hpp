// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What the laws of assignment solvers compare with: all load vectors tried, a textbook maximum flow, and the dual
/// function by full sorts. Slow and plain on purpose; shares no code with any solver.
#include <fairlead/core/assignment.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws::detail {

inline constexpr double no_value = -std::numeric_limits<double>::infinity();

template <class Score>
[[nodiscard]] double pair_value(Score score) {
  auto const value = static_cast<double>(static_cast<float>(score));
  if (std::isnan(value)) { return no_value; }
  double const largest = sizeof(Score) == 2 ? std::ldexp(255.0, 120) : static_cast<double>(std::numeric_limits<float>::max());
  return std::min(value, largest);
}

template <class Score>
[[nodiscard]] bool is_valid(assignment_problem<Score> const& problem, index_t token) {
  return problem.token_mask.empty() || problem.token_mask[static_cast<std::size_t>(token)] != 0;
}

/// @returns the best value by a dynamic programme over load vectors; -inf if there is no assignment
/// @pre the product of (upper + 1), upper cut to the number of tokens, is small
template <class Score>
[[nodiscard]] double best_assignment(assignment_problem<Score> const& problem) {
  auto const experts = static_cast<std::size_t>(problem.experts());
  std::vector<std::size_t> weight(experts + 1, 1);
  std::vector<std::size_t> digits(experts);
  for (std::size_t e = 0; e < experts; ++e) {
    digits[e] = static_cast<std::size_t>(std::min(problem.upper[e], problem.tokens())) + 1;
    weight[e + 1] = weight[e] * digits[e];
  }
  std::vector<double> best(weight[experts], no_value);
  best[0] = 0.0;
  for (index_t t = 0; t < problem.tokens(); ++t) {
    if (!is_valid(problem, t)) { continue; }
    std::vector<double> next(best.size(), no_value);
    // Choose experts in ascending order; `load` already holds those chosen.
    auto const choose = [&](auto const& self, std::size_t first, std::size_t load, index_t left, double value) -> void {
      if (left == 0) {
        next[load] = std::max(next[load], value);
        return;
      }
      for (std::size_t e = first; e < experts; ++e) {
        double const score = pair_value(problem.scores(t, static_cast<index_t>(e)));
        if (score > no_value && load / weight[e] % digits[e] + 1 < digits[e]) {
          self(self, e + 1, load + weight[e], left - 1, value + score);
        }
      }
    };
    for (std::size_t load = 0; load < best.size(); ++load) {
      if (best[load] > no_value) { choose(choose, 0, load, problem.fan_out, best[load]); }
    }
    best.swap(next);
  }
  double answer = no_value;
  for (std::size_t load = 0; load < best.size(); ++load) {
    bool enough = true;
    for (std::size_t e = 0; e < experts; ++e) {
      enough = enough && static_cast<index_t>(load / weight[e] % digits[e]) >= problem.lower[e];
    }
    if (enough) { answer = std::max(answer, best[load]); }
  }
  return answer;
}

/// @returns whether an assignment exists, by augmenting paths one copy at a time
template <class Score>
[[nodiscard]] bool assignment_exists(assignment_problem<Score> const& problem) {
  auto const experts = static_cast<std::size_t>(problem.experts());
  auto const tokens = static_cast<std::size_t>(problem.tokens());
  std::vector<std::vector<char>> used(tokens, std::vector<char>(experts, 0));
  std::vector<index_t> load(experts, 0);
  std::vector<index_t> taken(tokens, 0);
  std::vector<char> seen;
  std::span<index_t const> limit;
  auto const grow = [&](auto const& self, std::size_t t) -> bool {
    for (std::size_t e = 0; e < experts; ++e) {
      if (seen[e] != 0 || used[t][e] != 0 ||
          !(pair_value(problem.scores(static_cast<index_t>(t), static_cast<index_t>(e))) > no_value)) {
        continue;
      }
      seen[e] = 1;
      if (load[e] < limit[e]) {
        used[t][e] = 1;
        ++load[e];
        return true;
      }
      for (std::size_t other = 0; other < tokens; ++other) {
        if (used[other][e] != 0 && self(self, other)) {
          used[other][e] = 0;
          used[t][e] = 1;
          return true;
        }
      }
    }
    return false;
  };
  // Lower capacities first: augmenting never takes a copy away from an expert that has it.
  for (bool const whole : {false, true}) {
    limit = whole ? problem.upper : problem.lower;
    for (bool grew = true; grew;) {
      grew = false;
      for (std::size_t t = 0; t < tokens; ++t) {
        if (!is_valid(problem, static_cast<index_t>(t)) || taken[t] == problem.fan_out) { continue; }
        seen.assign(experts, 0);
        if (grow(grow, t)) {
          ++taken[t];
          grew = true;
        }
      }
    }
    for (std::size_t e = 0; e < experts; ++e) {
      if (load[e] < problem.lower[e]) { return false; }
    }
  }
  for (std::size_t t = 0; t < tokens; ++t) {
    if (is_valid(problem, static_cast<index_t>(t)) && taken[t] < problem.fan_out) { return false; }
  }
  return true;
}

/// @returns the dual function at the prices; capacities beyond the number of tokens count as that number
template <class Score>
[[nodiscard]] double dual_value(assignment_problem<Score> const& problem, std::span<double const> prices) {
  double sum = 0.0;
  std::vector<double> keys;
  for (index_t t = 0; t < problem.tokens(); ++t) {
    if (!is_valid(problem, t)) { continue; }
    keys.clear();
    for (index_t e = 0; e < problem.experts(); ++e) {
      keys.push_back(pair_value(problem.scores(t, e)) - prices[static_cast<std::size_t>(e)]);
    }
    std::sort(keys.begin(), keys.end(), std::greater<>{});
    for (std::size_t j = 0; j < static_cast<std::size_t>(problem.fan_out); ++j) { sum += keys[j]; }
  }
  for (std::size_t e = 0; e < prices.size(); ++e) {
    sum += static_cast<double>(std::min(problem.upper[e], problem.valid_tokens())) * std::max(prices[e], 0.0);
    sum += static_cast<double>(problem.lower[e]) * std::min(prices[e], 0.0);
  }
  return sum;
}

}  // namespace laws::detail
FAIRLEAD_NAMESPACE_END
