// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that remembers loads for planners.
#include <fairlead/core/load.hpp>

#include <concepts>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Remembers the loads of past micro-batches, as an estimate of those to come.
///
/// Required of a model `history`:
/// - `history.make_state(ranks, experts)`: an empty memory, of type `History::state_type`, for loads of that shape.
/// - `history.observe(load, micro_batch, state)`: takes in the load of a micro-batch, counted over logical experts before
///   anything is dropped, and gathered, so that it is equal on every rank; @shape{ranks x experts}. Numbers of micro-batches
///   ascend and may leave gaps. Allocates nothing.
/// - `state.estimate()`: what is expected, as views into the state; all zero before the first observation.
/// - `state.staleness(micro_batch)`: how many micro-batches ago the newest observed one was; `micro_batch` + 1 if none was.
/// - `state.reset()`: forgets everything. Ranks that resume or join late reset together with the others.
/// - Integers only: equal observations leave equal states on every rank.
template <class History>
concept load_history = requires(History const& history, index_t number, load_view load, typename History::state_type& state) {
  { history.make_state(number, number) } -> std::same_as<typename History::state_type>;
  history.observe(load, number, state);
  { std::as_const(state).estimate() } -> std::same_as<load_estimate>;
  { std::as_const(state).staleness(number) } -> std::same_as<index_t>;
  state.reset();
};

FAIRLEAD_NAMESPACE_END
