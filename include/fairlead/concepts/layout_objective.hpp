// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that predicts the time of a step from a slot table, without a token schedule.
#include <fairlead/concepts/cost_model.hpp>
#include <fairlead/core/load.hpp>

#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Predicts the time of a step for many slot tables under one load.
///
/// Required of a model `objective`:
/// - `objective.prepare(cluster, load, ws)`: what all tables share, computed once; views of scratch that live until the
///   caller rewinds `ws`. An empty `load.by_source` stands for equal sources.
/// - `objective.cost(cluster, prepared, slots, ws)`: slots @shape{cluster.slots()}, none for an empty slot. Infinite if an
///   expert with load has no slot. Pure: equal arguments give the equal double on every rank.
/// - `objective.bound(cluster, prepared)`: no table of this cluster costs less. @unit{s}
/// - `objective.workspace_bytes(cluster, experts)`: scratch of `prepare` and `cost` together; they allocate nothing.
template <class Objective>
concept layout_objective = requires(Objective const& objective, topology const& cluster, load_estimate const& load,
                                    std::span<expert_id const> slots, index_t experts, workspace& ws) {
  { objective.cost(cluster, objective.prepare(cluster, load, ws), slots, ws) } -> std::same_as<step_cost>;
  { objective.bound(cluster, objective.prepare(cluster, load, ws)) } -> std::convertible_to<double>;
  { objective.workspace_bytes(cluster, experts) } -> std::convertible_to<std::size_t>;
};

FAIRLEAD_NAMESPACE_END
