// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of what turns gradients into new parameter values.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/parameters.hpp>

#include <concepts>
#include <cstdint>
#include <span>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Makes the state (moments) of an array of parameters.
template <class Optimizer, class Backend, class Value>
concept has_optimizer_state = requires(Optimizer const& optimizer, Backend const& on, index_t size) {
  { optimizer.template make_state<Value>(on, size) } -> std::movable;
};
/// @brief The type of an optimizer's state.
template <class Optimizer, class Backend, class Value>
using optimizer_state_t = decltype(std::declval<Optimizer const&>().template make_state<Value>(
    std::declval<Backend const&>(), index_t{}));

/// @brief Updates parameters from gradients; a value that names the hyperparameters, with a state that the caller owns.
///
/// Why the state is an argument: the library moves, shards and saves it independently of the policy.
/// Required of a model `optimizer`:
/// - `optimizer.make_state<Value>(on, size)`: the state of `size` parameters in the memory of `on`, as before step 1.
/// - `optimizer.update(on, layout, values, gradients, state, step)`: `values`, `gradients` @shape{layout.size()} in the
///   memory of `on`; `step` counts from 1. Reads the gradients, overwrites the values and the state, allocates nothing.
///   Weight decay applies to the blocks of `layout` that say so. Frozen blocks keep values and state, bit for bit. Every element is computed alone: the result does not
///   depend on how parameters are cut into arrays.
template <class Optimizer, class Backend, class Value>
concept optimizer_on =
    execution_backend<Backend> && std::copyable<Optimizer> && has_optimizer_state<Optimizer, Backend, Value> &&
    requires(Optimizer const& optimizer, Backend const& on, parameter_layout const& layout, std::span<Value> values,
             std::span<Value const> gradients, optimizer_state_t<Optimizer, Backend, Value>& state,
             std::int64_t step) {
      { optimizer.update(on, layout, values, gradients, state, step) } -> std::same_as<void>;
    };

FAIRLEAD_NAMESPACE_END
