// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of what a search over slot tables makes small.
#include <fairlead/core/ids.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// One, in the fixed point in which slot objectives count: sums over samples are exact and equal on every rank.
inline constexpr index_t slot_cost_unit = index_t{1} << 20U;

/// @brief Says how good a slot table is for one sample of loads, and which slots are to blame.
///
/// Required of a model `objective`:
/// - `objective.cost(cluster, totals, slots, blamed, ws)`: totals >= 0 @shape{experts}, `slots` @shape{cluster.slots()}
/// with
///   experts or none. Returns the cost, >= 0, in units of 1 / `slot_cost_unit`. `blamed` @shape{cluster.slots()} or
///   empty gets 1 for slots on the ranks that make the cost, whose expert should get rid of load there, and 0 for all
///   others; nothing is blamed when the cost is `least_cost()`. An expert without a slot counts nothing.
/// - `objective.least_cost()`: no table costs less.
/// - `objective.workspace_bytes(cluster, experts)`: scratch it needs; the call allocates nothing.
/// - Integers: the result is equal on every rank.
template <class Objective>
concept slot_objective = requires(Objective const& objective, topology const& cluster, index_t experts,
                                  std::span<index_t const> totals, std::span<expert_id const> slots,
                                  std::span<std::uint8_t> blamed, workspace& ws) {
  { objective.cost(cluster, totals, slots, blamed, ws) } -> std::same_as<index_t>;
  { objective.least_cost() } -> std::same_as<index_t>;
  { objective.workspace_bytes(cluster, experts) } -> std::convertible_to<std::size_t>;
};

FAIRLEAD_NAMESPACE_END
