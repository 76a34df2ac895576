// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Entropic prices: against plain matrix scaling, on scores that overflow careless code, and what they leave alone.
#include "support/catch.hpp"

#include <fairlead/core/matrix.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/flow/sinkhorn.hpp>
#include <fairlead/workload/adversarial_scores.hpp>
#include <fairlead/workload/skewed_logits.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace fl = fairlead;

namespace {

constexpr fl::sinkhorn_iteration tight{.passes = 400, .tolerance = 1e-6};

struct outcome {
  fl::sinkhorn_report report;
  std::vector<double> prices;
};
template <class Score, class Backend = fl::serial>
outcome solve(fl::sinkhorn_iteration const& how, fl::sinkhorn_problem<Score> const& problem, Backend const& on = {}) {
  fl::index_t const tokens = problem.scores.rows(), experts = problem.scores.cols();
  fl::arena<> memory(how.workspace_bytes(tokens, experts));
  fl::workspace ws = memory.view();
  outcome result{{}, std::vector<double>(static_cast<std::size_t>(experts), 0.0)};
  result.report = how.prices(on, problem, result.prices, ws);
  return result;
}
// What each expert gets under given prices, in double with the library's exp.
std::vector<double> masses(fl::matrix_view<float const> scores, std::vector<double> const& prices) {
  std::vector<double> sums(prices.size(), 0.0);
  for (fl::index_t t = 0; t < scores.rows(); ++t) {
    double best = -std::numeric_limits<double>::infinity(), sum = 0.0;
    auto const key = [&](std::size_t e) {
      return static_cast<double>(scores(t, static_cast<fl::index_t>(e))) - prices[e];
    };
    for (std::size_t e = 0; e < prices.size(); ++e) { best = std::max(best, key(e)); }
    for (std::size_t e = 0; e < prices.size(); ++e) { sum += std::exp(key(e) - best); }
    for (std::size_t e = 0; e < prices.size(); ++e) { sums[e] += std::exp(key(e) - best) / sum; }
  }
  return sums;
}
// Runs loops backwards: a sum that depends on the order of runs would change.
struct backwards : fl::serial {
  template <class Function>
  void for_each(fl::index_t n, Function f) const {
    for (fl::index_t i = n; i-- > 0;) { f(i); }
  }
};
static_assert(fl::host_backend<backwards>);

}  // namespace

TEST_CASE("prices hand out equal masses, and agree with matrix scaling") {
  auto const scores = fl::workload::skewed_logits{.tokens = 300, .experts = 7, .skew = 2.0, .seed = 4}.make();
  auto const found = solve<float>(tight, {.scores = scores.view()});
  CHECK(found.report.status == fl::status::ok);
  for (double const mass : masses(scores.view(), found.prices)) { CHECK(mass == Approx(300.0 / 7.0).epsilon(1e-4)); }
  // Plain alternation on exp(score): d1 = 1 / sum_t d0 exp, d0 = 1 / sum_e d1 exp; prices are -log d1 up to a constant.
  std::vector<double> d0(300, 1.0), d1(7, 1.0);
  for (int pass = 0; pass < 2000; ++pass) {
    for (std::size_t t = 0; t < d0.size(); ++t) {
      double sum = 0.0;
      for (std::size_t e = 0; e < d1.size(); ++e) {
        sum += d1[e] * std::exp(static_cast<double>(scores.view()(static_cast<fl::index_t>(t), static_cast<fl::index_t>(e))));
      }
      d0[t] = 1.0 / (300.0 * sum);
    }
    for (std::size_t e = 0; e < d1.size(); ++e) {
      double sum = 0.0;
      for (std::size_t t = 0; t < d0.size(); ++t) {
        sum += d0[t] * std::exp(static_cast<double>(scores.view()(static_cast<fl::index_t>(t), static_cast<fl::index_t>(e))));
      }
      d1[e] = 1.0 / (7.0 * sum);
    }
  }
  for (std::size_t e = 0; e < d1.size(); ++e) {
    CHECK(found.prices[e] - found.prices[0] == Approx(std::log(d1[0] / d1[e])).margin(1e-4));
  }
}

TEST_CASE("wanted masses may differ, and masks take tokens and experts out") {
  auto const scores = fl::workload::skewed_logits{.tokens = 200, .experts = 5, .skew = 1.0, .seed = 5}.make();
  std::vector<fl::index_t> const capacity = {1, 2, 3, 0, 4};
  auto const found = solve<float>(tight, {.scores = scores.view(), .capacity = capacity});
  auto const got = masses(scores.view(), found.prices);
  for (std::size_t e = 0; e < 5; ++e) { CHECK(got[e] == Approx(20.0 * static_cast<double>(capacity[e])).margin(0.02)); }

  std::vector<std::uint8_t> tokens(200, 1), experts(5, 1);
  for (std::size_t t = 100; t < 200; ++t) { tokens[t] = 0; }
  experts[3] = 0;
  auto const masked = solve<float>(
      tight, {.scores = scores.view(), .capacity = capacity, .token_mask = tokens, .expert_mask = experts});
  CHECK(masked.prices[3] == 0.0);  // untouched
  fl::matrix<float> part(100, 5);
  for (fl::index_t t = 0; t < 100; ++t) {
    for (fl::index_t e = 0; e < 5; ++e) {
      part(t, e) = e == 3 ? -std::numeric_limits<float>::infinity() : scores.view()(t, e);
    }
  }
  auto const alone = masses(part.view(), masked.prices);
  for (std::size_t e = 0; e < 5; ++e) { CHECK(alone[e] == Approx(10.0 * static_cast<double>(capacity[e])).margin(0.02)); }
}

TEST_CASE("no scores overflow, hang or leave prices that are not finite") {
  for (auto const pattern : fl::workload::all_adversarial) {
    for (fl::index_t const tokens : {0, 1, 7, 64}) {
      for (auto const& how : {fl::sinkhorn_iteration{}, fl::sinkhorn_iteration::annealed()}) {
        auto const scores =
            fl::workload::adversarial_scores{.tokens = tokens, .experts = 6, .pattern = pattern, .seed = 2}.make();
        auto const found = solve<float>(how, {.scores = scores.view()});
        CAPTURE(fl::workload::name(pattern), tokens);
        CHECK(found.report.iterations <= how.passes);
        CHECK(std::isfinite(found.report.value));
        for (double const price : found.prices) { CHECK(std::isfinite(price)); }
        bool const nothing = tokens == 0 || pattern == fl::workload::adversarial::all_masked ||
                             pattern == fl::workload::adversarial::all_nan;
        if (nothing) { CHECK(found.prices == std::vector<double>(6, 0.0)); }
        // Scores that do not tell experts apart are balanced from the start.
        if (pattern == fl::workload::adversarial::all_equal && tokens == 64) {
          CHECK(found.report.status == fl::status::ok);
        }
      }
    }
  }
}

TEST_CASE("the falling schedule leaves prices that nearly balance a hard choice") {
  auto const scores = fl::workload::skewed_logits{.tokens = 2048, .experts = 16, .skew = 2.0, .seed = 6}.make();
  auto const excess = [&](std::vector<double> const& prices) {
    std::vector<fl::index_t> loads(16, 0);
    for (fl::index_t t = 0; t < 2048; ++t) {
      std::size_t best = 0;
      for (std::size_t e = 1; e < 16; ++e) {
        auto const key = [&](std::size_t i) {
          return static_cast<double>(scores.view()(t, static_cast<fl::index_t>(i))) - prices[i];
        };
        if (key(e) > key(best)) { best = e; }
      }
      ++loads[best];
    }
    fl::index_t sum = 0;
    for (fl::index_t const load : loads) { sum += std::max<fl::index_t>(0, load - 128); }
    return sum;
  };
  auto const found = solve<float>(fl::sinkhorn_iteration::annealed(), {.scores = scores.view()});
  CHECK(excess(std::vector<double>(16, 0.0)) > 2048 / 10);
  CHECK(excess(found.prices) < 2048 / 16);  // rounding is what a softmax leaves to do
}

TEST_CASE("prices are the same bits in whatever order the runs of tokens come, and bfloat16 scores work") {
  auto const scores = fl::workload::skewed_logits{.tokens = 3000, .experts = 9, .skew = 1.5, .seed = 7}.make();
  auto const one = solve<float>(fl::sinkhorn_iteration{}, {.scores = scores.view()});
  auto const other = solve<float>(fl::sinkhorn_iteration{}, {.scores = scores.view()}, backwards{});
  CHECK(one.prices == other.prices);
  fl::matrix<fl::bfloat16> rounded(3000, 9);
  fl::matrix<float> wide(3000, 9);
  for (fl::index_t t = 0; t < 3000; ++t) {
    for (fl::index_t e = 0; e < 9; ++e) {
      rounded(t, e) = fl::bfloat16(scores.view()(t, e));
      wide(t, e) = static_cast<float>(rounded(t, e));
    }
  }
  CHECK(solve<fl::bfloat16>(fl::sinkhorn_iteration{}, {.scores = rounded.view()}).prices ==
        solve<float>(fl::sinkhorn_iteration{}, {.scores = wide.view()}).prices);
}

TEST_CASE("the pass limit is reported, and bad fields are refused") {
  auto const scores = fl::workload::skewed_logits{.tokens = 100, .experts = 4, .skew = 3.0, .seed = 8}.make();
  auto const stopped = solve<float>({.passes = 2, .tolerance = 1e-9}, {.scores = scores.view()});
  CHECK(stopped.report.status == fl::status::iteration_limit);
  CHECK(stopped.report.iterations == 2);
  CHECK(stopped.report.value > 1e-9);
  CHECK(solve<float>({.passes = 0}, {.scores = scores.view()}).report.status == fl::status::iteration_limit);
  CHECK_THROWS_AS(solve<float>({.first_temperature = 0.0}, {.scores = scores.view()}), fl::contract_violation);
  std::vector<fl::index_t> const negative = {1, -1, 1, 1};
  CHECK_THROWS_AS(solve<float>({}, {.scores = scores.view(), .capacity = negative}), fl::contract_violation);
}
