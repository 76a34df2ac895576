// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/layout_objective.hpp>

#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;

namespace {

// No more than the concept asks for: a second for each empty slot.
struct minimal {
  struct nothing {};
  nothing prepare(fl::topology const&, fl::load_estimate const&, fl::workspace&) const { return {}; }
  fl::step_cost cost(fl::topology const&, nothing, std::span<fl::expert_id const> slots, fl::workspace&) const {
    fl::step_cost result;
    for (fl::expert_id const expert : slots) { result.compute_s += expert == fl::expert_id::none ? 1.0 : 0.0; }
    return result;
  }
  double bound(fl::topology const&, nothing) const { return 0.0; }
  std::size_t workspace_bytes(fl::topology const&, fl::index_t) const { return 0; }
};
static_assert(fl::layout_objective<minimal>);
static_assert(fl::layout_objective<minimal const>);

struct no_prepare {
  fl::step_cost cost(fl::topology const&, minimal::nothing, std::span<fl::expert_id const>, fl::workspace&) const { return {}; }
  double bound(fl::topology const&, minimal::nothing) const { return 0.0; }
  std::size_t workspace_bytes(fl::topology const&, fl::index_t) const { return 0; }
};
static_assert(!fl::layout_objective<no_prepare>);

struct no_cost {
  minimal::nothing prepare(fl::topology const&, fl::load_estimate const&, fl::workspace&) const { return {}; }
  double bound(fl::topology const&, minimal::nothing) const { return 0.0; }
  std::size_t workspace_bytes(fl::topology const&, fl::index_t) const { return 0; }
};
static_assert(!fl::layout_objective<no_cost>);

struct no_bound {
  minimal::nothing prepare(fl::topology const&, fl::load_estimate const&, fl::workspace&) const { return {}; }
  fl::step_cost cost(fl::topology const&, minimal::nothing, std::span<fl::expert_id const>, fl::workspace&) const { return {}; }
  std::size_t workspace_bytes(fl::topology const&, fl::index_t) const { return 0; }
};
static_assert(!fl::layout_objective<no_bound>);

struct no_workspace_bytes {
  minimal::nothing prepare(fl::topology const&, fl::load_estimate const&, fl::workspace&) const { return {}; }
  fl::step_cost cost(fl::topology const&, minimal::nothing, std::span<fl::expert_id const>, fl::workspace&) const { return {}; }
  double bound(fl::topology const&, minimal::nothing) const { return 0.0; }
};
static_assert(!fl::layout_objective<no_workspace_bytes>);

struct returns_seconds : minimal {
  double cost(fl::topology const&, nothing, std::span<fl::expert_id const>, fl::workspace&) const { return 0.0; }
};
static_assert(!fl::layout_objective<returns_seconds>, "a plain number does not say what the time is spent on");

struct wants_to_write_the_table : minimal {
  fl::step_cost cost(fl::topology const&, nothing, std::span<fl::expert_id>, fl::workspace&) const { return {}; }
};
static_assert(!fl::layout_objective<wants_to_write_the_table>);
static_assert(!fl::layout_objective<int>);

}  // namespace

TEST_CASE("the minimal layout objective does its work through the concept alone", "[concepts]") {
  auto const through_the_concept = [](fl::layout_objective auto const& objective) {
    fl::topology const cluster(2, 1);
    std::vector<fl::expert_id> const slots{fl::expert_id{0}, fl::expert_id::none};
    fl::workspace none;
    auto const prepared = objective.prepare(cluster, fl::load_estimate{}, none);
    return objective.cost(cluster, prepared, slots, none).total_s();
  };
  CHECK(through_the_concept(minimal{}) == 1.0);
}
