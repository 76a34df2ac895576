// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What bias controllers do to biases: by hand, by golden vectors, and in the closed loop with a router.
#include <fairlead/assign/balanced_flow.hpp>
#include <fairlead/balance/exact_dual_bias.hpp>
#include <fairlead/balance/pid_bias.hpp>
#include <fairlead/balance/quantile_bias.hpp>
#include <fairlead/balance/sign_bias.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/core/saved_state.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/metrics/load.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/workload/assignment_scores.hpp>

#include "balance/path_solver.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

namespace fl = fairlead;
using fairlead_test::path_solver;
using fl::index_t;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
using exact = fl::exact_dual_bias<path_solver>;
using flow = fl::exact_dual_bias<fl::balanced_flow>;

fl::matrix<float> matrix_of(std::vector<std::vector<float>> const& rows) {
  fl::matrix<float> result(static_cast<index_t>(rows.size()), static_cast<index_t>(rows.front().size()));
  for (index_t t = 0; t < result.rows(); ++t) {
    std::copy(rows[static_cast<std::size_t>(t)].begin(), rows[static_cast<std::size_t>(t)].end(), result.view().row(t));
  }
  return result;
}
fl::matrix<float> normals(index_t tokens, index_t experts, std::uint64_t stream) {
  fl::matrix<float> result(tokens, experts);
  for (index_t i = 0; i < tokens * experts; ++i) {
    result.data()[i] = static_cast<float>(fl::philox::normal(77, stream, static_cast<std::uint64_t>(i)));
  }
  return result;
}
struct two_arrays {
  std::vector<float> a, b;
  template <class Self, class Function>
  static void each_array(Self& self, Function&& f) {
    f(std::span(self.a));
    f(std::span(self.b));
  }
};
// The unique optimum of G2 loads its experts (2, 2, 2).
fl::matrix<float> g2() {
  return matrix_of({{6, 17, 13}, {25, 3, 8}, {8, 7, 2}, {26, 9, 11}, {19, 5, 1}, {22, 14, 1}});
}

template <class Controller>
void learn(Controller const& controller, fl::matrix<float> const& scores, index_t k, std::vector<float> const& bias,
           fl::controller_state_t<Controller>& state, fl::route_context const& context = {}) {
  fl::arena<> memory(controller.workspace_bytes(scores.rows(), scores.cols(), k));
  auto ws = memory.view();
  controller.accumulate(fl::serial{}, scores.view(), k, context, std::span<float const>(bias), state, ws);
}
template <class Controller>
void end(Controller const& controller, fl::controller_state_t<Controller>& state, std::vector<float>& bias,
         std::vector<index_t> const& counts) {
  fl::alone comm;
  controller.end_global_batch(fl::serial{}, comm, counts, state, std::span<float>(bias));
}
template <class Controller>
void end(Controller const& controller, fl::controller_state_t<Controller>& state, std::vector<float>& bias) {
  end(controller, state, bias, std::vector<index_t>(bias.size(), 0));
}
std::vector<index_t> loads(fl::matrix<float> const& scores, index_t k, std::vector<float> const& bias) {
  fl::biased_token_choice<fl::raw_score, fl::plain_selection, fl::softmax_over_chosen> const router{
      .experts = scores.cols(), .k = k};
  fl::routing<> out(scores.rows(), k);
  fl::arena<> memory(router.workspace_bytes(scores.rows()));
  auto ws = memory.view();
  router.route(fl::serial{}, scores.view(), {}, {bias, {}}, out.view(), ws);
  std::vector<index_t> counts(bias.size(), 0);
  for (index_t t = 0; t < scores.rows(); ++t) {
    for (index_t j = 0; j < k; ++j) { ++counts[static_cast<std::size_t>(out.view().experts(t, j))]; }
  }
  return counts;
}
void require_near(std::vector<float> const& got, std::vector<double> const& want, double margin = 1e-5) {
  REQUIRE(got.size() == want.size());
  for (std::size_t e = 0; e < got.size(); ++e) {
    CAPTURE(e);
    CHECK(static_cast<double>(got[e]) == Approx(want[e]).margin(margin).epsilon(0));
  }
}

// A router on static scores: the largest violation before each global batch.
template <class Controller>
std::vector<double> violations(Controller const& controller, fl::matrix<float> const& logits, index_t k, int steps) {
  fl::with_controller<fl::sigmoid_bias_top_k, Controller> const router{
      .experts = logits.cols(), .k = k, .controller = controller};
  auto state = router.make_state();
  fl::arena<> memory(router.workspace_bytes(logits.rows()));
  fl::routing<> out(logits.rows(), k);
  fl::alone comm;
  std::vector<double> result;
  for (int step = 0; step <= steps; ++step) {
    auto ws = memory.view();
    if constexpr (fl::reads_scores_on<Controller, fl::serial>) {
      router.route_and_learn(fl::serial{}, logits.view(), {}, state, out.view(), ws);
    } else {
      router.route(fl::serial{}, logits.view(), {}, state, out.view(), ws);
    }
    std::vector<index_t> counts(static_cast<std::size_t>(logits.cols()), 0);
    for (index_t t = 0; t < logits.rows(); ++t) {
      for (index_t j = 0; j < k; ++j) { ++counts[static_cast<std::size_t>(out.view().experts(t, j))]; }
    }
    result.push_back(fl::metrics::max_violation(std::span<index_t const>(counts)));
    router.observe(fl::serial{}, comm, counts, state);
  }
  return result;
}

}  // namespace

TEST_CASE("the PID rule adds what error, sum and smoothed difference say", "[balance]") {
  fl::pid_bias const rule{.proportional = 0.5, .integral = 0.25, .derivative = 0.125, .smoothing = 0.5};
  auto state = rule.make_state(4);
  std::vector<float> bias(4, 0.0F);
  // Errors (mean - n) / mean of mean 6: -2/3, 2/3, 0, 0; no difference yet.
  end(rule, state, bias, {10, 2, 6, 6});
  require_near(bias, {-0.5, 0.5, 0.0, 0.0});
  // Errors -1/3, 0, 1/3, 0: sums -1, 2/3, 1/3, 0; smoothed differences 1/6, -1/3, 1/6, 0.
  end(rule, state, bias, {8, 6, 4, 6});
  require_near(bias, {-1.0 / 6 - 0.25 + 0.125 / 6, 0.25 * 2 / 3 - 0.125 / 3, 1.0 / 6 + 0.25 / 3 + 0.125 / 6, 0.0});
  auto const before = bias;
  auto const integral = state.integral;
  end(rule, state, bias, {0, 0, 0, 0});
  CHECK(bias == before);
  CHECK(state.integral == integral);
  CHECK(state.updates == 2);
}

TEST_CASE("the PID rule comes to rest at even loads, keeps an outside offset and does not wind up", "[balance]") {
  fl::pid_bias const rule{.proportional = 0.1, .integral = 0.5, .limit = 2.0};
  auto state = rule.make_state(2);
  std::vector<float> bias = {3.0F, 3.0F};
  for (int step = 0; step < 50; ++step) { end(rule, state, bias, {10, 0}); }
  // Errors count as at most 1, the integral part as at most the limit.
  require_near(bias, {3.0 - 0.1 - 2.0, 3.0 + 0.1 + 2.0});
  end(rule, state, bias, {0, 10});  // an integral without limit would need 50 steps to come back
  require_near(bias, {3.0 + 0.1 - 1.5, 3.0 - 0.1 + 1.5});
  end(rule, state, bias, {5, 5});
  auto const rest = bias;
  end(rule, state, bias, {5, 5});
  CHECK(bias == rest);
}

TEST_CASE("the PID rule refuses bad fields and sizes", "[balance]") {
  auto state = fl::pid_bias{}.make_state(2);
  std::vector<float> bias(2, 0.0F), three(3, 0.0F);
  CHECK_THROWS_AS(end(fl::pid_bias{.proportional = -1.0}, state, bias, {1, 2}), fl::contract_violation);
  CHECK_THROWS_AS(end(fl::pid_bias{.integral = std::nan("")}, state, bias, {1, 2}), fl::contract_violation);
  CHECK_THROWS_AS(end(fl::pid_bias{.smoothing = 1.0}, state, bias, {1, 2}), fl::contract_violation);
  CHECK_THROWS_AS(end(fl::pid_bias{.limit = 0.0}, state, bias, {1, 2}), fl::contract_violation);
  CHECK_THROWS_AS(end(fl::pid_bias{}, state, three, {1, 2, 3}), fl::contract_violation);
  CHECK_THROWS_AS(fl::pid_bias{}.make_state(0), fl::contract_violation);
  CHECK(bias == std::vector<float>{0.0F, 0.0F});
}

TEST_CASE("G2: the quantile rule takes the steps of the specification and stalls where they stall", "[balance]") {
  fl::quantile_bias const rule;
  auto const scores = g2();
  auto state = rule.make_state(3);
  std::vector<float> bias(3, 0.0F);
  std::vector<std::vector<double>> const want = {{-28.0 / 3, 14.0 / 3, 14.0 / 3}};
  learn(rule, scores, 1, bias, state);
  end(rule, state, bias);
  require_near(bias, want[0]);
  CHECK(loads(scores, 1, bias) == std::vector<index_t>{3, 3, 0});
  for (int step = 1; step < 3; ++step) {
    learn(rule, scores, 1, bias, state);
    end(rule, state, bias);
  }
  for (int step = 3; step < 6; ++step) {
    require_near(bias, {-26.0 / 3, 7.0 / 3, 19.0 / 3});
    CHECK(loads(scores, 1, bias) != std::vector<index_t>{2, 2, 2});  // (3,3,0) in exact arithmetic, by a tie
    learn(rule, scores, 1, bias, state);
    end(rule, state, bias);
  }
  CHECK(state.updates == 6);
}

TEMPLATE_TEST_CASE("G2: the exact rule finds prices of the optimum in one global batch", "[balance]", exact, flow) {
  TestType const rule;
  auto const scores = g2();
  auto state = rule.make_state(3);
  std::vector<float> bias(3, 0.0F);
  learn(rule, scores, 1, bias, state);
  CHECK(state.solved == 1);
  end(rule, state, bias);
  // Optimal prices are (15 ... 17, 4 ... 5, 0), up to a shift that makes their mean 0.
  CHECK(bias[2] - bias[0] >= 15.0F);
  CHECK(bias[2] - bias[0] <= 17.0F);
  CHECK(bias[2] - bias[1] >= 4.0F);
  CHECK(bias[2] - bias[1] <= 5.0F);
  CHECK(std::abs(bias[0] + bias[1] + bias[2]) < 1e-5F);
  // Under these prices every token of the optimum is content: its expert is its best.
  std::vector<std::size_t> const owner = {2, 0, 1, 2, 0, 1};
  for (index_t t = 0; t < 6; ++t) {
    float best = -infinity;
    for (index_t e = 0; e < 3; ++e) { best = std::max(best, scores(t, e) + bias[static_cast<std::size_t>(e)]); }
    auto const mine = owner[static_cast<std::size_t>(t)];
    CHECK(scores(t, static_cast<index_t>(mine)) + bias[mine] >= best - 1e-4F);
  }
}

TEMPLATE_TEST_CASE("micro-batches and ranks weigh as much as they have valid tokens", "[balance]", fl::quantile_bias, exact, flow) {
  TestType const rule;
  index_t const experts = 4, k = 2;
  // Ranks 0, 1, 2 with two micro-batches each; rank 1 is idle, and one micro-batch is all padding.
  std::vector<std::vector<index_t>> const rows = {{24, 7}, {0, 0}, {5, 40}};
  auto const batch = [&](std::size_t rank, std::size_t part) {
    return normals(rows[rank][part], experts, rank * 2 + part);
  };
  std::vector<std::uint8_t> const padding(5, 0);
  // By hand: each micro-batch alone from a zero bias, then the weighted mean.
  std::vector<double> sum(4, 0.0);
  double weight = 0.0;
  for (auto const& [rank, part] : {std::pair{0, 0}, std::pair{0, 1}, std::pair{2, 1}}) {
    auto const scores = batch(static_cast<std::size_t>(rank), static_cast<std::size_t>(part));
    auto state = rule.make_state(experts);
    std::vector<float> bias(4, 0.0F);
    learn(rule, scores, k, bias, state);
    end(rule, state, bias);
    for (std::size_t e = 0; e < 4; ++e) { sum[e] += static_cast<double>(scores.rows()) * static_cast<double>(bias[e]); }
    weight += static_cast<double>(scores.rows());
  }
  for (double& value : sum) { value /= weight; }
  fl::inproc::world world{3};
  auto const all = world.run([&](fl::inproc::communicator comm) {
    auto const rank = static_cast<std::size_t>(comm.rank());
    auto state = rule.make_state(experts);
    std::vector<float> bias(4, 0.0F);
    for (std::size_t part = 0; part < 2; ++part) {
      fl::route_context context;
      if (rows[rank][part] == 5) { context.token_mask = padding; }
      if constexpr (!std::is_same_v<TestType, fl::quantile_bias>) { state.warm = 0; }  // each solve from the bias, as by hand
      learn(rule, batch(rank, part), k, bias, state, context);
    }
    rule.end_global_batch(fl::serial{}, comm, std::vector<index_t>(4, 0), state, std::span<float>(bias));
    return bias;
  });
  require_near(all[0], sum);
  CHECK(all[0] == all[1]);
  CHECK(all[0] == all[2]);
}

TEMPLATE_TEST_CASE("a decay keeps a share of the old bias, after a running mean to start with", "[balance]",
                   fl::quantile_bias, exact, flow) {
  TestType rule;
  auto const first = normals(60, 3, 1), second = normals(60, 3, 2);
  auto const alone = [&](fl::matrix<float> const& scores, std::vector<float> bias) {
    TestType const plain;
    auto state = plain.make_state(3);
    learn(plain, scores, 1, bias, state);
    end(plain, state, bias);
    return bias;
  };
  rule.decay = 0.25;
  auto state = rule.make_state(3);
  std::vector<float> bias(3, 0.0F);
  learn(rule, first, 1, bias, state);
  end(rule, state, bias);
  auto const one = alone(first, {0.0F, 0.0F, 0.0F});
  CHECK(bias == one);
  learn(rule, second, 1, bias, state);
  end(rule, state, bias);
  auto const two = alone(second, one);
  std::vector<double> want;
  for (std::size_t e = 0; e < 3; ++e) { want.push_back(0.25 * static_cast<double>(one[e]) + 0.75 * static_cast<double>(two[e])); }
  require_near(bias, want, 1e-6);
  rule.decay = 1.0;
  CHECK_THROWS_AS(end(rule, state, bias), fl::contract_violation);
}

TEMPLATE_TEST_CASE("copies that do not divide, one token, and as many choices as experts are legal", "[balance]",
                   fl::quantile_bias, exact, flow) {
  TestType const rule;
  for (index_t const tokens : {1, 2, 7, 31}) {
    for (index_t const k : {1, 3, 4}) {
      CAPTURE(tokens, k);
      auto const scores = normals(tokens, 4, static_cast<std::uint64_t>(tokens));
      auto state = rule.make_state(4);
      std::vector<float> bias(4, 0.0F);
      for (int step = 0; step < 6; ++step) {
        learn(rule, scores, k, bias, state);
        end(rule, state, bias);
      }
      for (float const b : bias) { CHECK(std::isfinite(b)); }
      CHECK(std::abs(bias[0] + bias[1] + bias[2] + bias[3]) < 1e-4F);
      auto const counts = loads(scores, k, bias);
      if (tokens >= 7 && !std::is_same_v<TestType, fl::quantile_bias>) {
        CHECK(*std::max_element(counts.begin(), counts.end()) <= (tokens * k + 3) / 4 + 2);
      }
    }
  }
}

TEMPLATE_TEST_CASE("a masked expert keeps its bias and the others share its load", "[balance]", fl::quantile_bias, exact, flow) {
  TestType const rule;
  auto scores = normals(90, 4, 5);
  for (index_t t = 0; t < 90; ++t) {
    scores(t, 0) += 1.0F;
    scores(t, 2) = -infinity;  // as the router shows masked experts
  }
  std::vector<std::uint8_t> const mask = {1, 1, 0, 1};
  fl::route_context context;
  context.expert_mask = mask;
  auto state = rule.make_state(4);
  std::vector<float> bias(4, 0.0F);
  for (int step = 0; step < 6; ++step) {
    learn(rule, scores, 1, bias, state, context);
    end(rule, state, bias);
  }
  CHECK(bias[2] == Approx(0.0).margin(1e-6));
  CHECK(bias[0] < 0.0F);
  auto const counts = loads(scores, 1, bias);
  CHECK(counts[2] == 0);
  for (std::size_t e : {std::size_t{0}, std::size_t{1}, std::size_t{3}}) { CHECK(std::abs(static_cast<double>(counts[e]) - 30.0) <= 3.0); }
}

TEMPLATE_TEST_CASE("a micro-batch without a balanced assignment contributes nothing and says so", "[balance]", exact, flow) {
  TestType const rule;
  auto const good = normals(40, 4, 6);
  auto bad = normals(40, 4, 7);
  for (index_t t = 0; t < 40; ++t) { bad(t, 2) = bad(t, 3) = -infinity; }  // all want the same two experts
  auto state = rule.make_state(4), plain = rule.make_state(4);
  std::vector<float> bias(4, 0.0F), want(4, 0.0F);
  learn(rule, bad, 2, bias, state);
  CHECK(state.status == fl::status::infeasible);
  CHECK(state.failed == 1);
  learn(rule, good, 2, bias, state);
  CHECK(state.status == fl::status::ok);
  CHECK(state.failed == 1);
  CHECK(state.solved == 1);
  learn(rule, good, 2, want, plain);
  end(rule, state, bias);
  end(rule, plain, want);
  CHECK(bias == want);
  learn(rule, bad, 2, bias, state);
  end(rule, state, bias);
  CHECK(bias == want);
  CHECK(state.failed == 2);
}

TEMPLATE_TEST_CASE("tokens with fewer candidates than choices take no part in a solve", "[balance]", exact, flow) {
  TestType const rule;
  auto scores = normals(40, 4, 6);
  for (index_t e = 1; e < 4; ++e) { scores(13, e) = -infinity; }  // one candidate, two choices
  for (index_t e = 0; e < 4; ++e) { scores(20, e) = std::numeric_limits<float>::quiet_NaN(); }
  std::vector<std::uint8_t> mask(40, 1);
  mask[13] = mask[20] = 0;
  fl::route_context without;
  without.token_mask = mask;
  auto state = rule.make_state(4), plain = rule.make_state(4);
  std::vector<float> bias(4, 0.0F), want(4, 0.0F);
  learn(rule, scores, 2, bias, state);
  CHECK((state.status == fl::status::ok && state.solved == 1 && state.failed == 0));
  learn(rule, scores, 2, want, plain, without);
  end(rule, state, bias);
  end(rule, plain, want);
  CHECK(bias == want);
  CHECK(*std::max_element(bias.begin(), bias.end()) > 0.0F);
}

TEST_CASE("the second solve of a global batch starts from the prices of the first", "[balance]") {
  exact const rule;
  auto const scores = normals(80, 5, 8);
  auto state = rule.make_state(5);
  std::vector<float> const bias(5, 0.0F);
  learn(rule, scores, 2, bias, state);
  CHECK(state.warm == 1);
  auto const prices = state.prices;
  CHECK(std::any_of(prices.begin(), prices.end(), [](double p) { return p != 0.0; }));
  learn(rule, scores, 2, bias, state);  // the optimum of the same scores, from optimal prices: the same prices
  for (std::size_t e = 0; e < 5; ++e) { CHECK(state.prices[e] == Approx(prices[e]).margin(1e-6)); }
  std::vector<float> moved = bias;
  end(rule, state, moved);
  CHECK(state.warm == 0);
  CHECK(state.prices == std::vector<double>(5, 0.0));
}

TEST_CASE("a saved state of other sizes is refused and changes nothing", "[balance]") {
  exact const rule;
  auto three = rule.make_state(3), four = rule.make_state(4);
  learn(rule, normals(9, 3, 1), 1, {0.0F, 0.0F, 0.0F}, three);
  std::vector<std::byte> bytes(fl::saved_bytes(three));
  fl::save_state(three, std::span(bytes));
  auto const before = four.average.sums;
  CHECK_THROWS_WITH(fl::load_state(four, std::span<std::byte const>(bytes)), Catch::Contains("as many experts"));
  CHECK(four.average.sums == before);
  // As many bytes in other arrays: refused by the lengths, before anything is read.
  two_arrays const from{{1.0F, 2.0F}, {3.0F}};
  two_arrays to{{4.0F}, {5.0F, 6.0F}};
  std::vector<std::byte> saved(fl::saved_bytes(from));
  CHECK(saved.size() == 2 * 8 + 3 * 4);
  fl::save_state(from, std::span(saved));
  CHECK_THROWS_AS(fl::load_state(to, std::span<std::byte const>(saved)), fl::contract_violation);
  CHECK(to.a == std::vector<float>{4.0F});
  two_arrays same{{0.0F, 0.0F}, {0.0F}};
  fl::load_state(same, std::span<std::byte const>(saved));
  CHECK(same.a == from.a);
  CHECK(same.b == from.b);
  CHECK_THROWS_AS(fl::save_state(from, std::span(saved).first(4)), fl::contract_violation);
}

TEST_CASE("a router shows its controller the scores that it chooses by, before the bias", "[balance]") {
  using router_type = fl::biased_token_choice<fl::softmax_score, fl::plain_selection, fl::sum_over_chosen, fl::fixed_noise,
                                              fl::quantile_bias>;
  router_type const router{.experts = 5, .k = 2, .noise = {.deviation = 0.5F}};
  auto const logits = normals(33, 5, 9);
  std::vector<std::uint8_t> const experts = {1, 1, 1, 0, 1};
  fl::route_context const context{.phase = fl::phase::train, .seed = 4, .step = 2, .expert_mask = experts};
  auto state = router.make_state();
  state.values = {0.3F, 0.0F, -0.2F, 0.0F, 0.1F};
  fl::arena<> memory(router.workspace_bytes(33));
  fl::routing<> plain(33, 2), learning(33, 2);
  auto ws = memory.view();
  router.route(fl::serial{}, logits.view(), context, state, plain.view(), ws);
  router.route_and_learn(fl::serial{}, logits.view(), context, state, learning.view(), ws);
  bool same = true;
  for (index_t t = 0; t < 33; ++t) {
    for (index_t j = 0; j < 2; ++j) {
      same = same && plain.view().experts(t, j) == learning.view().experts(t, j) &&
             plain.view().weights(t, j) == learning.view().weights(t, j);
    }
  }
  CHECK(same);
  CHECK(ws.used() == 0);
  // By hand: noise, mask and softmax, written down again.
  fl::matrix<float> scores(33, 5);
  for (index_t t = 0; t < 33; ++t) {
    double sum = 0.0;
    for (index_t e = 0; e < 5; ++e) {
      auto const noisy = router.noise.apply(logits(t, e), fl::routing_words(context, t, e / 4, 5), static_cast<unsigned>(e % 4), 5);
      scores(t, e) = e == 3 ? -infinity : noisy;
      sum += e == 3 ? 0.0 : std::exp(static_cast<double>(noisy));
    }
    for (index_t e = 0; e < 5; ++e) {
      if (e != 3) { scores(t, e) = static_cast<float>(std::exp(static_cast<double>(scores(t, e))) / sum); }
    }
  }
  auto want = router.controller.make_state(5);
  learn(router.controller, scores, 2, state.values, want, context);
  for (std::size_t e = 0; e < 6; ++e) { CHECK(state.controller.sums[e] == Approx(want.sums[e]).margin(1e-4)); }
  // Other phases route and learn nothing.
  auto const sums = state.controller.sums;
  for (fl::phase const why : {fl::phase::evaluate, fl::phase::recompute}) {
    auto other = context;
    other.phase = why;
    router.route_and_learn(fl::serial{}, logits.view(), other, state, learning.view(), ws);
    CHECK(state.controller.sums == sums);
  }
}

TEST_CASE("a router's state goes through bytes and on as before", "[balance]") {
  fl::with_controller<fl::sigmoid_bias_top_k, exact> const router{.experts = 6, .k = 2, .controller = {.decay = 0.5}};
  fl::alone comm;
  fl::routing<> out(50, 2);
  fl::arena<> memory(router.workspace_bytes(50));
  auto const step = [&](auto& state, std::uint64_t stream) {
    auto ws = memory.view();
    router.route_and_learn(fl::serial{}, normals(50, 6, stream).view(), {}, state, out.view(), ws);
    router.observe(fl::serial{}, comm, std::vector<index_t>(6, 0), state);
  };
  auto stays = router.make_state();
  step(stays, 1);
  step(stays, 2);
  std::vector<std::byte> bytes(fl::saved_bytes(stays));
  fl::save_state(stays, std::span(bytes));
  auto loaded = router.make_state();
  fl::load_state(loaded, std::span<std::byte const>(bytes));
  CHECK(loaded.values == stays.values);
  for (std::uint64_t stream = 3; stream < 6; ++stream) {
    step(stays, stream);
    step(loaded, stream);
    CHECK(loaded.values == stays.values);
  }
  CHECK(std::any_of(stays.values.begin(), stays.values.end(), [](float b) { return b != 0.0F; }));
}

TEST_CASE("exact prices balance static scores in one step, quantiles in a few, the sign rule in many", "[balance]") {
  index_t const experts = 16, k = 4;
  auto logits = fl::workload::assignment_scores{
      .tokens = 1024, .experts = experts, .kind = fl::workload::score_kind::cluster, .seed = 3}.make();
  for (index_t t = 0; t < logits.rows(); ++t) {
    for (index_t e = 0; e < experts; ++e) {
      logits(t, e) += 0.5F * static_cast<float>(fl::philox::normal(9, 1, static_cast<std::uint64_t>(e)));
    }
  }
  auto const by_sign = violations(fl::sign_bias{.step = 1e-3F}, logits, k, 600);
  auto const by_quantile = violations(fl::quantile_bias{}, logits, k, 8);
  auto const by_price = violations(exact{}, logits, k, 1);
  auto const by_flow = violations(flow{}, logits, k, 1);
  auto const by_pid = violations(fl::pid_bias{}, logits, k, 60);
  CAPTURE(by_sign[1], by_sign[600], by_quantile[1], by_quantile[4], by_quantile[8], by_price[1], by_pid[60]);
  CHECK(by_sign[0] > 0.8);
  CHECK(by_price[1] < 0.02);
  CHECK(by_flow[1] < 0.02);
  CHECK(by_sign[1] > 20.0 * by_price[1]);
  CHECK(by_sign[1] > 0.9 * by_sign[0]);
  CHECK(by_quantile[1] < by_quantile[0]);
  CHECK(by_quantile[8] < 0.1);
  CHECK(by_quantile[8] > by_price[1]);
  CHECK(by_pid[60] < 0.1);
  auto const settles = [](std::vector<double> const& all) {
    return std::find_if(all.begin(), all.end(), [](double v) { return v < 0.1; }) - all.begin();
  };
  CHECK(settles(by_price) == 1);
  CHECK(settles(by_quantile) <= 8);
  CHECK(settles(by_pid) <= 60);
  CHECK(settles(by_sign) > 2 * settles(by_pid));
  CHECK(settles(by_sign) < 600);
}
