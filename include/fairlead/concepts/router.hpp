// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that chooses experts for tokens.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/load.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Says how many experts it chooses among.
template <class Router>
concept has_experts = requires(Router const& router) {
  { router.experts() } -> std::convertible_to<index_t>;
};
/// @brief Says how many experts it chooses for a token.
template <class Router>
concept has_fan_out = requires(Router const& router) {
  { router.fan_out() } -> std::convertible_to<index_t>;
};
/// @brief Carries mutable state (bias, duals, stage) that the caller owns.
template <class Router>
concept has_state = requires(Router const& router) {
  { router.make_state() } -> std::movable;
};
/// @brief The type of a router's state; routers without state have none.
template <has_state Router>
using router_state_t = decltype(std::declval<Router const&>().make_state());

/// @brief Routes logits without state.
template <class Router, class Backend>
concept has_route =
    requires(Router const& router, Backend const& on, matrix_view<float const> logits, route_context const& context,
             routing_view out, workspace& ws) {
      { router.route(on, logits, context, out, ws) } -> std::same_as<void>;
    };
/// @brief Routes logits under a state that it only reads.
template <class Router, class Backend>
concept has_stateful_route =
    has_state<Router> &&
    requires(Router const& router, Backend const& on, matrix_view<float const> logits, route_context const& context,
             router_state_t<Router> const& state, routing_view out, workspace& ws) {
      { router.route(on, logits, context, state, out, ws) } -> std::same_as<void>;
    };
/// @brief Opt-in: updates its state from the loads of a global batch, on each rank by itself.
template <class Router>
concept has_observe =
    has_state<Router> && requires(Router const& router, std::span<index_t const> counts, router_state_t<Router>& next) {
      { router.observe(counts, next) } -> std::same_as<void>;
    };
/// @brief Opt-in: as `has_observe`, but all ranks together: `router.observe(on, comm, counts, state)`.
template <class Router, class Backend, class Comm>
concept has_collective_observe =
    has_state<Router> && requires(Router const& router, Backend const& on, Comm& comm, std::span<index_t const> counts,
                                  router_state_t<Router>& next) {
      { router.observe(on, comm, counts, next) } -> std::same_as<void>;
    };
/// @brief Opt-in: `router.route_and_learn(on, logits, context, state, out, ws)` routes as `route` does, bit for bit, and
/// keeps in `state` what it learned from the scores (prices, quantiles) until `observe`. `route` must not see what was
/// kept, so that recomputation routes the same. The layer calls it in training, once a micro-batch.
template <class Router, class Backend>
concept has_learning_route =
    has_stateful_route<Router, Backend> &&
    requires(Router const& router, Backend const& on, matrix_view<float const> logits, route_context const& context,
             router_state_t<Router>& state, routing_view out, workspace& ws) {
      { router.route_and_learn(on, logits, context, state, out, ws) } -> std::same_as<void>;
    };
/// @brief Columns of the logits a router reads: `router.logit_columns()` if it has one (routers that read two kinds of
/// scores), else one an expert.
/// @param router the router
/// @returns columns
template <has_experts Router>
[[nodiscard]] constexpr index_t logit_columns(Router const& router) {
  if constexpr (requires { { router.logit_columns() } -> std::convertible_to<index_t>; }) {
    return router.logit_columns();
  } else {
    return router.experts();
  }
}
/// @brief Says how much scratch memory a call needs.
template <class Router>
concept has_router_workspace = requires(Router const& router, index_t tokens) {
  { router.workspace_bytes(tokens) } -> std::convertible_to<std::size_t>;
};

/// @brief Chooses `fan_out()` of `experts()` experts for each row of logits.
///
/// Required of a model `router`:
/// - `router.route(on, logits, context, out, ws)`, or with a `state` before `out` if `router.make_state()` exists:
///   logits @shape{tokens x logit_columns(router)}, out @shape{tokens x fan_out()}. Slot j of a token holds an expert or none (then
///   weight 0); ids of a token are distinct; a masked token gets none in every slot. Ties follow `core/order.hpp`.
///   NaN and -inf are never chosen. Zero tokens are legal.
/// - `router.workspace_bytes(tokens)`: scratch for `route` and `backward` on that many tokens.
/// - A router never drops for capacity: that is the dispatcher's business.
/// - stateful routers may have an `observe`, called once per global batch with the global copies per expert
///   @shape{experts()}; never in evaluation or recomputation.
template <class Router, class Backend>
concept router_on = has_experts<Router> && has_fan_out<Router> && has_router_workspace<Router> &&
                    execution_backend<Backend> && (has_route<Router, Backend> || has_stateful_route<Router, Backend>);

/// @brief Opt-in gradient: `backward(on, logits, context, out, grad_weights, grad_logits, ws)` overwrites
/// grad_logits @shape{tokens x logit_columns(router)} with the derivative through the weights of the chosen slots. Stateful
/// routers take their state before `out`. The choice itself is held constant.
template <class Router, class Backend>
concept has_gradient_on =
    requires(Router const& router, Backend const& on, matrix_view<float const> logits, route_context const& context,
             const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
             workspace& ws) {
      { router.backward(on, logits, context, out, grad_weights, grad_logits, ws) } -> std::same_as<void>;
    } || (has_state<Router> &&
          requires(Router const& router, Backend const& on, matrix_view<float const> logits,
                   route_context const& context, router_state_t<Router> const& state, const_routing_view out,
                   matrix_view<float const> grad_weights, matrix_view<float> grad_logits, workspace& ws) {
            { router.backward(on, logits, context, state, out, grad_weights, grad_logits, ws) } -> std::same_as<void>;
          });

/// @brief Opt-in promise: the routing of a token in evaluation does not depend on the other rows of the batch.
template <class Router>
inline constexpr bool causal = false;
/// @brief Opt-in statement: the routing of a token depends on the other rows of the batch, in training at least; unless the
/// router is `causal`, in evaluation too, and then it is not for decoding.
template <class Router>
inline constexpr bool batch_coupled = false;

FAIRLEAD_NAMESPACE_END
