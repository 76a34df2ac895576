// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/token_scheduler.hpp>

#include <fairlead/core/matrix.hpp>

#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;

namespace {

// No more than the concept asks for; right for one replica an expert.
struct minimal {
  fl::report schedule(fl::load_view load, fl::placement const& where, fl::token_schedule_view out,
                      fl::workspace&) const {
    for (fl::index_t source = 0; source < load.rows(); ++source) {
      for (fl::index_t e = 0; e < load.cols(); ++e) {
        out(source, where.replica_offset(static_cast<fl::expert_id>(e))) = load(source, e);
      }
    }
    return {};
  }
  std::size_t workspace_bytes(fl::placement const&) const { return 0; }
};
static_assert(fl::token_scheduler<minimal>);
static_assert(fl::token_scheduler<minimal const>);

struct no_schedule {
  std::size_t workspace_bytes(fl::placement const&) const { return 0; }
};
static_assert(!fl::token_scheduler<no_schedule>);

struct no_workspace_bytes {
  fl::report schedule(fl::load_view, fl::placement const&, fl::token_schedule_view, fl::workspace&) const { return {}; }
};
static_assert(!fl::token_scheduler<no_workspace_bytes>);

struct returns_bool : minimal {
  bool schedule(fl::load_view, fl::placement const&, fl::token_schedule_view, fl::workspace&) const { return true; }
};
static_assert(!fl::token_scheduler<returns_bool>, "a bool does not say how it ended");

struct returns_text : minimal {
  char const* workspace_bytes(fl::placement const&) const { return "none"; }
};
static_assert(!fl::token_scheduler<returns_text>);

struct not_const {
  fl::report schedule(fl::load_view, fl::placement const&, fl::token_schedule_view, fl::workspace&) { return {}; }
  std::size_t workspace_bytes(fl::placement const&) const { return 0; }
};
static_assert(!fl::token_scheduler<not_const>, "state is an argument of its own, never hidden in the policy");

struct wants_to_write_the_load : minimal {
  fl::report schedule(fl::matrix_view<fl::count_t>, fl::placement const&, fl::token_schedule_view,
                      fl::workspace&) const {
    return {};
  }
};
static_assert(!fl::token_scheduler<wants_to_write_the_load>);
static_assert(!fl::token_scheduler<int>);

}  // namespace

TEST_CASE("the minimal token scheduler does its work through the concept alone", "[concepts]") {
  auto const through_the_concept = [](fl::token_scheduler auto const& scheduler) {
    std::vector<fl::index_t> const offsets{0, 1, 2};
    std::vector<fl::expert_id> const slots{fl::expert_id{1}, fl::expert_id{0}};
    fl::placement const where(2, offsets, slots);
    fl::matrix<fl::count_t> load(2, 2), out(2, 2);
    load(0, 0) = 3;
    load(1, 1) = 4;
    fl::arena<> scratch(scheduler.workspace_bytes(where));
    fl::workspace ws = scratch.view();
    fl::report const ended = scheduler.schedule(load.view(), where, out.view(), ws);
    return ended && fl::conserves(load.view(), where, out.view());
  };
  CHECK(through_the_concept(minimal{}));
}
