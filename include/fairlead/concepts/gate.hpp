// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of what makes logits from tokens.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/core/parameters.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Says its parameters and scratch.
template <class Gate>
concept has_gate_shape = requires(Gate const& gate, index_t tokens) {
  { gate.parameter_layout() } -> std::same_as<parameter_layout>;
  { gate.workspace_bytes(tokens) } -> std::convertible_to<std::size_t>;
};

/// @brief Makes logits from token rows alone.
template <class Gate, class Backend>
concept has_plain_gate =
    requires(Gate const& gate, Backend const& on, std::span<float const> parameters, matrix_view<float const> in,
             matrix_view<float> out, std::span<float> gradients, workspace& ws) {
      { gate.forward(on, parameters, in, out, ws) } -> std::same_as<void>;
      { gate.backward(on, parameters, in, in, gradients, out, ws) } -> std::same_as<void>;
    };
/// @brief Makes logits from token rows and the context: token ids, phase, step.
template <class Gate, class Backend>
concept has_context_gate =
    requires(Gate const& gate, Backend const& on, std::span<float const> parameters, matrix_view<float const> in,
             route_context const& context, matrix_view<float> out, std::span<float> gradients, workspace& ws) {
      { gate.forward(on, parameters, in, context, out, ws) } -> std::same_as<void>;
      { gate.backward(on, parameters, in, context, in, gradients, out, ws) } -> std::same_as<void>;
    };

/// @brief Projects token rows to the logits a router reads; its parameters are replicated on every rank.
///
/// Required of a model `gate`:
/// - `gate.forward(on, parameters, tokens, logits, ws)` overwrites logits
///   @shape{tokens x logit_columns(router)};
/// - `gate.backward(on, parameters, tokens, grad_logits, grad_parameters, grad_tokens, ws)` *adds* to grad_parameters
///   and to grad_tokens @shape{tokens x width};
/// - gates that look at token ids, phase or step take the `route_context` after `tokens` in both;
/// - `gate.parameter_layout()` and `gate.workspace_bytes(tokens)`.
/// Parameters and gradients are in the memory space of `on`. Zero tokens are legal.
template <class Gate, class Backend>
concept gate_on = has_gate_shape<Gate> && execution_backend<Backend> &&
                  (has_plain_gate<Gate, Backend> || has_context_gate<Gate, Backend>);

/// @brief Opt-in: says which of its parameters no longer learn. `gate.frozen(block, step)`: whether block number `block`
/// of its layout must stay as it is after the training pass of that `route_context::step`. The layer hands optimizers a
/// layout that says so.
template <class Gate>
concept has_frozen_blocks = requires(Gate const& gate, index_t block, std::uint64_t step) {
  { gate.frozen(block, step) } -> std::same_as<bool>;
};

/// @brief Opt-in: a gate (or the features of one) that reads token ids of rows before a token's own, so that rows must
/// stand in the order of the text, says so by a true `Gate::reads_neighbours`.
template <class Gate>
concept needs_text_order = requires { requires Gate::reads_neighbours; };

FAIRLEAD_NAMESPACE_END
