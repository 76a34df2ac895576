// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/load_planner.hpp>
#include <fairlead/laws/slot_assigner.hpp>
#include <fairlead/place/balanced_hierarchy.hpp>
#include <fairlead/place/contiguous_slots.hpp>
#include <fairlead/place/distinct_ranks.hpp>
#include <fairlead/place/grouped_overlap.hpp>
#include <fairlead/place/replicate_then_place.hpp>
#include <fairlead/place/spread_greedy.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;

static_assert(fl::slot_assigner<fl::distinct_ranks<fl::spread_greedy>> && !fl::load_planner<fl::distinct_ranks<fl::spread_greedy>>);
static_assert(fl::load_planner<fl::distinct_ranks<fl::balanced_hierarchy>> && !fl::slot_assigner<fl::distinct_ranks<fl::balanced_hierarchy>>);
static_assert(fl::distinct_ranks<fl::proportional_in_order>::meaning == fl::replica_meaning::capacity_unit);

namespace {

index_t repeats_in(fl::topology const& cluster, std::vector<expert_id> const& slots) {
  index_t count = 0;
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    auto const first = slots.begin() + cluster.slot_offsets()[static_cast<std::size_t>(rank)];
    auto const last = slots.begin() + cluster.slot_offsets()[static_cast<std::size_t>(rank) + 1];
    for (auto at = first; at != last; ++at) { count += *at != expert_id::none && std::find(first, at, *at) != at ? 1 : 0; }
  }
  return count;
}

// Gale and Ryser: k experts need no more than what ranks offer to k distinct ones, for the k with most replicas.
bool can_be_distinct(fl::topology const& cluster, std::vector<index_t> counts) {
  std::sort(counts.rbegin(), counts.rend());
  index_t needed = 0;
  for (std::size_t k = 0; k < counts.size(); ++k) {
    needed += counts[k];
    index_t offered = 0;
    for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
      offered += std::min(cluster.slots(rank), static_cast<index_t>(k) + 1);
    }
    if (needed > offered) { return false; }
  }
  return true;
}

template <class Assigner>
index_t count_parted(Assigner const& assigner, std::uint64_t stream) {
  fl::distinct_ranks<Assigner> const apart{assigner};
  index_t parted = 0;
  for (std::uint64_t number = 0; number < 600; ++number) {
    std::uint64_t word = 0;
    auto const below = [&](std::uint32_t bound) {
      return static_cast<index_t>(fl::philox::below(fl::philox::draw(stream, number, word++)[0], bound));
    };
    index_t const ranks = 1 + below(7);
    std::vector<index_t> offsets(1, 0);
    std::vector<index_t> nodes(1, 0);
    for (index_t rank = 0; rank < ranks; ++rank) {
      offsets.push_back(offsets.back() + below(6));
      if (rank + 1 == ranks || below(3) == 0) { nodes.push_back(rank + 1); }
    }
    fl::topology const cluster(nodes, offsets);
    auto const experts = static_cast<std::uint32_t>(1 + below(8));
    std::vector<index_t> load(experts);
    std::vector<index_t> replicas(experts, 0);
    for (index_t& one : load) { one = below(3) == 0 ? 0 : below(1000); }
    index_t const given = below(2) == 0 ? cluster.slots() : below(static_cast<std::uint32_t>(cluster.slots()) + 1);
    for (index_t i = 0; i < given; ++i) { ++replicas[static_cast<std::size_t>(below(experts))]; }
    std::vector<expert_id> before(static_cast<std::size_t>(cluster.slots()));
    std::vector<expert_id> after(before.size());
    fl::arena<> memory(apart.workspace_bytes(cluster, experts));
    fl::workspace ws = memory.view();
    REQUIRE(assigner.assign(cluster, load, replicas, before, ws).status == fl::status::ok);
    auto const ended = apart.assign(cluster, load, replicas, after, ws);
    REQUIRE(ended.status == fl::status::ok);
    REQUIRE(ended.iterations == repeats_in(cluster, after));
    if (can_be_distinct(cluster, replicas)) { REQUIRE(ended.iterations == 0); }
    REQUIRE(ended.iterations <= repeats_in(cluster, before));
    if (repeats_in(cluster, before) == 0) { REQUIRE(after == before); }
    parted += repeats_in(cluster, before) > 0 && ended.iterations == 0 ? 1 : 0;
  }
  return parted;
}

}  // namespace

TEST_CASE("distinct_ranks parts replicas wherever a table without repeats exists", "[place]") {
  CHECK(count_parted(fl::contiguous_slots{}, 1) > 50);
  CHECK(count_parted(fl::spread_greedy{}, 2) > 20);
  CHECK(count_parted(fl::grouped_overlap{}, 3) > 5);
}

TEST_CASE("distinct_ranks keeps the laws", "[place][laws]") {
  CHECK(fl::laws::check_slot_assigner(fl::distinct_ranks<fl::spread_greedy>{}));
  CHECK(fl::laws::check_slot_assigner(fl::distinct_ranks<fl::contiguous_slots>{.scope = fl::exchange_scope::node},
                                      {.seed = 4}));
  using rule_then_place = fl::replicate_then_place<fl::largest_remainder, fl::distinct_ranks<fl::spread_greedy>>;
  CHECK(fl::laws::check_load_planner(rule_then_place{}, {.fills_slots = true, .value_is_largest_share = true}));
  CHECK(fl::laws::check_load_planner(fl::distinct_ranks<fl::balanced_hierarchy>{}, {.value_is_largest_share = true}));
}

TEST_CASE("distinct_ranks needs a chain where no single exchange helps", "[place]") {
  // Rank 0 has a twice, rank 1 has c and d, as has rank 0; only rank 2 takes them, and only it offers b.
  fl::topology const cluster(std::vector<index_t>{0, 3}, std::vector<index_t>{0, 3, 5, 7});
  struct fixed {
    fl::report assign(fl::topology const&, std::span<index_t const>, std::span<index_t const>, std::span<expert_id> slots,
                      fl::workspace&) const {
      std::vector<int> const table{0, 0, 2, 2, 3, 0, 1};
      std::transform(table.begin(), table.end(), slots.begin(), [](int e) { return static_cast<expert_id>(e); });
      return {};
    }
    std::size_t workspace_bytes(fl::topology const&, index_t) const { return 0; }
  };
  std::vector<index_t> const load{6, 2, 4, 1};
  std::vector<index_t> const replicas{3, 1, 2, 1};
  std::vector<expert_id> slots(7);
  fl::distinct_ranks<fixed> const apart;
  fl::arena<> memory(apart.workspace_bytes(cluster, 4));
  fl::workspace ws = memory.view();
  CHECK(apart.assign(cluster, load, replicas, slots, ws).iterations == 0);
  CHECK(repeats_in(cluster, slots) == 0);
}

TEST_CASE("distinct_ranks inside nodes leaves every expert on its nodes", "[place]") {
  fl::topology const cluster(6, 4, 3);
  std::vector<index_t> const load{90, 50, 40, 30, 20, 10, 5, 1};
  for (index_t const groups : {1, 2, 4}) {
    fl::balanced_hierarchy const inner{.groups = groups};
    fl::distinct_ranks<fl::balanced_hierarchy> const apart{inner, fl::exchange_scope::node};
    std::vector<expert_id> before(24);
    std::vector<expert_id> after(24);
    fl::arena<> memory(apart.workspace_bytes(cluster, 8));
    fl::workspace ws = memory.view();
    (void)inner.plan(cluster, {load}, {}, before, ws);
    REQUIRE(apart.plan(cluster, {load}, {}, after, ws).status == fl::status::ok);
    for (std::size_t node = 0; node < 2; ++node) {
      auto const of = [node](std::vector<expert_id> const& table) {
        std::vector<expert_id> part(table.begin() + static_cast<std::ptrdiff_t>(12 * node),
                                    table.begin() + static_cast<std::ptrdiff_t>(12 * node + 12));
        std::sort(part.begin(), part.end());
        return part;
      };
      CHECK(of(before) == of(after));
    }
    CHECK(repeats_in(cluster, after) <= repeats_in(cluster, before));
  }
}
