// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Noisy, sampled and composed routers, and the gates beside linear_gate: laws, distributions, golden values.
#include "support/catch.hpp"

#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/gate.hpp>
#include <fairlead/laws/router.hpp>
#include <fairlead/route/cosine_gate.hpp>
#include <fairlead/route/gshard_top_2.hpp>
#include <fairlead/route/input_noise.hpp>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/route/noisy_linear_gate.hpp>
#include <fairlead/route/noisy_top_k.hpp>
#include <fairlead/route/sampled_choice.hpp>
#include <fairlead/route/shared_slots.hpp>
#include <fairlead/route/switch_top_1.hpp>
#include <fairlead/route/weight_norm.hpp>
#include <fairlead/route/zero_experts.hpp>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

struct answer {
  fl::routing<> out;
  fl::matrix<float> grad;
};

// Routes, and takes the gradient of sum_j g_j w_j with g = (1, -1/2, -1/2, ...).
template <class Router>
answer ask(Router const& router, fl::matrix_view<float const> logits, fl::route_context const& context) {
  fl::arena<> memory(router.workspace_bytes(logits.rows()));
  fl::workspace ws = memory.view();
  answer a{fl::routing<>(logits.rows(), router.fan_out()), fl::matrix<float>(logits.rows(), logits.cols())};
  fl::matrix<float> grad_weights(logits.rows(), router.fan_out());
  for (index_t t = 0; t < logits.rows(); ++t) {
    for (index_t j = 0; j < router.fan_out(); ++j) { grad_weights(t, j) = j == 0 ? 1.0F : -0.5F; }
  }
  router.route(fl::serial{}, logits, context, a.out.view(), ws);
  router.backward(fl::serial{}, logits, context, std::as_const(a.out).view(), std::as_const(grad_weights).view(), a.grad.view(), ws);
  return a;
}
template <class Router>
answer ask(Router const& router, std::vector<float> const& row, fl::phase when = fl::phase::evaluate) {
  return ask(router, {row.data(), 1, static_cast<index_t>(row.size())}, {.phase = when, .seed = 5});
}
// The same row many times.
fl::matrix<float> repeated(std::vector<float> const& row, index_t tokens) {
  fl::matrix<float> many(tokens, static_cast<index_t>(row.size()));
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t e = 0; e < many.cols(); ++e) { many(t, e) = row[static_cast<std::size_t>(e)]; }
  }
  return many;
}
std::vector<int> ids(answer const& a, index_t t = 0) {
  std::vector<int> list;
  for (index_t j = 0; j < a.out.fan_out(); ++j) { list.push_back(static_cast<int>(a.out.view().experts(t, j))); }
  return list;
}
std::vector<double> weights(answer const& a, index_t t = 0) {
  std::vector<double> list;
  for (index_t j = 0; j < a.out.fan_out(); ++j) { list.push_back(static_cast<double>(a.out.view().weights(t, j))); }
  return list;
}
std::vector<double> gradient(answer const& a, index_t t = 0) {
  std::vector<double> list;
  for (index_t e = 0; e < a.grad.cols(); ++e) { list.push_back(static_cast<double>(a.grad(t, e))); }
  return list;
}
void require_near(std::vector<double> const& got, std::vector<double> const& want, double margin = 2e-7) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i, got[i], want[i]);
    CHECK(std::abs(got[i] - want[i]) <= margin);
  }
}
std::vector<float> const row{2.0F, 1.0F, 0.0F, -1.0F};

}  // namespace

TEST_CASE("noisy_top_k keeps the laws, with gradients to both halves") {
  for (auto const& [experts, k] : {std::pair<int, int>{1, 1}, {3, 2}, {8, 1}, {20, 4}, {5, 5}}) {
    CAPTURE(experts, k);
    CHECK(fl::laws::check_router(fl::noisy_top_k{.experts = experts, .k = k, .scale = 1.5F}, {.tokens = 37, .seed = 3}));
  }
}

TEST_CASE("noisy_top_k adds normal noise of the learned deviation, and none in evaluation") {
  fl::noisy_top_k const router{.experts = 2, .k = 2};
  index_t const tokens = 20000;
  std::vector<float> const both{1.0F, 1.0F, 0.5F, -3.0F};  // clean, clean, noise, noise
  auto const many = repeated(both, tokens);
  fl::route_context const train{.phase = fl::phase::train, .seed = 9, .step = 2};
  double const widths[2] = {std::log1p(std::exp(0.5)) + 0.01, std::log1p(std::exp(-3.0)) + 0.01};
  double sum[2] = {}, squares[2] = {}, mixed = 0.0;
  std::vector<float> noisy(2), deviation(2);
  for (index_t t = 0; t < tokens; ++t) {
    REQUIRE(router.noisy_logits(train, t, many.view().row(t), noisy.data(), deviation.data()));
    double n[2];
    for (std::size_t e = 0; e < 2; ++e) {
      CHECK(std::abs(static_cast<double>(deviation[e]) - widths[e]) < 1e-6);
      n[e] = (static_cast<double>(noisy[e]) - 1.0) / widths[e];
      sum[e] += n[e];
      squares[e] += n[e] * n[e];
    }
    mixed += n[0] * n[1];
  }
  for (std::size_t e = 0; e < 2; ++e) {
    CHECK(std::abs(sum[e] / static_cast<double>(tokens)) < 0.03);
    CHECK(std::abs(squares[e] / static_cast<double>(tokens) - 1.0) < 0.05);
  }
  CHECK(std::abs(mixed / static_cast<double>(tokens)) < 0.03);
  // The routing is that of the noisy logits.
  auto const trained = ask(router, std::as_const(many).view().rows(0, 50), train);
  for (index_t t = 0; t < 50; ++t) {
    (void)router.noisy_logits(train, t, many.view().row(t), noisy.data(), deviation.data());
    CHECK(ids(trained, t)[0] == (noisy[1] > noisy[0] ? 1 : 0));
  }
  fl::route_context const evaluate{.phase = fl::phase::evaluate, .seed = 9, .step = 2};
  CHECK_FALSE(router.noisy_logits(evaluate, 0, both.data(), noisy.data(), deviation.data()));
  CHECK(noisy == std::vector<float>{1.0F, 1.0F});
  auto const quiet = ask(router, std::as_const(many).view().rows(0, 3), evaluate);
  CHECK(weights(quiet) == std::vector<double>{0.5, 0.5});
  CHECK(gradient(quiet)[2] == 0.0);
  CHECK(gradient(quiet)[3] == 0.0);
}

TEST_CASE("noisy_top_k by its definition: softmax over the kept noisy logits, reparametrised gradients") {
  fl::noisy_top_k const router{.experts = 4, .k = 2, .floor = 0.0F};
  std::vector<float> const both{2.0F, 1.0F, 0.0F, -1.0F, 0.3F, -0.2F, 0.1F, 0.4F};
  fl::route_context const train{.phase = fl::phase::train, .seed = 4};
  auto const a = ask(router, {both.data(), 1, 8}, train);
  std::vector<float> noisy(4), deviation(4);
  REQUIRE(router.noisy_logits(train, 0, both.data(), noisy.data(), deviation.data()));
  auto const pair = ids(a);
  auto const value = [&](int e) { return static_cast<double>(noisy[static_cast<std::size_t>(e)]); };
  double const first = 1.0 / (1.0 + std::exp(value(pair[1]) - value(pair[0])));
  require_near(weights(a), {first, 1.0 - first});
  // g = (1, -1/2): d/dl of the first is w1 w2 (g1 - g2).
  std::vector<double> want(8, 0.0);
  for (int j = 0; j < 2; ++j) {
    auto const e = static_cast<std::size_t>(pair[static_cast<std::size_t>(j)]);
    double const g = (j == 0 ? 1.5 : -1.5) * first * (1.0 - first);
    double const number = (static_cast<double>(noisy[e]) - static_cast<double>(both[e])) / static_cast<double>(deviation[e]);
    want[e] = g;
    want[4 + e] = g * number / (1.0 + std::exp(-static_cast<double>(both[4 + e])));
  }
  require_near(gradient(a), want, 1e-6);
}

TEST_CASE("sampled_choice keeps the laws") {
  for (auto const& [experts, k, certain] : {std::array<int, 3>{1, 1, 0}, {3, 2, 1}, {8, 1, 0}, {20, 4, 2}, {20, 4, 4}}) {
    CAPTURE(experts, k, certain);
    CHECK(fl::laws::check_router(
        fl::sampled_top_k{.experts = experts, .k = k, .scale = 1.5F, .certain = certain, .temperature = 0.7F},
        {.tokens = 37, .seed = 3}));
    CHECK(fl::laws::check_router(
        fl::sampled_choice<fl::raw_score, fl::softmax_over_chosen>{.experts = experts, .k = k, .certain = certain},
        {.tokens = 37, .seed = 4}));
  }
}

TEST_CASE("a draw takes each expert as often as the softmax at its temperature says, weighed by the clean share") {
  index_t const tokens = 20000;
  auto const many = repeated(row, tokens);
  fl::route_context const train{.phase = fl::phase::train, .seed = 11, .step = 1};
  for (float const temperature : {1.0F, 2.0F}) {
    CAPTURE(temperature);
    auto const a = ask(fl::sampled_top_k{.experts = 4, .temperature = temperature}, many.view(), train);
    double total = 0.0, counts[4] = {};
    for (float const l : row) { total += std::exp(static_cast<double>(l / temperature)); }
    for (index_t t = 0; t < tokens; ++t) {
      auto const e = static_cast<std::size_t>(ids(a, t)[0]);
      counts[e] += 1.0;
      double const clean[4] = {0.6439142599, 0.2368828181, 0.0871443187, 0.0320586033};
      CHECK(std::abs(weights(a, t)[0] - clean[e]) < 2e-7);
    }
    for (std::size_t e = 0; e < 4; ++e) {
      double const share = std::exp(static_cast<double>(row[e] / temperature)) / total;
      // Five standard deviations of a binomial share.
      CHECK(std::abs(counts[e] / static_cast<double>(tokens) - share) < 5.0 * std::sqrt(share * (1.0 - share) / static_cast<double>(tokens)));
    }
  }
}

TEST_CASE("DeepSpeed's second expert: the first is the best, the second drawn from the others") {
  index_t const tokens = 20000;
  auto const many = repeated(row, tokens);
  auto const a = ask(fl::sampled_second(4), many.view(), {.phase = fl::phase::train, .seed = 3});
  double counts[4] = {};
  for (index_t t = 0; t < tokens; ++t) {
    REQUIRE(ids(a, t)[0] == 0);
    counts[static_cast<std::size_t>(ids(a, t)[1])] += 1.0;
  }
  CHECK(counts[0] == 0.0);
  double const rest = 0.2368828181 + 0.0871443187 + 0.0320586033;
  CHECK(std::abs(counts[1] / static_cast<double>(tokens) - 0.2368828181 / rest) < 0.017);
  CHECK(std::abs(counts[3] / static_cast<double>(tokens) - 0.0320586033 / rest) < 0.011);
  // Weights and gradients are those of S1 for the same pair.
  auto const quiet = ask(fl::sampled_second(4), row);
  require_near(weights(quiet), {0.6439142599, 0.2368828181});
  require_near(gradient(quiet), {0.3055547980, -0.2429168988, -0.0457919736, -0.0168459257});
}

TEST_CASE("draws at a temperature near zero are the best logits, and huge quotients stay candidates") {
  auto const cold = ask(fl::sampled_top_k{.experts = 4, .k = 3, .temperature = 1e-30F}, row, fl::phase::train);
  CHECK(ids(cold)[0] == 0);
  std::vector<float> const hard{-3e38F, -std::numeric_limits<float>::infinity(), -3e38F, std::nanf("")};
  auto const few = ask(fl::sampled_top_k{.experts = 4, .k = 4, .temperature = 0.5F}, hard, fl::phase::train);
  int found = 0;
  for (int const id : ids(few)) { found += id >= 0 ? 1 : 0; }
  CHECK(found == 2);
  CHECK_THROWS_AS(ask(fl::sampled_top_k{.experts = 4, .temperature = 0.0F}, row), fl::contract_violation);
  CHECK_THROWS_AS(ask(fl::sampled_top_k{.experts = 4, .certain = 2}, row), fl::contract_violation);
}

TEST_CASE("p-norm weights keep the laws and have unit norm") {
  for (float const p : {1.0F, 2.0F, 3.5F}) {
    CAPTURE(p);
    fl::normalised_weights<fl::softmax_top_k> const router{.router = {.experts = 8, .k = 3}, .p = p, .scale = 1.5F};
    CHECK(fl::laws::check_router(router, {.tokens = 37, .seed = 3}));
    auto const a = ask(router, {2.0F, 1.0F, 0.0F, -1.0F, -2.0F, 0.5F, 0.1F, 0.2F});
    double sum = 0.0;
    for (double const w : weights(a)) { sum += std::pow(w / 1.5, static_cast<double>(p)); }
    CHECK(sum == Approx(1.0).epsilon(1e-6));
  }
  // p = 1 is the renormalisation of S3, gradient included.
  auto const one = ask(fl::normalised_weights<fl::softmax_top_k>{.router = {.experts = 4, .k = 2}}, row);
  require_near(weights(one), {0.7310585786, 0.2689414214});
  require_near(gradient(one), {0.2949178999, -0.2949178999, 0.0, 0.0});
  // p = 2: (e, 1) / sqrt(e^2 + 1).
  auto const two = ask(fl::normalised_weights<fl::softmax_top_k>{.router = {.experts = 4, .k = 2}, .p = 2.0F}, row);
  require_near(weights(two), {0.9385078997, 0.3452577571});
  CHECK_THROWS_AS(ask(fl::normalised_weights<fl::softmax_top_k>{.router = {.experts = 4, .k = 2}, .p = 0.5F}, row),
                  fl::contract_violation);
}

TEST_CASE("shared experts take slots of their own, with the sum of the weights over the scale") {
  using router_type = fl::shared_slots<fl::sigmoid_top_k>;
  CHECK(fl::laws::check_router(router_type{.router = {.experts = 8, .k = 2}, .shared = 2, .divisor = 0.5F},
                               {.tokens = 37, .seed = 3, .by_score = false}));
  CHECK(fl::laws::check_router(fl::shared_slots<fl::softmax_top_k>{.router = {.experts = 8, .k = 2}},
                               {.tokens = 37, .seed = 4, .by_score = false}));
  auto const a = ask(router_type{.router = {.experts = 4, .k = 2, .scale = 2.5F}, .shared = 1, .divisor = 2.5F}, row);
  CHECK(ids(a) == std::vector<int>{0, 1, 4});
  CHECK(weights(a)[2] == Approx(1.0));
  std::vector<std::uint8_t> const mask{1, 1, 1, 1, 0};
  fl::matrix_view<float const> const one(row.data(), 1, 4);
  CHECK(ids(ask(router_type{.router = {.experts = 4, .k = 2}}, one, {.phase = fl::phase::evaluate, .expert_mask = mask})) ==
        std::vector<int>{0, 1, -1});
}

TEST_CASE("zero experts take part in the choice and leave their slot empty") {
  using router_type = fl::zero_experts<fl::top_k>;
  CHECK(fl::laws::check_router(router_type{.router = {.experts = 8, .k = 3}, .zero = 3},
                               {.tokens = 37, .seed = 3, .by_score = false}));
  CHECK(fl::laws::check_router(fl::zero_experts<fl::softmax_top_k>{.router = {.experts = 6, .k = 2}, .zero = 2},
                               {.tokens = 37, .seed = 4, .by_score = false}));
  // Columns 2 and 3 are zero experts: the second choice computes nothing, the first keeps its share.
  router_type const router{.router = {.experts = 4, .k = 2}, .zero = 2};
  CHECK(router.experts() == 2);
  auto const a = ask(router, {2.0F, -1.0F, 1.0F, 0.0F});
  CHECK(ids(a) == std::vector<int>{0, -1});
  require_near(weights(a), {0.7310585786, 0.0});
  double const slope = 0.7310585786 * 0.2689414214;
  require_near(gradient(a), {slope, 0.0, -slope, 0.0});
}

TEST_CASE("gates with two projections and by angle keep the laws") {
  CHECK(fl::laws::check_gate(fl::noisy_linear_gate<>{.width = 6, .experts = 2}, fl::serial{}, {}));
  auto const layout = fl::noisy_linear_gate<>{.width = 6, .experts = 2, .noise_deviation = 0.5}.parameter_layout();
  CHECK(layout[0].deviation == 0.0);
  CHECK(layout[1].deviation == 0.5);
  CHECK(fl::laws::check_gate(fl::cosine_gate<>{.width = 6, .experts = 4, .projected = 5}, fl::serial{}, {}));
  CHECK(fl::laws::check_gate(fl::cosine_gate<>{.width = 6, .experts = 4, .projected = 5, .limit = 0.5}, fl::serial{}, {}));
  CHECK(fl::laws::check_gate(fl::cosine_gate<>{.width = 1, .experts = 1, .projected = 1}, fl::serial{},
                             {.tokens = 1, .width = 1, .experts = 1}));
}

TEST_CASE("gates with noisy input keep the laws, in the phase that the kit gives them") {
  CHECK(fl::laws::check_gate(fl::noisy_input<fl::linear_gate<>>{.gate = {.width = 6, .experts = 4}, .noise = {.epsilon = 0.3F}},
                             fl::serial{}, {}));
  CHECK(fl::laws::check_gate(fl::noisy_input<fl::linear_gate<>, fl::input_dropout>{.gate = {.width = 6, .experts = 4}}, fl::serial{}, {}));
  CHECK(fl::laws::check_gate(fl::noisy_input<fl::cosine_gate<>>{.gate = {.width = 6, .experts = 4, .projected = 3}}, fl::serial{}, {}));
}

TEST_CASE("cosine_gate: scale 2 at the start, cosines whatever the lengths, zero tokens without NaN") {
  fl::cosine_gate<> const gate{.width = 2, .experts = 2, .projected = 2};
  std::vector<float> parameters{1, 0, 0, 1, 3, 0, 0, 0.01F, 0};  // identity; axes of other lengths; tau = log 2
  fl::matrix<float> tokens(3, 2), logits(3, 2);
  tokens(0, 0) = 3e20F;
  tokens(0, 1) = 4e20F;
  tokens(1, 0) = -3e-8F;
  tokens(1, 1) = 4e-8F;
  fl::arena<> memory(gate.workspace_bytes(3));
  fl::workspace ws = memory.view();
  gate.forward(fl::serial{}, parameters, std::as_const(tokens).view(), logits.view(), ws);
  require_near({logits(0, 0), logits(0, 1), logits(1, 0), logits(1, 1), logits(2, 0), logits(2, 1)}, {1.2, 1.6, -1.2, 1.6, 0, 0}, 1e-6);
  parameters.back() = 50.0F;  // beyond the limit
  gate.forward(fl::serial{}, parameters, std::as_const(tokens).view(), logits.view(), ws);
  require_near({logits(0, 0), logits(0, 1)}, {60.0, 80.0}, 1e-4);
}

TEST_CASE("input noise changes what the gate reads in training, with its gradient, and nothing in evaluation") {
  fl::noisy_input<fl::linear_gate<>, fl::input_dropout> const dropped{.gate = {.width = 6, .experts = 3}, .noise = {.rate = 0.25F}};
  fl::noisy_input<fl::linear_gate<>> const jittered{.gate = {.width = 6, .experts = 3}, .noise = {.epsilon = 0.1F}};
  static_assert(fl::gate_on<decltype(dropped), fl::serial> && fl::has_context_gate<decltype(jittered), fl::serial>);
  index_t const tokens = 2000;
  fl::matrix<float> in(tokens, 6), logits(tokens, 3), again(tokens, 3), grad_logits(tokens, 3), grad(tokens, 6);
  for (float& x : in.span()) { x = 1.0F; }
  for (float& g : grad_logits.span()) { g = 1.0F; }
  std::vector<float> parameters(18, 0.0F), gradients(18, 0.0F);
  for (std::size_t i = 0; i < 3; ++i) { parameters[i * 6 + i] = 1.0F; }  // logit e = column e
  fl::arena<> memory(dropped.workspace_bytes(tokens));
  fl::workspace ws = memory.view();
  fl::route_context const train{.phase = fl::phase::train, .seed = 2, .step = 7, .first_token = 100};
  dropped.forward(fl::serial{}, parameters, std::as_const(in).view(), train, logits.view(), ws);
  double zeros = 0.0;
  for (float const l : logits.span()) {
    CHECK((l == 0.0F || l == 4.0F / 3.0F));
    zeros += l == 0.0F ? 1.0 : 0.0;
  }
  CHECK(std::abs(zeros / 6000.0 - 0.25) < 0.03);
  // A token keeps its noise wherever its row lies.
  fl::route_context later = train;
  later.phase = fl::phase::recompute;
  later.first_token = 105;
  dropped.forward(fl::serial{}, parameters, std::as_const(in).view().rows(0, 10), later, again.view().rows(0, 10), ws);
  CHECK(std::memcmp(again.data(), logits.view().row(5), 30 * sizeof(float)) == 0);
  dropped.backward(fl::serial{}, parameters, std::as_const(in).view(), train, std::as_const(grad_logits).view(), gradients, grad.view(), ws);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t e = 0; e < 3; ++e) { CHECK(grad(t, e) == logits(t, e)); }  // d logit / d token is the factor itself
  }
  double column = 0.0;
  for (index_t t = 0; t < tokens; ++t) { column += static_cast<double>(logits(t, 1)); }
  CHECK(static_cast<double>(gradients[1]) == Approx(column).epsilon(1e-5));
  jittered.forward(fl::serial{}, parameters, std::as_const(in).view(), train, logits.view(), ws);
  double sum = 0.0;
  for (float const l : logits.span()) {
    CHECK(std::abs(l - 1.0F) <= 0.1F);
    sum += static_cast<double>(l);
  }
  CHECK(std::abs(sum / 6000.0 - 1.0) < 0.005);
  jittered.forward(fl::serial{}, parameters, std::as_const(in).view(), {.phase = fl::phase::evaluate}, logits.view(), ws);
  for (float const l : logits.span()) { CHECK(l == 1.0F); }
  fl::noisy_input<fl::linear_gate<>> const bad{.gate = {.width = 6, .experts = 3}, .noise = {.epsilon = 1.5F}};
  CHECK_THROWS_AS(bad.forward(fl::serial{}, parameters, std::as_const(in).view(), train, logits.view(), ws), fl::contract_violation);
}

TEST_CASE("gshard_top_2 keeps the second expert by each of its policies") {
  index_t const tokens = 20000;
  // The pair's shares are 0.9 and 0.1.
  auto const many = repeated({std::log(9.0F), 0.0F, -5.0F}, tokens);
  auto const kept = [&](fl::keep_second policy, float threshold) {
    auto const a = ask(fl::gshard_top_2{.experts = 3, .training = policy, .threshold = threshold}, many.view(),
                       {.phase = fl::phase::train, .seed = 8});
    double count = 0.0;
    for (index_t t = 0; t < tokens; ++t) {
      CHECK(weights(a, t)[0] == Approx(0.9).epsilon(1e-6));  // renormalised before the drop
      count += ids(a, t)[1] >= 0 ? 1.0 : 0.0;
    }
    return count / static_cast<double>(tokens);
  };
  CHECK(kept(fl::keep_second::always, 0.2F) == 1.0);
  CHECK(kept(fl::keep_second::never, 0.2F) == 0.0);
  CHECK(kept(fl::keep_second::above_threshold, 0.2F) == 0.0);
  CHECK(kept(fl::keep_second::above_threshold, 0.05F) == 1.0);
  CHECK(std::abs(kept(fl::keep_second::random, 0.2F) - 0.5) < 0.02);
  CHECK(kept(fl::keep_second::random, 0.05F) == 1.0);
}
