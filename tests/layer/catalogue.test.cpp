// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Routers, gates, losses and capacities of the catalogue inside a layer: gradients of the whole against differences.
#include <fairlead/balance/importance_loss.hpp>
#include <fairlead/balance/framework_losses.hpp>
#include <fairlead/balance/noisy_load_loss.hpp>
#include <fairlead/balance/on_backbone.hpp>
#include <fairlead/balance/second_place_loss.hpp>
#include <fairlead/balance/signals.hpp>
#include <fairlead/balance/z_loss.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/dispatch/identity_experts.hpp>
#include <fairlead/dispatch/token_groups.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/gated_ffn.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/route/cosine_gate.hpp>
#include <fairlead/route/expert_choice.hpp>
#include <fairlead/route/forced_choice.hpp>
#include <fairlead/route/input_noise.hpp>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/route/noisy_linear_gate.hpp>
#include <fairlead/route/noisy_top_k.hpp>
#include <fairlead/route/replay.hpp>
#include <fairlead/route/sampled_choice.hpp>
#include <fairlead/route/shared_slots.hpp>
#include <fairlead/route/sinkhorn_router.hpp>
#include <fairlead/route/token_rounding.hpp>
#include <fairlead/route/top_k.hpp>
#include <fairlead/route/weight_norm.hpp>
#include <fairlead/route/zero_experts.hpp>

#include "support/catch.hpp"

#include <cmath>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr index_t width = 4, tokens = 8;

// Differences of sum(g . output) + auxiliary loss by every token element and gate parameter, where nothing is rerouted.
// Returns how many were compared.
template <class Layer>
int compare(Layer const& layer) {
  fl::serial const on;
  auto state = layer.make_state(on, fl::alone{}, {.max_tokens = tokens, .seed = 5});
  auto record = layer.make_record(state);
  fl::matrix<float> in(tokens, width), out(tokens, width), grad_out(tokens, width), grad_in(tokens, width);
  std::uint64_t index = 0;
  for (float& x : in.span()) { x = static_cast<float>(fl::philox::normal(3, 1, index++)); }
  for (float& g : grad_out.span()) { g = static_cast<float>(fl::philox::normal(3, 2, index++)); }
  for (float& p : state.gate.values.span()) { p += 0.5F * static_cast<float>(fl::philox::normal(3, 3, index++)); }
  std::vector<std::int32_t> places;
  auto const run = [&] {
    layer.zero_gradients(state);
    (void)layer.forward(state, std::as_const(in).view(), out.view(), record, {.seed = 4, .step = 2});
    layer.backward(state, record, std::as_const(grad_out).view(), grad_in.view());
    double sum = record.signal_loss;
    for (index_t i = 0; i < tokens * width; ++i) { sum += static_cast<double>(out.data()[i]) * static_cast<double>(grad_out.data()[i]); }
    return sum;
  };
  auto const same = [&] {
    bool equal = true;
    std::size_t at = 0;
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t j = 0; j < layer.router.fan_out(); ++j) {
        equal = equal && places[at++] == static_cast<std::int32_t>(record.routing.view().experts(t, j));
        equal = equal && places[at++] == record.plan.copy_to_outer[t * layer.router.fan_out() + j];
      }
    }
    return equal;
  };
  (void)run();
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t j = 0; j < layer.router.fan_out(); ++j) {
      places.push_back(static_cast<std::int32_t>(record.routing.view().experts(t, j)));
      places.push_back(record.plan.copy_to_outer[t * layer.router.fan_out() + j]);
    }
  }
  std::vector<float> const by_token(grad_in.span().begin(), grad_in.span().end());
  std::vector<float> const by_gate(state.gate.gradients.span().begin(), state.gate.gradients.span().end());
  int compared = 0;
  auto const difference = [&](float& value, float got, char const* what, std::size_t i) {
    float const old = value;
    float const step = 1.0F / 256.0F;
    value = old + step;
    double const above = run();
    bool const steady = same();
    value = old - step;
    double const below = run();
    bool const usable = steady && same();
    value = old;
    if (!usable) { return; }
    ++compared;
    double const want = (above - below) / (2.0 * static_cast<double>(step));
    CAPTURE(what, i, want, got);
    CHECK(std::abs(static_cast<double>(got) - want) <= 2e-3 * (1.0 + std::abs(want)));
  };
  for (std::size_t i = 0; i < by_token.size(); ++i) { difference(in.data()[i], by_token[i], "token", i); }
  for (std::size_t i = 0; i < by_gate.size(); ++i) { difference(state.gate.values.data()[i], by_gate[i], "gate", i); }
  return compared;
}

using expert_type = fl::gated_ffn<>;
expert_type const expert{.width = width, .hidden = 3};

}  // namespace

TEST_CASE("a layer with learned noise: importance, expected load and z-loss through both projections") {
  fl::noisy_top_k const router{.experts = 4, .k = 2};
  auto const signal = fl::all_of(fl::weight_importance_loss<fl::noisy_top_k>{.router = router, .coefficient = 0.3},
                                 fl::on_backbone<fl::z_loss>{.signal = {.coefficient = 0.1}});
  fl::moe_layer<fl::noisy_linear_gate<>, fl::noisy_top_k, expert_type, std::remove_const_t<decltype(signal)>> const layer{
      .gate = {.width = width, .experts = 4}, .router = router, .signal = signal, .expert = expert};
  CHECK(compare(layer) > 30);
  fl::noisy_load_loss<fl::noisy_top_k> const load{.source = router, .coefficient = 0.3};
  fl::moe_layer<fl::noisy_linear_gate<>, fl::noisy_top_k, expert_type, fl::noisy_load_loss<fl::noisy_top_k>> const loaded{
      .gate = {.width = width, .experts = 4}, .router = router, .signal = load, .expert = expert};
  CHECK(compare(loaded) > 30);
}

TEST_CASE("a layer as DeepSpeed's top-2: drawn second expert, drops, weights renormalised after them, first-choice loss") {
  using dispatcher = fl::exchange<fl::deepspeed_capacity, fl::choice_major_order, fl::drop_and_renormalise>;
  auto const signal = fl::all_of(fl::deepspeed_loss{.coefficient = 0.5}, fl::second_place_loss{.coefficient = 0.2});
  fl::moe_layer<fl::linear_gate<>, fl::sampled_top_k, expert_type, std::remove_const_t<decltype(signal)>, fl::contiguous_placement,
                fl::sole_replica, dispatcher> const layer{
      .gate = {.width = width, .experts = 4}, .router = fl::sampled_second(4), .signal = signal,
      .dispatcher = {.capacity = {.factor = 0.6, .minimum = 0}}, .expert = expert};
  CHECK(compare(layer) > 30);
}

TEST_CASE("a layer with a gate by angle, p-norm weights and noisy input") {
  using gate = fl::noisy_input<fl::cosine_gate<>, fl::input_dropout>;
  using router = fl::normalised_weights<fl::softmax_top_k>;
  fl::moe_layer<gate, router, expert_type, fl::importance_loss> const layer{
      .gate = {.gate = {.width = width, .experts = 4, .projected = 3}},
      .router = {.router = {.experts = 4, .k = 2}, .p = 2.0F}, .signal = {.coefficient = 0.5}, .expert = expert};
  CHECK(compare(layer) > 30);
}

TEST_CASE("layers with shared slots, zero experts and identity experts") {
  using shared = fl::shared_slots<fl::sigmoid_top_k>;
  fl::moe_layer<fl::linear_gate<>, shared, expert_type> const with_shared{
      .gate = {.width = width, .experts = 4}, .router = {.router = {.experts = 4, .k = 2, .scale = 1.5F}, .shared = 1, .divisor = 1.5F},
      .expert = expert};
  CHECK(compare(with_shared) > 30);
  using zero = fl::zero_experts<fl::top_k>;
  fl::moe_layer<fl::linear_gate<>, zero, expert_type> const with_zero{
      .gate = {.width = width, .experts = 6}, .router = {.router = {.experts = 6, .k = 3}, .zero = 2}, .expert = expert};
  CHECK(compare(with_zero) > 30);
  using dispatcher = fl::exchange<fl::identity_experts<>, fl::token_order, fl::identity>;
  fl::moe_layer<fl::linear_gate<>, fl::top_k, expert_type, fl::no_signal, fl::contiguous_placement, fl::sole_replica, dispatcher> const
      with_identity{.gate = {.width = width, .experts = 5}, .router = {.experts = 5, .k = 2}, .dispatcher = {.capacity = {.first = 3}},
                    .expert = expert};
  CHECK(compare(with_identity) > 30);
}

TEST_CASE("a layer whose capacity counts in groups of tokens") {
  using dispatcher = fl::exchange<fl::dropless, fl::grouped_order<>, fl::drop_in_groups<>>;
  fl::moe_layer<fl::linear_gate<>, fl::softmax_top_k, expert_type, fl::mesh_loss, fl::contiguous_placement, fl::sole_replica,
                dispatcher> const layer{.gate = {.width = width, .experts = 4},
                                        .router = {.experts = 4, .k = 2},
                                        .signal = {.coefficient = 0.3, .scope = {.length = 4}},
                                        .dispatcher = {.order = {.group = 4}, .overflow = {.group = 4, .capacity = {.minimum = 1}}},
                                        .expert = expert};
  CHECK(compare(layer) > 30);
}

TEST_CASE("layers whose router looks at the whole batch, is forced or replayed: tokens with no expert and with all of them") {
  fl::linear_gate<> const gate{.width = width, .experts = 4};
  auto const check = [&](auto const& router, int least) {
    CHECK(compare(fl::moe_layer{.gate = gate, .router = router, .expert = expert}) >= least);
  };
  check(fl::expert_choice{.experts = 4, .capacity_factor = 1.5}, 24);
  check(fl::expert_choice_over_tokens{.experts = 4, .capacity_factor = 2.0, .max_choices = 2, .shares = {.divide_by_choices = true}}, 24);
  check(fl::sinkhorn_router{.experts = 4, .k = 2}, 24);
  check(fl::token_rounding{.experts = 4, .k = 1, .tile = 2, .rounding = fl::tile_rounding::up}, 24);
  check(fl::forced_choice<fl::random_experts, fl::sigmoid_score, fl::not_renormalised>{.experts = 4, .k = 2}, 48);
  fl::routing_log log(1, tokens, 2);
  check(fl::replay<fl::softmax_top_k>{.router = {.experts = 4, .k = 2}, .log = &log, .mode = fl::replay_mode::record}, 24);
  check(fl::replay<fl::softmax_top_k>{.router = {.experts = 4, .k = 2}, .log = &log, .mode = fl::replay_mode::play}, 48);
}
