// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/slot_assigner.hpp>

#include <algorithm>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;
using fl::topology;
using numbers = std::span<index_t const>;
using table = std::span<expert_id>;

namespace {

// No more than the concept asks for: replicas side by side in the order of experts.
struct minimal {
  fl::report assign(topology const&, numbers, numbers replicas, table slots, fl::workspace&) const {
    std::fill(slots.begin(), slots.end(), expert_id::none);
    std::size_t at = 0;
    for (std::size_t e = 0; e < replicas.size(); ++e) {
      for (index_t r = 0; r < replicas[e] && at < slots.size(); ++r) { slots[at++] = static_cast<expert_id>(e); }
    }
    return {};
  }
  std::size_t workspace_bytes(topology const&, index_t) const { return 0; }
};
static_assert(fl::slot_assigner<minimal>);

struct no_assign {
  std::size_t workspace_bytes(topology const&, index_t) const { return 0; }
};
static_assert(!fl::slot_assigner<no_assign>);

struct no_workspace_bytes {
  fl::report assign(topology const&, numbers, numbers, table, fl::workspace&) const { return {}; }
};
static_assert(!fl::slot_assigner<no_workspace_bytes>);

struct returns_nothing {
  void assign(topology const&, numbers, numbers, table, fl::workspace&) const {}
  std::size_t workspace_bytes(topology const&, index_t) const { return 0; }
};
static_assert(!fl::slot_assigner<returns_nothing>, "how it ended is a report");

struct not_const {
  fl::report assign(topology const&, numbers, numbers, table, fl::workspace&) { return {}; }
  std::size_t workspace_bytes(topology const&, index_t) const { return 0; }
};
static_assert(!fl::slot_assigner<not_const>);

}  // namespace

TEST_CASE("the minimal slot assigner does its work through the concept alone", "[concepts]") {
  auto const through_the_concept = [](fl::slot_assigner auto const& assigner) {
    topology const cluster(2, 2);
    std::vector<index_t> const replicas{1, 2};
    std::vector<expert_id> slots(4);
    fl::arena<> memory(assigner.workspace_bytes(cluster, 2));
    fl::workspace ws = memory.view();
    CHECK(assigner.assign(cluster, replicas, replicas, slots, ws));
    return slots;
  };
  CHECK(through_the_concept(minimal{}) ==
        std::vector<expert_id>{expert_id{0}, expert_id{1}, expert_id{1}, expert_id::none});
}
