// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/planner.hpp>

#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;

namespace {

// No more than the concept asks for: everything on rank 0.
struct minimal {
  fl::placement initial(fl::index_t ranks, fl::index_t experts) const {
    std::vector<fl::index_t> offsets(static_cast<std::size_t>(ranks) + 1, experts);
    offsets.front() = 0;
    std::vector<fl::expert_id> slots;
    for (fl::index_t e = 0; e < experts; ++e) { slots.push_back(static_cast<fl::expert_id>(e)); }
    return {experts, offsets, slots};
  }
};
static_assert(fl::planner<minimal>);

struct no_initial {};
static_assert(!fl::planner<no_initial>);

struct returns_slots {
  std::vector<fl::expert_id> initial(fl::index_t, fl::index_t) const { return {}; }
};
static_assert(!fl::planner<returns_slots>);

struct returns_reference {
  fl::placement const& initial(fl::index_t, fl::index_t) const { return kept; }
  fl::placement kept;
};
static_assert(!fl::planner<returns_reference>, "a placement is handed over, not lent");

struct not_const {
  fl::placement initial(fl::index_t, fl::index_t) { return {}; }
};
static_assert(!fl::planner<not_const>);

struct needs_more {
  fl::placement initial(fl::index_t, fl::index_t, int) const { return {}; }
};
static_assert(!fl::planner<needs_more>);

}  // namespace

TEST_CASE("the minimal planner does its work through the concept alone", "[concepts]") {
  auto const through_the_concept = [](fl::planner auto const& plan) { return plan.initial(3, 5); };
  fl::placement const made = through_the_concept(minimal{});
  CHECK(made.ranks() == 3);
  CHECK(made.slots(fl::rank_id{0}) == 5);
  CHECK(made.slots(fl::rank_id{2}) == 0);
  CHECK_FALSE(made.has_lost_expert());
}
