// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/replan_trigger.hpp>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;
using fl::replan_reason;

namespace {

// No more than the concept asks for: every other micro-batch.
struct minimal {
  using state_type = int;
  state_type make_state(index_t) const { return 0; }
  void observe(fl::load_estimate const&, state_type& state) const { ++state; }
  replan_reason should_replan(fl::placement const&, state_type& state, fl::workspace&) const {
    return state >= 2 ? replan_reason::interval : replan_reason::none;
  }
  void replanned(state_type& state) const { state = 0; }
  std::size_t workspace_bytes(fl::placement const&) const { return 0; }
};
static_assert(fl::replan_trigger<minimal>);

struct no_state_type {
  int make_state(index_t) const { return 0; }
  void observe(fl::load_estimate const&, int&) const {}
  replan_reason should_replan(fl::placement const&, int&, fl::workspace&) const { return {}; }
  void replanned(int&) const {}
  std::size_t workspace_bytes(fl::placement const&) const { return 0; }
};
static_assert(!fl::replan_trigger<no_state_type>);

struct never_told {
  using state_type = int;
  state_type make_state(index_t) const { return 0; }
  void observe(fl::load_estimate const&, state_type&) const {}
  replan_reason should_replan(fl::placement const&, state_type&, fl::workspace&) const { return {}; }
  std::size_t workspace_bytes(fl::placement const&) const { return 0; }
};
static_assert(!fl::replan_trigger<never_told>);

struct says_yes_or_no {
  using state_type = int;
  state_type make_state(index_t) const { return 0; }
  void observe(fl::load_estimate const&, state_type&) const {}
  bool should_replan(fl::placement const&, state_type&, fl::workspace&) const { return false; }
  void replanned(state_type&) const {}
  std::size_t workspace_bytes(fl::placement const&) const { return 0; }
};
static_assert(!fl::replan_trigger<says_yes_or_no>, "a reason is wanted");

}  // namespace

TEST_CASE("the minimal re-planning trigger does its work through the concept alone", "[concepts]") {
  auto const plans = [](fl::replan_trigger auto const& trigger, int micro_batches) {
    auto state = trigger.make_state(1);
    fl::workspace ws;
    int made = 0;
    for (int m = 0; m < micro_batches; ++m) {
      trigger.observe({}, state);
      if (trigger.should_replan({}, state, ws) == replan_reason::none) { continue; }
      ++made;
      trigger.replanned(state);
    }
    return made;
  };
  CHECK(plans(minimal{}, 9) == 4);
}
