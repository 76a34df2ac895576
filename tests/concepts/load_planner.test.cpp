// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/planner.hpp>

#include <algorithm>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;
using fl::topology;
using table = std::span<expert_id>;
using table_in_use = std::span<expert_id const>;

namespace {

// No more than the concept asks for: slot i has expert i.
struct minimal {
  static constexpr fl::replica_meaning meaning = fl::replica_meaning::host;
  fl::report plan(topology const&, fl::load_estimate const& load, table_in_use, table next, fl::workspace&) const {
    for (std::size_t slot = 0; slot < next.size(); ++slot) {
      next[slot] = slot < load.totals.size() ? static_cast<expert_id>(slot) : expert_id::none;
    }
    return {};
  }
  std::size_t workspace_bytes(topology const&, index_t) const { return 0; }
};
static_assert(fl::load_planner<minimal>);
static_assert(!fl::planner<minimal>, "it has no placement before loads are known");
static_assert(!fl::incremental<minimal>);

struct no_plan {
  static constexpr fl::replica_meaning meaning = fl::replica_meaning::host;
  std::size_t workspace_bytes(topology const&, index_t) const { return 0; }
};
static_assert(!fl::load_planner<no_plan>);

struct no_meaning {
  fl::report plan(topology const&, fl::load_estimate const&, table_in_use, table, fl::workspace&) const { return {}; }
  std::size_t workspace_bytes(topology const&, index_t) const { return 0; }
};
static_assert(!fl::load_planner<no_meaning>, "a planner says what its second replicas are good for");

struct no_workspace_bytes {
  static constexpr fl::replica_meaning meaning = fl::replica_meaning::host;
  fl::report plan(topology const&, fl::load_estimate const&, table_in_use, table, fl::workspace&) const { return {}; }
};
static_assert(!fl::load_planner<no_workspace_bytes>);

struct returns_status {
  static constexpr fl::replica_meaning meaning = fl::replica_meaning::host;
  fl::status plan(topology const&, fl::load_estimate const&, table_in_use, table, fl::workspace&) const { return {}; }
  std::size_t workspace_bytes(topology const&, index_t) const { return 0; }
};
static_assert(!fl::load_planner<returns_status>, "how it ended is a report");

}  // namespace

TEST_CASE("the minimal load planner does its work through the concept alone", "[concepts]") {
  auto const through_the_concept = [](fl::load_planner auto const& planner) {
    topology const cluster(2, 2);
    std::vector<index_t> const load{5, 1, 2};
    std::vector<expert_id> next(4);
    fl::arena<> memory(planner.workspace_bytes(cluster, 3));
    fl::workspace ws = memory.view();
    CHECK(planner.plan(cluster, {.totals = load}, {}, next, ws));
    return next;
  };
  CHECK(through_the_concept(minimal{}) ==
        std::vector<expert_id>{expert_id{0}, expert_id{1}, expert_id{2}, expert_id::none});
}
