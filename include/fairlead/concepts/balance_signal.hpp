// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of an auxiliary loss that pushes the router towards balance.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The type of a signal's state.
template <class Signal>
using signal_state_t = decltype(std::declval<Signal const&>().make_state(index_t{1}));

/// @brief An auxiliary loss on the logits, with its gradient, without automatic differentiation.
///
/// Required of a model `signal`:
/// - `signal.make_state(experts)`: what is carried between micro-batches (running counts; empty for local losses). A copy
///   of it stays with each forward pass, for its backward pass.
/// - `signal.accumulate(global_counts, global_tokens, state)`: once a training micro-batch, before its
///   `add_gradient`, never in evaluation or recomputation: the copies per expert over all ranks *before* capacity
///   @shape{experts} and the number of valid tokens over all ranks.
/// - `signal.add_gradient(on, logits, routing, context, state, scale, grad_logits, ws)` adds
///   scale * dLoss/dlogits @shape{tokens x logit_columns(router)} and returns this rank's unscaled part of the loss (0 for device
///   backends that cannot tell without a synchronisation). Parts add up over ranks to a mean over all valid tokens, so
///   that sums of gradients need no further weight. `routing` is what the router wrote, before capacity.
/// - `signal.end_global_batch(state)`: after the optimizer step.
/// - `signal.workspace_bytes(tokens, experts)`.
template <class Signal, class Backend>
concept balance_signal_on =
    execution_backend<Backend> &&
    requires(Signal const& signal, Backend const& on, index_t experts, std::span<index_t const> counts,
             signal_state_t<Signal>& state, matrix_view<float const> logits, const_routing_view routing,
             route_context const& context, double scale, matrix_view<float> grad_logits, workspace& ws) {
      { signal.make_state(experts) } -> std::semiregular;
      { signal.accumulate(counts, experts, state) } -> std::same_as<void>;
      { signal.add_gradient(on, logits, routing, context, std::as_const(state), scale, grad_logits, ws) } -> std::convertible_to<double>;
      { signal.end_global_batch(state) } -> std::same_as<void>;
      { signal.workspace_bytes(experts, experts) } -> std::convertible_to<std::size_t>;
    };

FAIRLEAD_NAMESPACE_END
