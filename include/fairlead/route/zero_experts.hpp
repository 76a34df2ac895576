// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Let tokens choose experts that compute nothing.
#include <fairlead/concepts/router.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Route among real experts and `zero` more whose output is zero: a token that takes one uses fewer real ones.
///
/// The zero experts are the last columns of the logits. They compete in selection and renormalisation, and get their
/// part of the gradient; a slot that took one is written as none with weight 0, so that nothing is dispatched, placed or
/// computed for it. To the layer there are `experts()` real experts. For experts that return the token itself
/// (identity instead of zero) see `dispatch/identity_experts.hpp`.
/// Example: `zero_experts<top_k>{.router = {.experts = 72, .k = 8}, .zero = 8}` has 64 real experts.
/// @tparam Router a router without state, over real and zero experts; host backends
/// @source{vLLM, zero_expert_router; SGLang, layers/moe/topk}
template <class Router>
struct zero_experts {
  Router router{};   ///< who chooses among real and zero experts
  index_t zero = 1;  ///< how many of its last experts are zero, 0 ... experts - 1

  /// @returns real experts
  [[nodiscard]] constexpr index_t experts() const { return router.experts() - zero; }
  /// @returns experts a token, at most
  [[nodiscard]] constexpr index_t fan_out() const { return router.fan_out(); }
  /// @returns columns of the logits, zero experts included
  [[nodiscard]] constexpr index_t logit_columns() const { return fairlead::logit_columns(router); }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const {
    return router.workspace_bytes(tokens) + fairlead::workspace_bytes<std::uint8_t>(router.experts()) +
           fairlead::workspace_bytes<expert_id>(tokens * fan_out()) + 2 * fairlead::workspace_bytes<float>(tokens * fan_out());
  }
  /// @brief Choose experts and weights.
  /// @param on host backend
  /// @param logits @shape{tokens x logit_columns()}
  /// @param context phase, seed, step, masks (of `experts()` bytes: zero experts are never masked)
  /// @param[out] out @shape{tokens x fan_out()}; none where a zero expert was taken
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity that of the router and O(tokens x fan_out); no allocation
  template <host_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    check(context);
    workspace::scope const scope(ws);
    router.route(on, logits, inner(context, ws), out, ws);
    for (index_t t = 0; t < out.tokens(); ++t) {
      for (index_t j = 0; j < fan_out(); ++j) {
        if (to_index(out.experts(t, j)) < experts()) { continue; }
        out.experts(t, j) = expert_id::none;
        out.weights(t, j) = 0.0F;
      }
    }
  }
  /// @brief Derive the loss by the logits; those of zero experts that took part in a renormalisation get theirs.
  /// @param on host backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x fan_out()}
  /// @param[out] grad_logits overwritten. @shape{tokens x logit_columns()}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  template <host_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace& ws) const {
    check(context);
    index_t const tokens = logits.rows();
    index_t const k = fan_out();
    FAIRLEAD_EXPECTS(out.tokens() == tokens && grad_weights.rows() == tokens && grad_weights.cols() == k,
                     "routing and grad_weights must be tokens x fan_out", out.tokens(), grad_weights.rows(), grad_weights.cols());
    workspace::scope const scope(ws);
    route_context const seen = inner(context, ws);
    matrix_view<expert_id> const ids(ws.take<expert_id>(tokens * k).data(), tokens, k);
    matrix_view<float> const weights(ws.take<float>(tokens * k).data(), tokens, k);
    matrix_view<float> const grad(ws.take<float>(tokens * k).data(), tokens, k);
    router.route(on, logits, seen, {ids, weights}, ws);
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t j = 0; j < k; ++j) { grad(t, j) = out.experts(t, j) == expert_id::none ? 0.0F : grad_weights(t, j); }
    }
    router.backward(on, logits, seen, const_routing_view{ids, weights}, matrix_view<float const>(grad), grad_logits, ws);
  }

 private:
  void check(route_context const& context) const {
    FAIRLEAD_EXPECTS(zero >= 0 && zero < router.experts(), "zero must be 0 ... experts - 1", zero, router.experts());
    FAIRLEAD_EXPECTS(context.expert_mask.empty() || static_cast<index_t>(context.expert_mask.size()) == experts(),
                     "expert_mask must be empty or one byte a real expert", context.expert_mask.size(), experts());
  }
  [[nodiscard]] route_context inner(route_context context, workspace& ws) const {
    if (context.expert_mask.empty()) { return context; }
    auto const mask = ws.take<std::uint8_t>(router.experts());
    std::fill(std::copy(context.expert_mask.begin(), context.expert_mask.end(), mask.begin()), mask.end(), std::uint8_t{1});
    context.expert_mask = mask;
    return context;
  }
};
/// @brief As causal as the router that chooses.
template <class Router>
inline constexpr bool causal<zero_experts<Router>> = causal<Router>;
/// @brief What couples the router couples this one.
template <class Router>
inline constexpr bool batch_coupled<zero_experts<Router>> = batch_coupled<Router>;

FAIRLEAD_NAMESPACE_END
