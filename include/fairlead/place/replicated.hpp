// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Make an initial placement with a planner that wants loads: from equal loads.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/planner.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/plan.hpp>

#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief A `planner` out of a `load_planner`: what it plans for equal loads on equal ranks, before any load is known.
///
/// Layers take it as their planner; re-planning from observed loads calls `plan.plan` itself.
/// @tparam Planner a model of `load_planner`
template <class Planner>
struct replicated {
  static_assert(load_planner<Planner>, "the template argument must model fairlead::load_planner (concepts/planner.hpp), "
                                       "e.g. fairlead::proportional_in_order");

  Planner plan{};              ///< what places
  index_t slots_per_rank = 0;  ///< expert slots of each rank; 0 = as few as hold every expert once
  index_t ranks_per_node = 0;  ///< ranks of a node; 0 = all on one

  static constexpr replica_meaning meaning = Planner::meaning;  ///< what a second replica is good for

  /// @param ranks number of ranks, >= 1
  /// @param experts number of experts, >= 0
  /// @returns the cluster that it plans for
  /// @throws contract_violation (level 1) on bad sizes; std::bad_alloc
  [[nodiscard]] topology cluster(index_t ranks, index_t experts) const {
    FAIRLEAD_EXPECTS(ranks >= 1 && experts >= 0 && slots_per_rank >= 0, "a placement needs a rank, and no negative size", ranks,
                     experts, slots_per_rank);
    return {ranks, slots_per_rank == 0 ? (experts + ranks - 1) / ranks : slots_per_rank, ranks_per_node};
  }
  /// @brief Place experts before any load is known.
  /// @param ranks number of ranks, >= 1
  /// @param experts number of experts, >= 0
  /// @returns the placement, with at least one replica of every expert
  /// @throws contract_violation (level 1) on bad sizes, or if the planner finds no room: raise `slots_per_rank`;
  ///         std::bad_alloc
  /// @complexity that of the planner, allocates
  /// @determinism equal on every rank
  [[nodiscard]] placement initial(index_t ranks, index_t experts) const {
    topology const where = cluster(ranks, experts);
    // Every rank sends one copy to every expert, in one micro-batch: planners may read any of the three views.
    matrix<index_t> by_source(ranks, experts);
    for (index_t& copies : by_source.span()) { copies = 1; }
    matrix<index_t> totals(1, experts);
    for (index_t& copies : totals.span()) { copies = ranks; }
    std::vector<expert_id> slots(static_cast<std::size_t>(where.slots()), expert_id::none);
    arena<> memory(plan.workspace_bytes(where, experts));
    workspace ws = memory.view();
    report const ended = plan.plan(where, {.totals = totals.span(), .by_source = by_source.view(), .samples = totals.view()}, {}, slots, ws);
    FAIRLEAD_EXPECTS(ended.status != status::infeasible && ended.status != status::unsupported,
                     "the planner finds no room for every expert: raise slots_per_rank", ranks, slots_per_rank, experts);
    return make_placement(where, experts, slots, meaning);
  }
};

/// As the planner inside.
template <class Planner>
inline constexpr bool hosts_are_intervals<replicated<Planner>> = hosts_are_intervals<Planner>;
/// As the planner inside.
template <class Planner>
inline constexpr bool replicas_share_local_slot<replicated<Planner>> = replicas_share_local_slot<Planner>;
/// As the planner inside.
template <class Planner>
inline constexpr bool two_hosts_an_expert<replicated<Planner>> = two_hosts_an_expert<Planner>;

FAIRLEAD_NAMESPACE_END
