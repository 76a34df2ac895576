// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Planners, schedulers, state and orders of gradient sums that do not go together: the message says what to change.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/place/greedy_max_replicas.hpp>
#include <fairlead/place/replicate_then_place.hpp>
#include <fairlead/place/replicated.hpp>
#include <fairlead/schedule/equal_split.hpp>
#include <fairlead/schedule/min_max_flow.hpp>

namespace fl = fairlead;

struct moves_everything {};
struct stays_where_it_is {};
template <>
inline constexpr bool fl::moves_no_state<stays_where_it_is> = true;

using shares = fl::replicate_then_place<fl::greedy_max_replicas, fl::contiguous_slots>;
using hosts = fl::replicate_then_place<fl::greedy_max_replicas, fl::contiguous_slots, fl::replica_meaning::host>;

struct row_partition : hosts {};
template <>
inline constexpr bool fl::replicas_share_local_slot<row_partition> = true;

struct no_rule {};

static_assert(fl::composes<shares, fl::equal_split, moves_everything>());
static_assert(fl::composes<hosts, fl::min_max_flow, stays_where_it_is, true>());
static_assert(fl::composes<row_partition, fl::min_max_flow, moves_everything, false, fl::gradient_order::by_local_slot>());

#if defined(REJECT_meaning)  // expect: this scheduler does not understand the replicas of this planner: see Planner::meaning
static_assert(fl::composes<fl::proportional_in_order, fl::min_max_flow, stays_where_it_is>());
#endif

#if defined(REJECT_state_every_step)  // expect: this planner may move any number of experts a step and this carrier moves optimizer state with them
static_assert(fl::composes<shares, fl::equal_split, moves_everything, true>());
#endif

#if defined(REJECT_gradient_order)  // expect: adding gradients up in the order of local slots needs replicas_share_local_slot<Planner>
static_assert(fl::composes<hosts, fl::min_max_flow, stays_where_it_is, false, fl::gradient_order::by_local_slot>());
#endif

#if defined(REJECT_rule)  // expect: the first template argument must model fairlead::apportionment
fl::replicate_then_place<no_rule, fl::contiguous_slots> planner;
#endif

#if defined(REJECT_assigner)  // expect: the second template argument must model fairlead::slot_assigner
fl::replicate_then_place<fl::greedy_max_replicas, no_rule> planner;
#endif

#if defined(REJECT_replicated)  // expect: the template argument must model fairlead::load_planner
fl::replicated<no_rule> planner;
#endif
