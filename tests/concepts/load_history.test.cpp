// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/load_history.hpp>
#include <fairlead/core/matrix.hpp>

#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

// No more than the concept asks for: the sum of everything.
struct minimal {
  struct state_type {
    std::vector<index_t> totals;
    index_t newest = -1;
    fl::load_estimate estimate() const { return {.totals = totals}; }
    index_t staleness(index_t now) const { return now - newest; }
    void reset() {
      totals.assign(totals.size(), 0);
      newest = -1;
    }
  };
  state_type make_state(index_t, index_t experts) const { return {std::vector<index_t>(static_cast<std::size_t>(experts), 0)}; }
  void observe(fl::load_view load, index_t micro_batch, state_type& state) const {
    for (index_t rank = 0; rank < load.rows(); ++rank) {
      for (index_t e = 0; e < load.cols(); ++e) { state.totals[static_cast<std::size_t>(e)] += load(rank, e); }
    }
    state.newest = micro_batch;
  }
};
static_assert(fl::load_history<minimal>);

struct no_state_type {
  minimal::state_type make_state(index_t, index_t) const { return {}; }
  void observe(fl::load_view, index_t, minimal::state_type&) const {}
};
static_assert(!fl::load_history<no_state_type>);

struct no_observe {
  using state_type = minimal::state_type;
  state_type make_state(index_t, index_t) const { return {}; }
};
static_assert(!fl::load_history<no_observe>);

struct no_reset {
  struct state_type {
    fl::load_estimate estimate() const { return {}; }
    index_t staleness(index_t) const { return 0; }
  };
  state_type make_state(index_t, index_t) const { return {}; }
  void observe(fl::load_view, index_t, state_type&) const {}
};
static_assert(!fl::load_history<no_reset>);

struct estimates_totals_only {
  struct state_type {
    std::vector<index_t> estimate() const { return {}; }
    index_t staleness(index_t) const { return 0; }
    void reset() {}
  };
  state_type make_state(index_t, index_t) const { return {}; }
  void observe(fl::load_view, index_t, state_type&) const {}
};
static_assert(!fl::load_history<estimates_totals_only>);

}  // namespace

TEST_CASE("the minimal load history does its work through the concept alone", "[concepts]") {
  auto const through_the_concept = [](fl::load_history auto const& history) {
    auto state = history.make_state(2, 2);
    fl::matrix<fl::count_t> load(2, 2);
    load(0, 0) = 3;
    load(1, 1) = 4;
    history.observe(load.view(), 0, state);
    history.observe(load.view(), 5, state);
    auto const totals = state.estimate().totals;
    bool const seen = totals[0] == 6 && totals[1] == 8 && state.staleness(7) == 2;
    state.reset();
    return seen && state.estimate().totals[1] == 0 && state.staleness(7) == 8;
  };
  CHECK(through_the_concept(minimal{}));
}
