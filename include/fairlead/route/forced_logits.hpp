// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Replace or bias the logits of a router, so that benches see the loads they ask for.
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/top_k.hpp>

#include <cmath>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Standard normal numbers instead of the logits: a random, on average even load.
///
/// Named by (seed, step, global token, expert): ranks that set `route_context::first_token` apart draw different rows.
/// The gradient goes straight through: what the router derives by the random logits is handed to the real ones.
/// @source{Megatron-core code, moe_router_force_load_balancing}
struct random_logits {
  /// Whether the derivative by the real logits is the true one (else it goes straight through).
  static constexpr bool differentiable = false;
  /// @throws contract_violation (level 1) on bad fields
  void check() const noexcept {}
  /// @param context seed, step, number of the first token
  /// @param row row of the batch
  /// @param experts number of experts
  /// @param logits the row. @shape{experts}
  /// @param[out] forced what the router gets: no candidate stays no candidate. @shape{experts}
  void force(route_context const& context, index_t row, index_t experts, float const* logits,
             float* forced) const noexcept {
    constexpr std::uint64_t purpose = 0x464F524345ULL << 24U;
    auto const first = static_cast<std::uint64_t>(context.first_token + row) *
                       static_cast<std::uint64_t>((experts + 3) / 4);
    for (index_t e = 0; e < experts; e += 4) {
      auto const words = philox::draw(context.seed, context.step ^ purpose, first + static_cast<std::uint64_t>(e / 4));
      for (unsigned i = 0; i < 4 && e + i < experts; ++i) {
        forced[e + i] = is_candidate(logits[e + i]) ? fixed_noise{1.0F}.apply(0.0F, words, i, experts) : logits[e + i];
      }
    }
  }
};

/// @brief A random bias on each expert, equal for all tokens and ranks: a skewed load of chosen strength.
/// @source{Megatron-core code, moe_router_force_biased}
struct random_expert_bias {
  float deviation = 1.0F;         ///< standard deviation of the bias, >= 0: the larger, the more uneven the load
  bool redraw_each_step = false;  ///< whether each step has its own bias, or all steps share one

  /// Whether the derivative by the real logits is the true one.
  static constexpr bool differentiable = true;
  /// @throws contract_violation (level 1) on bad fields
  void check() const {
    FAIRLEAD_EXPECTS(std::isfinite(deviation) && deviation >= 0.0F, "deviation must be finite and not negative",
                     deviation);
  }
  /// @param context seed, and step if the bias is redrawn
  /// @param experts number of experts
  /// @param logits the row. @shape{experts}
  /// @param[out] forced what the router gets. @shape{experts}
  void force(route_context const& context, index_t, index_t experts, float const* logits, float* forced) const noexcept {
    constexpr std::uint64_t purpose = 0x534B4557ULL << 24U;
    std::uint64_t const step = redraw_each_step ? context.step + 1 : 0;
    for (index_t e = 0; e < experts; e += 4) {
      auto const words = philox::draw(context.seed, step ^ purpose, static_cast<std::uint64_t>(e / 4));
      for (unsigned i = 0; i < 4 && e + i < experts; ++i) {
        forced[e + i] = fixed_noise{deviation}.apply(logits[e + i], words, i, experts);
      }
    }
  }
};

/// @brief Route forced logits with any stateless router, in every phase: for benches, never for a model.
/// @tparam Router the router that sees the forced logits
/// @tparam Rule `random_logits` or `random_expert_bias`
template <class Router, class Rule>
struct forced_logits {
  Router router{};  ///< who chooses
  Rule rule{};      ///< what it sees

  /// @returns number of experts
  [[nodiscard]] constexpr index_t experts() const { return router.experts(); }
  /// @returns experts a token
  [[nodiscard]] constexpr index_t fan_out() const { return router.fan_out(); }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const {
    return router.workspace_bytes(tokens) + fairlead::workspace_bytes<float>(tokens * experts());
  }
  /// @brief Force the logits and route them.
  /// @param on host backend
  /// @param logits @shape{tokens x experts}
  /// @param context phase, seed, step, number of the first token, masks
  /// @param[out] out @shape{tokens x fan_out}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity that of the router and O(tokens x experts); no allocation
  template <host_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    workspace::scope const scope(ws);
    router.route(on, force(on, logits, context, ws), context, out, ws);
  }
  /// @brief Derive the loss by the forced logits and hand that to the real ones.
  /// @param on host backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x fan_out}
  /// @param[out] grad_logits overwritten. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens)`
  template <host_backend Backend>
    requires has_gradient_on<Router, Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace& ws) const {
    workspace::scope const scope(ws);
    router.backward(on, force(on, logits, context, ws), context, out, grad_weights, grad_logits, ws);
  }

 private:
  static_assert(has_route<Router, serial>, "forced_logits wraps stateless routers: a bias would fight the forced load");

  struct force_row {
    Rule rule;
    matrix_view<float const> logits;
    route_context context;
    matrix_view<float> forced;
    void operator()(index_t row) const {
      rule.force(context, row, logits.cols(), logits.row(row), forced.row(row));
    }
  };
  template <class Backend>
  [[nodiscard]] matrix_view<float const> force(Backend const& on, matrix_view<float const> logits,
                                               route_context const& context, workspace& ws) const {
    FAIRLEAD_EXPECTS(logits.cols() == experts(), "logits must have one column an expert", logits.cols(), experts());
    rule.check();
    matrix_view<float> const forced(ws.take<float>(logits.rows() * logits.cols()).data(), logits.rows(), logits.cols());
    on.for_each(logits.rows(), force_row{rule, logits, context, forced});
    return forced;
  }
};

/// @brief An expert bias is the same for all tokens: the router stays what it was. Random logits go by token number.
template <class Router>
inline constexpr bool causal<forced_logits<Router, random_expert_bias>> = causal<Router>;
/// @brief What couples the router couples this one.
template <class Router, class Rule>
inline constexpr bool batch_coupled<forced_logits<Router, Rule>> = batch_coupled<Router>;

/// @brief `forced_balance<top_k>{.router = {.experts = 64, .k = 8}}`: a random, on average even load.
template <class Router>
using forced_balance = forced_logits<Router, random_logits>;
/// @brief `forced_imbalance<top_k>{.router = {...}, .rule = {.deviation = 0.5F}}`: a load of chosen unevenness.
template <class Router>
using forced_imbalance = forced_logits<Router, random_expert_bias>;

static_assert(router_on<forced_balance<top_k>, serial> && has_gradient_on<forced_imbalance<top_k>, serial>);

FAIRLEAD_NAMESPACE_END
