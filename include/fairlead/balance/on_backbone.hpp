// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Show a signal the first `experts` columns of wider logits.
#include <fairlead/concepts/balance_signal.hpp>

#include <cstddef>
#include <span>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Let a loss that knows one score an expert look at the backbone's half of the logits of a two-stage layer:
/// `on_backbone{z_loss{.coefficient = 1e-3}}`.
/// @tparam Signal a model of `balance_signal_on`
template <class Signal>
struct on_backbone {
  Signal signal{};  ///< the loss

  /// @brief The state of the loss, and the number of experts.
  struct state_type {
    signal_state_t<Signal> own;  ///< state of the loss
    index_t experts = 0;         ///< number of experts
  };
  /// @param experts number of experts
  /// @returns the state of the loss
  [[nodiscard]] state_type make_state(index_t experts) const { return {signal.make_state(experts), experts}; }
  /// @brief Take in the loads of a micro-batch.
  /// @param global_counts copies per expert over all ranks, before capacity. @shape{experts}
  /// @param global_tokens valid tokens over all ranks
  /// @param[in,out] state state
  void accumulate(std::span<index_t const> global_counts, index_t global_tokens, state_type& state) const {
    signal.accumulate(global_counts, global_tokens, state.own);
  }
  /// @brief Add the gradient of the loss to the first `experts` columns.
  /// @param on execution backend
  /// @param logits @shape{tokens x at least experts}
  /// @param routing what the router wrote
  /// @param context masks and step
  /// @param state with this micro-batch taken in
  /// @param scale factor of the gradient
  /// @param[in,out] grad_logits gradient to add to, as wide as the logits
  /// @param ws at least `workspace_bytes(tokens, experts)`
  /// @returns what the loss returns
  /// @complexity that of the loss
  template <execution_backend Backend>
    requires balance_signal_on<Signal, Backend>
  double add_gradient(Backend const& on, matrix_view<float const> logits, const_routing_view routing,
                      route_context const& context, state_type const& state, double scale,
                      matrix_view<float> grad_logits, workspace& ws) const {
    FAIRLEAD_EXPECTS(logits.cols() >= state.experts && grad_logits.cols() == logits.cols(),
                     "logits and gradient need a column an expert", logits.cols(), grad_logits.cols(), state.experts);
    return signal.add_gradient(on, matrix_view<float const>(logits.data(), logits.rows(), state.experts, logits.stride()), routing,
                               context, state.own, scale,
                               matrix_view<float>(grad_logits.data(), grad_logits.rows(), state.experts, grad_logits.stride()), ws);
  }
  /// @brief A new global batch begins.
  /// @param[in,out] state state
  void end_global_batch(state_type& state) const { signal.end_global_batch(state.own); }
  /// @param tokens rows of a call, >= 0
  /// @param experts number of experts
  /// @returns scratch of the loss
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t experts) const { return signal.workspace_bytes(tokens, experts); }
};

FAIRLEAD_NAMESPACE_END
