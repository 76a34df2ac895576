// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// An assignment solver for small problems in the plainest words: fill the capacities somehow, then move copies around
// cycles of experts while that gains anything. Exact for equal lower and upper capacities; slow.
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/core/order.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace small {

namespace fl = fairlead;
using fl::index_t;

struct exact_solver {
  [[nodiscard]] std::size_t workspace_bytes(index_t, index_t, index_t) const { return 0; }

  template <fl::execution_backend Backend, class Score>
  fl::assignment_report solve(Backend const&, fl::assignment_problem<Score> const& problem,
                              fl::assignment_result const& result, fl::workspace&) const {
    constexpr double none = -std::numeric_limits<double>::infinity();
    index_t const tokens = problem.tokens(), experts = problem.experts(), k = problem.fan_out;
    auto const at = [](index_t i) { return static_cast<std::size_t>(i); };
    auto const valid = [&](index_t t) { return problem.token_mask.empty() || problem.token_mask[at(t)] != 0; };
    fl::assignment_report report;
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t j = 0; j < k; ++j) { result.owner(t, j) = fl::expert_id::none; }
    }
    index_t const places = std::accumulate(problem.upper.begin(), problem.upper.end(), index_t{0});
    if (!problem.equality() || places != problem.valid_tokens() * k) {
      report.status = problem.equality() ? fl::status::infeasible : fl::status::unsupported;
      return report;
    }
    // Worth of each pair; a forbidden one costs more than all others together.
    double range = 1.0;
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t e = 0; e < experts; ++e) {
        auto const s = static_cast<float>(problem.scores(t, e));
        if (fl::is_candidate(s)) { range = std::max(range, std::abs(static_cast<double>(std::min(s, std::numeric_limits<float>::max())))); }
      }
    }
    double const forbidden = -4.0 * range * static_cast<double>(tokens * k + 1);
    auto const worth = [&](index_t t, index_t e) {
      auto const s = static_cast<float>(problem.scores(t, e));
      return fl::is_candidate(s) ? static_cast<double>(std::min(s, std::numeric_limits<float>::max())) : forbidden;
    };
    std::vector<char> holds(at(tokens * experts), 0);
    std::vector<index_t> left(problem.upper.begin(), problem.upper.end()), order(at(experts));
    for (index_t t = 0; t < tokens; ++t) {  // the k experts with most places left: always works out
      if (!valid(t)) { continue; }
      std::iota(order.begin(), order.end(), index_t{0});
      std::sort(order.begin(), order.end(), [&](index_t a, index_t b) { return left[at(a)] != left[at(b)] ? left[at(a)] > left[at(b)] : a < b; });
      for (index_t j = 0; j < k; ++j) {
        --left[at(order[at(j)])];
        holds[at(t * experts + order[at(j)])] = 1;
      }
    }
    std::vector<double> gain, price(at(experts));
    std::vector<index_t> mover, from(at(experts));
    for (index_t turn = 0;; ++turn) {
      gain.assign(at(experts * experts), none);
      mover.assign(at(experts * experts), -1);
      for (index_t t = 0; t < tokens; ++t) {
        for (index_t a = 0; a < experts; ++a) {
          for (index_t b = 0; holds[at(t * experts + a)] && b < experts; ++b) {
            double const moved = worth(t, b) - worth(t, a);
            if (holds[at(t * experts + b)] || problem.upper[at(b)] == 0 || moved <= gain[at(a * experts + b)]) { continue; }
            gain[at(a * experts + b)] = moved;
            mover[at(a * experts + b)] = t;
          }
        }
      }
      std::fill(price.begin(), price.end(), 0.0);
      std::fill(from.begin(), from.end(), index_t{-1});
      index_t changed = -1;
      for (index_t round = 0; round <= experts; ++round) {
        changed = -1;
        for (index_t a = 0; a < experts; ++a) {
          for (index_t b = 0; b < experts; ++b) {
            double const g = gain[at(a * experts + b)];
            if (g == none || !(price[at(a)] + g > price[at(b)] + 1e-9 * range)) { continue; }
            price[at(b)] = price[at(a)] + g;
            from[at(b)] = a;
            changed = b;
          }
        }
        if (changed < 0) { break; }
      }
      if (changed < 0 || turn > 100 * tokens * experts) { break; }
      for (index_t i = 0; i < experts; ++i) { changed = from[at(changed)]; }  // now on the cycle
      index_t const start = changed;
      do {
        index_t const a = from[at(changed)], t = mover[at(a * experts + changed)];
        holds[at(t * experts + a)] = 0;
        holds[at(t * experts + changed)] = 1;
        changed = a;
      } while (changed != start);
      ++report.augmentations;
    }
    for (index_t t = 0; t < tokens; ++t) {
      std::vector<index_t> mine;
      for (index_t e = 0; e < experts; ++e) {
        if (!holds[at(t * experts + e)]) { continue; }
        if (worth(t, e) == forbidden) { report.status = fl::status::infeasible; }
        mine.push_back(e);
        report.value += worth(t, e);
      }
      std::sort(mine.begin(), mine.end(), [&](index_t a, index_t b) {
        double const left_key = worth(t, a) - price[at(a)], right_key = worth(t, b) - price[at(b)];
        return left_key != right_key ? left_key > right_key : a < b;
      });
      for (std::size_t j = 0; j < mine.size(); ++j) {
        result.owner(t, static_cast<index_t>(j)) = static_cast<fl::expert_id>(mine[j]);
      }
    }
    if (report.status == fl::status::infeasible) {
      for (index_t t = 0; t < tokens; ++t) {
        for (index_t j = 0; j < k; ++j) { result.owner(t, j) = fl::expert_id::none; }
      }
      return report;
    }
    report.bound = report.value;
    if (!result.prices.empty()) { std::copy(price.begin(), price.end(), result.prices.begin()); }
    return report;
  }
};

}  // namespace small

FAIRLEAD_NAMESPACE_BEGIN
template <>
inline constexpr bool exact_solver<small::exact_solver> = true;
template <>
inline constexpr bool solves_fan_out<small::exact_solver> = true;
template <>
inline constexpr bool solves_forbidden<small::exact_solver> = true;
template <>
inline constexpr bool has_prices<small::exact_solver> = true;
FAIRLEAD_NAMESPACE_END
