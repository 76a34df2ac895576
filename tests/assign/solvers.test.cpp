// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the laws cannot ask: each solver does what its name says.
#include <fairlead/assign/auction.hpp>
#include <fairlead/assign/greedy.hpp>
#include <fairlead/assign/greedy_order.hpp>
#include <fairlead/assign/quantile.hpp>
#include <fairlead/assign/sinkhorn.hpp>
#include <fairlead/workload/adversarial_scores.hpp>

#include "support/assignment_cases.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

namespace fl = fairlead;
namespace {

fl::matrix<float> levels(std::uint64_t seed, fl::index_t tokens, fl::index_t experts, int steps) {
  fl::matrix<float> scores(tokens, experts);
  for (std::size_t i = 0; i < scores.span().size(); ++i) {
    scores.span()[i] = static_cast<float>(fl::philox::below(fl::philox::draw(seed, 1, i)[0], static_cast<std::uint32_t>(steps)));
  }
  return scores;
}
std::vector<fl::index_t> even(fl::index_t copies, fl::index_t experts) {
  std::vector<fl::index_t> capacity(static_cast<std::size_t>(experts));
  fl::even_capacity(copies, capacity);
  return capacity;
}
fl::assignment_problem<float> equality(fl::matrix<float> const& scores, fl::index_t fan_out, std::vector<fl::index_t> const& capacity) {
  return {.scores = scores.view(), .fan_out = fan_out, .lower = capacity, .upper = capacity};
}

}  // namespace

TEST_CASE("Pairs by descending score are what sorting all pairs gives") {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    fl::index_t const tokens = 40, experts = 5, fan_out = 1 + static_cast<fl::index_t>(seed % 3);
    auto const scores = levels(seed, tokens, experts, seed % 2 == 0 ? 4 : 1000);
    std::vector<fl::index_t> capacity = even(tokens * fan_out, experts);
    std::vector<fl::index_t> upper = capacity;
    for (auto& most : upper) { most += 4; }
    std::vector<fl::index_t> const lower(5, 0);
    std::vector<std::tuple<float, int, int>> pairs;
    for (int t = 0; t < tokens; ++t) {
      for (int e = 0; e < experts; ++e) { pairs.emplace_back(-scores(t, e), t, e); }
    }
    std::sort(pairs.begin(), pairs.end());
    std::vector<fl::index_t> room = upper;
    std::vector<std::vector<int>> taken(static_cast<std::size_t>(tokens));
    for (auto const& [minus, t, e] : pairs) {
      auto& mine = taken[static_cast<std::size_t>(t)];
      if (room[static_cast<std::size_t>(e)] > 0 && mine.size() < static_cast<std::size_t>(fan_out)) {
        mine.push_back(e);
        --room[static_cast<std::size_t>(e)];
      }
    }
    auto const answer = test::solve(fl::greedy_edge_sort{}, fl::assignment_problem<float>{
        .scores = scores.view(), .fan_out = fan_out, .lower = lower, .upper = upper});
    REQUIRE(answer.report.status == fl::status::ok);
    for (int t = 0; t < tokens && answer.report.augmentations == 0; ++t) {
      auto const& mine = taken[static_cast<std::size_t>(t)];
      for (std::size_t j = 0; j < mine.size(); ++j) {
        REQUIRE(static_cast<int>(answer.owner(t, static_cast<fl::index_t>(j))) == mine[j]);
      }
    }
    if (fan_out == 1) { REQUIRE(answer.report.augmentations == 0); }
  }
}

TEST_CASE("Experts in drawn order take their best remaining tokens, and scores stay as they are") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    auto const scores = levels(seed, 23, 4, seed % 2 == 0 ? 3 : 1000);
    std::vector<float> const before(scores.span().begin(), scores.span().end());
    auto const capacity = even(23, 4);
    fl::greedy_expert_order const solver{.seed = seed};
    std::vector<std::int32_t> order(4);
    solver.draw_order(order);
    std::vector<int> expected(23, -1);
    for (std::int32_t const e : order) {
      std::vector<std::pair<float, int>> left;
      for (int t = 0; t < 23; ++t) {
        if (expected[static_cast<std::size_t>(t)] < 0) { left.emplace_back(-scores(t, e), t); }
      }
      std::sort(left.begin(), left.end());
      for (std::size_t i = 0; i < static_cast<std::size_t>(capacity[static_cast<std::size_t>(e)]); ++i) {
        expected[static_cast<std::size_t>(left[i].second)] = e;
      }
    }
    REQUIRE(test::solve(solver, equality(scores, 1, capacity)).owners() == expected);
    REQUIRE(std::equal(before.begin(), before.end(), scores.span().begin()));
  }
}

TEST_CASE("The order of the experts is a permutation that the seed draws") {
  std::vector<int> firsts(6, 0);
  for (std::uint64_t seed = 0; seed < 600; ++seed) {
    std::vector<std::int32_t> order(6);
    fl::greedy_expert_order{.seed = seed}.draw_order(order);
    ++firsts[static_cast<std::size_t>(order[0])];
    std::sort(order.begin(), order.end());
    for (std::int32_t e = 0; e < 6; ++e) { REQUIRE(order[static_cast<std::size_t>(e)] == e); }
  }
  for (int const count : firsts) { REQUIRE((count > 60 && count < 140)); }
}

TEST_CASE("On a grid the auction is exact, whatever the ties, remainders and missing pairs") {
  int solved = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    auto const word = fl::philox::draw(seed, 2, 0);
    auto const tokens = static_cast<fl::index_t>(fl::philox::below(word[0], 9));
    auto const experts = static_cast<fl::index_t>(1 + fl::philox::below(word[1], 4));
    auto scores = levels(seed, tokens, experts, seed % 3 == 0 ? 2 : 12);
    for (std::size_t i = 0; i < scores.span().size(); ++i) {
      if (seed % 4 == 3 && fl::philox::draw(seed, 3, i)[0] % 4 == 0) { scores.span()[i] = test::minus_infinity; }
    }
    auto const capacity = even(tokens, experts);
    auto const problem = equality(scores, 1, capacity);
    auto const answer = test::solve(fl::similar_object_auction{.grid = 1.0}, problem);
    double const best = test::best_value(problem);
    INFO("seed " << seed);
    if (best < -1e300) {
      REQUIRE(answer.report.status == fl::status::infeasible);
      continue;
    }
    ++solved;
    REQUIRE(answer.report.status == fl::status::ok);
    REQUIRE(answer.report.value == best);
    REQUIRE(answer.report.bound < best + 1.0);  // which proves it: values are integers
  }
  REQUIRE(solved > 300);
}

TEST_CASE("The auction stays within tokens x epsilon of its bound, on every finite adversarial pattern") {
  for (auto const pattern : fl::workload::all_adversarial) {
    if (!fl::workload::all_finite(pattern)) { continue; }
    auto const scores = fl::workload::adversarial_scores{200, 12, pattern, 4}.make();
    auto const capacity = even(200, 12);
    float const spread = *std::max_element(scores.span().begin(), scores.span().end()) -
                         *std::min_element(scores.span().begin(), scores.span().end());
    double const epsilon = 1e-3 * (spread < std::numeric_limits<float>::max() ? static_cast<double>(spread) : 6e38);
    auto const answer = test::solve(fl::similar_object_auction{.final_epsilon = epsilon}, equality(scores, 1, capacity));
    INFO(fl::workload::name(pattern));
    REQUIRE(answer.report.status == fl::status::ok);
    REQUIRE(answer.report.bound - answer.report.value <= 200 * epsilon + 1e-9 * std::abs(answer.report.value) + 1e-300);
  }
}

TEST_CASE("An auction whose bids run out says so and is complete all the same") {
  auto const scores = fl::workload::adversarial_scores{300, 10, fl::workload::adversarial::duplicate_rows, 4}.make();
  auto const capacity = even(300, 10);
  auto const answer = test::solve(fl::similar_object_auction{.bids_per_token = 1}, equality(scores, 1, capacity));
  REQUIRE(answer.report.status == fl::status::iteration_limit);
  REQUIRE(answer.report.iterations == 300);
  auto const loads = answer.loads(10);
  REQUIRE(std::all_of(loads.begin(), loads.end(), [](int load) { return load == 30; }));
}

TEST_CASE("Experts without a place are priced out") {
  auto const scores = levels(3, 12, 3, 50);
  std::vector<fl::index_t> const capacity{5, 0, 7};
  auto const check = [&](auto const& solver) {
    auto const answer = test::solve(solver, equality(scores, 1, capacity));
    REQUIRE(answer.report.status == fl::status::ok);
    REQUIRE(answer.loads(3) == std::vector<int>{5, 0, 7});
    for (fl::index_t t = 0; t < 12; ++t) {
      double const held = std::max(scores(t, 0) - answer.prices[0], scores(t, 2) - answer.prices[2]);
      REQUIRE(scores(t, 1) - answer.prices[1] <= held + 1e-9);
    }
  };
  check(fl::similar_object_auction{});
  check(fl::quantile_sweep{});
  check(fl::sinkhorn_rounding{});
  check(fl::greedy_repair{});
}

TEST_CASE("Repair from interior optimal prices moves nothing, and from boundary prices loses nothing") {
  auto const g2 = test::g2();
  auto problem = g2.problem();
  std::vector<double> const interior{16, 4.5, 0}, boundary{15, 4, 0};
  problem.warm_prices = interior;
  auto answer = test::solve(fl::greedy_repair{}, problem);
  REQUIRE(answer.report.value == 89);
  REQUIRE(answer.report.gap() == 0.0);
  REQUIRE(answer.report.augmentations == 0);
  problem.warm_prices = boundary;
  answer = test::solve(fl::greedy_repair{}, problem);
  REQUIRE(answer.report.augmentations > 0);
  REQUIRE(answer.loads(3) == std::vector<int>{2, 2, 2});
}

TEST_CASE("A copy with nowhere to go is placed along a chain of moves") {
  constexpr float no = test::minus_infinity;
  // Token 2 needs expert 0, which token 0 can leave only for expert 1, which token 1 can leave for expert 2.
  test::assignment_case const chain({{5, 1, no}, {no, 5, 1}, {9, no, no}}, 1, {1, 1, 1}, {1, 1, 1});
  auto const check = [&](auto const& solver) {
    auto const answer = test::solve(solver, chain.problem());
    REQUIRE(answer.report.status == fl::status::ok);
    REQUIRE(answer.owners() == std::vector<int>{1, 2, 0});
  };
  check(fl::greedy_repair{});
  check(fl::greedy_edge_sort{});
  check(fl::greedy_expert_order{});
  check(fl::similar_object_auction{});
  check(fl::quantile_sweep{});
  check(fl::sinkhorn_rounding{});
  // One place less, and no chain exists.
  test::assignment_case const none({{5, 1, no}, {no, 5, no}, {9, no, no}}, 1, {1, 1, 1}, {1, 1, 1});
  REQUIRE(test::solve(fl::greedy_edge_sort{}, none.problem()).report.status == fl::status::infeasible);
}

TEST_CASE("Good prices make the repair nearly exact, and every bound certifies it") {
  auto const scores = fl::workload::adversarial_scores{2000, 16, fl::workload::adversarial::one_dominant, 8}.make();
  auto const capacity = even(2000, 16);
  auto const problem = equality(scores, 1, capacity);
  auto const raw = test::solve(fl::greedy_repair{}, problem);
  auto const sinkhorn = test::solve(fl::sinkhorn_rounding{}, problem);
  auto const quantile = test::solve(fl::quantile_sweep{}, problem);
  auto const in_turn = test::solve(fl::quantile_sweep{.sweeps = 3, .rule = fl::quantile_rule::in_turn}, problem);
  auto const auction = test::solve(fl::similar_object_auction{}, problem);
  double const bound = std::min({sinkhorn.report.bound, quantile.report.bound, in_turn.report.bound, auction.report.bound});
  for (auto const* const answer : {&raw, &sinkhorn, &quantile, &in_turn, &auction}) {
    REQUIRE(answer->report.value <= bound + 1e-6);
  }
  REQUIRE(sinkhorn.report.gap() < 0.02);
  REQUIRE(quantile.report.gap() < 0.02);
  REQUIRE(in_turn.report.gap() < 0.01);
  REQUIRE(auction.report.gap() < 1e-3);
  REQUIRE(raw.report.value < sinkhorn.report.value);
}

TEST_CASE("Solving again from the returned prices is no worse for the repairing solvers") {
  auto const scores = fl::workload::adversarial_scores{500, 8, fl::workload::adversarial::two_dominant, 3}.make();
  auto const capacity = even(500, 8);
  auto problem = equality(scores, 1, capacity);
  auto const first = test::solve(fl::quantile_sweep{.sweeps = 4, .rule = fl::quantile_rule::in_turn}, problem);
  problem.warm_prices = first.prices;
  auto const again = test::solve(fl::quantile_sweep{.sweeps = 4, .rule = fl::quantile_rule::in_turn}, problem);
  REQUIRE(again.report.bound <= first.report.bound + 1e-9);
  auto const repaired = test::solve(fl::greedy_repair{}, problem);
  REQUIRE(repaired.report.value == first.report.value);
  REQUIRE(repaired.prices == first.prices);
}

TEST_CASE("Fields of solvers are checked") {
  auto const g1 = test::g1();
  REQUIRE_THROWS_AS(test::solve(fl::similar_object_auction{.divisor = 1.0}, g1.problem()), fl::contract_violation);
  REQUIRE_THROWS_AS(test::solve(fl::similar_object_auction{.bids_per_token = 0}, g1.problem()), fl::contract_violation);
  REQUIRE_THROWS_AS(test::solve(fl::quantile_sweep{.damping = 0.0}, g1.problem()), fl::contract_violation);
  REQUIRE_THROWS_AS(test::solve(fl::quantile_sweep{.sweeps = -1}, g1.problem()), fl::contract_violation);
}
