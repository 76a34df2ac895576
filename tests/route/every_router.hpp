// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Every router of the tree behind one run-time face, so that each property is tested on all of them in one place.
// A new router needs a line in `every_router` below.
#include <fairlead/assign/balanced_flow.hpp>
#include <fairlead/concepts/router.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/exec/threads.hpp>
#include <fairlead/route/balanced_choice.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/expert_choice.hpp>
#include <fairlead/route/fixed_choice.hpp>
#include <fairlead/route/forced_choice.hpp>
#include <fairlead/route/forced_logits.hpp>
#include <fairlead/route/gshard_top_2.hpp>
#include <fairlead/route/hash_tables.hpp>
#include <fairlead/route/noisy_top_k.hpp>
#include <fairlead/route/sampled_choice.hpp>
#include <fairlead/route/shared_slots.hpp>
#include <fairlead/route/sinkhorn_router.hpp>
#include <fairlead/route/switch_top_1.hpp>
#include <fairlead/route/token_rounding.hpp>
#include <fairlead/route/top_k.hpp>
#include <fairlead/route/two_stage.hpp>
#include <fairlead/route/weight_norm.hpp>
#include <fairlead/route/zero_experts.hpp>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace every {

namespace fl = fairlead;
using fl::index_t;

inline constexpr std::int32_t vocabulary = 32;

// What a router says of itself beyond its type.
struct promise {
  bool by_logits = true;      // in evaluation the order of the logits alone decides (not token ids, groups, a bias)
  bool sums_to_scale = false; // the weights of a token with a choice add up to its scale of 1
  bool by_position = false;   // the choice depends on the token's global number
  bool one_to_one = true;     // column e of the logits is expert e, and there are no others
};

struct any_router {
  std::string name;
  promise says;
  index_t experts = 0, fan_out = 0, columns = 0;
  bool causal = false, coupled = false;
  // (threads; 0 = serial), logits, context, out
  std::function<void(int, fl::matrix_view<float const>, fl::route_context const&, fl::routing_view)> route;
  // logits, context, out, grad_weights, grad_logits; empty if the router has no gradient
  std::function<void(fl::matrix_view<float const>, fl::route_context const&, fl::const_routing_view,
                     fl::matrix_view<float const>, fl::matrix_view<float>)> backward;
};

template <class Router>
struct state_of {
  explicit state_of(Router const&) {}
};
template <fl::has_state Router>
struct state_of<Router> {
  explicit state_of(Router const& router) : value(router.make_state()) {
    if constexpr (requires { value.values[0] = 0.1F; }) {  // a bias that moves choices
      for (std::size_t e = 0; e < value.values.size(); ++e) { value.values[e] = 0.05F * static_cast<float>(e % 5); }
    }
    if constexpr (requires { value.frozen[0] = 0.1; }) {
      for (std::size_t e = 0; e < value.frozen.size(); ++e) { value.frozen[e] = 0.05 * static_cast<double>(e % 5); }
    }
  }
  fl::router_state_t<Router> value;
};

// Scratch of exactly the size that the router asks for.
template <class Router>
any_router wrap(std::string name, Router const& router, promise says = {}) {
  auto const state = std::make_shared<state_of<Router>>(router);
  auto const on_backend = [router, state](auto const& on, auto logits, auto const& context, auto out) {
    fl::arena<> memory(router.workspace_bytes(logits.rows()));
    fl::workspace ws = memory.view();
    if constexpr (fl::has_state<Router>) {
      router.route(on, logits, context, std::as_const(state->value), out, ws);
    } else {
      router.route(on, logits, context, out, ws);
    }
  };
  any_router any{std::move(name), says, router.experts(), router.fan_out(), fl::logit_columns(router),
                 fl::causal<Router>, fl::batch_coupled<Router>, {}, {}};
  any.route = [on_backend](int count, fl::matrix_view<float const> logits, fl::route_context const& context,
                           fl::routing_view out) {
    if (count == 0) {
      on_backend(fl::serial{}, logits, context, out);
    } else {
      on_backend(fl::threads{count}, logits, context, out);
    }
  };
  if constexpr (fl::has_gradient_on<Router, fl::serial>) {
    any.backward = [router, state](fl::matrix_view<float const> logits, fl::route_context const& context,
                                   fl::const_routing_view out, fl::matrix_view<float const> grad_weights,
                                   fl::matrix_view<float> grad_logits) {
      fl::arena<> memory(router.workspace_bytes(logits.rows()));
      fl::workspace ws = memory.view();
      if constexpr (fl::has_state<Router>) {
        router.backward(fl::serial{}, logits, context, std::as_const(state->value), out, grad_weights, grad_logits, ws);
      } else {
        router.backward(fl::serial{}, logits, context, out, grad_weights, grad_logits, ws);
      }
    };
  }
  return any;
}

// A router that owns the table it reads.
template <class Router>
struct with_table {
  std::shared_ptr<std::vector<fl::expert_id>> cells;
  Router router;
  with_table(Router with, index_t rows, std::uint64_t seed)
      : cells(std::make_shared<std::vector<fl::expert_id>>(static_cast<std::size_t>(rows * with.k))), router(with) {
    fl::matrix_view<fl::expert_id> const table(cells->data(), rows, with.k);
    fl::random_hash_table{.experts = with.experts(), .seed = seed}.fill(table);
    router.table = table;
  }
  [[nodiscard]] index_t experts() const { return router.experts(); }
  [[nodiscard]] index_t fan_out() const { return router.fan_out(); }
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens) const { return router.workspace_bytes(tokens); }
  template <class Backend>
  void route(Backend const& on, fl::matrix_view<float const> logits, fl::route_context const& context,
             fl::routing_view out, fl::workspace& ws) const {
    router.route(on, logits, context, out, ws);
  }
  template <class Backend>
  void backward(Backend const& on, fl::matrix_view<float const> logits, fl::route_context const& context,
                fl::const_routing_view out, fl::matrix_view<float const> grad_weights,
                fl::matrix_view<float> grad_logits, fl::workspace& ws) const {
    router.backward(on, logits, context, out, grad_weights, grad_logits, ws);
  }
};

}  // namespace every

template <class Router>
inline constexpr bool fairlead::causal<every::with_table<Router>> = fairlead::causal<Router>;

namespace every {

// All routers that can be made for these sizes. Solvers in a router stay small: `heavy` = false leaves them out. Not here:
// replay, whose log must hold what it is asked for, and decode_only, which refuses training (forced.test.cpp has both).
inline std::vector<any_router> every_router(index_t experts, index_t k, bool heavy = true) {
  std::vector<any_router> all;
  auto const add = [&](std::string name, auto const& router, promise says = {}) {
    all.push_back(wrap(std::move(name), router, says));
  };
  promise const sums{.sums_to_scale = true};
  promise const unordered{.by_logits = false};
  promise const unordered_sums{.by_logits = false, .sums_to_scale = true};
  promise const positioned{.by_logits = false, .by_position = true};
  promise const other_columns{.by_logits = false, .one_to_one = false};

  // Token choice.
  add("top_k", fl::top_k{.experts = experts, .k = k}, sums);
  add("softmax_top_k", fl::softmax_top_k{.experts = experts, .k = k});
  add("softmax_top_k_renormalised", fl::softmax_top_k_renormalised{.experts = experts, .k = k}, sums);
  add("sigmoid_top_k", fl::sigmoid_top_k{.experts = experts, .k = k}, {.sums_to_scale = k > 1});
  add("top_k_sigmoid", fl::top_k_sigmoid{.experts = experts, .k = k});
  add("sqrt_softplus_top_k", fl::sqrt_softplus_top_k{.experts = experts, .k = k}, {.sums_to_scale = k > 1});
  add("jittered top_k", fl::with_noise<fl::top_k, fl::multiplicative_jitter>{.experts = experts, .k = k}, sums);
  add("noisy softmax_top_k", fl::with_noise<fl::softmax_top_k, fl::fixed_noise>{.experts = experts, .k = k});
  add("sigmoid_bias_top_k", fl::sigmoid_bias_top_k{.experts = experts, .k = k}, {.by_logits = false, .sums_to_scale = k > 1});
  index_t const groups = experts % 4 == 0 ? 4 : experts % 2 == 0 ? 2 : 1, kept = (groups + 1) / 2;
  if (k <= kept * (experts / groups) && k <= 16) {
    add("softmax_group_top_k", fl::softmax_group_top_k{.experts = experts, .k = k, .selection = {groups, kept}}, unordered);
    add("sigmoid_bias_group_top_k",
        fl::sigmoid_bias_group_top_k{.experts = experts, .k = k, .selection = {groups, kept}}, unordered);
    using shares = fl::token_choice<fl::softmax_score, fl::group_limited<fl::group_top_share_sum>, fl::sum_over_chosen>;
    add("group share sums", shares{.experts = experts, .k = k, .selection = {groups, kept}}, unordered_sums);
  }
  if (k == 1) { add("switch_top_1", fl::switch_top_1{.experts = experts}); }
  if (k == 2) {
    add("gshard_top_2", fl::gshard_top_2{.experts = experts}, {});
    add("gshard_top_2, threshold",
        fl::gshard_top_2{.experts = experts, .training = fl::keep_second::above_threshold,
                         .evaluation = fl::keep_second::above_threshold}, unordered);
  }
  add("noisy_top_k", fl::noisy_top_k{.experts = experts, .k = k}, other_columns);
  add("sampled_top_k", fl::sampled_top_k{.experts = experts, .k = k, .temperature = 0.5F}, {});
  add("sampled_top_k, first certain", fl::sampled_top_k{.experts = experts, .k = k, .certain = 1}, {});
  add("normalised_weights", fl::normalised_weights<fl::softmax_top_k>{.router = {.experts = experts, .k = k}, .p = 2.0F}, {});
  if (k + 1 <= 64) {
    add("shared_slots", fl::shared_slots<fl::softmax_top_k>{.router = {.experts = experts, .k = k}}, other_columns);
  }
  if (experts > 1) {
    add("zero_experts", fl::zero_experts<fl::softmax_top_k>{.router = {.experts = experts, .k = k}}, other_columns);
  }

  // Tables.
  add("hash_table_top_k", with_table<fl::hash_table_top_k>({.experts = experts, .k = k}, vocabulary, 1),
      {.by_logits = false, .sums_to_scale = k > 1});
  add("hash_choice", with_table<fl::hash_choice>({.experts = experts, .k = k}, vocabulary, 2), unordered_sums);
  add("external_ids", with_table<fl::external_ids>({.experts = experts, .k = k}, 2000, 3),
      {.by_logits = false, .sums_to_scale = true, .by_position = true});

  // Forced.
  add("random_choice", fl::random_choice{.experts = experts, .k = k}, {.by_logits = false, .sums_to_scale = true, .by_position = true});
  add("uniform_choice", fl::uniform_choice{.experts = experts, .k = k}, {.by_logits = false, .by_position = true});
  add("gated random choice", fl::forced_choice<fl::random_experts, fl::softmax_score, fl::not_renormalised>{.experts = experts, .k = k}, positioned);
  add("forced_balance", fl::forced_balance<fl::top_k>{.router = {.experts = experts, .k = k}}, {.by_logits = false, .sums_to_scale = true, .by_position = true});
  add("forced_imbalance", fl::forced_imbalance<fl::top_k>{.router = {.experts = experts, .k = k}}, unordered_sums);

  // Looking at the batch.
  add("expert_choice", fl::expert_choice{.experts = experts, .max_choices = k}, unordered);
  add("expert_choice_over_tokens", fl::expert_choice_over_tokens{.experts = experts, .max_choices = k}, unordered);
  add("expert_choice, divided", fl::expert_choice_over_tokens{.experts = experts, .shares = {.divide_by_choices = true}}, unordered);
  add("sinkhorn_router", fl::sinkhorn_router{.experts = experts, .k = k}, {});
  add("alternating_sinkhorn_router", fl::alternating_sinkhorn_router{.experts = experts, .k = k, .iteration = {.passes = 50}}, {});
  add("token_rounding", fl::token_rounding{.experts = experts, .k = k, .tile = 8, .max_choices = k}, {});
  add("token_rounding up", fl::token_rounding{.experts = experts, .k = k, .tile = 4, .rounding = fl::tile_rounding::up}, {});
  if (heavy) {
    add("balanced_choice", fl::balanced_choice<fl::balanced_flow>{.experts = experts, .k = k}, {});
    add("balanced_choice, priced", fl::balanced_choice<fl::balanced_flow, fl::priced_evaluation>{.experts = experts, .k = k}, unordered);
  }
  if (k == 1) {
    add("two_stage, first stage", fl::two_stage<>{.first = {.experts = experts}}, other_columns);
    add("two_stage, second stage", fl::two_stage<>{.first = {.experts = experts}, .switch_step = 0}, other_columns);
    if (heavy) {
      using stages = fl::two_stage<fl::balanced_choice<fl::balanced_flow>>;
      add("two_stage on balanced choice", stages{.first = {.experts = experts}}, other_columns);
    }
  }
  return all;
}

}  // namespace every
