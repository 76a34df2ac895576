// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Which planner goes with which scheduler, state and order of gradient sums, on models of a user.
#include <fairlead/concepts/composition.hpp>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::gradient_order;
using fl::replica_meaning;

namespace {

template <replica_meaning Meaning>
struct planner_of {
  static constexpr replica_meaning meaning = Meaning;
};
using hosts = planner_of<replica_meaning::host>;
using shares = planner_of<replica_meaning::equal_share>;
using places = planner_of<replica_meaning::capacity_unit>;

struct careful_planner : hosts {};
struct row_planner : hosts {};

struct any_scheduler {};
struct flow_scheduler {};      // sees distinct hosts
struct capacity_scheduler {};  // counts places

struct state_moves {};
struct state_stays {};

}  // namespace

template <>
inline constexpr bool fl::budgets_moves<careful_planner> = true;
template <>
inline constexpr bool fl::replicas_share_local_slot<row_planner> = true;
template <>
inline constexpr bool fl::moves_no_state<state_stays> = true;
template <>
inline constexpr bool fl::schedules_meaning<flow_scheduler, replica_meaning::capacity_unit> = false;
template <replica_meaning Meaning>
inline constexpr bool fl::schedules_meaning<capacity_scheduler, Meaning> = Meaning == replica_meaning::capacity_unit;

TEST_CASE("a scheduler takes every meaning of a replica unless it says otherwise", "[concepts]") {
  STATIC_REQUIRE(fl::planner_fits_scheduler<hosts, any_scheduler>);
  STATIC_REQUIRE(fl::planner_fits_scheduler<shares, any_scheduler>);
  STATIC_REQUIRE(fl::planner_fits_scheduler<places, any_scheduler>);
  STATIC_REQUIRE(fl::planner_fits_scheduler<hosts, flow_scheduler>);
  STATIC_REQUIRE(fl::planner_fits_scheduler<shares, flow_scheduler>);
  STATIC_REQUIRE_FALSE(fl::planner_fits_scheduler<places, flow_scheduler>);
  STATIC_REQUIRE_FALSE(fl::planner_fits_scheduler<hosts, capacity_scheduler>);
  STATIC_REQUIRE_FALSE(fl::planner_fits_scheduler<shares, capacity_scheduler>);
  STATIC_REQUIRE(fl::planner_fits_scheduler<places, capacity_scheduler>);
}

TEST_CASE("planning every step needs bounded moves, or state that stays", "[concepts]") {
  STATIC_REQUIRE(fl::planner_fits_state<hosts, state_moves, false>);
  STATIC_REQUIRE_FALSE(fl::planner_fits_state<hosts, state_moves, true>);
  STATIC_REQUIRE(fl::planner_fits_state<careful_planner, state_moves, true>);
  STATIC_REQUIRE(fl::planner_fits_state<hosts, state_stays, true>);
}

TEST_CASE("gradient sums in the order of local slots need replicas with one local slot", "[concepts]") {
  STATIC_REQUIRE(fl::planner_fits_gradient_order<hosts, gradient_order::by_expert>);
  STATIC_REQUIRE_FALSE(fl::planner_fits_gradient_order<hosts, gradient_order::by_local_slot>);
  STATIC_REQUIRE(fl::planner_fits_gradient_order<row_planner, gradient_order::by_local_slot>);
}

TEST_CASE("compositions that fit compile", "[concepts]") {
  STATIC_REQUIRE(fl::composes<places, capacity_scheduler, state_stays, true>());
  STATIC_REQUIRE(fl::composes<careful_planner, flow_scheduler, state_moves, true>());
  STATIC_REQUIRE(fl::composes<row_planner, flow_scheduler, state_moves, false, gradient_order::by_local_slot>());
}
