// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/place/replan_trigger.hpp>

#include <fairlead/core/saved_state.hpp>
#include <fairlead/schedule/equal_shares.hpp>

#include <algorithm>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;
using fl::replan_reason;

namespace {

fl::placement place(std::vector<index_t> const& offsets, std::vector<int> const& slots, index_t experts) {
  std::vector<expert_id> table;
  for (int const expert : slots) { table.push_back(static_cast<expert_id>(expert)); }
  return {experts, offsets, table};
}

template <class Trigger>
struct driver {
  Trigger trigger;
  typename Trigger::state_type state;
  explicit driver(Trigger const& one, index_t experts) : trigger(one), state(one.make_state(experts)) {}

  replan_reason step(std::vector<index_t> const& totals, fl::placement const& where) {
    trigger.observe({.totals = totals}, state);
    fl::arena<> memory(trigger.workspace_bytes(where));
    fl::workspace ws = memory.view();
    replan_reason const reason = trigger.should_replan(where, state, ws);
    CHECK(trigger.should_replan(where, state, ws) == reason);  // asking decides nothing
    CHECK(ws.used() == 0);
    return reason;
  }
};

// The largest load over ranks of a set of ranks that hold all replicas of some experts: every set is looked at.
struct subset_density {
  double operator()(fl::placement const& where, std::span<index_t const> totals, fl::workspace&) const {
    double best = 0.0;
    for (unsigned set = 1; set < (1U << static_cast<unsigned>(where.ranks())); ++set) {
      double load = 0.0;
      for (index_t e = 0; e < where.experts(); ++e) {
        bool inside = true;
        for (auto const& one : where.replicas(static_cast<expert_id>(e))) { inside = inside && ((set >> static_cast<unsigned>(one.rank)) & 1U) != 0; }
        if (inside) { load += static_cast<double>(totals[static_cast<std::size_t>(e)]); }
      }
      best = std::max(best, load / static_cast<double>(__builtin_popcount(set)));
    }
    return best;
  }
  std::size_t workspace_bytes(fl::placement const&) const { return 0; }
};

}  // namespace

TEST_CASE("every_interval fires after so many micro-batches, and again after a plan", "[place]") {
  fl::placement const where = place({0, 1}, {0}, 1);
  driver run(fl::every_interval{.micro_batches = 3}, 1);
  for (int plan = 0; plan < 3; ++plan) {
    CHECK(run.step({1}, where) == replan_reason::none);
    CHECK(run.step({1}, where) == replan_reason::none);
    CHECK(run.step({1}, where) == replan_reason::interval);
    CHECK(run.step({1}, where) == replan_reason::interval);  // until somebody plans
    run.trigger.replanned(run.state);
  }
  CHECK_THROWS_AS(driver(fl::every_interval{.micro_batches = 0}, 1).step({1}, where), fl::contract_violation);
}

TEST_CASE("imbalance_threshold compares the busiest rank with the mean of the ranks that host", "[place]") {
  // Rank 1 has no slot. Shares: rank 0 gets 10 + 6, rank 2 gets 6 + 2.
  fl::placement const where = place({0, 2, 2, 4}, {0, 1, 1, 2}, 3);
  std::vector<index_t> const totals{10, 12, 2};
  CHECK(driver(fl::imbalance_threshold{.above = 1.33}, 3).step(totals, where) == replan_reason::imbalance);
  CHECK(driver(fl::imbalance_threshold{.above = 1.34}, 3).step(totals, where) == replan_reason::none);
  CHECK(driver(fl::imbalance_threshold{.above = 1.0}, 3).step({0, 0, 0}, where) == replan_reason::none);
  CHECK(driver(fl::imbalance_threshold{.above = 1.0}, 0).step({}, fl::placement{}) == replan_reason::none);
}

TEST_CASE("imbalance_threshold does not fire again for what planning could not mend", "[place]") {
  fl::placement const where = place({0, 1, 2}, {0, 1}, 2);  // largest / mean = 2 max / total
  driver run(fl::imbalance_threshold{.above = 1.2, .worse = 1.1}, 2);
  CHECK(run.step({55, 45}, where) == replan_reason::none);
  CHECK(run.step({70, 30}, where) == replan_reason::imbalance);  // 1.4
  CHECK(run.step({70, 30}, where) == replan_reason::imbalance);
  run.trigger.replanned(run.state);
  CHECK(run.step({70, 30}, where) == replan_reason::none);  // the plan was no better
  CHECK(run.step({76, 24}, where) == replan_reason::none);  // 1.52 < 1.1 x 1.4
  CHECK(run.step({78, 22}, where) == replan_reason::imbalance);
  CHECK(run.step({65, 35}, where) == replan_reason::none);  // better by itself: 1.3 is what counts now
  CHECK(run.step({70, 30}, where) == replan_reason::none);
  CHECK(run.step({72, 28}, where) == replan_reason::imbalance);
  CHECK(run.step({50, 50}, where) == replan_reason::none);
  CHECK(run.step({59, 41}, where) == replan_reason::none);  // worse than 1.1 x 1.0, but below the threshold
  CHECK(run.step({61, 39}, where) == replan_reason::imbalance);
}

TEST_CASE("a lost expert with load is a reason by itself", "[place]") {
  fl::placement const where = place({0, 1, 2}, {0, 0}, 2);
  driver run(fl::imbalance_threshold{}, 2);
  CHECK(run.step({50, 0}, where) == replan_reason::none);
  CHECK(run.step({50, 1}, where) == replan_reason::lost_expert);
}

TEST_CASE("density_threshold looks at what the best shares could reach", "[place]") {
  // Two replicas of expert 0 make even shares unequal, but a free split can balance: 30 | 10 + 20.
  fl::placement const where = place({0, 1, 3}, {0, 0, 1}, 2);
  CHECK(driver(fl::imbalance_threshold{.above = 1.1}, 2).step({40, 20}, where) == replan_reason::imbalance);
  CHECK(driver(fl::density_threshold<subset_density>{.above = 1.1}, 2).step({40, 20}, where) == replan_reason::none);
  CHECK(driver(fl::density_threshold<subset_density>{.above = 1.1}, 2).step({10, 50}, where) == replan_reason::density);
  // An evaluator made of a split of the library: here even shares once more.
  CHECK(driver(fl::density_threshold<fl::split_load<fl::equal_shares>>{.above = 1.1}, 2).step({40, 20}, where) == replan_reason::density);
}

TEST_CASE("any_trigger gives the first reason and tells all of its parts", "[place]") {
  fl::placement const where = place({0, 1, 2}, {0, 1}, 2);
  using both = fl::any_trigger<fl::every_interval, fl::imbalance_threshold>;
  driver run(both{{fl::every_interval{.micro_batches = 2}, fl::imbalance_threshold{.above = 1.2}}}, 2);
  CHECK(run.step({50, 50}, where) == replan_reason::none);
  CHECK(run.step({90, 10}, where) == replan_reason::interval);
  run.trigger.replanned(run.state);
  CHECK(run.step({90, 10}, where) == replan_reason::none);  // as bad as before
  run.trigger.replanned(run.state);
  CHECK(run.step({55, 45}, where) == replan_reason::none);
  run.trigger.replanned(run.state);
  std::vector<std::byte> bytes(fl::saved_bytes(run.state));
  fl::save_state(run.state, bytes);
  driver resumed(run.trigger, 2);
  fl::load_state(resumed.state, bytes);
  for (auto const& totals : {std::vector<index_t>{52, 48}, {90, 10}, {90, 10}}) { CHECK(run.step(totals, where) == resumed.step(totals, where)); }
}

TEST_CASE("triggers refuse thresholds that would always fire, and loads of other experts", "[place][contract]") {
  fl::placement const where = place({0, 1, 2}, {0, 1}, 2);
  CHECK_THROWS_AS(driver(fl::imbalance_threshold{.above = 0.9}, 2).step({1, 1}, where), fl::contract_violation);
  CHECK_THROWS_AS(driver(fl::imbalance_threshold{.worse = 0.9}, 2).step({1, 1}, where), fl::contract_violation);
  CHECK_THROWS_AS(driver(fl::imbalance_threshold{}, 2).step({1, 1, 1}, where), fl::contract_violation);
  CHECK_THROWS_AS(driver(fl::imbalance_threshold{}, 3).step({1, 1, 1}, where), fl::contract_violation);
}
