// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of what owns the parameters and gradients of a rank's experts.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/parameters.hpp>
#include <fairlead/core/placement.hpp>

#include <concepts>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {
/// What `each` is called with: an expert, its values and its gradients.
template <class Value>
struct parameter_probe {
  void operator()(expert_id, std::span<Value>, std::span<Value>) const noexcept {}
};
}  // namespace detail

/// @brief Hands out expert parameters slot by slot.
///
/// Required of a model `store`:
/// - `store.acquire(on, comm)` before the experts run, and `store.release(on, comm)` after: collective; a store that
///   keeps only a part of each expert gathers it here. Between the two calls, `store.values()` and `store.gradients()`
///   hold one pointer a local slot (memory of `on`; the arrays of pointers are host memory).
/// - `store.reduce_gradients(on, comm)`: collective, once a global batch: makes the gradients of all replicas of an
///   expert (or of all parts of it) the sum over replicas, added in replica order.
/// - `store.zero_gradients(on)`.
/// - `store.each(f)` calls `f(expert, values, gradients)` for what this rank's optimizer owns.
template <class Store, class Backend, class Comm, class Value>
concept parameter_store_on =
    execution_backend<Backend> && requires(Store& store, Backend const& on, Comm& comm) {
      { store.acquire(on, comm) } -> std::same_as<void>;
      { store.release(on, comm) } -> std::same_as<void>;
      { store.values() } -> std::same_as<std::span<Value const* const>>;
      { store.gradients() } -> std::same_as<std::span<Value* const>>;
      { store.reduce_gradients(on, comm) } -> std::same_as<void>;
      { store.zero_gradients(on) } -> std::same_as<void>;
      { store.each(detail::parameter_probe<Value>{}) } -> std::same_as<void>;
    };

/// @brief Makes parameter stores: `policy.make<Value>(on, comm, where, layout, seed)` allocates and initialises the
/// parameters of this rank's experts under a placement. Initial values follow (seed, logical expert) only.
template <class Policy, class Backend, class Comm, class Value>
concept store_policy_on = requires(Policy const& policy, Backend const& on, Comm& comm, placement const& where,
                                   parameter_layout const& layout, std::uint64_t seed) {
  { policy.template make<Value>(on, comm, where, layout, seed) } -> parameter_store_on<Backend, Comm, Value>;
};

FAIRLEAD_NAMESPACE_END
