// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that carries token rows to experts and their outputs back.
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/core/exchange_plan.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/core/token_schedule.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The plan of a dispatcher in the memory space of a backend.
template <class Dispatcher, class Backend>
using plan_of = typename Dispatcher::template plan_type<typename Backend::memory_space>;
/// @brief The rows in flight of a dispatcher in the memory space of a backend.
template <class Dispatcher, class Backend, class Value>
using wire_of = typename Dispatcher::template wire_type<Value, typename Backend::memory_space>;
/// @brief A started movement of rows.
template <class Dispatcher, class Backend, class Comm, class Value>
using pending_of = typename Dispatcher::template pending_type<Comm, Backend, Value>;

/// @brief Turns routing, placement and schedule into a plan.
///
/// - `admit(on, routed, context, experts, plan, ws)` numbers this rank's copies and fills `plan.count_row`;
/// - `limit(gathered, where, fan_out, kept)` applies capacities to everybody's counts, equally on every rank;
/// - `plan(on, comm, routed, where, schedule, plan, ws)` gives each row its place;
/// - `workspace_bytes(copies, experts, concurrency)`.
template <class Dispatcher, class Comm, class Backend>
concept has_dispatch_plan =
    requires(Dispatcher const& dispatcher, Backend const& on, Comm& comm, const_routing_view routed,
             route_context const& context, index_t n, plan_of<Dispatcher, Backend>& plan,
             matrix_view<count_t const> gathered, placement const& where, matrix_view<count_t> kept,
             const_token_schedule_view schedule, workspace& ws) {
      { dispatcher.admit(on, routed, context, n, plan, ws) } -> std::same_as<void>;
      { dispatcher.limit(gathered, where, n, kept) } -> std::same_as<void>;
      { dispatcher.plan(on, comm, routed, where, schedule, plan, ws) } -> std::same_as<void>;
      { dispatcher.workspace_bytes(n, n, n) } -> std::convertible_to<std::size_t>;
    };

/// @brief Carries rows to the experts and back.
///
/// `start_*` begins a collective and returns what `finish_*` waits for, so that a pipeline computes in between.
template <class Dispatcher, class Comm, class Backend, class Value>
concept has_row_exchange =
    requires(Dispatcher const& dispatcher, Backend const& on, Comm& comm, plan_of<Dispatcher, Backend> const& plan,
             wire_of<Dispatcher, Backend, Value>& wire, pending_of<Dispatcher, Backend, Comm, Value>& pending,
             matrix_view<Value const> in, matrix_view<Value> out) {
      {
        dispatcher.start_dispatch(on, comm, plan, in, wire)
      } -> std::same_as<pending_of<Dispatcher, Backend, Comm, Value>>;
      { dispatcher.finish_dispatch(on, plan, pending, in, wire, out) } -> std::same_as<void>;
      {
        dispatcher.start_combine(on, comm, plan, in, wire)
      } -> std::same_as<pending_of<Dispatcher, Backend, Comm, Value>>;
      { dispatcher.finish_combine(on, plan, pending, in, in, wire, out) } -> std::same_as<void>;
    };

/// @brief Carries gradients: the transposed exchange.
template <class Dispatcher, class Comm, class Backend, class Value>
concept has_row_exchange_backward =
    requires(Dispatcher const& dispatcher, Backend const& on, Comm& comm, plan_of<Dispatcher, Backend> const& plan,
             wire_of<Dispatcher, Backend, Value>& wire, pending_of<Dispatcher, Backend, Comm, Value>& pending,
             matrix_view<Value const> in, matrix_view<Value> out, matrix_view<float> grad_weights) {
      {
        dispatcher.start_combine_backward(on, comm, plan, in, in, out, wire, grad_weights)
      } -> std::same_as<pending_of<Dispatcher, Backend, Comm, Value>>;
      { dispatcher.finish_combine_backward(on, plan, pending, wire, out) } -> std::same_as<void>;
      {
        dispatcher.start_dispatch_backward(on, comm, plan, in, wire)
      } -> std::same_as<pending_of<Dispatcher, Backend, Comm, Value>>;
      { dispatcher.finish_dispatch_backward(on, plan, pending, in, in, wire, grad_weights, out) } -> std::same_as<void>;
    };

/// @brief Plans and performs the exchange between tokens and experts, forward and backward.
///
/// Laws: with experts that are the identity function the output is the weight-summed input; what dispatch does to rows
/// and what combine does to gradients are transposes of each other; nothing is lost but what capacity drops.
template <class Dispatcher, class Comm, class Backend, class Value = float>
concept dispatcher_on = has_dispatch_plan<Dispatcher, Comm, Backend> &&
                        has_row_exchange<Dispatcher, Comm, Backend, Value> &&
                        has_row_exchange_backward<Dispatcher, Comm, Backend, Value>;

FAIRLEAD_NAMESPACE_END
