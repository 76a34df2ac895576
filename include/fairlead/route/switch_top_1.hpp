// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Switch routing: one expert a token, weight from the full softmax, jitter in training.
#include <fairlead/route/top_k.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Send each token to its best expert, weighed by its softmax share, so that the gradient reaches the gate.
///
/// Capacity and overflow are the dispatcher's business. The jitter is on the logits instead of the gate's input.
/// @source{Switch Transformers, section 2.2; routing orders S1 with k = 1}
struct switch_top_1 {
  /// The router it forwards to; a device text for that type serves this one too.
  using choice_type = with_noise<softmax_top_k, multiplicative_jitter>;

  expert_count experts;            ///< number of experts, 1 ... 65536
  float scale = 1.0F;              ///< factor on all weights, finite
  multiplicative_jitter jitter{};  ///< noise in training

  /// @returns 1
  [[nodiscard]] FAIRLEAD_HD constexpr index_t fan_out() const noexcept { return 1; }
  /// @returns the equal token-choice router
  [[nodiscard]] constexpr choice_type choice() const noexcept {
    return {.experts = experts, .k = 1, .scale = scale, .selection = {}, .noise = jitter};
  }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const noexcept {
    return choice().workspace_bytes(tokens);
  }
  /// @brief Choose experts and weights; see `token_choice::route`.
  /// @param on execution backend
  /// @param logits @shape{tokens x experts}
  /// @param context phase, seed, step, masks
  /// @param[out] out @shape{tokens x 1}
  /// @param ws at least `workspace_bytes(tokens)`
  template <execution_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    choice().route(on, logits, context, out, ws);
  }
  /// @brief Derive the loss by the logits; see `token_choice::backward`.
  /// @param on execution backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x 1}
  /// @param[out] grad_logits overwritten. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens)`
  template <execution_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace& ws) const {
    choice().backward(on, logits, context, out, grad_weights, grad_logits, ws);
  }
};
/// @brief A token of this router never sees its batch-mates.
template <>
inline constexpr bool causal<switch_top_1> = true;
static_assert(router_on<switch_top_1, serial> && has_gradient_on<switch_top_1, serial>);

FAIRLEAD_NAMESPACE_END
