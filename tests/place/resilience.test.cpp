// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/plan.hpp>
#include <fairlead/metrics/placement_recovery.hpp>
#include <fairlead/place/grouped_overlap.hpp>
#include <fairlead/place/replicate_then_place.hpp>
#include <fairlead/place/resilient_search.hpp>
#include <fairlead/place/sequential_quota.hpp>
#include <fairlead/place/spread_nodes.hpp>

#include <fairlead/laws/load_planner.hpp>
#include <fairlead/laws/slot_assigner.hpp>

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;

namespace {

struct answer {
  fl::report ended;
  std::vector<expert_id> slots;
};

template <class Assigner>
answer assign(Assigner const& assigner, fl::topology const& cluster, std::vector<index_t> const& replicas) {
  answer out;
  out.slots.assign(static_cast<std::size_t>(cluster.slots()), static_cast<expert_id>(77));
  std::vector<index_t> const loads(replicas.size(), 6);
  fl::arena<> memory(assigner.workspace_bytes(cluster, static_cast<index_t>(replicas.size())));
  fl::workspace ws = memory.view();
  out.ended = assigner.assign(cluster, loads, replicas, out.slots, ws);
  return out;
}

/// Distinct units of each expert.
std::vector<index_t> hosts_of(fl::topology const& cluster, answer const& made, index_t experts, bool nodes) {
  std::vector<std::set<index_t>> found(static_cast<std::size_t>(experts));
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    for (index_t slot = cluster.slot_offsets()[static_cast<std::size_t>(rank)]; slot < cluster.slot_offsets()[static_cast<std::size_t>(rank) + 1]; ++slot) {
      expert_id const e = made.slots[static_cast<std::size_t>(slot)];
      if (e != expert_id::none) { found[static_cast<std::size_t>(e)].insert(nodes ? cluster.node_of(rank) : rank); }
    }
  }
  std::vector<index_t> counts;
  for (auto const& one : found) { counts.push_back(static_cast<index_t>(one.size())); }
  return counts;
}

std::vector<index_t> random_counts(std::uint64_t number, index_t experts, index_t slots) {
  std::vector<index_t> counts(static_cast<std::size_t>(experts), 1);
  for (index_t left = slots - experts; left > 0; --left) {
    ++counts[fl::philox::draw(21, number, static_cast<std::uint64_t>(left))[0] % counts.size()];
  }
  return counts;
}

}  // namespace

TEST_CASE("resilient placements keep the laws of slot assigners", "[place][resilience][laws]") {
  CHECK(fl::laws::check_slot_assigner(fl::spread_nodes{}));
  CHECK(fl::laws::check_slot_assigner(fl::spread_nodes{.domain = fl::failure_domain::rank}));
  CHECK(fl::laws::check_slot_assigner(fl::grouped_overlap{}));
  CHECK(fl::laws::check_slot_assigner(fl::grouped_overlap{.domain = fl::failure_domain::rank}, {.ranks = 9, .experts = 5, .extra_slots = 20}));
  CHECK(fl::laws::check_slot_assigner(fl::resilient_search<>{.evaluations = 200}, {.may_refuse = true}));
  CHECK(fl::laws::check_slot_assigner(fl::resilient_search<>{.least = 1, .evaluations = 200, .domain = fl::failure_domain::rank}));
  CHECK(fl::laws::check_slot_assigner(
      fl::resilient_search<fl::metrics::sampled_recovery>{.least = 1, .alive = 2, .evaluations = 40, .recovery = {.samples = 50}}, {.cases = 63}));
}

TEST_CASE("spread_nodes gives every expert as many nodes as it has replicas", "[place][resilience]") {
  for (std::uint64_t number = 0; number < 60; ++number) {
    index_t const nodes = 2 + static_cast<index_t>(number % 7);
    fl::topology const cluster(nodes, 5);
    auto const counts = random_counts(number, 8, 5 * nodes > 8 ? 5 * nodes : 8);
    answer const made = assign(fl::spread_nodes{}, cluster, counts);
    REQUIRE(made.ended.status == fl::status::ok);
    auto const hosts = hosts_of(cluster, made, 8, false);
    for (std::size_t e = 0; e < 8; ++e) { REQUIRE(hosts[e] == std::min(counts[e], nodes)); }
  }
}

TEST_CASE("failures of nodes count nodes, and replicas in a node go to different ranks", "[place][resilience]") {
  fl::topology const cluster(8, 3, 2);  // four nodes of two ranks
  std::vector<index_t> const counts{4, 4, 4, 8, 2, 2};
  answer const by_node = assign(fl::spread_nodes{}, cluster, counts);
  CHECK(hosts_of(cluster, by_node, 6, true) == std::vector<index_t>{4, 4, 4, 4, 2, 2});
  CHECK(hosts_of(cluster, by_node, 6, false)[3] == 8);
  answer const searched = assign(fl::resilient_search<>{}, cluster, counts);
  for (index_t const nodes : hosts_of(cluster, searched, 6, true)) { CHECK(nodes >= 2); }
  answer const by_rank = assign(fl::spread_nodes{.domain = fl::failure_domain::rank}, cluster, counts);
  CHECK(hosts_of(cluster, by_rank, 6, false) == std::vector<index_t>{4, 4, 4, 8, 2, 2});
}

TEST_CASE("resilient_search is never worse than its starts and keeps its floor", "[place][resilience]") {
  int better = 0;
  for (std::uint64_t number = 0; number < 24; ++number) {
    index_t const nodes = 5 + static_cast<index_t>(number % 4);
    fl::topology const cluster(nodes, 3);
    std::vector<index_t> counts = random_counts(number, 7, 3 * nodes - 7);
    for (index_t& count : counts) { ++count; }  // at least two each
    auto const probability = [&](answer const& made, index_t alive) {
      fl::placement const where = fl::make_placement(cluster, 7, made.slots);
      fl::arena<> memory(fl::metrics::recovery_bytes(where));
      fl::workspace ws = memory.view();
      return fl::metrics::recovery_probability(where, alive, ws).probability;
    };
    index_t const alive = nodes - 2 - static_cast<index_t>(number % 2);
    answer const found = assign(fl::resilient_search<>{.alive = alive}, cluster, counts);
    double const start = std::max(probability(assign(fl::spread_nodes{}, cluster, counts), alive), probability(assign(fl::grouped_overlap{}, cluster, counts), alive));
    REQUIRE(probability(found, alive) >= start - 1e-12);
    better += probability(found, alive) > start + 1e-12 ? 1 : 0;
    for (index_t const hosts : hosts_of(cluster, found, 7, false)) { REQUIRE(hosts >= 2); }
    // Rare failures: nothing is lost to one failure, and not more pairs are fatal than in either start.
    answer const rare = assign(fl::resilient_search<>{}, cluster, counts);
    REQUIRE(probability(rare, nodes - 1) == 1.0);
    REQUIRE(probability(rare, nodes - 2) >= probability(assign(fl::spread_nodes{}, cluster, counts), nodes - 2) - 1e-12);
  }
  CHECK(better > 3);  // three slots, seven experts: the last group is cut off
}

TEST_CASE("resilient_search compares leading terms where sets are too many to count", "[place][resilience]") {
  fl::topology const cluster(40, 4);
  std::vector<index_t> counts(40, 4);
  fl::resilient_search<> const search{.evaluations = 400};
  answer const made = assign(search, cluster, counts);
  CHECK(made.ended.status == fl::status::iteration_limit);
  CHECK(made.ended.iterations <= 400);
  for (index_t const hosts : hosts_of(cluster, made, 40, false)) { CHECK(hosts == 4); }
  // Groups of four experts on ten disjoint groups of four nodes: ten fatal sets, and counting 2^4 sets each suffices.
  fl::placement const where = fl::make_placement(cluster, 40, made.slots);
  fl::arena<> memory(fl::metrics::recovery_bytes(where));
  fl::workspace ws = memory.view();
  CHECK(fl::metrics::recovery_probability(where, 36, ws).probability == Approx(1.0 - 10.0 / 91390.0));
  answer const sampled = assign(fl::resilient_search<fl::metrics::sampled_recovery>{.alive = 20, .evaluations = 30, .recovery = {.samples = 200}}, cluster, counts);
  CHECK(hosts_of(cluster, sampled, 40, false) == std::vector<index_t>(40, 4));
}

TEST_CASE("a floor that no layout can keep is an error, not a smaller floor", "[place][resilience]") {
  std::vector<index_t> const nodes{0, 2};
  std::vector<index_t> const slots{0, 9, 10};
  fl::topology const lopsided(nodes, slots);
  answer const refused = assign(fl::resilient_search<>{.domain = fl::failure_domain::rank}, lopsided, {2, 2, 2, 2, 2});
  CHECK(refused.ended.status == fl::status::infeasible);
  CHECK(std::all_of(refused.slots.begin(), refused.slots.end(), [](expert_id e) { return e == expert_id::none; }));
  CHECK(assign(fl::resilient_search<>{.least = 1, .domain = fl::failure_domain::rank}, lopsided, {2, 2, 2, 2, 2}).ended.status != fl::status::infeasible);
  CHECK_THROWS_AS(assign(fl::resilient_search<>{.least = 0}, lopsided, {1}), fl::contract_violation);
  CHECK_THROWS_AS(assign(fl::resilient_search<fl::metrics::sampled_recovery>{}, lopsided, {1}), fl::contract_violation);
}

TEST_CASE("failed ranks hold nothing after a re-placement", "[place][resilience]") {
  std::vector<fl::rank_id> const lost{fl::rank_id{1}, fl::rank_id{4}};
  fl::topology const after = fl::topology(6, 3).without(lost);
  std::vector<index_t> const counts{3, 3, 2, 2, 2};
  for (answer const& made : {assign(fl::grouped_overlap{}, after, counts), assign(fl::spread_nodes{}, after, counts), assign(fl::resilient_search<>{}, after, counts)}) {
    CHECK(made.ended.status != fl::status::infeasible);
    CHECK(made.slots.size() == 12);
    CHECK(std::count(made.slots.begin(), made.slots.end(), expert_id::none) == 0);
  }
}

TEST_CASE("quotas with a floor and a resilient assigner make a planner", "[place][resilience][laws]") {
  using planner = fl::replicate_then_place<fl::sequential_quota, fl::resilient_search<>>;
  planner const made{.replicate = {.least = 2}, .place = {.evaluations = 200}};
  CHECK(fl::laws::check_load_planner(made, {.may_refuse = true}));
  std::vector<index_t> const loads{100, 200, 300, 400};
  fl::topology const cluster(7, 2);
  std::vector<expert_id> slots(14);
  fl::arena<> memory(made.workspace_bytes(cluster, 4));
  fl::workspace ws = memory.view();
  REQUIRE(made.plan(cluster, {loads}, {}, slots, ws).status != fl::status::infeasible);
  std::vector<index_t> counts(4, 0);
  for (expert_id const e : slots) { ++counts[static_cast<std::size_t>(e)]; }
  CHECK(counts == std::vector<index_t>{2, 2, 4, 6});  // golden quotas
  fl::placement const where = fl::make_placement(cluster, 4, slots);
  fl::arena<> more(fl::metrics::recovery_bytes(where));
  fl::workspace scratch = more.view();
  CHECK(fl::metrics::min_failures_to_lose(where, scratch) >= 2);
}

TEST_CASE("experts without a replica change nothing for the others", "[place][resilience]") {
  for (std::uint64_t number = 0; number < 40; ++number) {
    fl::topology const cluster(3, 12, 3);
    std::vector<index_t> load;
    std::vector<index_t> replicas;
    std::vector<index_t> some_load;
    std::vector<index_t> some_replicas;
    std::vector<expert_id> name;
    for (std::uint64_t e = 0; e < 48; ++e) {
      auto const words = fl::philox::draw(33, number, e);
      bool const absent = words[0] % 2 == 0;
      load.push_back(absent ? words[1] % 2 : words[1] % 50);
      replicas.push_back(absent ? 0 : 1);
      if (absent) { continue; }
      some_load.push_back(load.back());
      some_replicas.push_back(1);
      name.push_back(static_cast<expert_id>(e));
    }
    auto const run = [&](auto const& assigner, std::vector<index_t> const& l, std::vector<index_t> const& r) {
      std::vector<expert_id> slots(36);
      fl::arena<> memory(assigner.workspace_bytes(cluster, static_cast<index_t>(l.size())));
      fl::workspace ws = memory.view();
      REQUIRE(assigner.assign(cluster, l, r, slots, ws).status == fl::status::ok);
      return slots;
    };
    for (bool const grouped : {false, true}) {
      std::vector<expert_id> const all = grouped ? run(fl::grouped_overlap{}, load, replicas) : run(fl::spread_nodes{}, load, replicas);
      std::vector<expert_id> some =
          grouped ? run(fl::grouped_overlap{}, some_load, some_replicas) : run(fl::spread_nodes{}, some_load, some_replicas);
      for (expert_id& e : some) { e = e == expert_id::none ? e : name[static_cast<std::size_t>(e)]; }
      REQUIRE(all == some);
    }
  }
}

TEST_CASE("a cluster of which one node is left fails rank by rank", "[place][resilience]") {
  std::vector<fl::rank_id> const lost{fl::rank_id{3}, fl::rank_id{4}, fl::rank_id{5}};
  std::vector<index_t> const nodes{0, 3, 6};
  std::vector<index_t> const slots{0, 3, 4, 5, 8, 9, 10};
  fl::topology const cluster = fl::topology(nodes, slots).without(lost);
  // Two ranks with one slot beside one with three: three experts cannot all have two ranks, two can.
  CHECK(assign(fl::resilient_search<>{}, cluster, {2, 2, 1}).ended.status == fl::status::ok);
  CHECK(hosts_of(cluster, assign(fl::resilient_search<>{}, cluster, {2, 2}), 2, false) == std::vector<index_t>{2, 2});
  CHECK(assign(fl::resilient_search<>{}, cluster, {3, 2}).ended.status == fl::status::ok);
  std::vector<index_t> const tight{0, 4, 5, 5, 8, 9, 10};
  fl::topology const narrow = fl::topology(nodes, tight).without(lost);
  CHECK(assign(fl::resilient_search<>{}, narrow, {2, 2}).ended.status == fl::status::infeasible);
}
