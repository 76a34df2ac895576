// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief GShard routing: two experts a token, the second one kept by a policy.
#include <fairlead/route/top_k.hpp>

#include <cmath>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief When the second expert of a token is kept.
enum class keep_second {
  always,          ///< both experts
  never,           ///< only the first
  above_threshold, ///< if its weight exceeds the threshold
  random           ///< with probability min(1, weight / threshold)
};

/// @brief Choose two experts, weigh them by the softmax over the pair, then keep or drop the second.
///
/// The weights are those of the pair before the drop: a token whose second is dropped keeps its smaller first weight.
/// Second choices queue after all first ones: that is the dispatcher's service order.
/// @source{GShard, section 2.2; mesh-tensorflow code, top-2 gating}
struct gshard_top_2 {
  /// The router that makes the pair.
  using choice_type = softmax_top_k_renormalised;

  expert_count experts;                               ///< number of experts, at least 2
  float scale = 1.0F;                                 ///< factor on all weights, finite and positive
  keep_second training = keep_second::random;         ///< policy in training and recomputation
  keep_second evaluation = keep_second::always;       ///< policy in evaluation; not `random`
  float threshold = 0.2F;                             ///< weight (before scale) from which the second is surely kept

  /// @returns 2
  [[nodiscard]] FAIRLEAD_HD constexpr index_t fan_out() const noexcept { return 2; }
  /// @returns the router that makes the pair
  [[nodiscard]] constexpr choice_type choice() const noexcept {
    return {.experts = experts, .k = 2, .scale = scale, .selection = {}, .noise = {}};
  }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const noexcept {
    return choice().workspace_bytes(tokens) + fairlead::workspace_bytes<expert_id>(2 * tokens) +
           fairlead::workspace_bytes<float>(2 * tokens);
  }
  /// @brief Choose experts and weights.
  /// @param on execution backend
  /// @param logits @shape{tokens x experts}
  /// @param context phase, seed, step, masks
  /// @param[out] out @shape{tokens x 2}; a dropped second is none
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity O(tokens x experts); no allocation
  template <execution_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    check();
    choice().route(on, logits, context, out, ws);
    implementation<gshard_top_2, Backend>::drop(*this, on, context, out);
  }
  /// @brief Derive the loss by the logits; both logits of the pair get a gradient even if the second was dropped.
  /// @param on execution backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x 2}
  /// @param[out] grad_logits overwritten. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens)`
  template <execution_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace& ws) const {
    check();
    FAIRLEAD_EXPECTS(out.tokens() == logits.rows() && out.fan_out() == 2, "the routing must be tokens x 2",
                     out.tokens(), out.fan_out());
    FAIRLEAD_EXPECTS(out.weights.rows() == logits.rows() && out.weights.cols() == 2,
                     "the routing's weights must be tokens x 2, as its experts", out.weights.rows(),
                     out.weights.cols());
    FAIRLEAD_EXPECTS(grad_weights.rows() == logits.rows() && grad_weights.cols() == 2, "grad_weights must be tokens x 2",
                     grad_weights.rows(), grad_weights.cols());
    workspace::scope const scope(ws);
    index_t const tokens = logits.rows();
    // The pair before the drop, and gradients that are zero for what was dropped.
    matrix_view<expert_id> const ids(ws.take<expert_id>(2 * tokens).data(), tokens, 2);
    matrix_view<float> const values(ws.take<float>(2 * tokens).data(), tokens, 2);
    choice().route(on, logits, context, {ids, values}, ws);
    implementation<gshard_top_2, Backend>::keep_gradients(on, out, grad_weights, values);
    choice().backward(on, logits, context, const_routing_view{ids, values}, matrix_view<float const>(values),
                      grad_logits, ws);
  }

 private:
  void check() const {
    FAIRLEAD_EXPECTS(evaluation != keep_second::random, "evaluation must not draw random numbers: keep always, never or "
                     "above_threshold");
    FAIRLEAD_EXPECTS(std::isfinite(scale) && scale > 0.0F, "the scale must be finite and positive", scale);
    FAIRLEAD_EXPECTS(threshold > 0.0F, "the threshold must be positive", threshold);
  }
};

namespace detail {
/// Drops the second expert of a token where the policy says so.
struct drop_second {
  gshard_top_2 router;
  route_context context;
  routing_view out;
  FAIRLEAD_HD void operator()(index_t t) const {
    if (keeps(t)) { return; }
    out.experts(t, 1) = expert_id::none;
    out.weights(t, 1) = 0.0F;
  }
  [[nodiscard]] FAIRLEAD_HD bool keeps(index_t t) const {
    keep_second const policy = context.phase == phase::evaluate ? router.evaluation : router.training;
    // The share of the pair, whatever the scale.
    float const both = numeric::sum(out.weights(t, 0), out.weights(t, 1));
    float const share = both != 0.0F ? numeric::quotient(out.weights(t, 1), both) : 0.0F;
    switch (policy) {
      case keep_second::always: return true;
      case keep_second::never: return false;
      case keep_second::above_threshold: return share > router.threshold;
      case keep_second::random: break;
    }
    auto const words = routing_words(context, t, (router.experts() + 3) / 4 - 1, router.experts());
    return numeric::product(philox::to_uniform(words[3]), router.threshold) < share;
  }
};
/// Gradients by the weights of a token's pair: zero where the second was dropped.
struct keep_gradient {
  const_routing_view out;
  matrix_view<float const> grad_weights;
  matrix_view<float> kept;
  FAIRLEAD_HD void operator()(index_t t) const {
    for (index_t j = 0; j < 2; ++j) { kept(t, j) = out.experts(t, j) == expert_id::none ? 0.0F : grad_weights(t, j); }
  }
};
}  // namespace detail

/// @brief What `gshard_top_2` adds to its pair, for every backend: `gshard_top_2.cuh` brings the pair to a device.
template <execution_backend Backend>
struct implementation<gshard_top_2, Backend> {
  /// Drops second experts.
  static void drop(gshard_top_2 const& router, Backend const& on, route_context const& context, routing_view out) {
    for_each_element(on, out.tokens(), detail::drop_second{router, context, out});
  }
  /// Copies the gradients of what was kept.
  static void keep_gradients(Backend const& on, const_routing_view out, matrix_view<float const> grad_weights,
                             matrix_view<float> kept) {
    for_each_element(on, out.tokens(), detail::keep_gradient{out, grad_weights, kept});
  }
};
/// @brief A token of this router never sees its batch-mates.
template <>
inline constexpr bool causal<gshard_top_2> = true;
static_assert(router_on<gshard_top_2, serial> && has_gradient_on<gshard_top_2, serial>);

FAIRLEAD_NAMESPACE_END
