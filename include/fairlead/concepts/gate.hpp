// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of what makes logits from tokens.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/core/parameters.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Says its parameters and scratch.
template <class Gate>
concept has_gate_shape = requires(Gate const& gate, index_t tokens) {
  { gate.parameter_layout() } -> std::same_as<parameter_layout>;
  { gate.workspace_bytes(tokens) } -> std::convertible_to<std::size_t>;
};

/// @brief Projects token rows to one logit an expert; its parameters are replicated on every rank.
///
/// Required of a model `gate`:
/// - `gate.forward(on, parameters, tokens, logits, ws)` overwrites logits @shape{tokens x experts};
/// - `gate.backward(on, parameters, tokens, grad_logits, grad_parameters, grad_tokens, ws)` *adds* to grad_parameters
///   and to grad_tokens @shape{tokens x width};
/// - `gate.parameter_layout()` and `gate.workspace_bytes(tokens)`.
/// Parameters and gradients are in the memory space of `on`. Zero tokens are legal.
template <class Gate, class Backend>
concept gate_on =
    has_gate_shape<Gate> && execution_backend<Backend> &&
    requires(Gate const& gate, Backend const& on, std::span<float const> parameters, matrix_view<float const> in,
             matrix_view<float> out, std::span<float> gradients, workspace& ws) {
      { gate.forward(on, parameters, in, out, ws) } -> std::same_as<void>;
      { gate.backward(on, parameters, in, in, gradients, out, ws) } -> std::same_as<void>;
    };

FAIRLEAD_NAMESPACE_END
