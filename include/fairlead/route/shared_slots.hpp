// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Send every token to shared experts through the slots of the routed ones.
#include <fairlead/concepts/router.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Append slots whose experts every token uses: ids after those of the router, weight sum(weights) / divisor.
///
/// Shared experts then run in the same grouped product as the others, and are placed, replicated and scheduled as they
/// are. (A layer's own shared expert runs beside the routed ones instead, with weight 1.) With renormalised weights and
/// `divisor` equal to the router's scale the weight is 1. Deviation: the source draws a replica of the shared expert a
/// token; here replicas are the placement's business, and the scheduler divides the tokens among them.
/// Example: `shared_slots<sigmoid_top_k>{.router = {.experts = 64, .k = 6}, .shared = 1}` has 65 experts, 7 a token.
/// @tparam Router a router without state; host backends
/// @source{SGLang, layers/moe/topk, fused shared experts}
template <class Router>
struct shared_slots {
  Router router{};       ///< who chooses the routed experts
  index_t shared = 1;    ///< experts that every token uses, >= 0
  float divisor = 1.0F;  ///< the weights' sum over this is the weight of a shared expert; not 0 (the routed scale)

  /// @returns routed and shared experts
  [[nodiscard]] constexpr index_t experts() const { return router.experts() + shared; }
  /// @returns routed and shared experts a token
  [[nodiscard]] constexpr index_t fan_out() const { return router.fan_out() + shared; }
  /// @returns columns of the logits: shared experts have none
  [[nodiscard]] constexpr index_t logit_columns() const { return fairlead::logit_columns(router); }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const {
    return router.workspace_bytes(tokens) + fairlead::workspace_bytes<float>(tokens * router.fan_out());
  }
  /// @brief Choose experts and weights.
  /// @param on host backend
  /// @param logits @shape{tokens x logit_columns()}
  /// @param context phase, seed, step, masks (of `experts()` bytes)
  /// @param[out] out @shape{tokens x fan_out()}; shared experts last
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity that of the router and O(tokens x fan_out); no allocation
  template <host_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    check(context, out);
    router.route(on, logits, inner(context), chosen(out), ws);
    for (index_t t = 0; t < out.tokens(); ++t) {
      bool const valid = context.token_mask.empty() || context.token_mask[static_cast<std::size_t>(t)] != 0;
      float sum = 0.0F;
      for (index_t j = 0; j < router.fan_out(); ++j) { sum += out.weights(t, j); }
      for (index_t j = 0; j < shared; ++j) {
        bool const takes = valid && allowed(context, j);
        out.experts(t, router.fan_out() + j) = takes ? static_cast<expert_id>(router.experts() + j) : expert_id::none;
        out.weights(t, router.fan_out() + j) = takes ? sum / divisor : 0.0F;
      }
    }
  }
  /// @brief Derive the loss by the logits: the weight of a shared expert depends on those of the routed ones.
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
    check(context, out);
    FAIRLEAD_EXPECTS(grad_weights.rows() == out.tokens() && grad_weights.cols() == fan_out(),
                     "grad_weights must be tokens x fan_out", grad_weights.rows(), grad_weights.cols());
    workspace::scope const scope(ws);
    index_t const k = router.fan_out();
    matrix_view<float> const grad(ws.take<float>(out.tokens() * k).data(), out.tokens(), k);
    for (index_t t = 0; t < out.tokens(); ++t) {
      float more = 0.0F;
      for (index_t j = k; j < fan_out(); ++j) {
        if (out.experts(t, j) != expert_id::none) { more += grad_weights(t, j) / divisor; }
      }
      for (index_t j = 0; j < k; ++j) { grad(t, j) = grad_weights(t, j) + more; }
    }
    router.backward(on, logits, inner(context), chosen(out), matrix_view<float const>(grad), grad_logits, ws);
  }

 private:
  void check(route_context const& context, const_routing_view out) const {
    FAIRLEAD_EXPECTS(shared >= 0 && divisor != 0.0F, "shared must not be negative, the divisor not zero", shared, divisor);
    FAIRLEAD_EXPECTS(out.fan_out() == fan_out(), "the routing must have a slot for each shared expert", out.fan_out(), fan_out());
    FAIRLEAD_EXPECTS(context.expert_mask.empty() || static_cast<index_t>(context.expert_mask.size()) == experts(),
                     "expert_mask must be empty or one byte an expert", context.expert_mask.size(), experts());
  }
  [[nodiscard]] bool allowed(route_context const& context, index_t j) const {
    return context.expert_mask.empty() || context.expert_mask[static_cast<std::size_t>(router.experts() + j)] != 0;
  }
  [[nodiscard]] route_context inner(route_context context) const {
    if (!context.expert_mask.empty()) {
      context.expert_mask = context.expert_mask.first(static_cast<std::size_t>(router.experts()));
    }
    return context;
  }
  template <class Expert, class Weight>
  [[nodiscard]] basic_routing_view<Expert, Weight> chosen(basic_routing_view<Expert, Weight> out) const {
    index_t const k = router.fan_out();
    return {{out.experts.data(), out.tokens(), k, out.experts.stride()},
            {out.weights.data(), out.tokens(), k, out.weights.stride()}};
  }
};
/// @brief As causal as the router that chooses.
template <class Router>
inline constexpr bool causal<shared_slots<Router>> = causal<Router>;
/// @brief What couples the router couples this one.
template <class Router>
inline constexpr bool batch_coupled<shared_slots<Router>> = batch_coupled<Router>;

FAIRLEAD_NAMESPACE_END
