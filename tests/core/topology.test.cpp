// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/load.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/plan.hpp>
#include <fairlead/core/topology.hpp>

#include <array>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;
using fl::rank_id;

namespace {

expert_id e(int number) { return static_cast<expert_id>(number); }
rank_id r(int number) { return static_cast<rank_id>(number); }
constexpr auto none = static_cast<expert_id>(-1);

// Two nodes of two ranks and one of three; slots 2 0 3 1 1 0 2.
fl::topology ragged() {
  std::array<index_t, 4> const nodes{0, 2, 4, 7};
  std::array<index_t, 8> const slots{0, 2, 2, 5, 6, 7, 7, 9};
  return {nodes, slots};
}

}  // namespace

TEST_CASE("equal nodes hold what they are told, the last one the rest", "[core][topology]") {
  fl::topology const cluster(7, 3, 4);
  CHECK(cluster.ranks() == 7);
  CHECK(cluster.nodes() == 2);
  CHECK(cluster.slots() == 21);
  CHECK(cluster.hosting_ranks() == 7);
  for (index_t rank = 0; rank < 7; ++rank) {
    CHECK(cluster.slots(rank) == 3);
    CHECK(cluster.node_of(rank) == rank / 4);
  }
  CHECK(fl::topology(7, 3).nodes() == 1);
  CHECK(fl::topology().nodes() == 0);
  CHECK(fl::topology().slots() == 0);
  CHECK(fl::topology(4, 0).hosting_ranks() == 0);
}

TEST_CASE("ragged nodes and ranks are read back as they were given", "[core][topology]") {
  fl::topology const cluster = ragged();
  std::vector<index_t> const slots{2, 0, 3, 1, 1, 0, 2}, nodes{0, 0, 1, 1, 2, 2, 2};
  CHECK(cluster.ranks() == 7);
  CHECK(cluster.nodes() == 3);
  CHECK(cluster.slots() == 9);
  CHECK(cluster.hosting_ranks() == 5);
  for (std::size_t rank = 0; rank < 7; ++rank) {
    CHECK(cluster.slots(static_cast<index_t>(rank)) == slots[rank]);
    CHECK(cluster.node_of(static_cast<index_t>(rank)) == nodes[rank]);
  }
}

TEST_CASE("a lost rank keeps its number and its node and has no slot", "[core][topology]") {
  fl::topology const before = ragged();
  std::array<rank_id, 3> const lost{r(6), r(1), r(2)};
  fl::topology const after = before.without(lost);
  std::vector<index_t> const slots{2, 0, 0, 1, 1, 0, 0};
  CHECK(after.ranks() == 7);
  CHECK(after.nodes() == 3);
  CHECK(after.slots() == 4);
  for (std::size_t rank = 0; rank < 7; ++rank) {
    CHECK(after.slots(static_cast<index_t>(rank)) == slots[rank]);
    CHECK(after.node_of(static_cast<index_t>(rank)) == before.node_of(static_cast<index_t>(rank)));
  }
  CHECK(before.slots() == 9);
  std::array<rank_id, 1> const unknown{r(7)};
  CHECK_THROWS_AS(before.without(unknown), fl::contract_violation);
}

TEST_CASE("a cluster refuses offsets that do not fit", "[core][topology][contract]") {
  auto const make = [](std::vector<index_t> const& nodes, std::vector<index_t> const& slots) { return fl::topology(nodes, slots); };
  CHECK_NOTHROW(make({0, 2}, {0, 1, 1}));
  CHECK_THROWS_AS(make({0, 3}, {0, 1, 1}), fl::contract_violation);
  CHECK_THROWS_AS(make({1, 2}, {0, 1, 1}), fl::contract_violation);
  CHECK_THROWS_AS(make({0, 2}, {0, 1, 0}), fl::contract_violation);
  CHECK_THROWS_AS(make({}, {0}), fl::contract_violation);
  CHECK_THROWS_AS(fl::topology(-1, 2), fl::contract_violation);
}

TEST_CASE("short-lived copies follow the slots of their rank, and what is there already is left out", "[core][plan]") {
  fl::topology const cluster(3, 2);
  std::array<expert_id, 6> const table{e(0), e(1), e(2), none, e(1), e(3)};
  fl::placement const base = fl::make_placement(cluster, 4, table, fl::replica_meaning::equal_share, 5);
  std::array<fl::replica_copy, 5> const copies{{{e(3), r(1)}, {e(0), r(0)}, {e(0), r(1)}, {e(3), r(1)}, {e(2), r(0)}}};
  fl::placement const where = fl::with_copies(base, copies);
  auto const on = [&](int rank) {
    auto const view = where.experts_on(r(rank));
    return std::vector<expert_id>(view.begin(), view.end());
  };
  CHECK(on(0) == std::vector<expert_id>{e(0), e(1), e(2)});
  CHECK(on(1) == std::vector<expert_id>{e(2), none, e(3), e(0)});
  CHECK(on(2) == std::vector<expert_id>{e(1), e(3)});
  CHECK(where.version() == 5);
  CHECK(where.meaning() == fl::replica_meaning::equal_share);
  CHECK(where.fingerprint() != base.fingerprint());
  CHECK(fl::with_copies(base, {}).fingerprint() == base.fingerprint());

  fl::plan const plan{.base = base, .copies = {copies.begin(), copies.end()}, .where = where, .moves = {}};
  CHECK(plan.version() == 5);
  CHECK(plan.fingerprint() == where.fingerprint());
  std::array<fl::replica_copy, 1> const nowhere{{{e(0), r(3)}}}, nobody{{{e(4), r(0)}}};
  CHECK_THROWS_AS(fl::with_copies(base, nowhere), fl::contract_violation);
  CHECK_THROWS_AS(fl::with_copies(base, nobody), fl::contract_violation);
}

TEST_CASE("a full list of copies refuses another one", "[core][plan][contract]") {
  std::array<fl::replica_copy, 2> storage{};
  fl::copy_list list{.storage = storage};
  list.add({e(1), r(0)});
  list.add({e(2), r(1)});
  REQUIRE(list.view().size() == 2);
  CHECK(list.view()[1] == fl::replica_copy{e(2), r(1)});
  CHECK_THROWS_AS(list.add({e(0), r(0)}), fl::contract_violation);
}

TEST_CASE("sums over ranks are of 64 bits", "[core][load]") {
  fl::matrix<fl::count_t> load(3, 2);
  for (index_t rank = 0; rank < 3; ++rank) {
    load(rank, 0) = 2'000'000'000;
    load(rank, 1) = static_cast<fl::count_t>(rank);
  }
  std::array<index_t, 2> totals{7, 7};
  fl::sum_over_ranks(std::as_const(load).view(), totals);
  CHECK(totals == std::array<index_t, 2>{6'000'000'000, 3});
  std::array<index_t, 1> wrong{};
  CHECK_THROWS_AS(fl::sum_over_ranks(std::as_const(load).view(), wrong), fl::contract_violation);
}
