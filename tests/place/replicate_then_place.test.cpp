// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/place/replicate_then_place.hpp>

#include <fairlead/place/even_replicas.hpp>
#include <fairlead/place/greedy_max_replicas.hpp>
#include <fairlead/place/node_symmetric_greedy.hpp>
#include <fairlead/place/replicated.hpp>
#include <fairlead/place/sequential_quota.hpp>

#include <fairlead/laws/load_planner.hpp>
#include <fairlead/laws/planner.hpp>
#include <fairlead/laws/slot_assigner.hpp>

#include <set>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;

namespace {

std::vector<index_t> ids(std::vector<expert_id> const& slots) {
  std::vector<index_t> result;
  for (expert_id const expert : slots) { result.push_back(fl::to_index(expert)); }
  return result;
}

template <class Planner>
std::vector<index_t> plan(Planner const& planner, fl::topology const& cluster, std::vector<index_t> const& load,
                          fl::status expected = fl::status::ok) {
  fl::arena<> memory(planner.workspace_bytes(cluster, static_cast<index_t>(load.size())));
  fl::workspace ws = memory.view();
  std::vector<expert_id> slots(static_cast<std::size_t>(cluster.slots()), expert_id{77});
  fl::report const ended = planner.plan(cluster, {.totals = load}, {}, slots, ws);
  CHECK(ended.status == expected);
  return ids(slots);
}

using hosts_in_order = fl::replicate_then_place<fl::greedy_max_replicas, fl::contiguous_slots, fl::replica_meaning::host>;
using shares_in_order = fl::replicate_then_place<fl::greedy_max_replicas, fl::contiguous_slots>;

}  // namespace

TEST_CASE("contiguous_slots keeps the laws", "[place][laws]") { CHECK(fl::laws::check_slot_assigner(fl::contiguous_slots{})); }

TEST_CASE("contiguous_slots fills long and short runs and leaves empty slots last", "[place]") {
  // Runs around the length of a block, and a table whose end a block would overrun.
  for (index_t first = 0; first < 40; ++first) {
    for (index_t second : {0, 1, 15, 16, 17, 33}) {
      for (index_t empty : {0, 1, 20}) {
        std::vector<index_t> const replicas{first, 0, second, 3};
        std::vector<index_t> const load{5, 0, 7, 1};
        std::vector<index_t> expected(static_cast<std::size_t>(first), 0);
        expected.insert(expected.end(), static_cast<std::size_t>(second), 2);
        expected.insert(expected.end(), 3, 3);
        expected.insert(expected.end(), static_cast<std::size_t>(empty), -1);
        fl::topology const cluster(1, static_cast<index_t>(expected.size()));
        fl::arena<> memory(fl::contiguous_slots{}.workspace_bytes(cluster, 4));
        fl::workspace ws = memory.view();
        std::vector<expert_id> slots(expected.size(), expert_id{9});
        REQUIRE(fl::contiguous_slots{}.assign(cluster, load, replicas, slots, ws).status == fl::status::ok);
        REQUIRE(ids(slots) == expected);
      }
    }
  }
}

TEST_CASE("proportional_in_order places shares of the load side by side", "[place]") {
  fl::topology const cluster(4, 2, 2);
  CHECK(plan(fl::proportional_in_order{}, cluster, {50, 30, 15, 5}) == std::vector<index_t>{0, 0, 0, 0, 1, 1, 2, 3});
  CHECK(plan(fl::proportional_in_order{}, cluster, {0, 0, 0}) == std::vector<index_t>{0, 0, 0, 1, 1, 1, 2, 2});
  CHECK(plan(fl::proportional_in_order{}, fl::topology(4, 2), std::vector<index_t>(9, 1), fl::status::infeasible) ==
        std::vector<index_t>(8, -1));
}

TEST_CASE("the ranks of an expert are an interval of the ranks with slots", "[place]") {
  fl::rank_id const dead{1};
  fl::topology const cluster = fl::topology(5, 3, 2).without(std::span(&dead, 1));
  auto const slots = plan(fl::proportional_in_order{}, cluster, {9, 1, 40, 3});
  for (index_t e = 0; e < 4; ++e) {
    std::vector<std::size_t> at;
    for (std::size_t slot = 0; slot < slots.size(); ++slot) {
      if (slots[slot] == e) { at.push_back(slot); }
    }
    REQUIRE(!at.empty());
    REQUIRE(at.back() - at.front() + 1 == at.size());
  }
}

TEST_CASE("planners composed of a rule and an assigner keep the laws", "[place][laws]") {
  fl::laws::load_planner_problem const stated{.fills_slots = true, .value_is_largest_share = true, .scale_invariant = true};
  CHECK(fl::laws::check_load_planner(fl::proportional_in_order{}, stated));
  CHECK(fl::laws::check_load_planner(shares_in_order{}, stated));
  CHECK(fl::laws::check_load_planner(fl::replicate_then_place<fl::node_symmetric_greedy, fl::contiguous_slots>{}, stated));
  CHECK(fl::laws::check_load_planner(fl::replicate_then_place<fl::even_replicas, fl::contiguous_slots>{}, stated));
  CHECK(fl::laws::check_load_planner(fl::replicate_then_place<fl::sequential_quota, fl::contiguous_slots>{}, stated));
}

TEST_CASE("the rule sees the nodes that have slots", "[place]") {
  using planner = fl::replicate_then_place<fl::node_symmetric_greedy, fl::contiguous_slots>;
  // Three nodes: 2 experts on 7 slots start with three each. With one node dead: two each, then steps of two.
  std::vector<index_t> const nodes{0, 1, 2, 3};
  std::vector<index_t> const three{0, 3, 6, 7};
  std::vector<index_t> const two{0, 3, 3, 7};
  CHECK(plan(planner{}, fl::topology(nodes, three), {9, 1}) == std::vector<index_t>{0, 0, 0, 0, 1, 1, 1});
  CHECK(plan(planner{}, fl::topology(nodes, two), {9, 1}) == std::vector<index_t>{0, 0, 0, 0, 0, 1, 1});
}

TEST_CASE("fields of the parts reach the plan", "[place]") {
  fl::replicate_then_place<fl::sequential_quota, fl::contiguous_slots> const planner{.replicate = {.least = 3}, .place = {}};
  CHECK(plan(planner, fl::topology(4, 2), {1, 99}) == std::vector<index_t>{0, 0, 0, 1, 1, 1, 1, 1});
}

TEST_CASE("a planner says what a second replica means, by its rule unless told", "[place]") {
  STATIC_REQUIRE(fl::proportional_in_order::meaning == fl::replica_meaning::capacity_unit);
  STATIC_REQUIRE(shares_in_order::meaning == fl::replica_meaning::equal_share);
  STATIC_REQUIRE(hosts_in_order::meaning == fl::replica_meaning::host);
  STATIC_REQUIRE(fl::hosts_are_intervals<shares_in_order>);
  STATIC_REQUIRE_FALSE(fl::replicas_share_local_slot<shares_in_order>);
  CHECK(fl::replicated<fl::proportional_in_order>{}.initial(2, 4).meaning() == fl::replica_meaning::capacity_unit);
  CHECK(fl::replicated<hosts_in_order>{}.initial(2, 4).meaning() == fl::replica_meaning::host);
}

TEST_CASE("replicated planners keep the laws of initial placements", "[place][laws]") {
  CHECK(fl::laws::check_planner(fl::replicated<fl::proportional_in_order>{}));
  CHECK(fl::laws::check_planner(fl::replicated<shares_in_order>{.slots_per_rank = 13, .ranks_per_node = 2}));
  CHECK(fl::laws::check_planner(fl::replicated<fl::proportional_in_order>{.slots_per_rank = 5}, {.min_experts = 0, .max_experts = 5}));
}

TEST_CASE("replicated plans equal loads on equal ranks", "[place]") {
  fl::placement const made = fl::replicated<fl::proportional_in_order>{.slots_per_rank = 3}.initial(4, 6);
  CHECK(made.slots() == 12);
  for (index_t e = 0; e < 6; ++e) { CHECK(made.replicas(static_cast<expert_id>(e)).size() == 2); }
  CHECK(fl::replicated<fl::proportional_in_order>{}.initial(4, 6).slots() == 8);
  CHECK(fl::replicated<fl::proportional_in_order>{}.initial(1, 0).slots() == 0);
  CHECK_THROWS_AS(fl::replicated<fl::proportional_in_order>{.slots_per_rank = 1}.initial(4, 6), fl::contract_violation);
  CHECK_THROWS_AS(fl::replicated<fl::proportional_in_order>{}.initial(0, 6), fl::contract_violation);
}
