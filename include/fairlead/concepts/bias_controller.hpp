// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of a rule that moves a router's selection bias against the load.
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>
#include <span>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The type of a controller's state.
template <class Controller>
using controller_state_t = decltype(std::declval<Controller const&>().make_state(index_t{1}));

/// @brief Moves one fp32 bias an expert; the bias changes the choice and never a weight.
///
/// Required of a model `controller`:
/// - `controller.make_state(experts)`: what it carries between global batches (integrals, averages, duals), a value that
///   can be copied and saved.
/// - `controller.end_global_batch(on, comm, counts, state, bias)`: once per global batch, collective, never in
///   evaluation or recomputation. `counts` are the copies per expert over all ranks and micro-batches
///   @shape{experts}, equal on every rank; the bias it leaves must be equal on every rank.
/// - `controller.workspace_bytes(tokens, experts, fan_out)`: scratch of `accumulate`, 0 without one.
///
/// Controllers that read scores also model `reads_scores_on`.
template <class Controller, class Backend, class Comm>
concept bias_controller_on =
    execution_backend<Backend> && communicator<Comm> &&
    requires(Controller const& controller, Backend const& on, Comm& comm, index_t size, std::span<index_t const> counts,
             controller_state_t<Controller>& state, std::span<float> bias) {
      { controller.make_state(size) } -> std::semiregular;
      { controller.end_global_batch(on, comm, counts, state, bias) } -> std::same_as<void>;
      { controller.workspace_bytes(size, size, size) } -> std::convertible_to<std::size_t>;
    };

/// @brief Opt-in: `controller.accumulate(on, scores, fan_out, context, bias, state, ws)` sees the selection scores
/// @shape{tokens x experts} *before* the bias, once a training micro-batch, on each rank by itself.
template <class Controller, class Backend>
concept reads_scores_on =
    requires(Controller const& controller, Backend const& on, matrix_view<float const> scores, index_t fan_out,
             route_context const& context, std::span<float const> bias, controller_state_t<Controller>& state,
             workspace& ws) {
      { controller.accumulate(on, scores, fan_out, context, bias, state, ws) } -> std::same_as<void>;
    };

FAIRLEAD_NAMESPACE_END
