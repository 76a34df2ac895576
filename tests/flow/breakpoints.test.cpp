// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/philox.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/flow/breakpoint_step.hpp>
#include <fairlead/flow/dual_bound.hpp>
#include <fairlead/workload/adversarial_scores.hpp>

#include "support/assignment_cases.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace fl = fairlead;
namespace {

double bound_of(fl::assignment_problem<float> const& problem, std::vector<double> const& prices) {
  fl::arena<> memory(fl::dual_bound_bytes(problem.tokens(), problem.fan_out));
  fl::workspace ws = memory.view();
  return fl::dual_bound(fl::serial{}, problem, prices, ws);
}

// Straight from the definition, with full sorts.
double sorted_bound(fl::assignment_problem<float> const& problem, std::vector<double> const& prices) {
  double bound = 0.0;
  for (fl::index_t t = 0; t < problem.tokens(); ++t) {
    if (!problem.token_mask.empty() && problem.token_mask[static_cast<std::size_t>(t)] == 0) { continue; }
    std::vector<double> keys;
    for (fl::index_t e = 0; e < problem.experts(); ++e) {
      double const key = fl::assignable(problem.scores(t, e)) - prices[static_cast<std::size_t>(e)];
      if (key > -std::numeric_limits<double>::infinity()) { keys.push_back(key); }
    }
    std::sort(keys.begin(), keys.end(), std::greater<>{});
    for (std::size_t j = 0; j < std::min(keys.size(), static_cast<std::size_t>(problem.fan_out)); ++j) { bound += keys[j]; }
  }
  for (std::size_t e = 0; e < prices.size(); ++e) {
    bound += static_cast<double>(problem.upper[e]) * std::max(prices[e], 0.0) +
             static_cast<double>(problem.lower[e]) * std::min(prices[e], 0.0);
  }
  return bound;
}

std::vector<double> jacobi(fl::assignment_problem<float> const& problem, double damping,
                           std::vector<double> const& prices) {
  fl::arena<> memory(fl::quantile_step_bytes(problem.tokens(), problem.experts(), problem.fan_out));
  fl::workspace ws = memory.view();
  std::vector<double> next(prices.size(), 1e9);
  fl::breakpoint_step(fl::serial{}, problem, damping, prices, next, ws);
  return next;
}

double gauss_seidel(fl::assignment_problem<float> const& problem, std::vector<double>& prices) {
  fl::arena<> memory(fl::quantile_step_bytes(problem.tokens(), problem.experts(), problem.fan_out));
  fl::workspace ws = memory.view();
  return fl::breakpoint_sweep(fl::serial{}, problem, prices, ws);
}

}  // namespace

TEST_CASE("The dual bound equals its definition and lies above the best value for any prices") {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    test::assignment_case small({{0, 0, 0}, {0, 0, 0}, {0, 0, 0}, {0, 0, 0}}, 1 + static_cast<fl::index_t>(seed % 2),
                                {0, 1, 0}, {4, 3, 4});
    std::vector<double> prices(3);
    for (std::uint64_t i = 0; i < 12; ++i) { small.scores.span()[i] = static_cast<float>(fl::philox::normal(seed, 1, i)); }
    for (std::uint64_t e = 0; e < 3; ++e) { prices[e] = 2.0 * fl::philox::normal(seed, 2, e); }
    auto const problem = small.problem();
    REQUIRE(bound_of(problem, prices) == Approx(sorted_bound(problem, prices)).epsilon(1e-12));
    REQUIRE(bound_of(problem, prices) >= test::best_value(problem) - 1e-9);
  }
}

TEST_CASE("A breakpoint moves one price to a minimum of the dual over its coordinate") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    fl::index_t const tokens = 9, experts = 4, fan_out = 1 + static_cast<fl::index_t>(seed % 3);
    fl::matrix<float> scores(tokens, experts);
    for (std::uint64_t i = 0; i < 36; ++i) { scores.span()[i] = std::round(4.0F * static_cast<float>(fl::philox::normal(seed, 1, i))) / 4.0F; }
    std::vector<fl::index_t> lower(4), upper(4);
    fl::even_capacity(tokens * fan_out, lower);
    upper = lower;
    if (seed % 2 == 1) {
      for (std::size_t e = 0; e < 4; ++e) { lower[e] -= 1; upper[e] += static_cast<fl::index_t>(e % 2); }
    }
    fl::assignment_problem<float> const problem{.scores = scores.view(), .fan_out = fan_out, .lower = lower, .upper = upper};
    std::vector<double> prices(4);
    for (std::uint64_t e = 0; e < 4; ++e) { prices[e] = fl::philox::normal(seed, 2, e); }
    auto const next = jacobi(problem, 1.0, prices);
    for (std::size_t e = 0; e < 4; ++e) {
      auto moved = prices;
      moved[e] = next[e];
      double const reached = bound_of(problem, moved);
      for (int i = -60; i <= 60; ++i) {  // no other price of this expert does better
        moved[e] = 0.125 * i;
        REQUIRE(reached <= bound_of(problem, moved) + 1e-9);
      }
      REQUIRE(jacobi(problem, 0.5, prices)[e] == Approx(0.5 * (prices[e] + next[e])).margin(1e-12));
    }
    // One after the other: the dual never rises, and it equals steps of one coordinate with the others held.
    auto swept = prices;
    gauss_seidel(problem, swept);
    auto expected = prices;
    for (std::size_t e = 0; e < 4; ++e) { expected[e] = jacobi(problem, 1.0, expected)[e]; }
    REQUIRE(swept == expected);
    REQUIRE(bound_of(problem, swept) <= bound_of(problem, prices) + 1e-9);
  }
}

TEST_CASE("Breakpoint steps keep prices finite on every adversarial pattern") {
  for (auto const pattern : fl::workload::all_adversarial) {
    auto const scores = fl::workload::adversarial_scores{50, 6, pattern, 2}.make();
    for (fl::index_t const fan_out : {0, 1, 3, 6}) {
      std::vector<fl::index_t> capacity(6);
      fl::even_capacity(50 * fan_out, capacity);
      fl::assignment_problem<float> const problem{.scores = scores.view(), .fan_out = fan_out, .lower = capacity, .upper = capacity};
      std::vector<double> prices(6, 0.0);
      for (int sweep = 0; sweep < 3; ++sweep) { prices = jacobi(problem, 0.5, prices); }
      double const moved = gauss_seidel(problem, prices);
      INFO(fl::workload::name(pattern) << ", fan-out " << fan_out);
      REQUIRE(std::isfinite(moved));
      for (double const price : prices) { REQUIRE(std::isfinite(price)); }
    }
  }
}

TEST_CASE("A sweep from optimal prices moves into the interior and stays optimal") {
  auto const g2 = test::g2();
  std::vector<double> prices{15, 4, 0};  // on the boundary of the optimal set
  gauss_seidel(g2.problem(), prices);
  REQUIRE(prices == std::vector<double>{16, 4.5, 0});
  REQUIRE(bound_of(g2.problem(), prices) == 89.0);
  REQUIRE(gauss_seidel(g2.problem(), prices) == 0.0);
}
