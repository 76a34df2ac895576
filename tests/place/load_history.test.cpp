// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/place/load_history.hpp>
#include <fairlead/place/load_predictor.hpp>

#include <fairlead/workload/drifting_load.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::index_t;

namespace {

std::vector<fl::matrix<count_t>> loads(index_t ranks, index_t experts, index_t number, std::uint64_t seed = 3) {
  return fl::workload::drifting_load{.ranks = ranks, .experts = experts, .copies = 500, .spread = 1.0, .persistence = 0.5, .seed = seed}.make(number);
}
std::vector<index_t> totals_of(fl::matrix<count_t> const& load) {
  std::vector<index_t> totals(static_cast<std::size_t>(load.cols()));
  fl::sum_over_ranks(load.view(), totals);
  return totals;
}
std::vector<index_t> values(std::span<index_t const> numbers) { return {numbers.begin(), numbers.end()}; }

template <class History>
std::vector<std::byte> bytes_of(typename History::state_type const& state) {
  std::vector<std::byte> bytes(fl::saved_bytes(state));
  fl::save_state(state, bytes);
  return bytes;
}

// Equal observations leave equal states, a state that went through bytes goes on as if it had stayed, a reset is a fresh
// start, and nothing is expected before the first load.
template <class History>
void check_history(History const& history) {
  auto const all = loads(3, 7, 40);
  auto here = history.make_state(3, 7);
  auto there = history.make_state(3, 7);
  CHECK(values(here.estimate().totals) == std::vector<index_t>(7, 0));
  CHECK(here.estimate().samples.rows() == 0);
  CHECK(here.staleness(4) == 5);
  for (index_t m = 0; m < 40; ++m) {
    history.observe(all[static_cast<std::size_t>(m)].view(), 2 * m, here);
    history.observe(all[static_cast<std::size_t>(m)].view(), 2 * m, there);
    REQUIRE(here.fingerprint() == there.fingerprint());
    REQUIRE(here.staleness(2 * m) == 0);
    REQUIRE(here.staleness(2 * m + 3) == 3);
    auto const expected = here.estimate();
    if (expected.by_source.rows() > 0) {  // its columns add up to the totals
      for (index_t e = 0; e < 7; ++e) {
        index_t sum = 0;
        for (index_t r = 0; r < 3; ++r) { sum += expected.by_source(r, e); }
        REQUIRE(sum == expected.totals[static_cast<std::size_t>(e)]);
      }
    }
    if (m == 11) {
      auto resumed = history.make_state(3, 7);
      fl::load_state(resumed, bytes_of<History>(here));
      REQUIRE(resumed.fingerprint() == here.fingerprint());
      there = resumed;
    }
  }
  auto late = history.make_state(3, 7);
  history.observe(all[39].view(), 78, late);
  CHECK(late.observed != here.observed);
  CHECK(late.fingerprint() != here.fingerprint());
  late.reset();
  here.reset();
  CHECK(late.fingerprint() == here.fingerprint());
  CHECK(bytes_of<History>(here) == bytes_of<History>(history.make_state(3, 7)));
  history.observe(all[5].view(), 0, late);
  auto fresh = history.make_state(3, 7);
  history.observe(all[5].view(), 0, fresh);
  CHECK(late.fingerprint() == fresh.fingerprint());
  CHECK(values(fresh.estimate().totals) == totals_of(all[5]));

  CHECK_THROWS_AS(history.observe(all[5].view(), 0, fresh), fl::contract_violation);  // seen already
  CHECK_THROWS_AS(history.observe(loads(3, 6, 1)[0].view(), 1, fresh), fl::contract_violation);
  CHECK_THROWS_AS(history.observe(loads(2, 7, 1)[0].view(), 1, fresh), fl::contract_violation);
  auto nothing = history.make_state(0, 0);
  history.observe({}, 0, nothing);
  CHECK(nothing.estimate().totals.empty());
}

}  // namespace

TEST_CASE("histories are equal on every rank, survive bytes and start afresh", "[place]") {
  check_history(fl::window_sum{});
  check_history(fl::window_sum{.window = 1});
  check_history(fl::window_sum{.window = 100});
  check_history(fl::window_sum{.window = 3, .by_source = false});
  check_history(fl::exponential_average{});
  check_history(fl::exponential_average{.weight = 1.0});
  check_history(fl::exponential_average{.weight = 0.01, .by_source = false});
  check_history(fl::last_load{});
  check_history(fl::last_load{.by_source = false});
}

TEST_CASE("window_sum is the sum of exactly the last micro-batches", "[place]") {
  index_t const ranks = 2;
  index_t const experts = 5;
  auto const all = loads(ranks, experts, 23);
  for (index_t window : {1, 2, 5, 7, 30}) {
    for (bool const by_source : {true, false}) {
      fl::window_sum const history{.window = window, .by_source = by_source};
      auto state = history.make_state(ranks, experts);
      for (index_t m = 0; m < 23; ++m) {
        history.observe(all[static_cast<std::size_t>(m)].view(), m, state);
        auto const estimate = state.estimate();
        index_t const first = std::max<index_t>(0, m + 1 - window);
        REQUIRE(estimate.samples.rows() == m + 1 - first);
        std::vector<index_t> sum(static_cast<std::size_t>(experts), 0);
        for (index_t i = first; i <= m; ++i) {  // oldest first
          auto const totals = totals_of(all[static_cast<std::size_t>(i)]);
          for (index_t e = 0; e < experts; ++e) {
            REQUIRE(estimate.samples(i - first, e) == totals[static_cast<std::size_t>(e)]);
            sum[static_cast<std::size_t>(e)] += totals[static_cast<std::size_t>(e)];
          }
        }
        REQUIRE(values(estimate.totals) == sum);
        REQUIRE(estimate.by_source.rows() == (by_source ? ranks : 0));
        for (index_t r = 0; by_source && r < ranks; ++r) {
          for (index_t e = 0; e < experts; ++e) {
            index_t expected = 0;
            for (index_t i = first; i <= m; ++i) { expected += all[static_cast<std::size_t>(i)](r, e); }
            REQUIRE(estimate.by_source(r, e) == expected);
          }
        }
      }
    }
  }
}

TEST_CASE("a window forgets the largest loads without a trace", "[place]") {
  fl::window_sum const history{.window = 4};
  auto state = history.make_state(1, 2);
  fl::matrix<count_t> large(1, 2);
  large(0, 0) = large(0, 1) = std::numeric_limits<count_t>::max();
  fl::matrix<count_t> small(1, 2);
  small(0, 1) = 1;
  for (index_t m = 0; m < 1000; ++m) { history.observe(m % 9 < 5 ? large.view() : small.view(), m, state); }
  // 999 % 9 is 0: one large, then three small
  CHECK(values(state.estimate().totals) == std::vector<index_t>{2147483647, 2147483650});
  history.observe(small.view(), 1000, state);
  for (index_t m = 1001; m < 1004; ++m) { history.observe(small.view(), m, state); }
  CHECK(values(state.estimate().totals) == std::vector<index_t>{0, 4});
}

TEST_CASE("exponential_average follows the average of real numbers to a copy", "[place]") {
  index_t const ranks = 3;
  index_t const experts = 6;
  auto const all = loads(ranks, experts, 400);
  for (double const weight : {0.01, 0.1, 0.5, 1.0}) {
    fl::exponential_average const history{.weight = weight};
    fl::exponential_average const without{.weight = weight, .by_source = false};
    auto state = history.make_state(ranks, experts);
    auto totals = without.make_state(ranks, experts);
    double const share = std::round(weight * 65536.0) / 65536.0;
    std::vector<double> expected;
    for (index_t m = 0; m < 400; ++m) {
      auto const& load = all[static_cast<std::size_t>(m)];
      history.observe(load.view(), m, state);
      without.observe(load.view(), m, totals);
      if (expected.empty()) { expected.assign(load.span().begin(), load.span().end()); }
      for (std::size_t i = 0; i < expected.size(); ++i) { expected[i] += share * (load.span()[i] - expected[i]); }
      auto const estimate = state.estimate();
      for (index_t e = 0; e < experts; ++e) {
        double sum = 0.0;
        for (index_t r = 0; r < ranks; ++r) {
          double const exact = expected[static_cast<std::size_t>(r * experts + e)];
          REQUIRE(std::abs(static_cast<double>(estimate.by_source(r, e)) - exact) <= 0.51);
          sum += exact;
        }
        REQUIRE(std::abs(static_cast<double>(totals.estimate().totals[static_cast<std::size_t>(e)]) - sum) <= 0.51);
      }
    }
  }
}

TEST_CASE("exponential_average stays at a constant load for ever, and comes back to it", "[place]") {
  fl::exponential_average const history{.weight = 0.1};
  auto state = history.make_state(1, 3);
  fl::matrix<count_t> load(1, 3);
  load(0, 0) = std::numeric_limits<count_t>::max();
  load(0, 1) = 1;
  for (index_t m = 0; m < 5000; ++m) { history.observe(load.view(), m, state); }
  CHECK(values(state.estimate().totals) == std::vector<index_t>{2147483647, 1, 0});
  fl::matrix<count_t> other(1, 3);
  other(0, 2) = 1000000;
  for (index_t m = 5000; m < 5010; ++m) { history.observe(other.view(), m, state); }
  for (index_t m = 5010; m < 6000; ++m) { history.observe(load.view(), m, state); }
  CHECK(values(state.estimate().totals) == std::vector<index_t>{2147483647, 1, 0});
}

TEST_CASE("averages of totals of many ranks do not overflow", "[place]") {
  index_t const ranks = 32767;
  fl::exponential_average const history{.weight = 1.0 / 3.0, .by_source = false};
  auto state = history.make_state(ranks, 1);
  fl::matrix<count_t> load(ranks, 1);
  for (count_t& copies : load.span()) { copies = std::numeric_limits<count_t>::max(); }
  fl::matrix<count_t> const none(ranks, 1);
  history.observe(none.view(), 0, state);
  history.observe(load.view(), 1, state);
  double const third = static_cast<double>(ranks) * 2147483647.0 / 3.0;
  CHECK(static_cast<double>(state.estimate().totals[0]) == Approx(third).epsilon(1e-4));
  CHECK_THROWS_AS(history.make_state(32768, 1), fl::contract_violation);
}

TEST_CASE("histories refuse fields that make no sense, and states of another history", "[place][contract]") {
  CHECK_THROWS_AS(fl::window_sum{.window = 0}.make_state(1, 1), fl::contract_violation);
  CHECK_THROWS_AS(fl::exponential_average{.weight = 0.0}.make_state(1, 1), fl::contract_violation);
  CHECK_THROWS_AS(fl::exponential_average{.weight = std::nan("")}.make_state(1, 1), fl::contract_violation);
  auto const load = loads(2, 3, 1);
  auto state = fl::window_sum{.window = 3}.make_state(2, 3);
  CHECK_THROWS_AS(fl::window_sum{.window = 4}.observe(load[0].view(), 0, state), fl::contract_violation);
  CHECK_THROWS_AS((fl::window_sum{.window = 3, .by_source = false}.observe(load[0].view(), 0, state)), fl::contract_violation);
  auto average = fl::exponential_average{}.make_state(2, 3);
  CHECK_THROWS_AS((fl::exponential_average{.by_source = false}.observe(load[0].view(), 0, average)), fl::contract_violation);
}

TEST_CASE("linear_trend goes on along a line, and not below zero", "[place]") {
  fl::window_sum const history{.window = 5};
  auto state = history.make_state(1, 4);
  std::vector<index_t> next(4, -1);
  fl::linear_trend{}.predict(state.estimate(), next);
  CHECK(next == std::vector<index_t>{0, 0, 0, 0});
  for (index_t m = 0; m < 8; ++m) {
    fl::matrix<count_t> load(1, 4);
    load(0, 0) = static_cast<count_t>(10 + 3 * m);
    load(0, 1) = static_cast<count_t>(70 - 10 * m);
    load(0, 2) = 7;
    load(0, 3) = static_cast<count_t>(m % 2 == 0 ? 10 : 0);
    history.observe(load.view(), m, state);
    if (m == 0) {
      fl::linear_trend{}.predict(state.estimate(), next);
      CHECK(next == std::vector<index_t>{10, 70, 7, 10});
    }
  }
  fl::linear_trend{}.predict(state.estimate(), next);
  CHECK(next == std::vector<index_t>{34, 0, 7, 4});  // samples of the last: 0 10 0 10 0, mean 4, no slope
  fl::linear_trend{.ahead = 4}.predict(state.estimate(), next);
  CHECK(next == std::vector<index_t>{43, 0, 7, 4});
  fl::linear_trend{.ahead = 0}.predict(state.estimate(), next);
  CHECK(next == std::vector<index_t>{31, 0, 7, 4});
  CHECK_THROWS_AS(fl::linear_trend{.ahead = -1}.predict(state.estimate(), next), fl::contract_violation);
}
