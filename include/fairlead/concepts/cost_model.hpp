// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that predicts how long a step takes.
#include <fairlead/core/placement.hpp>
#include <fairlead/core/token_schedule.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Predicted time of one layer and micro-batch, by cause.
struct step_cost {
  double communication_s = 0.0;  ///< exchange of tokens. @unit{s}
  double compute_s = 0.0;        ///< expert computation of the busiest rank. @unit{s}
  /// @returns both together, as if nothing overlapped. @unit{s}
  [[nodiscard]] constexpr double total_s() const noexcept { return communication_s + compute_s; }
};

/// @brief Predicts the time of one layer and micro-batch from a token schedule.
///
/// Required of a model `model`:
/// - `model.cost(cluster, where, schedule, ws)`: schedule @shape{ranks x where.replicas()}; pure, monotone in each count.
/// - `model.workspace_bytes(cluster, experts)`: scratch it needs; the call allocates nothing.
template <class Model>
concept cost_model = requires(Model const& model, topology const& cluster, placement const& where,
                              const_token_schedule_view schedule, index_t experts, workspace& ws) {
  { model.cost(cluster, where, schedule, ws) } -> std::same_as<step_cost>;
  { model.workspace_bytes(cluster, experts) } -> std::convertible_to<std::size_t>;
};

FAIRLEAD_NAMESPACE_END
