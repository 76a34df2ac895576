// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Routers for decoding: those that look at the whole batch are refused at compile time.
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/top_k.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief A router whose tokens, in evaluation, never see their batch-mates: it states `causal`.
/// @tparam Router any router
template <class Router>
concept decode_safe = causal<Router>;

/// @brief Wrap the router of an inference engine: only evaluation, and only routers that may decode.
///
/// While decoding, batch-mates are other users' tokens, or the future of the same sequence in a batch of known text. A
/// router that couples them answers differently with the company it is in. `decode_only<expert_choice>` does not compile;
/// `decode_only<sinkhorn_router>` does, since its evaluation is a plain top-k.
/// @tparam Router any router; checked
template <class Router>
struct decode_only {
  static_assert(decode_safe<Router>,
                "decoding needs a router whose tokens do not see their batch-mates (causal<Router>): take a "
                "token-choice router, or one that is balanced in training only");

  Router router{};  ///< who routes

  /// @returns number of experts
  [[nodiscard]] constexpr index_t experts() const { return router.experts(); }
  /// @returns experts a token
  [[nodiscard]] constexpr index_t fan_out() const { return router.fan_out(); }
  /// @returns columns of logits the router reads
  [[nodiscard]] constexpr index_t logit_columns() const { return fairlead::logit_columns(router); }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const { return router.workspace_bytes(tokens); }
  /// @returns the router's state
  [[nodiscard]] auto make_state() const
    requires has_state<Router>
  {
    return router.make_state();
  }
  /// @brief Route in evaluation.
  /// @param on execution backend
  /// @param logits @shape{tokens x logit_columns}
  /// @param context its phase must be `phase::evaluate`
  /// @param[out] out @shape{tokens x fan_out}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) in another phase, and what the router throws
  template <execution_backend Backend>
    requires has_route<Router, Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    check(context);
    router.route(on, logits, context, out, ws);
  }
  /// @brief Route in evaluation under a state; see above.
  /// @param on execution backend
  /// @param logits @shape{tokens x logit_columns}
  /// @param context its phase must be `phase::evaluate`
  /// @param state the router's state
  /// @param[out] out @shape{tokens x fan_out}
  /// @param ws at least `workspace_bytes(tokens)`
  template <execution_backend Backend, class State>
    requires has_stateful_route<Router, Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, State const& state,
             routing_view out, workspace& ws) const {
    check(context);
    router.route(on, logits, context, state, out, ws);
  }

 private:
  static void check(route_context const& context) {
    FAIRLEAD_EXPECTS(context.phase == phase::evaluate, "a decode_only router runs in phase::evaluate only",
                     static_cast<int>(context.phase));
  }
};
/// @brief Checked by the wrapper itself.
template <class Router>
inline constexpr bool causal<decode_only<Router>> = causal<Router>;

static_assert(router_on<decode_only<top_k>, serial> && decode_safe<decode_only<top_k>>);

FAIRLEAD_NAMESPACE_END
