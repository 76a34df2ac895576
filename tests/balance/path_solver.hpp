// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// A small exact assignment solver for tests: shortest paths on the expert graph, every arc recomputed from all tokens.
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/core/order.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

namespace fairlead_test {

struct path_solver {
  [[nodiscard]] std::size_t workspace_bytes(fairlead::index_t, fairlead::index_t, fairlead::index_t) const { return 0; }

  template <fairlead::host_backend Backend>
  fairlead::assignment_report solve(Backend const&, fairlead::assignment_problem<float> const& problem,
                                    fairlead::assignment_result const& result, fairlead::workspace&) const {
    using fairlead::index_t;
    fairlead::check_assignment(problem, result);
    constexpr double infinity = std::numeric_limits<double>::infinity();
    auto const tokens = static_cast<std::size_t>(problem.tokens());
    auto const experts = static_cast<std::size_t>(problem.experts());
    auto const k = static_cast<std::size_t>(problem.fan_out);
    auto const score = [&](std::size_t t, std::size_t e) {
      return fairlead::assignable(problem.scores(static_cast<index_t>(t), static_cast<index_t>(e)));
    };
    auto const valid = [&](std::size_t t) { return problem.token_mask.empty() || problem.token_mask[t] != 0; };
    std::vector<double> price(experts, 0.0);
    for (std::size_t e = 0; e < problem.warm_prices.size(); ++e) { price[e] = problem.warm_prices[e]; }
    std::vector<std::vector<char>> has(tokens, std::vector<char>(experts, 0));
    std::vector<index_t> load(experts, 0);
    fairlead::assignment_report report;
    auto const fails = [&] {
      for (index_t t = 0; t < problem.tokens(); ++t) {
        for (index_t j = 0; j < problem.fan_out; ++j) { result.owner(t, j) = fairlead::expert_id::none; }
      }
      report.status = fairlead::status::infeasible;
      return report;
    };
    for (std::size_t t = 0; t < tokens; ++t) {
      if (!valid(t)) { continue; }
      std::vector<std::size_t> order(experts);
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return score(t, a) - price[a] > score(t, b) - price[b];
      });
      for (std::size_t j = 0; j < k; ++j) {
        if (!(score(t, order[j]) > -infinity)) { return fails(); }
        has[t][order[j]] = 1;
        ++load[order[j]];
      }
    }
    for (;; ++report.augmentations) {
      std::vector<double> cost(experts * experts, infinity);
      std::vector<std::size_t> mover(experts * experts, 0);
      for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t e = 0; e < experts; ++e) {
          for (std::size_t f = 0; has[t][e] != 0 && f < experts; ++f) {
            if (has[t][f] != 0 || !(score(t, f) > -infinity)) { continue; }
            double const loss = std::max(0.0, score(t, e) - price[e] - (score(t, f) - price[f]));
            if (loss < cost[e * experts + f]) {
              cost[e * experts + f] = loss;
              mover[e * experts + f] = t;
            }
          }
        }
      }
      std::vector<double> distance(experts, infinity);
      std::vector<std::size_t> from(experts, experts);
      std::vector<char> settled(experts, 0);
      bool overfull = false;
      for (std::size_t e = 0; e < experts; ++e) {
        if (load[e] > problem.upper[e]) {
          distance[e] = 0.0;
          overfull = true;
        }
      }
      if (!overfull) { break; }
      std::size_t end = experts;
      while (end == experts) {
        std::size_t next = experts;
        for (std::size_t e = 0; e < experts; ++e) {
          if (settled[e] == 0 && distance[e] < infinity && (next == experts || distance[e] < distance[next])) { next = e; }
        }
        if (next == experts) { return fails(); }
        settled[next] = 1;
        if (load[next] < problem.lower[next]) { end = next; }
        for (std::size_t f = 0; f < experts; ++f) {
          double const through = distance[next] + cost[next * experts + f];
          if (settled[f] == 0 && through < distance[f]) {
            distance[f] = through;
            from[f] = next;
          }
        }
      }
      for (std::size_t e = 0; e < experts; ++e) {
        if (settled[e] != 0) { price[e] += distance[end] - distance[e]; }
      }
      for (std::size_t f = end; from[f] != experts; f = from[f]) {
        std::size_t const t = mover[from[f] * experts + f];
        has[t][from[f]] = 0;
        has[t][f] = 1;
        --load[from[f]];
        ++load[f];
      }
    }
    for (std::size_t e = 0; e < experts; ++e) {
      if (load[e] < problem.lower[e]) { return fails(); }
    }
    for (std::size_t t = 0; t < tokens; ++t) {
      std::size_t j = 0;
      for (std::size_t e = 0; e < experts; ++e) {
        if (has[t][e] != 0) {
          result.owner(static_cast<index_t>(t), static_cast<index_t>(j++)) = static_cast<fairlead::expert_id>(e);
          report.value += score(t, e);
        }
      }
      for (; j < k; ++j) { result.owner(static_cast<index_t>(t), static_cast<index_t>(j)) = fairlead::expert_id::none; }
    }
    for (std::size_t e = 0; e < result.prices.size(); ++e) { result.prices[e] = price[e]; }
    report.bound = report.value;
    return report;
  }
};

}  // namespace fairlead_test

FAIRLEAD_NAMESPACE_BEGIN
template <>
inline constexpr bool exact_solver<fairlead_test::path_solver> = true;
template <>
inline constexpr bool solves_fan_out<fairlead_test::path_solver> = true;
template <>
inline constexpr bool solves_forbidden<fairlead_test::path_solver> = true;
template <>
inline constexpr bool has_prices<fairlead_test::path_solver> = true;
FAIRLEAD_NAMESPACE_END
