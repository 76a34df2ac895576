// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concepts of something that decides where experts sit.
#include <fairlead/core/load.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Places experts before any load is known.
///
/// Required of a model `planner`: `planner.initial(ranks, experts)` returns a placement with at least one replica of
/// every expert, equal on every rank. Re-planning from observed loads is `load_planner`; `replicated` makes a `planner` of
/// one.
template <class Planner>
concept planner = requires(Planner const& planner, index_t ranks, index_t experts) {
  { planner.initial(ranks, experts) } -> std::same_as<placement>;
};

/// @brief Places experts for the loads that are expected.
///
/// Required of a model `planner`:
/// - `planner.plan(cluster, load, now, next, ws)`: fills the slot table `next` @shape{cluster.slots()}, none for an empty
///   slot. `now` is the table in use, of the same shape, or empty when there is none; an incremental planner starts from it.
///   Every expert gets at least one slot. `status::infeasible`, with all slots none, if there are fewer slots than
///   experts. Loads that are all zero, all on one expert, or tied are legal. Each model documents `value` (its objective)
///   and `bound`, and its cap on iterations (`status::iteration_limit`: valid, not proved best).
/// - `planner.workspace_bytes(cluster, experts)`: scratch it needs; the call allocates nothing.
/// - `Planner::meaning`: the `replica_meaning` of its second replicas.
/// - The result is equal on every rank: integers, a total order for ties, no dependence on threads.
template <class Planner>
concept load_planner = requires(Planner const& planner, topology const& cluster, load_estimate const& load, index_t experts,
                                std::span<expert_id const> now, std::span<expert_id> next, workspace& ws) {
  { planner.plan(cluster, load, now, next, ws) } -> std::same_as<report>;
  { planner.workspace_bytes(cluster, experts) } -> std::convertible_to<std::size_t>;
  { Planner::meaning } -> std::convertible_to<replica_meaning>;
};

/// @brief Stated: the planner starts from the table in use, and keeps it when nothing better is found.
template <class Planner>
inline constexpr bool incremental = false;

FAIRLEAD_NAMESPACE_END
