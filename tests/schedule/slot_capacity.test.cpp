// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/token_scheduler.hpp>
#include <fairlead/schedule/slot_capacity.hpp>
#include <fairlead/schedule/split_then_route.hpp>
#include <fairlead/schedule/water_fill.hpp>

#include <limits>
#include <algorithm>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::expert_id;
using fl::index_t;

namespace {

struct units_planner {
  static constexpr fl::replica_meaning meaning = fl::replica_meaning::capacity_unit;
};
struct hosts_planner {
  static constexpr fl::replica_meaning meaning = fl::replica_meaning::host;
};

}  // namespace

static_assert(fl::planner_fits_scheduler<units_planner, fl::slot_capacity>);
static_assert(!fl::planner_fits_scheduler<hosts_planner, fl::slot_capacity>);
static_assert(fl::planner_fits_scheduler<hosts_planner, fl::split_then_route<fl::water_fill>>);
static_assert(!fl::planner_fits_scheduler<units_planner, fl::split_then_route<fl::water_fill>>);

TEST_CASE("slot_capacity keeps the laws of a scheduler while nothing exceeds its places", "[schedule][laws]") {
  for (index_t const ranks : {1, 3, 8}) {
    for (index_t const extra : {0, 5, 20}) {
      CHECK(fl::laws::check_token_scheduler(fl::slot_capacity{.places = 1000}, {.ranks = ranks, .experts = 7, .extra_slots = extra}));
      CHECK(fl::laws::check_token_scheduler(fl::slot_capacity{.places = std::numeric_limits<index_t>::max()}, {.ranks = ranks, .experts = 7, .extra_slots = extra}));
    }
  }
}

TEST_CASE("slot_capacity drops late ranks first and then serves copy k by replica floor(k r / n)", "[schedule]") {
  std::uint64_t index = 0;
  auto const below = [&index](index_t bound) { return static_cast<index_t>(fl::philox::below(fl::philox::draw(6, 1, index++)[0], static_cast<std::uint32_t>(bound))); };
  for (std::uint64_t number = 0; number < 200; ++number) {
    index_t const ranks = 1 + below(5);
    fl::placement const where = fl::laws::detail::random_placement({.ranks = ranks, .experts = 5, .extra_slots = below(12), .seed = 2}, number);
    fl::slot_capacity const rule{.places = below(30)};
    fl::matrix<count_t> load(ranks, 5), kept(ranks, 5), out(ranks, where.replicas());
    std::vector<index_t> totals(5);
    for (count_t& copies : load.span()) { copies = static_cast<count_t>(below(25)); }
    fl::sum_over_ranks(load.view(), totals);
    fl::report const admitted = rule.admit(std::as_const(load).view(), where, kept.view());
    REQUIRE(admitted);
    CHECK(admitted.value == static_cast<double>(rule.survivors(totals, where)));
    fl::workspace ws;
    REQUIRE(rule.schedule(std::as_const(kept).view(), where, out.view(), ws));
    fl::matrix<count_t> expected(ranks, where.replicas());
    for (index_t e = 0; e < 5; ++e) {
      auto const replicas = static_cast<index_t>(where.replicas(expert_id{static_cast<std::int32_t>(e)}).size());
      index_t const cap = rule.places * replicas;
      index_t const n = std::min(cap, totals[static_cast<std::size_t>(e)]);
      index_t k = 0;
      for (index_t source = 0; source < ranks; ++source) {
        for (index_t copy = 0; copy < load(source, e); ++copy, ++k) {
          if (k < cap) {
            // Above the capacity the published form is k div places, the same replica.
            index_t const replica = totals[static_cast<std::size_t>(e)] <= cap ? k * replicas / n : k / rule.places;
            ++expected(source, where.replica_offset(expert_id{static_cast<std::int32_t>(e)}) + replica);
          }
        }
      }
    }
    CHECK(std::equal(out.span().begin(), out.span().end(), expected.span().begin()));
    for (index_t column = 0; column < where.replicas(); ++column) {
      index_t sum = 0;
      for (index_t source = 0; source < ranks; ++source) { sum += out(source, column); }
      CHECK(sum <= rule.places);
    }
    // What was not admitted is refused, not hidden.
    if (admitted.value < admitted.bound) {
      fl::report const ended = rule.schedule(std::as_const(load).view(), where, out.view(), ws);
      CHECK(ended.status == fl::status::infeasible);
      CHECK(std::all_of(out.span().begin(), out.span().end(), [](count_t count) { return count == 0; }));
    }
    // In place.
    REQUIRE(rule.admit(std::as_const(load).view(), where, load.view()).value == admitted.value);
    CHECK(std::equal(load.span().begin(), load.span().end(), kept.span().begin()));
  }
}

TEST_CASE("the usual slot capacity is factor x copies / slots, rounded down", "[schedule]") {
  CHECK(fl::slot_capacity::of(1.0, 32768, 64).places == 512);
  CHECK(fl::slot_capacity::of(1.25, 10, 4).places == 3);
  CHECK(fl::slot_capacity::of(0.0, 10, 4).places == 0);
  CHECK_THROWS_AS(fl::slot_capacity::of(1.0, 10, 0), fl::contract_violation);
  CHECK_THROWS_AS(fl::slot_capacity::of(-1.0, 10, 1), fl::contract_violation);
}

TEST_CASE("slot_capacity names a negative number of places and a wrong shape", "[schedule][contract]") {
  fl::placement const where = fl::laws::detail::random_placement({.ranks = 2, .experts = 3, .extra_slots = 1}, 1);
  fl::matrix<count_t> load(2, 3), out(2, where.replicas()), small(2, 2);
  fl::workspace ws;
  CHECK_THROWS_AS(fl::slot_capacity{-1}.schedule(std::as_const(load).view(), where, out.view(), ws), fl::contract_violation);
  CHECK_THROWS_AS(fl::slot_capacity{-1}.admit(std::as_const(load).view(), where, load.view()), fl::contract_violation);
  CHECK_THROWS_AS(fl::slot_capacity{1}.admit(std::as_const(load).view(), where, small.view()), fl::contract_violation);
  CHECK_THROWS_AS(fl::slot_capacity{1}.survivors(std::vector<index_t>{1}, where), fl::contract_violation);
}
