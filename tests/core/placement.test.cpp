// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/token_schedule.hpp>

#include <algorithm>
#include <cstdint>
#include <set>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::expert_id;
using fl::index_t;
using fl::local_slot_id;
using fl::rank_id;

namespace {

expert_id e(int number) { return static_cast<expert_id>(number); }

struct table {
  index_t experts = 0;
  std::vector<index_t> offsets{0};
  std::vector<expert_id> slots;
  [[nodiscard]] fl::placement make(std::uint64_t version = 0,
                                   fl::replica_meaning meaning = fl::replica_meaning::host) const {
    return {experts, offsets, slots, meaning, version};
  }
};

// Ragged ranks (some without slots), empty slots, experts with no, one or many replicas, also twice on one rank.
table random_table(std::uint64_t number) {
  std::uint64_t index = 0;
  auto const below = [&](std::uint32_t bound) { return fl::philox::below(fl::philox::draw(8, number, index++)[0], bound); };
  table made;
  made.experts = below(9);
  std::uint32_t const ranks = below(6);
  for (std::uint32_t rank = 0; rank < ranks; ++rank) {
    for (std::uint32_t slot = below(5); slot > 0; --slot) {
      made.slots.push_back(static_cast<expert_id>(static_cast<int>(below(static_cast<std::uint32_t>(made.experts) + 1)) - 1));
    }
    made.offsets.push_back(static_cast<index_t>(made.slots.size()));
  }
  return made;
}

}  // namespace

TEST_CASE("a placement inverts its slot table like brute force", "[core][placement]") {
  for (std::uint64_t number = 0; number < 400; ++number) {
    table const from = random_table(number);
    fl::placement const made = from.make();
    index_t const ranks = static_cast<index_t>(from.offsets.size()) - 1;
    REQUIRE(made.ranks() == ranks);
    REQUIRE(made.experts() == from.experts);
    REQUIRE(made.slots() == static_cast<index_t>(from.slots.size()));

    index_t column = 0;
    bool lost = false;
    for (index_t expert = 0; expert < from.experts; ++expert) {
      auto const id = static_cast<expert_id>(expert);
      REQUIRE(made.replica_offset(id) == column);
      std::vector<fl::replica> expected;
      for (index_t rank = 0; rank < ranks; ++rank) {
        for (index_t slot = from.offsets[static_cast<std::size_t>(rank)]; slot < from.offsets[static_cast<std::size_t>(rank) + 1]; ++slot) {
          if (from.slots[static_cast<std::size_t>(slot)] != id) { continue; }
          auto const local = static_cast<local_slot_id>(slot - from.offsets[static_cast<std::size_t>(rank)]);
          expected.push_back({static_cast<rank_id>(rank), local});
          REQUIRE(made.replica_at(static_cast<rank_id>(rank), local) == column++);
        }
      }
      auto const replicas = made.replicas(id);
      REQUIRE(std::vector<fl::replica>(replicas.begin(), replicas.end()) == expected);
      lost = lost || expected.empty();
    }
    REQUIRE(made.replicas() == column);
    REQUIRE(made.has_lost_expert() == lost);
    for (index_t rank = 0; rank < ranks; ++rank) {
      auto const id = static_cast<rank_id>(rank);
      auto const on = made.experts_on(id);
      REQUIRE(made.slots(id) == static_cast<index_t>(on.size()));
      for (std::size_t slot = 0; slot < on.size(); ++slot) {
        REQUIRE(on[slot] == from.slots[static_cast<std::size_t>(from.offsets[static_cast<std::size_t>(rank)]) + slot]);
        if (on[slot] == expert_id::none) { REQUIRE(made.replica_at(id, static_cast<local_slot_id>(slot)) == -1); }
      }
    }
  }
}

TEST_CASE("a placement of nothing is legal", "[core][placement]") {
  fl::placement const none;
  CHECK(none.ranks() == 0);
  CHECK(none.experts() == 0);
  CHECK(none.slots() == 0);
  CHECK(none.replicas() == 0);
  CHECK_FALSE(none.has_lost_expert());
  std::vector<index_t> const idle(4, 0);
  fl::placement const ranks_only(2, idle, {});
  CHECK(ranks_only.ranks() == 3);
  CHECK(ranks_only.has_lost_expert());
  CHECK(ranks_only.replicas(e(1)).empty());
}

TEST_CASE("equal placements have equal fingerprints, any change makes another", "[core][placement]") {
  for (std::uint64_t number = 0; number < 60; ++number) {
    table const from = random_table(number);
    std::set<std::uint64_t> seen{from.make().fingerprint()};
    std::size_t made = 1;
    REQUIRE(seen.count(from.make().fingerprint()) == 1);
    auto const add = [&](fl::placement const& changed) {
      seen.insert(changed.fingerprint());
      ++made;
    };
    add(from.make(1));
    add(from.make(std::uint64_t{1} << 63U));
    add(from.make(0, fl::replica_meaning::equal_share));
    add(from.make(0, fl::replica_meaning::capacity_unit));
    table more = from;
    ++more.experts;
    add(more.make());
    more = from;
    more.offsets.push_back(more.offsets.back());
    add(more.make());
    more.slots.push_back(expert_id::none);
    ++more.offsets.back();
    add(more.make());
    for (std::size_t slot = 0; slot < from.slots.size(); ++slot) {
      for (index_t expert = -1; expert < from.experts; ++expert) {
        if (fl::to_index(from.slots[slot]) == expert) { continue; }
        more = from;
        more.slots[slot] = static_cast<expert_id>(expert);
        add(more.make());
      }
    }
    for (std::size_t rank = 1; rank + 1 < from.offsets.size(); ++rank) {  // a slot changes hands
      if (from.offsets[rank] == from.offsets[rank + 1]) { continue; }
      more = from;
      ++more.offsets[rank];
      add(more.make());
    }
    REQUIRE(seen.size() == made);
  }
}

TEST_CASE("fingerprints of all permutations of eight experts differ", "[core][placement]") {
  std::vector<expert_id> slots;
  for (int expert = 0; expert < 8; ++expert) { slots.push_back(e(expert)); }
  std::vector<index_t> const offsets{0, 4, 8};
  std::set<std::uint64_t> seen;
  std::size_t made = 0;
  do {
    seen.insert(fl::placement(8, offsets, slots).fingerprint());
    ++made;
  } while (std::next_permutation(slots.begin(), slots.end()));
  CHECK(made == 40320);
  CHECK(seen.size() == made);
}

TEST_CASE("a placement keeps version and meaning", "[core][placement]") {
  table const from = random_table(3);
  fl::placement const made = from.make(42, fl::replica_meaning::capacity_unit);
  CHECK(made.version() == 42);
  CHECK(made.meaning() == fl::replica_meaning::capacity_unit);
  fl::placement const copy = made;  // NOLINT(performance-unnecessary-copy-initialization)
  CHECK(copy.fingerprint() == made.fingerprint());
}

TEST_CASE("a placement refuses an inconsistent table", "[core][placement][contract]") {
  std::vector<expert_id> const slots{e(0), e(1)};
  auto const make = [&slots](index_t experts, std::vector<index_t> const& offsets) {
    return fl::placement(experts, offsets, slots).ranks();
  };
  CHECK(make(2, {0, 1, 2}) == 2);
  CHECK_THROWS_AS(make(-1, {0, 2}), fl::contract_violation);
  CHECK_THROWS_AS(make(-2, {0, 2}), fl::contract_violation);
  CHECK_THROWS_AS(make(2, {}), fl::contract_violation);
  CHECK_THROWS_AS(make(2, {1, 2}), fl::contract_violation);
  CHECK_THROWS_AS(make(2, {0, 1}), fl::contract_violation);
  CHECK_THROWS_AS(make(2, {0, 3, 2}), fl::contract_violation);
  CHECK_THROWS_AS(make(2, {0, 1, 0, 2}), fl::contract_violation);
#if FAIRLEAD_CONTRACT_LEVEL >= 2
  CHECK_THROWS_AS(make(1, {0, 2}), fl::contract_violation);
#endif
}

TEST_CASE("conserves accepts exactly the schedules that send each copy once", "[core][token_schedule]") {
  // Expert 0 has two replicas, expert 1 one, expert 2 none.
  std::vector<index_t> const offsets{0, 2, 3};
  std::vector<expert_id> const slots{e(0), e(1), e(0)};
  fl::placement const where(3, offsets, slots);
  fl::matrix<count_t> load(2, 3), schedule(2, 3);
  load(0, 0) = 2;
  load(0, 1) = 1;
  load(1, 1) = 3;
  // Brute force over all schedules of source 0 with counts -1..3; source 1 stays right.
  schedule(1, 2) = 3;
  int accepted = 0;
  for (count_t a = -1; a <= 3; ++a) {
    for (count_t b = -1; b <= 3; ++b) {
      for (count_t c = -1; c <= 3; ++c) {
        schedule(0, 0) = a;
        schedule(0, 1) = b;
        schedule(0, 2) = c;
        bool const right = a >= 0 && b >= 0 && a + b == 2 && c == 1;
        CHECK(fl::conserves(load.view(), where, schedule.view()) == right);
        accepted += right ? 1 : 0;
      }
    }
  }
  CHECK(accepted == 3);
  schedule(0, 0) = 1;
  schedule(0, 1) = 1;
  schedule(0, 2) = 1;
  REQUIRE(fl::conserves(load.view(), where, schedule.view()));
  load(1, 2) = 1;
  CHECK_FALSE(fl::conserves(load.view(), where, schedule.view()));  // the lost expert has a copy
}

TEST_CASE("conserves refuses a schedule of another placement", "[core][token_schedule][contract]") {
  fl::placement const where = random_table(12).make();
  fl::matrix<count_t> const load(2, where.experts()), out(2, where.replicas()), wide(2, where.replicas() + 1),
      few(1, where.replicas()), strange(2, where.experts() + 1);
  CHECK_NOTHROW(fl::conserves(load.view(), where, out.view()));
  CHECK_THROWS_AS(fl::conserves(load.view(), where, wide.view()), fl::contract_violation);
  CHECK_THROWS_AS(fl::conserves(load.view(), where, few.view()), fl::contract_violation);
  CHECK_THROWS_AS(fl::conserves(strange.view(), where, out.view()), fl::contract_violation);
}
