// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What assignment benches share: processor time, and quality computed apart from every solver.
#include <fairlead/core/assignment.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include <time.h>

namespace fl_bench {

/// @returns @unit{seconds} processor time of this thread; wall time where the system does not tell
inline double thread_seconds() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
#else
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
#endif
}

/// What an assignment is worth, and whether it is one.
struct assignment_quality {
  double value = 0.0;          ///< sum of the assigned scores
  double bound = 0.0;          ///< what the prices prove that no assignment exceeds
  double max_violation = 0.0;  ///< largest load over its upper capacity, minus 1; at least 0
  bool complete = true;        ///< every token has fan_out distinct experts, every load reaches its lower capacity
  /// @returns distance of value and bound, relative to the value
  [[nodiscard]] double gap() const { return std::max(0.0, bound - value) / std::max(std::fabs(value), 1e-300); }
};

/// @brief Judge an answer by the scores alone.
/// @param problem the problem, without masks
/// @param owner the answer. @shape{tokens x fan_out}
/// @param prices any prices; the bound holds for all of them. @shape{experts or 0: no bound}
/// @returns the quality
inline assignment_quality judge(fairlead::assignment_problem<float> const& problem,
                                fairlead::matrix_view<fairlead::expert_id const> owner,
                                std::span<double const> prices) {
  using fairlead::index_t;
  assignment_quality quality;
  auto const experts = static_cast<std::size_t>(problem.experts());
  std::vector<index_t> load(experts), seen(experts, -1);
  std::vector<double> worth(experts);
  for (index_t t = 0; t < problem.tokens(); ++t) {
    for (index_t j = 0; j < problem.fan_out; ++j) {
      index_t const e = fairlead::to_index(owner(t, j));
      if (e < 0 || e >= problem.experts() || seen[static_cast<std::size_t>(e)] == t) {
        quality.complete = false;
        continue;
      }
      seen[static_cast<std::size_t>(e)] = t;
      ++load[static_cast<std::size_t>(e)];
      quality.value += static_cast<double>(problem.scores(t, e));
    }
    if (prices.empty()) { continue; }
    for (std::size_t e = 0; e < experts; ++e) {
      worth[e] = static_cast<double>(problem.scores(t, static_cast<index_t>(e))) - prices[e];
    }
    auto const best = worth.begin() + static_cast<std::ptrdiff_t>(problem.fan_out);
    std::nth_element(worth.begin(), best - 1, worth.end(), std::greater<>{});
    for (auto one = worth.begin(); one != best; ++one) { quality.bound += *one; }
  }
  for (std::size_t e = 0; e < experts; ++e) {
    auto const upper = static_cast<double>(problem.upper[e]), lower = static_cast<double>(problem.lower[e]);
    if (!prices.empty()) { quality.bound += (prices[e] > 0.0 ? upper : lower) * prices[e]; }
    quality.complete = quality.complete && load[e] >= problem.lower[e];
    if (load[e] > problem.upper[e]) {
      double const over = static_cast<double>(load[e]) / std::max(upper, 1.0) - 1.0;
      quality.max_violation = std::max(quality.max_violation, over);
    }
  }
  if (prices.empty()) { quality.bound = std::numeric_limits<double>::infinity(); }
  return quality;
}

}  // namespace fl_bench
