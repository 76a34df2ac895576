// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The exact solvers by themselves: every course they can take (all pairs, passes, samples, pruned), certificates on
// problems too large for exhaustive search, worked examples, prices in the middle of their range.
#include <fairlead/assign/balanced_flow.hpp>
#include <fairlead/assign/pruned_flow.hpp>
#include <fairlead/exec/threads.hpp>
#include <fairlead/laws/assignment_solver.hpp>
#include <fairlead/workload/assignment_scores.hpp>

#include "support/assignment_cases.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

namespace fl = fairlead;
namespace wl = fairlead::workload;
using fl::index_t;

namespace {

// Passes from the first score on, with and without samples that are solved over all pairs.
constexpr fl::balanced_flow in_passes{.dense_scores = 0};
constexpr fl::balanced_flow from_small_samples{.dense_scores = 256, .sample_scores = 0};
constexpr fl::balanced_flow at_the_border{.centre_sweeps = 0};

std::vector<index_t> even(index_t copies, index_t experts) {
  std::vector<index_t> capacity(static_cast<std::size_t>(experts));
  fl::even_capacity(copies, capacity);
  return capacity;
}

// The dual function at the prices, by sorting: scores on a grid, so that equal sums are equal numbers.
double dual_value(fl::assignment_problem<float> const& problem, std::vector<double> const& prices) {
  double sum = 0.0;
  std::vector<double> worth(prices.size());
  for (index_t t = 0; t < problem.tokens(); ++t) {
    for (std::size_t e = 0; e < prices.size(); ++e) {
      worth[e] = static_cast<double>(problem.scores(t, static_cast<index_t>(e))) - prices[e];
    }
    std::sort(worth.begin(), worth.end(), std::greater<>());
    for (index_t j = 0; j < problem.fan_out; ++j) { sum += worth[static_cast<std::size_t>(j)]; }
  }
  for (std::size_t e = 0; e < prices.size(); ++e) {
    sum += static_cast<double>(prices[e] > 0 ? problem.upper[e] : problem.lower[e]) * prices[e];
  }
  return sum;
}

// Loads when every token takes its best by score - price, lower ids first.
std::vector<index_t> priced_loads(fl::assignment_problem<float> const& problem, std::vector<double> const& prices) {
  std::vector<index_t> loads(prices.size(), 0);
  for (index_t t = 0; t < problem.tokens(); ++t) {
    std::size_t best = 0;
    for (std::size_t e = 1; e < prices.size(); ++e) {
      auto const worth = [&](std::size_t i) { return static_cast<double>(problem.scores(t, static_cast<index_t>(i))) - prices[i]; };
      if (worth(e) > worth(best)) { best = e; }
    }
    ++loads[best];
  }
  return loads;
}

template <class Solver>
void proves_itself(Solver const& solver, wl::score_kind kind, index_t tokens, index_t experts, index_t fan_out) {
  INFO(wl::name(kind) << ' ' << tokens << 'x' << experts << " k " << fan_out);
  auto const scores = wl::assignment_scores{.tokens = tokens, .experts = experts, .kind = kind, .seed = 11}.make();
  auto const capacity = even(tokens * fan_out, experts);
  fl::assignment_problem<float> const problem{.scores = scores.view(), .fan_out = fan_out, .lower = capacity, .upper = capacity};
  auto const answer = test::solve(solver, problem);
  REQUIRE(answer.report.status == fl::status::ok);
  std::vector<int> const wanted(capacity.begin(), capacity.end());
  CHECK(answer.loads(experts) == wanted);
  // Weak duality at the returned prices: whatever the solver did, no assignment is better.
  CHECK(dual_value(problem, answer.prices) == Approx(answer.report.value).epsilon(1e-12));
  CHECK(answer.report.gap() == 0.0);
  auto const again = test::solve(solver, problem, fl::threads{3});
  CHECK(again.owners() == answer.owners());
  CHECK(again.prices == answer.prices);
  auto warm = problem;
  warm.warm_prices = answer.prices;
  CHECK(test::solve(solver, warm).report.value == answer.report.value);
}

}  // namespace

TEST_CASE("Every course of the exact solvers keeps the laws") {
  auto const check = [](auto const& solver, fl::laws::assignment_solver_options const& options) {
    auto const verdict = fl::laws::check_assignment_solver(solver, options, fl::serial{}, fl::threads{2});
    INFO(verdict);
    REQUIRE(verdict);
  };
  check(in_passes, {.seed = 21, .cases = 120, .tokens = 61});
  check(from_small_samples, {.seed = 22, .cases = 60, .tokens = 150, .experts = 5});
  check(at_the_border, {.seed = 23, .cases = 60, .tokens = 31});
  check(fl::pruned_flow{}, {.seed = 24, .cases = 60, .tokens = 61});
  check(fl::pruned_flow{.kept = 1}, {.seed = 25, .cases = 60, .tokens = 61, .experts = 6});
}

TEST_CASE("The certificate holds on every kind of scores") {
  for (wl::score_kind const kind : wl::all_score_kinds) {
    proves_itself(fl::balanced_flow{}, kind, 700, 16, 1);
    proves_itself(fl::balanced_flow{}, kind, 2500, 48, 1);
    proves_itself(in_passes, kind, 601, 40, 1);
    proves_itself(fl::pruned_flow{.kept = 6}, kind, 601, 40, 1);
    proves_itself(in_passes, kind, 300, 24, 4);
    proves_itself(from_small_samples, kind, 1100, 17, 3);
  }
}

TEST_CASE("More tied experts than a token keeps are still split evenly") {
  // One row for all tokens: every expert ties at the right prices.
  fl::matrix<float> scores(900, 300);
  for (index_t t = 0; t < scores.rows(); ++t) {
    for (index_t e = 0; e < scores.cols(); ++e) { scores(t, e) = 0.25F * static_cast<float>((e * 37) % 101); }
  }
  auto const capacity = even(900, 300);
  fl::assignment_problem<float> const problem{.scores = scores.view(), .fan_out = 1, .lower = capacity, .upper = capacity};
  auto const answer = test::solve(in_passes, problem);
  REQUIRE(answer.report.status == fl::status::ok);
  CHECK(answer.loads(300) == std::vector<int>(300, 3));
  CHECK(dual_value(problem, answer.prices) == Approx(answer.report.value).epsilon(1e-12));
}

TEST_CASE("Fewer tokens than experts, and crowded forbidden pairs, in passes") {
  auto const scores = wl::assignment_scores{.tokens = 23, .experts = 70, .kind = wl::score_kind::cluster, .seed = 5}.make();
  auto const capacity = even(23, 70);
  fl::assignment_problem<float> const few{.scores = scores.view(), .fan_out = 1, .lower = capacity, .upper = capacity};
  CHECK(test::solve(in_passes, few).report.value == test::solve(fl::balanced_flow{}, few).report.value);

  // Only experts 0 and 1 are allowed: 40 tokens fit, 41 do not.
  for (index_t const tokens : {40, 41}) {
    fl::matrix<float> narrow(tokens, 60);
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t e = 0; e < 60; ++e) { narrow(t, e) = e < 2 ? static_cast<float>((t * 7 + e) % 5) : test::minus_infinity; }
    }
    std::vector<index_t> const lower(60, 0);
    std::vector<index_t> const upper(60, 20);
    fl::assignment_problem<float> const problem{.scores = narrow.view(), .fan_out = 1, .lower = lower, .upper = upper};
    for (auto const& solver : {fl::balanced_flow{}, in_passes}) {
      auto const answer = test::solve(solver, problem);
      CHECK(answer.report.status == (tokens == 40 ? fl::status::ok : fl::status::infeasible));
      CHECK(answer.owners()[0] == (tokens == 40 ? answer.owners()[0] : -1));
    }
  }
}

TEST_CASE("The worked examples of exact assignment") {
  for (auto const& solver : {fl::balanced_flow{}, in_passes, at_the_border}) {
    auto const one = test::solve(solver, test::g1().problem());
    CHECK(one.report.value == 28.0);
    CHECK(one.prices[0] - one.prices[1] == 1.0);
    auto const two = test::solve(solver, test::g2().problem());
    CHECK(two.report.value == 89.0);
    CHECK(two.owners() == std::vector<int>{2, 0, 1, 2, 0, 1});
    auto const three = test::solve(solver, test::g3().problem());
    CHECK(three.report.value == 87.0);
    for (auto const& row : test::g4_rows()) {
      auto const four = test::solve(solver, test::g4(row.lower, row.upper).problem());
      CHECK(four.report.status == (row.value < 0 ? fl::status::infeasible : fl::status::ok));
      if (row.value >= 0) {
        CHECK(four.report.value == row.value);
        CHECK(four.loads(3) == row.loads);
      }
    }
    CHECK(test::solve(solver, test::g5({2, 1}).problem()).owners() == std::vector<int>{0, 0, 1});
    CHECK(test::solve(solver, test::g5({1, 2}).problem()).report.status == fl::status::infeasible);
  }
}

TEST_CASE("Centred prices balance the choice that border prices overload") {
  auto const g2 = test::g2();
  auto const centred = test::solve(fl::balanced_flow{}, g2.problem());
  auto const border = test::solve(at_the_border, g2.problem());
  CHECK(priced_loads(g2.problem(), centred.prices) == std::vector<index_t>{2, 2, 2});
  CHECK(priced_loads(g2.problem(), border.prices) != std::vector<index_t>{2, 2, 2});

  auto const scores = wl::assignment_scores{.tokens = 2000, .experts = 40, .kind = wl::score_kind::normal, .seed = 3}.make();
  auto const capacity = even(2000, 40);
  fl::assignment_problem<float> const problem{.scores = scores.view(), .fan_out = 1, .lower = capacity, .upper = capacity};
  auto const distance = [&](std::vector<double> const& prices) {
    index_t sum = 0;
    auto const loads = priced_loads(problem, prices);
    for (std::size_t e = 0; e < loads.size(); ++e) { sum += std::abs(loads[e] - capacity[e]); }
    return sum;
  };
  // On a grid some ranges are a single point: a few tokens stay indifferent.
  CHECK(4 * distance(test::solve(fl::balanced_flow{}, problem).prices) < distance(test::solve(at_the_border, problem).prices));
}

TEST_CASE("A solve from good prices moves less than one from none") {
  wl::assignment_scores const made{.tokens = 4000, .experts = 32, .kind = wl::score_kind::cluster, .seed = 8};
  auto scores = made.make();
  auto const capacity = even(4000, 32);
  fl::assignment_problem<float> problem{.scores = scores.view(), .fan_out = 1, .lower = capacity, .upper = capacity};
  auto const before = test::solve(fl::balanced_flow{}, problem);
  REQUIRE(made.redraw_rows(scores.view(), 0.05, 1) > 0);
  auto const cold = test::solve(fl::balanced_flow{}, problem);
  problem.warm_prices = before.prices;
  auto const warm = test::solve(fl::balanced_flow{}, problem);
  CHECK(warm.report.value == cold.report.value);
  CHECK(warm.report.augmentations < cold.report.augmentations / 2);
}

TEST_CASE("Bad fields of the exact solvers are refused") {
  auto const g1 = test::g1();
  CHECK_THROWS_AS(test::solve(fl::balanced_flow{.centre_sweeps = -1}, g1.problem()), fl::contract_violation);
  CHECK_THROWS_AS(test::solve(fl::balanced_flow{.dense_scores = -1}, g1.problem()), fl::contract_violation);
  CHECK_THROWS_AS(test::solve(fl::pruned_flow{.kept = 0}, g1.problem()), fl::contract_violation);
}
