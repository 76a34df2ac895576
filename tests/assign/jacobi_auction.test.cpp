// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/assign/jacobi_auction.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/exec/threads.hpp>
#include <fairlead/laws/assignment_solver.hpp>

#include "support/catch.hpp"

#include <algorithm>

#include <limits>
#include <vector>

namespace {
namespace fl = fairlead;
using fl::index_t;
constexpr float infinity = std::numeric_limits<float>::infinity();

struct solved {
  fl::assignment_report report;
  std::vector<int> owner;
  std::vector<double> prices;
};

template <class Backend = fl::serial>
solved solve(std::vector<float> const& scores, std::vector<index_t> const& capacity, std::vector<double> const& warm = {},
             fl::jacobi_auction const& solver = {}, Backend const& on = {}) {
  auto const experts = static_cast<index_t>(capacity.size());
  index_t const tokens = static_cast<index_t>(scores.size()) / experts;
  std::vector<fl::expert_id> owner(static_cast<std::size_t>(tokens));
  solved found;
  found.prices.resize(capacity.size());
  fl::arena<> memory(solver.workspace_bytes(tokens, experts, 1));
  fl::workspace ws = memory.view();
  fl::assignment_problem<float> const problem{.scores = {scores.data(), tokens, experts},
                                              .fan_out = 1,
                                              .lower = capacity,
                                              .upper = capacity,
                                              .token_mask = {},
                                              .warm_prices = warm};
  found.report = solver.solve(on, problem, {{owner.data(), tokens, 1}, found.prices}, ws);
  for (auto const id : owner) { found.owner.push_back(static_cast<int>(id)); }
  return found;
}

std::vector<float> normal_scores(index_t count, std::uint64_t stream) {
  std::vector<float> scores(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < scores.size(); ++i) { scores[i] = static_cast<float>(fl::philox::normal(31, stream, i)); }
  return scores;
}

std::vector<index_t> even(index_t tokens, index_t experts) {
  std::vector<index_t> capacity(static_cast<std::size_t>(experts));
  fl::even_capacity(tokens, capacity);
  return capacity;
}

bool same(solved const& a, solved const& b) {
  return a.owner == b.owner && a.prices == b.prices && a.report.value == b.report.value &&
         a.report.bound == b.report.bound && a.report.iterations == b.report.iterations;
}
}  // namespace

TEST_CASE("the auction in rounds keeps the laws that it states, on one thread and on three") {
  for (std::uint64_t const seed : {1U, 2U, 3U}) {
    auto const verdict = fl::laws::check_assignment_solver(fl::jacobi_auction{}, {.seed = seed}, fl::serial{}, fl::threads{3});
    INFO(verdict);
    REQUIRE(verdict);
  }
}

TEST_CASE("the auction finds the worked examples' optima: ties that no price splits, a unique optimum, forbidden pairs") {
  auto const ties = solve({9, 8, 8, 2, 7, 6, 1, 5}, {2, 2});
  REQUIRE(ties.report.value == 28.0);
  REQUIRE(ties.report.gap() < 1e-9);
  auto const unique = solve({6, 17, 13, 25, 3, 8, 8, 7, 2, 26, 9, 11, 19, 5, 1, 22, 14, 1}, {2, 2, 2});
  REQUIRE(unique.owner == std::vector<int>{2, 0, 1, 2, 0, 1});
  REQUIRE(unique.report.value == 89.0);
  std::vector<float> const forbidden{1, -infinity, 2, -infinity, 3, 4};
  auto const possible = solve(forbidden, {2, 1});
  REQUIRE(possible.owner == std::vector<int>{0, 0, 1});
  REQUIRE(possible.report.value == 7.0);
  auto const impossible = solve(forbidden, {1, 2});
  REQUIRE(impossible.report.status == fl::status::infeasible);
  REQUIRE(impossible.owner == std::vector<int>{-1, -1, -1});
}

TEST_CASE("many tokens that may use few experts are found infeasible after few rounds") {
  // 60 tokens share two experts of 20 slots; the rest may go anywhere.
  std::vector<float> scores = normal_scores(80 * 4, 1);
  for (std::size_t t = 0; t < 60; ++t) { scores[t * 4 + 2] = scores[t * 4 + 3] = -infinity; }
  auto const found = solve(scores, even(80, 4));
  REQUIRE(found.report.status == fl::status::infeasible);
  REQUIRE(found.report.iterations < 100);
}

TEST_CASE("equal rows are not bid up one by one") {
  // 4096 tokens of 16 distinct rows on 16 experts: a token at a time would take hundreds of thousands of rounds.
  index_t const tokens = 4096;
  auto const rows = normal_scores(16 * 16, 2);
  std::vector<float> scores;
  for (index_t t = 0; t < tokens; ++t) {
    auto const* const row = rows.data() + (t * t % 31 % 16) * 16;
    scores.insert(scores.end(), row, row + 16);
  }
  auto const found = solve(scores, even(tokens, 16));
  REQUIRE(found.report.status == fl::status::ok);
  REQUIRE(found.report.gap() < 1e-9);
  REQUIRE(found.report.iterations < 5000);
}

TEST_CASE("three threads bid as one, and a batch solves each problem as if it were alone") {
  index_t const tokens = 700;
  index_t const experts = 9;
  index_t const problems = 5;
  auto const scores = normal_scores(problems * tokens * experts, 3);
  auto const capacity = even(tokens, experts);
  fl::jacobi_auction const solver;
  std::vector<fl::expert_id> owner(static_cast<std::size_t>(problems * tokens));
  std::vector<double> prices(static_cast<std::size_t>(problems * experts));
  std::vector<fl::assignment_report> reports(static_cast<std::size_t>(problems));
  fl::arena<> memory(solver.batch_workspace_bytes(problems, tokens, experts));
  fl::workspace ws = memory.view();
  fl::assignment_batch<float> const batch{{scores.data(), problems * tokens, experts}, problems, capacity, {}, {}};
  solver.solve_batch(fl::threads{3}, batch, {owner.data(), problems * tokens, 1}, prices, reports, ws);
  for (index_t p = 0; p < problems; ++p) {
    auto const first = scores.begin() + p * tokens * experts;
    std::vector<float> const own(first, first + tokens * experts);
    auto const alone = solve(own, capacity);
    REQUIRE(same(alone, solve(own, capacity, {}, {}, fl::threads{3})));
    REQUIRE(alone.report.value == reports[static_cast<std::size_t>(p)].value);
    REQUIRE(std::equal(alone.prices.begin(), alone.prices.end(), prices.begin() + p * experts));
    REQUIRE(std::equal(alone.owner.begin(), alone.owner.end(), owner.begin() + p * tokens,
                       [](int a, fl::expert_id b) { return a == static_cast<int>(b); }));
  }
}

TEST_CASE("a cap of rounds leaves a complete assignment, and a bound that is true") {
  auto const scores = normal_scores(500 * 7, 4);
  auto const capacity = even(500, 7);
  auto const best = solve(scores, capacity);
  double last = -infinity;
  for (index_t const cap : {0, 8, 30}) {
    auto const found = solve(scores, capacity, {}, {.most_rounds = cap});
    REQUIRE(found.report.status == fl::status::iteration_limit);
    REQUIRE(found.report.value <= best.report.value + 1e-9);
    REQUIRE(found.report.bound >= best.report.value - 1e-9);
    REQUIRE(found.report.value >= last);
    last = found.report.value;
    std::vector<index_t> loads(7);
    for (int const e : found.owner) { ++loads[static_cast<std::size_t>(e)]; }
    REQUIRE(loads == capacity);
  }
}

TEST_CASE("any warm prices leave the value, good ones save bids") {
  auto const scores = normal_scores(2000 * 12, 5);
  auto const capacity = even(2000, 12);
  auto const cold = solve(scores, capacity);
  auto const warm = solve(scores, capacity, cold.prices);
  REQUIRE(warm.report.value == Approx(cold.report.value).epsilon(1e-9));
  REQUIRE(warm.report.augmentations < cold.report.augmentations);
  std::vector<double> wild(12);
  for (std::size_t e = 0; e < 12; ++e) { wild[e] = e % 2 == 0 ? 1e300 : -static_cast<double>(e); }
  REQUIRE(solve(scores, capacity, wild).report.value == Approx(cold.report.value).epsilon(1e-9));
}

TEST_CASE("a policy whose epsilon cannot shrink is refused") {
  REQUIRE_THROWS_AS(solve({1, 2}, {1, 0}, {}, {.divisor = 1}), fl::contract_violation);
  REQUIRE_THROWS_AS(solve({1, 2}, {1, 0}, {}, {.most_rounds = -1}), fl::contract_violation);
}
