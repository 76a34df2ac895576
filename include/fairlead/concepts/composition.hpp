// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Which planner goes with which scheduler and which state, stated by types and checked when they are composed.
#include <fairlead/core/placement.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Stated by a scheduler: it makes sense of placements with this meaning of a second replica.
///
/// Default: all. A scheduler that counts distinct hosts wastes a second replica on the same rank, which planners with
/// `replica_meaning::equal_share` may make; one that gives every replica an equal share ignores how busy hosts are; a
/// slot capacity needs `replica_meaning::capacity_unit`.
template <class Scheduler, replica_meaning Meaning>
inline constexpr bool schedules_meaning = true;

/// @brief Stated by a planner: all ranks that hold an expert are neighbours, so that groups of consecutive ranks suffice
/// to add up its gradients.
template <class Planner>
inline constexpr bool hosts_are_intervals = false;

/// @brief Stated by a planner: all replicas of an expert have the same local slot, so that gradients may be added up in the
/// order of local slots without a deadlock.
template <class Planner>
inline constexpr bool replicas_share_local_slot = false;

/// @brief Stated by a planner: every expert has exactly two replicas, on two ranks.
template <class Planner>
inline constexpr bool two_hosts_an_expert = false;

/// @brief Stated by a planner: it bounds what a new table moves, so that it may run while state is tied to slots.
template <class Planner>
inline constexpr bool budgets_moves = false;

/// @brief Stated by a state carrier: a new table moves no optimizer state, so that any planner may run every step.
template <class Carrier>
inline constexpr bool moves_no_state = false;

/// @brief In which order gradients of replicated experts are added up over their groups of ranks.
enum class gradient_order {
  by_expert,     ///< ascending expert: free of deadlock with any placement
  by_local_slot  ///< ascending local slot, as data-parallel wrappers do: needs `replicas_share_local_slot`
};

/// @brief Whether a planner's placements mean what a scheduler takes them for.
template <class Planner, class Scheduler>
concept planner_fits_scheduler = schedules_meaning<Scheduler, Planner::meaning>;

/// @brief Whether a planner may run with a way to keep state.
/// @tparam Planner a planner
/// @tparam Carrier where parameters and optimizer state live
/// @tparam every_step whether the planner runs every step instead of rarely
template <class Planner, class Carrier, bool every_step>
concept planner_fits_state = !every_step || moves_no_state<Carrier> || budgets_moves<Planner>;

/// @brief Whether gradients of a planner's replicas may be added up in an order.
template <class Planner, gradient_order Order>
concept planner_fits_gradient_order = Order == gradient_order::by_expert || replicas_share_local_slot<Planner>;

/// @brief Check a composition; each failure says what to change.
///
/// Instantiate it where the pieces meet: `static_assert(composes<Planner, Scheduler, Carrier>())`.
/// @tparam Planner a load_planner
/// @tparam Scheduler a token_scheduler
/// @tparam Carrier where state lives
/// @tparam every_step whether the planner runs every step
/// @tparam Order order of gradient sums
/// @returns true; it does not compile otherwise
template <class Planner, class Scheduler, class Carrier, bool every_step = false,
          gradient_order Order = gradient_order::by_expert>
[[nodiscard]] consteval bool composes() {
  static_assert(planner_fits_scheduler<Planner, Scheduler>,
                "this scheduler does not understand the replicas of this planner: see Planner::meaning and "
                "schedules_meaning<Scheduler, ...> (concepts/composition.hpp)");
  static_assert(planner_fits_state<Planner, Carrier, every_step>,
                "this planner may move any number of experts a step and this carrier moves optimizer state with them: bound "
                "the moves (fairlead::budgeted), re-plan rarely, or use a carrier with moves_no_state (concepts/composition.hpp)");
  static_assert(planner_fits_gradient_order<Planner, Order>,
                "adding gradients up in the order of local slots needs replicas_share_local_slot<Planner>: use "
                "gradient_order::by_expert, or a row partition (concepts/composition.hpp)");
  return true;
}

FAIRLEAD_NAMESPACE_END
