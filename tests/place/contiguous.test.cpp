// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/place/contiguous.hpp>

#include <fairlead/laws/planner.hpp>

#include <string>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;
using fl::rank_id;

TEST_CASE("contiguous_placement gives rank r the experts from r E / W on", "[place]") {
  for (index_t ranks = 1; ranks <= 9; ++ranks) {
    for (index_t experts = 0; experts <= 40; ++experts) {
      fl::placement const made = fl::contiguous_placement{}.initial(ranks, experts);
      REQUIRE(made.ranks() == ranks);
      REQUIRE(made.experts() == experts);
      REQUIRE(made.slots() == experts);
      REQUIRE(made.replicas() == experts);
      index_t next = 0;
      for (index_t r = 0; r < ranks; ++r) {
        auto const rank = static_cast<rank_id>(r);
        REQUIRE(made.slots(rank) >= experts / ranks);
        REQUIRE(made.slots(rank) <= (experts + ranks - 1) / ranks);
        REQUIRE((made.slots(rank) == 0 || fl::to_index(made.experts_on(rank)[0]) == r * experts / ranks));
        for (expert_id const expert : made.experts_on(rank)) { REQUIRE(fl::to_index(expert) == next++); }
      }
      REQUIRE(next == experts);
      REQUIRE_FALSE(made.has_lost_expert());
    }
  }
}

TEST_CASE("contiguous_placement keeps the laws", "[place][laws]") {
  CHECK(fl::laws::check_planner(fl::contiguous_placement{}));
  CHECK(fl::laws::check_planner(fl::contiguous_placement{}, {.max_ranks = 3, .min_experts = 0, .max_experts = 5}));
}

TEST_CASE("contiguous_placement refuses what makes no sense", "[place][contract]") {
  CHECK_THROWS_AS(fl::contiguous_placement{}.initial(0, 4), fl::contract_violation);
  CHECK_THROWS_AS(fl::contiguous_placement{}.initial(2, -1), fl::contract_violation);
}

namespace {

std::vector<index_t> one_a_rank(index_t ranks, index_t last) {
  std::vector<index_t> offsets(static_cast<std::size_t>(ranks) + 1, last);
  offsets[0] = 0;
  return offsets;
}

struct too_few_ranks {
  [[nodiscard]] fl::placement initial(index_t ranks, index_t experts) const {
    return fl::contiguous_placement{}.initial(ranks > 2 ? ranks - 1 : ranks, experts);
  }
};
struct too_few_experts {
  [[nodiscard]] fl::placement initial(index_t ranks, index_t experts) const {
    return fl::contiguous_placement{}.initial(ranks, experts > 4 ? experts - 1 : experts);
  }
};
struct loses_the_last {
  [[nodiscard]] fl::placement initial(index_t ranks, index_t experts) const {
    std::vector<expert_id> slots;
    for (index_t e = 0; e < experts; ++e) { slots.push_back(static_cast<expert_id>(e)); }
    slots.back() = expert_id::none;
    return {experts, one_a_rank(ranks, experts), slots};
  }
};
struct changes_its_mind {
  mutable std::uint64_t calls = 0;
  [[nodiscard]] fl::placement initial(index_t ranks, index_t experts) const {
    std::vector<expert_id> slots;
    for (index_t e = 0; e < experts; ++e) { slots.push_back(static_cast<expert_id>(e)); }
    return {experts, one_a_rank(ranks, experts), slots, fl::replica_meaning::host, calls++};
  }
};

std::string reason_of(fl::laws::verdict const& verdict) {
  CHECK_FALSE(verdict);
  return verdict.reason();
}

}  // namespace

TEST_CASE("the planner laws find one planted violation each", "[place][laws]") {
  CHECK(reason_of(fl::laws::check_planner(too_few_ranks{})).find("covers all ranks") != std::string::npos);
  CHECK(reason_of(fl::laws::check_planner(too_few_experts{})).find("covers all experts") != std::string::npos);
  CHECK(reason_of(fl::laws::check_planner(loses_the_last{})).find("has a replica") != std::string::npos);
  CHECK(reason_of(fl::laws::check_planner(changes_its_mind{})).find("equal placement") != std::string::npos);
}
