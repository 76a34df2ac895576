// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Sizes a layer's state is made for, and the parts a layer can do without.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/parameters.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/core/workspace.hpp>

#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The largest step a state is made for; equal on every rank.
struct layer_limits {
  index_t max_tokens = 0;  ///< most tokens of one rank in one call
  /// Most rows one rank's experts receive. 0 = the worst case, ranks x max_tokens x fan_out: on the host this costs
  /// address space only, since untouched pages are never backed by memory. If it is less, a larger step grows buffers
  /// (counted in `step_report::growths`).
  index_t max_rows = 0;
  std::uint64_t seed = 0;  ///< seed of initial parameters and of the random choices of default contexts
};

/// @brief Says that a layer adds no auxiliary loss to its router.
struct no_signal {
  /// Nothing is carried between micro-batches.
  struct state_type {};
  /// @returns an empty state
  [[nodiscard]] state_type make_state(index_t) const noexcept { return {}; }
  /// @brief Does nothing.
  void accumulate(std::span<index_t const>, index_t, state_type&) const noexcept {}
  /// @brief Adds nothing.
  /// @returns 0
  template <execution_backend Backend>
  double add_gradient(Backend const&, matrix_view<float const>, const_routing_view, route_context const&,
                      state_type const&, double, matrix_view<float>, workspace&) const noexcept {
    return 0.0;
  }
  /// @brief Does nothing.
  void end_global_batch(state_type&) const noexcept {}
  /// @returns 0
  [[nodiscard]] std::size_t workspace_bytes(index_t, index_t) const noexcept { return 0; }
};

/// @brief Says that a layer has no expert that all tokens pass through.
struct no_shared_expert {
  /// @returns a layout without parameters
  [[nodiscard]] fairlead::parameter_layout parameter_layout() const noexcept { return {}; }
};

/// @brief Whose gradient sum a parameter needs, and who updates it.
enum class parameter_scope {
  replicated,  ///< equal on every rank; gradients are summed over all ranks (gate, shared expert)
  expert       ///< belongs to one expert; gradients are summed over its replicas
};

/// @brief One parameter array of a layer as an optimizer sees it.
/// @tparam Value parameter type
template <class Value>
struct parameter_array {
  parameter_scope scope;             ///< whose it is
  expert_id expert;                  ///< which expert, or none
  parameter_layout const* layout;    ///< its blocks (names, shapes, decay, frozen or not now); valid during the visit
  std::span<Value> values;           ///< parameters, in the memory space of the backend
  std::span<Value> gradients;        ///< their gradients
};

FAIRLEAD_NAMESPACE_END
