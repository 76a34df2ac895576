// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/laws/load_planner.hpp>
#include <fairlead/place/balanced_hierarchy.hpp>
#include <fairlead/place/global_pack.hpp>
#include <fairlead/place/hierarchical_pack.hpp>
#include <fairlead/workload/zipf.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;
using fl::report;
using fl::status;
using fl::topology;

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

index_t node_of_slot(topology const& cluster, index_t slot) {
  auto const offsets = cluster.slot_offsets();
  return cluster.node_of(std::upper_bound(offsets.begin(), offsets.end(), slot) - offsets.begin() - 1);
}

// Whether every group stays on one node.
bool pinned(topology const& cluster, index_t experts, index_t groups, std::vector<int> const& slots) {
  std::vector<index_t> home(static_cast<std::size_t>(groups), -1);
  for (index_t slot = 0; slot < cluster.slots(); ++slot) {
    int const expert = slots[static_cast<std::size_t>(slot)];
    if (expert < 0) { continue; }
    index_t group = 0;
    while ((group + 1) * experts / groups <= expert) { ++group; }
    index_t& place = home[static_cast<std::size_t>(group)];
    index_t const node = node_of_slot(cluster, slot);
    if (place >= 0 && place != node) { return false; }
    place = node;
  }
  return true;
}

std::vector<index_t> zipf_load(index_t experts, double exponent, std::uint64_t seed) {
  auto const counts = fl::workload::zipf_counts(experts, 1000000, exponent);
  auto const ids = fl::workload::shuffled_ids(experts, seed);
  std::vector<index_t> load(counts.size());
  for (std::size_t e = 0; e < load.size(); ++e) { load[e] = counts[static_cast<std::size_t>(ids[e])]; }
  return load;
}

// The lightest heaviest node over all packings of groups, by trying all of them.
double best_groups(topology const& cluster, std::vector<index_t> const& load, index_t groups) {
  auto const experts = static_cast<index_t>(load.size());
  index_t const nodes = cluster.nodes();
  double best = HUGE_VAL;
  index_t codes = 1;
  for (index_t g = 0; g < groups; ++g) { codes *= nodes; }
  for (index_t code = 0; code < codes; ++code) {
    std::vector<index_t> sum(static_cast<std::size_t>(nodes), 0);
    std::vector<index_t> size(static_cast<std::size_t>(nodes), 0);
    index_t rest = code;
    for (index_t g = 0; g < groups; ++g, rest /= nodes) {
      auto const node = static_cast<std::size_t>(rest % nodes);
      for (index_t e = g * experts / groups; e < (g + 1) * experts / groups; ++e) {
        sum[node] += load[static_cast<std::size_t>(e)];
        ++size[node];
      }
    }
    double worst = 0.0;
    for (index_t node = 0; node < nodes; ++node) {
      index_t room = 0;
      index_t hosts = 0;
      for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
        if (cluster.node_of(rank) != node) { continue; }
        room += cluster.slots(rank);
        hosts += cluster.slots(rank) > 0 ? 1 : 0;
      }
      auto const i = static_cast<std::size_t>(node);
      if (size[i] > room) { worst = HUGE_VAL; }
      if (size[i] > 0 && hosts > 0) {
        worst = std::max(worst, static_cast<double>(sum[i]) / static_cast<double>(hosts));
      }
    }
    best = std::min(best, worst);
  }
  return best;
}

}  // namespace

TEST_CASE("balanced_hierarchy keeps the laws", "[place][laws]") {
  for (index_t const groups : {1, 2, 3, 5, 10}) {
    CAPTURE(groups);
    CHECK(fl::laws::check_load_planner(fl::balanced_hierarchy{.groups = groups},
                                       {.value_is_largest_share = true, .scale_invariant = true}));
  }
  CHECK(fl::laws::check_load_planner(fl::balanced_hierarchy{.groups = 0}, {.fills_slots = true}));
  CHECK(fl::laws::check_load_planner(fl::balanced_hierarchy{.groups = 9}, {.ranks = 12,
                                                                           .ranks_per_node = 3,
                                                                           .experts = 70,
                                                                           .extra_slots = 50,
                                                                           .seed = 8,
                                                                           .value_is_largest_share = true,
                                                                           .scale_invariant = true}));
  CHECK(
      fl::laws::check_load_planner(fl::balanced_hierarchy{.groups = 1}, {.ranks = 1, .experts = 1, .extra_slots = 0}));
  CHECK(
      fl::laws::check_load_planner(fl::balanced_hierarchy{.groups = 4, .attempts = 0, .exchanges = 0, .group_steps = 0},
                                   {.value_is_largest_share = true}));
  CHECK(fl::laws::check_load_planner(
      fl::balanced_hierarchy{.groups = 8},
      {.ranks = 8, .ranks_per_node = 2, .experts = 32, .extra_slots = 8, .ragged = false, .fills_slots = true}));
}

TEST_CASE("balanced_hierarchy pins groups, and its bound is the best packing of group loads", "[place]") {
  int tight = 0;
  for (int number = 0; number < 400; ++number) {
    fl::laws::detail::whole_numbers draw(21, static_cast<std::uint64_t>(number));
    index_t const nodes = 2 + draw.below(2);
    index_t const groups = nodes + draw.below(5);
    index_t const experts = groups + draw.below(9);
    index_t const per_node = 1 + draw.below(3);
    std::vector<index_t> cuts{0};
    for (index_t rank = 0; rank < nodes * per_node; ++rank) {
      index_t const even = 1 + experts / (nodes * per_node) + draw.below(2);
      cuts.push_back(cuts.back() + even + (number % 3 == 0 ? draw.below(3) : 0));
    }
    std::vector<index_t> node_cuts{0};
    for (index_t node = 0; node < nodes; ++node) { node_cuts.push_back(node_cuts.back() + per_node); }
    topology const cluster(node_cuts, cuts);
    std::vector<index_t> load(static_cast<std::size_t>(experts));
    for (index_t& entry : load) { entry = number % 2 == 0 ? draw.below(200) : 1000 / (1 + draw.below(50)); }
    planned const made = plan_of(fl::balanced_hierarchy{.groups = groups}, cluster, load);
    double const best = best_groups(cluster, load, groups);
    CAPTURE(number, nodes, groups, experts, per_node);
    REQUIRE(made.ended.status == status::ok);
    if (best == HUGE_VAL) { continue; }  // no packing of whole groups fits: one group
    REQUIRE(pinned(cluster, experts, groups, made.slots));
    REQUIRE(made.ended.value >= best * (1.0 - 1e-12));
    // The bound may be larger: an expert whose slots do not suffice.
    REQUIRE(made.ended.bound >= best * (1.0 - 1e-12));
    tight += made.ended.bound <= best * (1.0 + 1e-12) ? 1 : 0;
  }
  CHECK(tight > 200);
}

TEST_CASE("balanced_hierarchy is between its bound and the best of all tables", "[place]") {
  double sum_of_gaps = 0.0;
  int const cases = 60;
  for (int number = 0; number < cases; ++number) {
    fl::laws::detail::whole_numbers draw(22, static_cast<std::uint64_t>(number));
    topology const cluster(4, 2, 2);  // 8 slots, 2 nodes of 2 ranks
    index_t const experts = 4;
    std::vector<index_t> load(4);
    for (index_t& entry : load) { entry = 1 + draw.below(number % 2 == 0 ? 20 : 300); }
    planned const made = plan_of(fl::balanced_hierarchy{.groups = 2}, cluster, load);
    double best = HUGE_VAL;
    std::vector<expert_id> slots(8);
    std::vector<int> ids(8);
    for (int code = 0; code < 1 << 16; ++code) {  // all tables
      int placed = 0;
      for (std::size_t slot = 0; slot < 8; ++slot) {
        ids[slot] = code >> (2 * slot) & 3;
        slots[slot] = static_cast<expert_id>(ids[slot]);
        placed |= 1 << ids[slot];
      }
      // Within a rank the order does not matter.
      if (placed != 15 || ids[0] > ids[1] || ids[2] > ids[3] || ids[4] > ids[5] || ids[6] > ids[7]) { continue; }
      if (!pinned(cluster, experts, 2, ids)) { continue; }
      best = std::min(best, fl::laws::detail::largest_equal_share(cluster, load, slots));
    }
    CAPTURE(number);
    REQUIRE(made.ended.bound <= best * (1.0 + 1e-12));
    REQUIRE(made.ended.value >= best * (1.0 - 1e-12));
    sum_of_gaps += made.ended.value / best - 1.0;
  }
  CHECK(sum_of_gaps / cases < 0.01);
}

TEST_CASE("balanced_hierarchy is within 3 % of the packing of groups where the reference is 7 to 24 % above",
          "[place]") {
  struct {
    index_t slots_per_rank;
    index_t ranks;
    index_t nodes;
    double reference;  // what hierarchical_pack leaves at least
    double bound;      // over the mean load of a rank, as published for other draws
  } const cases[]{{9, 32, 4, 1.06, 1.31}, {5, 64, 8, 1.15, 2.11}, {4, 128, 8, 1.07, 2.11}};
  for (auto const& shape : cases) {
    topology const cluster(shape.ranks, shape.slots_per_rank, shape.ranks / shape.nodes);
    int const draws = 40;
    double gap = 0.0;
    double reference = 0.0;
    double bound = 0.0;
    for (int number = 0; number < draws; ++number) {
      auto const load = zipf_load(256, 1.0, 900 + static_cast<std::uint64_t>(number));
      planned const made = plan_of(fl::balanced_hierarchy{.groups = 8}, cluster, load);
      REQUIRE(pinned(cluster, 256, 8, made.slots));
      REQUIRE(std::find(made.slots.begin(), made.slots.end(), -1) == made.slots.end());
      gap += made.ended.value / made.ended.bound / draws;
      bound += made.ended.bound * static_cast<double>(shape.ranks) / 1e6 / draws;
      reference += plan_of(fl::hierarchical_pack{.groups = 8}, cluster, load).ended.value / made.ended.bound / draws;
    }
    CAPTURE(shape.slots_per_rank, shape.ranks, gap, reference, bound);
    CHECK(gap < 1.03);
    CHECK(reference > shape.reference);
    CHECK(std::abs(bound - shape.bound) < 0.12);
  }
}

TEST_CASE(
    "balanced_hierarchy searches the whole cluster where groups cannot stay on nodes, and reports a lower bound when "
    "its steps run out",
    "[place]") {
  auto const load = zipf_load(24, 1.0, 3);
  topology const nine(9, 4, 1);
  planned const flat = plan_of(fl::balanced_hierarchy{.groups = 1}, nine, load);
  CHECK(plan_of(fl::balanced_hierarchy{.groups = 8}, nine, load).slots == flat.slots);
  CHECK(plan_of(fl::balanced_hierarchy{.groups = 25}, nine, load).slots == flat.slots);
  CHECK(plan_of(fl::balanced_hierarchy{.groups = -1}, topology(9, 4), load).slots == flat.slots);
  CHECK(std::find(flat.slots.begin(), flat.slots.end(), -1) == flat.slots.end());
  topology const four(8, 6, 2);
  planned const proved = plan_of(fl::balanced_hierarchy{.groups = 12}, four, load);
  planned const hurried = plan_of(fl::balanced_hierarchy{.groups = 12, .group_steps = 0}, four, load);
  CHECK(pinned(four, 24, 12, hurried.slots));
  CHECK(hurried.ended.bound <= proved.ended.bound);
  CHECK_THROWS_AS(plan_of(fl::balanced_hierarchy{.groups = 2, .closeness = 0}, four, load), fl::contract_violation);
  // Nodes lost: groups move together to those that are left.
  std::vector<fl::rank_id> const lost{fl::rank_id{2}, fl::rank_id{3}};
  topology const three = topology(8, 9, 2).without(lost);
  planned const moved = plan_of(fl::balanced_hierarchy{.groups = 6}, three, load);
  CHECK(moved.ended.status == status::ok);
  CHECK(pinned(three, 24, 6, moved.slots));
}

TEST_CASE("balanced_hierarchy with one group is closer to the bound than global_pack", "[place]") {
  double searched = 0.0;
  double packed = 0.0;
  for (std::uint64_t number = 0; number < 20; ++number) {
    auto const load = zipf_load(256, 1.0, 40 + number);
    planned const one = plan_of(fl::balanced_hierarchy{.groups = 1}, topology(64, 5, 8), load);
    planned const other = plan_of(fl::global_pack{}, topology(64, 5, 8), load);
    REQUIRE(one.ended.bound == Approx(other.ended.bound));
    searched += one.ended.value / one.ended.bound / 20;
    packed += other.ended.value / other.ended.bound / 20;
  }
  CHECK(searched < 1.005);
  CHECK(packed > 1.01);
}

TEST_CASE("balanced_hierarchy leaves slots for replicas where many groups would fit on one node", "[place]") {
  // 5 slots a rank, 40 a node, 32 experts a node on average: packing by group loads alone fills nodes with experts.
  topology const cluster(64, 5, 8);
  for (index_t const groups : {16, 32, 64}) {
    double searched = 0.0;
    double reference = 0.0;
    for (std::uint64_t number = 0; number < 10; ++number) {
      auto const load = zipf_load(256, 1.0, 70 + number);
      planned const made = plan_of(fl::balanced_hierarchy{.groups = groups}, cluster, load);
      REQUIRE(pinned(cluster, 256, groups, made.slots));
      searched += made.ended.value;
      reference += plan_of(fl::hierarchical_pack{.groups = groups}, cluster, load).ended.value;
    }
    CAPTURE(groups);
    CHECK(searched < 0.9 * reference);
  }
}

TEST_CASE("balanced_hierarchy tries no more packings than it is allowed", "[place]") {
  topology const cluster(64, 5, 8);
  for (index_t const attempts : {0, 1, 5, 32}) {
    for (std::uint64_t number = 0; number < 8; ++number) {
      auto const load = zipf_load(256, 1.0, 200 + number);
      fl::balanced_hierarchy const planner{.groups = 8, .attempts = attempts, .closeness = 1000000};
      planned const made = plan_of(planner, cluster, load);  // one packing of groups: one group a node
      REQUIRE(made.ended.iterations >= 8);
      REQUIRE(made.ended.iterations <= 8 * (attempts + 1));
    }
  }
}
