// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Two-stage routing: the gate with its light twin, and the router that changes from one to the other.
#include "support/catch.hpp"

#include <fairlead/exec/threads.hpp>
#include <fairlead/laws/gate.hpp>
#include <fairlead/laws/router.hpp>
#include <fairlead/route/distilled_gate.hpp>
#include <fairlead/route/two_stage.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

// Shows one row of scores to both halves, so that the kit of routers, which knows one score an expert, can look.
template <class Router>
struct both_halves {
  Router inner;
  [[nodiscard]] index_t experts() const { return inner.experts(); }
  [[nodiscard]] index_t fan_out() const { return inner.fan_out(); }
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens) const { return inner.workspace_bytes(tokens); }
  [[nodiscard]] fl::matrix<float> twice(fl::matrix_view<float const> logits) const {
    fl::matrix<float> both(logits.rows(), 2 * logits.cols());
    for (index_t t = 0; t < logits.rows(); ++t) {
      for (index_t e = 0; e < both.cols(); ++e) { both(t, e) = logits(t, e % logits.cols()); }
    }
    return both;
  }
  template <class Backend>
  void route(Backend const& on, fl::matrix_view<float const> logits, fl::route_context const& context, fl::routing_view out,
             fl::workspace& ws) const {
    auto const both = twice(logits);
    inner.route(on, both.view(), context, out, ws);
  }
  template <class Backend>
  void backward(Backend const& on, fl::matrix_view<float const> logits, fl::route_context const& context,
                fl::const_routing_view out, fl::matrix_view<float const> grad_weights, fl::matrix_view<float> grad_logits,
                fl::workspace& ws) const {
    auto const both = twice(logits);
    fl::matrix<float> grad(logits.rows(), 2 * logits.cols());
    for (float& value : grad.span()) { value = 7.0F; }
    inner.backward(on, both.view(), context, out, grad_weights, grad.view(), ws);
    for (index_t t = 0; t < logits.rows(); ++t) {
      for (index_t e = 0; e < logits.cols(); ++e) { grad_logits(t, e) = grad(t, e) + grad(t, e + logits.cols()); }
    }
  }
};

struct routed {
  std::vector<int> experts;
  std::vector<float> weights;
};
template <class Router>
routed ask(Router const& router, fl::matrix<float> const& logits, fl::route_context const& context) {
  fl::routing<> out(logits.rows(), 1);
  fl::arena<> memory(router.workspace_bytes(logits.rows()));
  fl::workspace ws = memory.view();
  router.route(fl::serial{}, logits.view(), context, out.view(), ws);
  routed result;
  for (index_t t = 0; t < logits.rows(); ++t) {
    result.experts.push_back(static_cast<int>(std::as_const(out).view().experts(t, 0)));
    result.weights.push_back(std::as_const(out).view().weights(t, 0));
  }
  return result;
}
fl::matrix<float> of(std::vector<std::vector<float>> const& rows) {
  fl::matrix<float> m(static_cast<index_t>(rows.size()), static_cast<index_t>(rows[0].size()));
  for (index_t t = 0; t < m.rows(); ++t) {
    for (index_t c = 0; c < m.cols(); ++c) { m(t, c) = rows[static_cast<std::size_t>(t)][static_cast<std::size_t>(c)]; }
  }
  return m;
}

// A first stage that gives each expert equally many tokens, row by row, whatever the scores; learns how often it ran.
struct in_turn {
  struct state_type {
    int routed = 0, observed = 0;
  };
  index_t n = 2;
  [[nodiscard]] index_t experts() const { return n; }
  [[nodiscard]] index_t fan_out() const { return 1; }
  [[nodiscard]] std::size_t workspace_bytes(index_t) const { return 0; }
  [[nodiscard]] state_type make_state() const { return {}; }
  template <class Backend>
  void route(Backend const&, fl::matrix_view<float const> logits, fl::route_context const&, state_type const&,
             fl::routing_view out, fl::workspace&) const {
    for (index_t t = 0; t < logits.rows(); ++t) {
      out.experts(t, 0) = static_cast<fl::expert_id>(t % n);
      out.weights(t, 0) = 3.0F;
    }
  }
  template <class Backend>
  void route_and_learn(Backend const& on, fl::matrix_view<float const> logits, fl::route_context const& context,
                       state_type& state, fl::routing_view out, fl::workspace& ws) const {
    ++state.routed;
    route(on, logits, context, state, out, ws);
  }
  void observe(std::span<index_t const>, state_type& state) const { ++state.observed; }
};

}  // namespace

template <>
inline constexpr bool fairlead::batch_coupled<in_turn> = true;
using in_turn_stages = fl::two_stage<in_turn>;
static_assert(fl::has_learning_route<in_turn_stages, fl::serial> && fl::has_observe<in_turn_stages>);
static_assert(fl::batch_coupled<in_turn_stages> && !fl::causal<in_turn_stages> && !fl::has_state<fl::two_stage<>>);
template <>
inline constexpr bool fairlead::causal<both_halves<fl::two_stage<>>> = true;

TEST_CASE("two_stage keeps the laws of routers in both stages") {
  for (index_t const experts : {1, 2, 7, 33}) {
    // The kit asks at step 5.
    for (std::uint64_t const switch_step : {std::uint64_t{0}, std::uint64_t{5}, std::uint64_t{6}, fl::never_step}) {
      for (auto const evaluation : {fl::stage_evaluation::by_stage, fl::stage_evaluation::distilled}) {
        CAPTURE(experts, switch_step);
        both_halves<fl::two_stage<>> const router{{.first = {.experts = experts}, .switch_step = switch_step, .evaluation = evaluation}};
        CHECK(fl::laws::check_router(router, {.tokens = 37, .seed = 3}));
      }
    }
  }
}

TEST_CASE("the step of the context alone decides the stage, and the evaluation policy what routes an evaluation before the switch") {
  auto const logits = of({{1.0F, 2.0F, 9.0F, 8.0F}, {-1.0F, -2.0F, 0.5F, 0.5F}});  // backbone 1, 0; light 0, 0 (a tie)
  std::vector<int> const backbone{1, 0}, light{0, 0};
  fl::two_stage<> paper{.first = {.experts = 2}, .switch_step = 10};
  fl::two_stage<> code = paper;
  code.evaluation = fl::stage_evaluation::distilled;
  for (std::uint64_t const step : {std::uint64_t{0}, std::uint64_t{9}, std::uint64_t{10}, std::uint64_t{11}, fl::never_step}) {
    CAPTURE(step);
    for (auto const when : {fl::phase::train, fl::phase::recompute, fl::phase::evaluate}) {
      fl::route_context const context{.phase = when, .step = step};
      CHECK(ask(paper, logits, context).experts == (step < 10 ? backbone : light));
      CHECK(ask(code, logits, context).experts == (step < 10 && when != fl::phase::evaluate ? backbone : light));
    }
  }
  paper.switch_step = fl::never_step;
  CHECK(ask(paper, logits, {.step = fl::never_step}).experts == backbone);
}

TEST_CASE("the weight is the sigmoid of the backbone score of the chosen expert in both stages, and the gradient reaches that score alone") {
  auto const logits = of({{1.0F, 2.0F, 9.0F, 8.0F}, {-1.0F, -2.0F, 0.0F, 0.5F}, {std::nanf(""), 1.0F, 4.0F, 3.0F}});
  fl::two_stage<> const router{.first = {.experts = 2}, .switch_step = 1};
  auto const sigmoid = [](double x) { return 1.0 / (1.0 + std::exp(-x)); };
  for (std::uint64_t const step : {std::uint64_t{0}, std::uint64_t{1}}) {
    CAPTURE(step);
    std::vector<double> const scores = step == 0 ? std::vector<double>{2.0, -1.0, 1.0} : std::vector<double>{1.0, -2.0, 1.0};
    std::vector<int> const ids = step == 0 ? std::vector<int>{1, 0, 1} : std::vector<int>{0, 1, 1};
    fl::route_context const context{.step = step};
    auto const got = ask(router, logits, context);
    CHECK(got.experts == ids);
    fl::routing<> out(3, 1);
    fl::matrix<float> const grad_weights = of({{2.0F}, {-3.0F}, {1.0F}});
    fl::matrix<float> grad(3, 4);
    for (float& value : grad.span()) { value = 5.0F; }
    for (index_t t = 0; t < 3; ++t) { out.view().experts(t, 0) = static_cast<fl::expert_id>(got.experts[static_cast<std::size_t>(t)]); }
    fl::arena<> memory(router.workspace_bytes(3));
    fl::workspace ws = memory.view();
    router.backward(fl::serial{}, logits.view(), context, std::as_const(out).view(), grad_weights.view(), grad.view(), ws);
    for (index_t t = 0; t < 3; ++t) {
      auto const at = static_cast<std::size_t>(t);
      double const s = sigmoid(scores[at]);
      CHECK(std::abs(static_cast<double>(got.weights[at]) - s) < 1e-6);
      for (index_t c = 0; c < 4; ++c) {
        double const want = c == ids[at] ? static_cast<double>(grad_weights(t, 0)) * s * (1.0 - s) : 0.0;
        CHECK(std::abs(static_cast<double>(grad(t, c)) - want) < 1e-6);
      }
    }
  }
}

TEST_CASE("another first stage chooses, keeps its state, and stops learning at the switch") {
  auto const logits = of({{1.0F, 2.0F, 9.0F, 8.0F}, {1.0F, 2.0F, 9.0F, 8.0F}, {1.0F, 2.0F, 9.0F, 8.0F}});
  in_turn_stages const router{.first = {.n = 2}, .switch_step = 2};
  auto state = router.make_state();
  fl::arena<> memory(router.workspace_bytes(3));
  fl::routing<> out(3, 1), again(3, 1);
  for (std::uint64_t step = 0; step < 4; ++step) {
    fl::workspace ws = memory.view();
    router.route_and_learn(fl::serial{}, logits.view(), {.step = step}, state, out.view(), ws);
    router.route(fl::serial{}, logits.view(), {.phase = fl::phase::recompute, .step = step}, std::as_const(state), again.view(), ws);
    for (index_t t = 0; t < 3; ++t) {
      index_t const want = step < 2 ? t % 2 : 0;
      CHECK(fl::to_index(out.view().experts(t, 0)) == want);
      CHECK(out.view().experts(t, 0) == again.view().experts(t, 0));
      CHECK(out.view().weights(t, 0) == fl::numeric::sigmoid(logits(t, want)));
    }
    router.observe(std::vector<index_t>{2, 1}, state);
  }
  CHECK(state.routed == 2);
  CHECK(state.observed == 4);
}

TEST_CASE("two_stage refuses logits of one half and first stages of several choices") {
  fl::matrix<float> const half(3, 2), whole(3, 4);
  CHECK_THROWS_AS(ask(fl::two_stage<>{.first = {.experts = 2}}, half, {}), fl::contract_violation);
  CHECK_THROWS_AS(ask(fl::two_stage<>{.first = {.experts = 2, .k = 2}}, whole, {}), fl::contract_violation);
  CHECK(ask(fl::two_stage<>{.first = {.experts = 2}}, whole, {}).experts == std::vector<int>{0, 0, 0});
}

TEMPLATE_TEST_CASE("a gate with any features keeps the laws of gates", "", fl::token_embedding, fl::bigram_embedding,
                   fl::convolution_embedding) {
  for (bool const padding : {false, true}) {
    TestType features{.vocabulary = 8, .width = 5};
    fl::distilled_gate<TestType> gate{.backbone = {.width = 6, .experts = 2}, .features = features};
    CHECK(fl::laws::check_gate(gate, fl::serial{}, {.tokens = 9, .seed = 4, .padding = padding}));
    gate.switch_step = 1;
    CHECK(fl::laws::check_gate(gate, fl::serial{}, {.tokens = 9, .seed = 5, .padding = padding}));
    if constexpr (requires { features.sequence_length; }) {
      gate.features.sequence_length = 3;
      CHECK(fl::laws::check_gate(gate, fl::serial{}, {.tokens = 8, .seed = 6, .padding = padding}));
    }
    // From the switch on gradients are no derivatives any more: the kit must notice.
    gate.switch_step = 0;
    CHECK(fl::laws::check_gate(gate, fl::serial{}, {.tokens = 9, .seed = 4}).reason().find("of a parameter") != std::string::npos);
  }
}

namespace {

// Features by the definition, in double.
struct oracle {
  index_t vocabulary, width, taps, length;
  bool filter;
  [[nodiscard]] std::vector<double> row(std::vector<float> const& p, std::vector<std::int32_t> const& ids,
                                        std::vector<std::uint8_t> const& mask, index_t t) const {
    std::vector<double> out(static_cast<std::size_t>(width), 0.0);
    if (mask[static_cast<std::size_t>(t)] == 0) { return out; }
    for (index_t k = 0; k < taps; ++k) {
      index_t const from = t - k;
      if (from < 0 || (length > 0 && from / length != t / length) || mask[static_cast<std::size_t>(from)] == 0) { continue; }
      for (index_t o = 0; o < width; ++o) {
        for (index_t c = 0; c < width; ++c) {
          double const e = static_cast<double>(p[static_cast<std::size_t>(ids[static_cast<std::size_t>(from)] * width + c)]);
          double const f = filter ? static_cast<double>(p[static_cast<std::size_t>(vocabulary * width + (o * taps + k) * width + c)])
                                  : (o == c ? 1.0 / static_cast<double>(taps) : 0.0);
          out[static_cast<std::size_t>(o)] += f * e;
        }
      }
    }
    return out;
  }
};
template <class Features>
oracle oracle_of(Features const& f) {
  if constexpr (requires { f.taps; }) { return {f.vocabulary, f.width, f.taps, f.sequence_length, true}; }
  else if constexpr (requires { f.sequence_length; }) { return {f.vocabulary, f.width, 2, f.sequence_length, false}; }
  else { return {f.vocabulary, f.width, 1, 0, false}; }
}

}  // namespace

TEMPLATE_TEST_CASE("features equal their definition, see nothing beyond their sequence, and have the same bits on threads", "",
                   fl::token_embedding, fl::bigram_embedding, fl::convolution_embedding) {
  constexpr index_t tokens = 203, vocabulary = 11;
  for (index_t const width : {1, 19, 50}) {
    for (index_t const length : {0, 1, 7, 203}) {
      CAPTURE(width, length);
      TestType features{.vocabulary = vocabulary, .width = width};
      if constexpr (requires { features.sequence_length; }) { features.sequence_length = length; }
      fl::distilled_gate<TestType> const gate{.backbone = {.width = 3, .experts = 4}, .features = features};
      auto const layout = gate.parameter_layout();
      std::vector<float> parameters(static_cast<std::size_t>(layout.size()));
      fl::initialise<float>(layout, 3, 0, std::span<float>(parameters));
      std::vector<std::int32_t> ids;
      std::vector<std::uint8_t> mask;
      for (index_t t = 0; t < tokens; ++t) {
        auto const words = fl::philox::draw(9, 0, static_cast<std::uint64_t>(t));
        ids.push_back(static_cast<std::int32_t>(words[0] % vocabulary));
        mask.push_back(words[1] % 8 != 0 ? 1 : 0);
        if (mask.back() == 0) { ids.back() = -1; }  // padding may hold anything
      }
      fl::matrix<float> hidden(tokens, 3), logits(tokens, 8), team_logits(tokens, 8), grad(tokens, 8), grad_hidden(tokens, 3), team_grad_hidden(tokens, 3);
      for (index_t i = 0; i < grad.rows() * grad.cols(); ++i) { grad.data()[i] = static_cast<float>(fl::philox::normal(5, 1, static_cast<std::uint64_t>(i))); }
      fl::route_context const context{.token_mask = mask, .token_ids = ids};
      fl::arena<> memory(gate.workspace_bytes(tokens));
      fl::workspace ws = memory.view();
      std::span<float const> const p(parameters);
      fl::threads const team{3};
      gate.forward(fl::serial{}, p, std::as_const(hidden).view(), context, logits.view(), ws);
      gate.forward(team, p, std::as_const(hidden).view(), context, team_logits.view(), ws);
      CHECK(std::equal(logits.span().begin(), logits.span().end(), team_logits.span().begin()));
      auto const expected = oracle_of(features);
      auto const first = static_cast<std::ptrdiff_t>(layout[1].offset);
      std::vector<float> const own(parameters.begin() + first, parameters.end());
      double worst = 0.0;
      for (index_t t = 0; t < tokens; ++t) {
        auto const row = expected.row(own, ids, mask, t);
        for (index_t e = 0; e < 4; ++e) {
          double sum = 0.0;
          for (index_t c = 0; c < width; ++c) {
            auto const at = static_cast<std::size_t>(layout[static_cast<index_t>(layout.blocks().size()) - 1].offset + e * width + c);
            sum += row[static_cast<std::size_t>(c)] * static_cast<double>(parameters[at]);
          }
          worst = std::max(worst, std::abs(sum - static_cast<double>(logits(t, 4 + e))));
        }
      }
      CHECK(worst < 2e-6);
      std::vector<float> gradients(parameters.size(), 0.0F), team_gradients(parameters.size(), 0.0F);
      gate.backward(fl::serial{}, p, std::as_const(hidden).view(), context, std::as_const(grad).view(), std::span<float>(gradients), grad_hidden.view(), ws);
      gate.backward(team, p, std::as_const(hidden).view(), context, std::as_const(grad).view(), std::span<float>(team_gradients), team_grad_hidden.view(), ws);
      CHECK(gradients == team_gradients);
    }
  }
}

TEST_CASE("a light score of a token id has the same bits wherever the token stands, and does not see the hidden state") {
  fl::distilled_gate<> const gate{.backbone = {.width = 4, .experts = 5}, .features = {.vocabulary = 6}};
  auto const layout = gate.parameter_layout();
  std::vector<float> parameters(static_cast<std::size_t>(layout.size()));
  fl::initialise<float>(layout, 3, 0, std::span<float>(parameters));
  std::vector<std::vector<float>> seen(6);
  fl::arena<> memory(gate.workspace_bytes(150));
  for (index_t const tokens : {1, 2, 64, 65, 150}) {
    std::vector<std::int32_t> ids;
    fl::matrix<float> hidden(tokens, 4), logits(tokens, 10);
    for (index_t t = 0; t < tokens; ++t) {
      ids.push_back(static_cast<std::int32_t>((t * 5 + tokens) % 6));
      hidden(t, 0) = static_cast<float>(t);
    }
    fl::workspace ws = memory.view();
    gate.forward(fl::serial{}, std::span<float const>(parameters), std::as_const(hidden).view(), {.token_ids = ids}, logits.view(), ws);
    for (index_t t = 0; t < tokens; ++t) {
      std::vector<float> const row(logits.view().row(t) + 5, logits.view().row(t) + 10);
      auto& known = seen[static_cast<std::size_t>(ids[static_cast<std::size_t>(t)])];
      if (known.empty()) { known = row; }
      CHECK(known == row);
    }
  }
}

TEST_CASE("from the switch on the light router gets no gradient and says that it is frozen") {
  fl::distilled_gate<fl::convolution_embedding> const gate{
      .backbone = {.width = 4, .experts = 3}, .features = {.vocabulary = 6, .width = 5}, .switch_step = 7};
  auto const layout = gate.parameter_layout();
  REQUIRE(layout.blocks().size() == 4);
  CHECK(std::string(layout[1].name) == "token_embedding");
  CHECK(std::string(layout[2].name) == "taps");
  CHECK(std::string(layout[3].name) == "centroids");
  for (index_t block = 0; block < 4; ++block) {
    CHECK_FALSE(gate.frozen(block, 6));
    CHECK(gate.frozen(block, 7) == (block > 0));
    CHECK(gate.frozen(block, 70) == (block > 0));
  }
  std::vector<float> parameters(static_cast<std::size_t>(layout.size()));
  fl::initialise<float>(layout, 3, 0, std::span<float>(parameters));
  std::vector<std::int32_t> const ids{1, 2, 3};
  fl::matrix<float> hidden(3, 4), grad(3, 6), grad_hidden(3, 4);
  for (float& value : hidden.span()) { value = 1.0F; }
  for (float& value : grad.span()) { value = 1.0F; }
  fl::arena<> memory(gate.workspace_bytes(3));
  for (std::uint64_t const step : {std::uint64_t{6}, std::uint64_t{7}}) {
    std::vector<float> gradients(parameters.size(), 0.0F);
    fl::workspace ws = memory.view();
    gate.backward(fl::serial{}, std::span<float const>(parameters), std::as_const(hidden).view(), {.step = step, .token_ids = ids},
                  std::as_const(grad).view(), std::span<float>(gradients), grad_hidden.view(), ws);
    auto const moved = [&](fl::parameter_block const& b) {
      bool any = false;
      for (index_t i = b.offset; i < b.offset + b.size(); ++i) { any = any || gradients[static_cast<std::size_t>(i)] != 0.0F; }
      return any;
    };
    CHECK(moved(layout[0]));
    for (index_t block = 1; block < 4; ++block) { CHECK(moved(layout[block]) == (step < 7)); }
  }
}

TEST_CASE("a gate refuses ids that are missing or outside its vocabulary") {
  fl::distilled_gate<> const gate{.backbone = {.width = 2, .experts = 2}, .features = {.vocabulary = 3, .width = 4}};
  std::vector<float> const parameters(static_cast<std::size_t>(gate.parameter_layout().size()), 0.5F);
  fl::matrix<float> hidden(2, 2), logits(2, 4);
  fl::arena<> memory(gate.workspace_bytes(2));
  auto const forward = [&](std::vector<std::int32_t> const& ids) {
    fl::workspace ws = memory.view();
    gate.forward(fl::serial{}, std::span<float const>(parameters), std::as_const(hidden).view(), {.token_ids = ids}, logits.view(), ws);
  };
  CHECK_NOTHROW(forward({0, 2}));
  CHECK_THROWS_AS(forward({}), fl::contract_violation);
  CHECK_THROWS_AS(forward({0}), fl::contract_violation);
#if FAIRLEAD_CONTRACT_LEVEL >= 2
  CHECK_THROWS_AS(forward({0, 3}), fl::contract_violation);
  CHECK_THROWS_AS(forward({-1, 0}), fl::contract_violation);
#endif
}

TEST_CASE("two_stage keeps the laws when the kit makes both halves by itself") {
  for (std::uint64_t const switch_step : {std::uint64_t{5}, std::uint64_t{6}}) {
    CAPTURE(switch_step);
    CHECK(fl::laws::check_router(fl::two_stage<>{.first = {.experts = 7}, .switch_step = switch_step}, {.tokens = 37, .seed = 3, .by_score = false}));
  }
}
