// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/plan.hpp>
#include <fairlead/laws/load_planner.hpp>
#include <fairlead/laws/slot_assigner.hpp>
#include <fairlead/place/balanced_pack.hpp>
#include <fairlead/place/global_pack.hpp>
#include <fairlead/place/hierarchical_pack.hpp>
#include <fairlead/place/plan_layers.hpp>
#include <fairlead/workload/zipf.hpp>

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

#include "support/catch.hpp"
#include "support/plain_packing.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;
using fl::repeats_on_a_rank;
using fl::report;
using fl::status;
using fl::topology;
using fl_test::plain_packing;

namespace {

struct planned {
  std::vector<int> slots;
  report ended;
};

template <class Planner>
planned plan_of(Planner const& planner, topology const& cluster, std::vector<index_t> const& load) {
  std::vector<expert_id> next(static_cast<std::size_t>(cluster.slots()));
  fl::arena<> memory(planner.workspace_bytes(cluster, static_cast<index_t>(load.size())));
  fl::workspace ws = memory.view();
  planned made{{}, planner.plan(cluster, {.totals = load}, {}, next, ws)};
  for (expert_id const expert : next) { made.slots.push_back(static_cast<int>(expert)); }
  return made;
}

// Loads that tie often, or have few large ones, or neither.
std::vector<index_t> random_load(index_t experts, int kind, fl::laws::detail::whole_numbers& draw) {
  std::vector<index_t> load(static_cast<std::size_t>(experts));
  for (index_t& entry : load) {
    switch (kind) {
      case 0:
        entry = draw.below(4);
        break;
      case 1:
        entry = 12 * (1 + draw.below(3));
        break;
      case 2:
        entry = index_t{1} << draw.below(12);
        break;
      case 3:
        entry = 1000 / (1 + draw.below(300));
        break;
      case 4:
        entry = 7;
        break;
      default:
        entry = draw.below(1000);
        break;
    }
  }
  if (std::accumulate(load.begin(), load.end(), index_t{0}) == 0) { load[0] = 1; }
  return load;
}

std::vector<int> rooms_of(topology const& cluster, index_t first, index_t last) {
  std::vector<int> rooms;
  for (index_t rank = first; rank < last; ++rank) { rooms.push_back(static_cast<int>(cluster.slots(rank))); }
  return rooms;
}

topology random_cluster(index_t ranks, index_t slots, index_t per_node, fl::laws::detail::whole_numbers& draw) {
  std::vector<index_t> cuts(static_cast<std::size_t>(ranks) + 1, 0);
  cuts.back() = slots;
  for (std::size_t i = 1; i + 1 < cuts.size(); ++i) { cuts[i] = draw.below(slots + 1); }
  std::sort(cuts.begin(), cuts.end());
  std::vector<index_t> nodes{0};
  while (nodes.back() < ranks) { nodes.push_back(std::min(ranks, nodes.back() + per_node)); }
  return {nodes, cuts};
}

index_t repeats_in(topology const& cluster, std::vector<int> const& slots) {
  index_t count = 0;
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    std::set<int> seen;
    for (index_t slot = cluster.slot_offsets()[static_cast<std::size_t>(rank)];
         slot < cluster.slot_offsets()[static_cast<std::size_t>(rank) + 1]; ++slot) {
      int const expert = slots[static_cast<std::size_t>(slot)];
      count += expert >= 0 && !seen.insert(expert).second ? 1 : 0;
    }
  }
  return count;
}

}  // namespace

TEST_CASE("global_pack gives the slots that plain scans give, ties and ragged ranks included", "[place]") {
  for (int number = 0; number < 900; ++number) {
    fl::laws::detail::whole_numbers draw(11, static_cast<std::uint64_t>(number));
    bool const large = number % 9 == 0;
    index_t const experts = large ? 50 + draw.below(100) : 1 + draw.below(12);
    index_t const slots = experts + draw.below(large ? 200 : 25);
    index_t const ranks = 1 + draw.below(large ? 40 : 7);
    topology const cluster =
        number % 2 == 0 ? random_cluster(ranks, slots, 2, draw) : topology(ranks, (slots + ranks - 1) / ranks);
    auto const load = random_load(experts, number % 7, draw);
    auto const packs = plain_packing{load}.place(rooms_of(cluster, 0, cluster.ranks()));
    std::vector<int> expected;
    for (auto const& pack : packs) { expected.insert(expected.end(), pack.begin(), pack.end()); }
    CAPTURE(number, experts, cluster.slots(), ranks);
    planned const made = plan_of(fl::global_pack{}, cluster, load);
    REQUIRE(made.ended.status == status::ok);
    REQUIRE(made.slots == expected);
    REQUIRE(made.ended.iterations == repeats_in(cluster, made.slots));
  }
}

TEST_CASE("hierarchical_pack gives the slots that plain scans give", "[place]") {
  for (int number = 0; number < 400; ++number) {
    fl::laws::detail::whole_numbers draw(12, static_cast<std::uint64_t>(number));
    index_t const nodes = 2 + draw.below(3);
    index_t const groups = nodes * (1 + draw.below(3));
    index_t const experts = groups * (1 + draw.below(5));
    index_t const per_node = 1 + draw.below(4);
    index_t const ranks = nodes * per_node;
    index_t const slots = (experts + ranks - 1) / ranks + draw.below(3);
    topology const cluster(ranks, slots, per_node);
    auto const load = random_load(experts, number % 7, draw);
    std::vector<fl_test::wide_t> group_loads(static_cast<std::size_t>(groups), 0);
    for (index_t e = 0; e < experts; ++e) {
      group_loads[static_cast<std::size_t>(e * groups / experts)] += load[static_cast<std::size_t>(e)];
    }
    auto const homes = plain_packing::pack(
        group_loads, std::vector<int>(static_cast<std::size_t>(nodes), static_cast<int>(groups / nodes)));
    std::vector<int> expected;
    for (index_t node = 0; node < nodes; ++node) {
      std::vector<int> names;
      std::vector<index_t> local;
      for (int const group : homes[static_cast<std::size_t>(node)]) {
        for (index_t e = group * (experts / groups); e < (group + 1) * (experts / groups); ++e) {
          names.push_back(static_cast<int>(e));
          local.push_back(load[static_cast<std::size_t>(e)]);
        }
      }
      // No load on a node: numbers of replicas even, which the reference does not do.
      if (std::accumulate(local.begin(), local.end(), index_t{0}) == 0) { std::fill(local.begin(), local.end(), 1); }
      for (auto const& pack : plain_packing{local}.place(rooms_of(cluster, node * per_node, (node + 1) * per_node))) {
        for (int const item : pack) { expected.push_back(names[static_cast<std::size_t>(item)]); }
      }
    }
    CAPTURE(number, experts, groups, nodes, per_node, slots);
    REQUIRE(plan_of(fl::hierarchical_pack{.groups = groups}, cluster, load).slots == expected);
  }
}

TEST_CASE("hierarchical_pack falls back to one group where groups cannot stay on nodes", "[place]") {
  fl::laws::detail::whole_numbers draw(13, 0);
  auto const load = random_load(24, 6, draw);
  auto const plain = [&](topology const& cluster) { return plan_of(fl::global_pack{}, cluster, load).slots; };
  topology const nine(9, 4, 1);  // 8 groups, 9 nodes
  CHECK(plan_of(fl::hierarchical_pack{.groups = 8}, nine, load).slots == plain(nine));
  topology const two(4, 8, 2);
  CHECK(plan_of(fl::hierarchical_pack{.groups = 0}, two, load).slots == plain(two));
  CHECK(plan_of(fl::hierarchical_pack{.groups = 25}, two, load).slots == plain(two));
  CHECK(plan_of(fl::hierarchical_pack{.groups = 2}, two, load).slots != plain(two));
  std::vector<index_t> const nodes{0, 2, 4};
  std::vector<index_t> const slots{0, 20, 40, 44, 48};  // 12 experts do not fit 8 slots
  topology const lopsided(nodes, slots);
  CHECK(plan_of(fl::hierarchical_pack{.groups = 2}, lopsided, load).slots == plain(lopsided));
}

TEST_CASE("the packing planners keep the laws", "[place][laws]") {
  fl::laws::load_planner_problem const problem{
      .fills_slots = true, .value_is_largest_share = true, .scale_invariant = true};
  CHECK(fl::laws::check_load_planner(fl::global_pack{}, problem));
  CHECK(fl::laws::check_load_planner(fl::global_pack{.repeats = repeats_on_a_rank::avoided}, problem));
  CHECK(fl::laws::check_load_planner(fl::hierarchical_pack{.groups = 4}, problem));
  CHECK(
      fl::laws::check_load_planner(fl::hierarchical_pack{.groups = 6, .repeats = repeats_on_a_rank::avoided}, problem));
  auto apart = problem;
  apart.fills_slots = false;
  CHECK(fl::laws::check_load_planner(fl::global_pack{.repeats = repeats_on_a_rank::forbidden}, apart));
  CHECK(
      fl::laws::check_load_planner(fl::hierarchical_pack{.groups = 3, .repeats = repeats_on_a_rank::forbidden}, apart));
  for (auto sizes : {problem, apart}) {
    sizes.ranks = 17;
    sizes.experts = 120;
    sizes.extra_slots = 90;
    sizes.seed = 4;
    CHECK(fl::laws::check_load_planner(fl::global_pack{}, sizes));
    CHECK(fl::laws::check_load_planner(fl::hierarchical_pack{.groups = 9}, sizes));
    sizes.experts = 1;
    sizes.ranks = 1;
    sizes.extra_slots = 0;
    CHECK(fl::laws::check_load_planner(fl::global_pack{}, sizes));
  }
  fl::laws::load_planner_problem const even{.ranks = 8,
                                            .ranks_per_node = 4,
                                            .experts = 12,
                                            .extra_slots = 4,
                                            .ragged = false,
                                            .fills_slots = true,
                                            .value_is_largest_share = true,
                                            .scale_invariant = true};
  CHECK(fl::laws::check_load_planner(fl::hierarchical_pack{.groups = 4}, even));
}

TEST_CASE("balanced_pack keeps the laws", "[place][laws]") {
  CHECK(fl::laws::check_slot_assigner(fl::balanced_pack{}));
  CHECK(fl::laws::check_slot_assigner(fl::balanced_pack{.exchanges = 50}));
  CHECK(fl::laws::check_slot_assigner(fl::balanced_pack{.repeats = repeats_on_a_rank::avoided}));
  CHECK(
      fl::laws::check_slot_assigner(fl::balanced_pack{.repeats = repeats_on_a_rank::forbidden}, {.may_refuse = true}));
  CHECK(
      fl::laws::check_slot_assigner(fl::balanced_pack{}, {.ranks = 20, .experts = 100, .extra_slots = 70, .seed = 2}));
  CHECK(fl::laws::check_slot_assigner(fl::balanced_pack{}, {.ranks = 1, .experts = 1, .extra_slots = 0}));
}

TEST_CASE("balanced_pack after the numbers of global_pack is global_pack", "[place]") {
  for (int number = 0; number < 100; ++number) {
    fl::laws::detail::whole_numbers draw(14, static_cast<std::uint64_t>(number));
    index_t const experts = 4 + draw.below(60);
    topology const cluster(1 + draw.below(9), 2 + experts);
    auto const load = random_load(experts, 5 + number % 2, draw);
    planned const whole = plan_of(fl::global_pack{}, cluster, load);
    std::vector<index_t> replicas(load.size(), 0);
    for (int const expert : whole.slots) { ++replicas[static_cast<std::size_t>(expert)]; }
    std::vector<expert_id> slots(whole.slots.size());
    fl::arena<> memory(fl::balanced_pack{}.workspace_bytes(cluster, experts));
    fl::workspace ws = memory.view();
    report const ended = fl::balanced_pack{}.assign(cluster, load, replicas, slots, ws);
    std::vector<int> ids;
    for (expert_id const expert : slots) { ids.push_back(static_cast<int>(expert)); }
    REQUIRE(ids == whole.slots);
    REQUIRE(ended.value == whole.ended.value);
  }
}

TEST_CASE("exchanges make the heaviest rank of balanced_pack lighter, never heavier", "[place]") {
  int lighter = 0;
  for (int number = 0; number < 100; ++number) {
    fl::laws::detail::whole_numbers draw(18, static_cast<std::uint64_t>(number));
    topology const cluster(2 + draw.below(7), 3);
    std::vector<index_t> const replicas(static_cast<std::size_t>(cluster.slots()), 1);
    auto const load = random_load(cluster.slots(), 6, draw);
    double values[2] = {};
    double bound = 0.0;
    for (index_t const exchanges : {0, 100}) {
      std::vector<expert_id> slots(replicas.size());
      fl::balanced_pack const assigner{.exchanges = exchanges};
      fl::arena<> memory(assigner.workspace_bytes(cluster, cluster.slots()));
      fl::workspace ws = memory.view();
      report const ended = assigner.assign(cluster, load, replicas, slots, ws);
      values[exchanges > 0 ? 1 : 0] = ended.value;
      bound = ended.bound;
    }
    REQUIRE(values[1] <= values[0]);
    REQUIRE(values[1] >= bound);
    lighter += values[1] < values[0] ? 1 : 0;
  }
  CHECK(lighter > 40);
}

TEST_CASE("no rank gets an expert twice where that is asked for", "[place]") {
  int with_repeats = 0;
  for (int number = 0; number < 300; ++number) {
    fl::laws::detail::whole_numbers draw(15, static_cast<std::uint64_t>(number));
    index_t const ranks = 2 + draw.below(8);
    index_t const experts = 2 + draw.below(20);
    topology const cluster(ranks, (experts + ranks - 1) / ranks + draw.below(4));
    auto const load = random_load(experts, 2, draw);
    planned const freely = plan_of(fl::global_pack{}, cluster, load);
    with_repeats += freely.ended.iterations > 0 ? 1 : 0;
    planned const forbidden = plan_of(fl::global_pack{.repeats = repeats_on_a_rank::forbidden}, cluster, load);
    CAPTURE(number, ranks, experts, cluster.slots());
    REQUIRE(repeats_in(cluster, forbidden.slots) == 0);
    REQUIRE(forbidden.ended.iterations == 0);
    planned const avoided = plan_of(fl::global_pack{.repeats = repeats_on_a_rank::avoided}, cluster, load);
    REQUIRE(repeats_in(cluster, avoided.slots) == avoided.ended.iterations);
    if (cluster.slots(0) <= experts) { REQUIRE(avoided.ended.iterations == 0); }
    // Each rank has experts for all of its slots or all experts: nothing is left empty without need.
    auto const empty = std::count(forbidden.slots.begin(), forbidden.slots.end(), -1);
    REQUIRE(empty == std::max<index_t>(0, cluster.slots(0) - experts) * ranks);
  }
  CHECK(with_repeats > 30);
}

TEST_CASE("balanced_pack without repeats is infeasible exactly where no table is", "[place]") {
  int feasible = 0;
  int infeasible = 0;
  for (int number = 0; number < 600; ++number) {
    fl::laws::detail::whole_numbers draw(16, static_cast<std::uint64_t>(number));
    topology const cluster = random_cluster(3, 2 + draw.below(6), 1, draw);
    std::vector<index_t> replicas(static_cast<std::size_t>(2 + draw.below(3)), 0);
    for (index_t left = cluster.slots() - draw.below(2); left > 0; --left) {
      ++replicas[static_cast<std::size_t>(draw.below(static_cast<index_t>(replicas.size())))];
    }
    auto const load = random_load(static_cast<index_t>(replicas.size()), 5, draw);
    // All ways to give each expert a set of ranks.
    bool exists = false;
    for (int code = 0; code < 1 << (3 * static_cast<int>(replicas.size())) && !exists; ++code) {
      std::array<index_t, 3> used{};
      bool fits = true;
      for (std::size_t e = 0; e < replicas.size(); ++e) {
        int const set = code >> (3 * static_cast<int>(e)) & 7;
        fits = fits && (set & 1) + (set >> 1 & 1) + (set >> 2 & 1) == replicas[e];
        for (std::size_t r = 0; r < 3; ++r) { used[r] += set >> r & 1; }
      }
      for (std::size_t r = 0; r < 3; ++r) { fits = fits && used[r] <= cluster.slots(static_cast<index_t>(r)); }
      exists = fits;
    }
    std::vector<expert_id> slots(static_cast<std::size_t>(cluster.slots()));
    fl::balanced_pack const assigner{.repeats = repeats_on_a_rank::forbidden};
    fl::arena<> memory(assigner.workspace_bytes(cluster, static_cast<index_t>(load.size())));
    fl::workspace ws = memory.view();
    report const ended = assigner.assign(cluster, load, replicas, slots, ws);
    CAPTURE(number);
    REQUIRE((ended.status == status::ok) == exists);
    (exists ? feasible : infeasible) += 1;
  }
  CHECK(feasible > 50);
  CHECK(infeasible > 50);
}

TEST_CASE("plan_layers plans each layer as if it was alone", "[place]") {
  index_t const layers = 7;
  topology const cluster(6, 5, 3);
  fl::hierarchical_pack const planner{.groups = 4};
  fl::matrix<index_t> loads(layers, 20);
  fl::matrix<expert_id> next(layers, cluster.slots());
  std::vector<report> reports(static_cast<std::size_t>(layers));
  for (index_t layer = 0; layer < layers; ++layer) {
    fl::laws::detail::whole_numbers draw(17, static_cast<std::uint64_t>(layer));
    auto const load = random_load(20, 5, draw);
    std::copy(load.begin(), load.end(), loads.view().row(layer));
  }
  fl::arena<> memory(planner.workspace_bytes(cluster, 20));
  fl::workspace ws = memory.view();
  report const worst = fl::plan_layers(planner, cluster, loads.view(), {}, next.view(), reports, ws);
  double largest = 0.0;
  for (index_t layer = 0; layer < layers; ++layer) {
    planned const alone =
        plan_of(planner, cluster, std::vector<index_t>(loads.view().row(layer), loads.view().row(layer) + 20));
    for (index_t slot = 0; slot < cluster.slots(); ++slot) {
      REQUIRE(static_cast<int>(next(layer, slot)) == alone.slots[static_cast<std::size_t>(slot)]);
    }
    REQUIRE(reports[static_cast<std::size_t>(layer)].value == alone.ended.value);
    largest = std::max(largest, alone.ended.value);
  }
  CHECK(worst.value == largest);
  CHECK(worst.status == status::ok);
  fl::matrix<index_t> many(2, 31);
  fl::matrix<expert_id> tables(2, cluster.slots());
  fl::arena<> more(planner.workspace_bytes(cluster, 31));
  fl::workspace again = more.view();
  CHECK(fl::plan_layers(planner, cluster, many.view(), {}, tables.view(), {}, again).status == status::infeasible);
  CHECK_THROWS_AS(fl::plan_layers(planner, cluster, many.view(), {}, next.view(), {}, again), fl::contract_violation);
}

TEST_CASE("the packing planners balance a Zipf law as the published numbers say", "[place]") {
  // 256 experts in 288 slots of 32 ranks: largest load over mean 1.002 to 1.005; 8 groups on 4 nodes 1.05 and 1.41.
  for (double const exponent : {0.5, 1.0}) {
    auto const counts = fl::workload::zipf_counts(256, 1000000, exponent);
    double flat = 0.0;
    double grouped = 0.0;
    int const draws = 20;
    for (int number = 0; number < draws; ++number) {
      auto const ids = fl::workload::shuffled_ids(256, 100 + static_cast<std::uint64_t>(number));
      std::vector<index_t> load(256);
      for (std::size_t e = 0; e < 256; ++e) { load[e] = counts[static_cast<std::size_t>(ids[e])]; }
      topology const cluster(32, 9, 8);
      flat += plan_of(fl::global_pack{}, cluster, load).ended.value * 32 / 1e6 / draws;
      grouped += plan_of(fl::hierarchical_pack{.groups = 8}, cluster, load).ended.value * 32 / 1e6 / draws;
    }
    CHECK(flat < 1.007);
    CHECK(grouped > (exponent < 1.0 ? 1.02 : 1.25));
    CHECK(grouped < (exponent < 1.0 ? 1.07 : 1.50));
  }
}

TEST_CASE("global_pack refuses a table of the wrong size", "[place][contract]") {
  std::vector<index_t> const load{1, 2};
  std::vector<expert_id> next(3);
  fl::arena<> memory(fl::global_pack{}.workspace_bytes(topology(2, 2), 2));
  fl::workspace ws = memory.view();
  CHECK_THROWS_AS(fl::global_pack{}.plan(topology(2, 2), {.totals = load}, {}, next, ws), fl::contract_violation);
  std::vector<index_t> const negative{1, -2};
  next.resize(4);
  CHECK_THROWS_AS(fl::global_pack{}.plan(topology(2, 2), {.totals = negative}, {}, next, ws), fl::contract_violation);
}
