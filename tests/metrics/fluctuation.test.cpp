// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Routing fluctuation: the worked example, and an oracle that keeps the whole history.
#include "support/catch.hpp"

#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/metrics/fluctuation.hpp>

#include <cmath>
#include <limits>
#include <set>
#include <utility>
#include <vector>

namespace fl = fairlead;
using fl::metrics::fluctuation_tracker;

namespace {

fl::routing<> snapshot(std::vector<std::vector<int>> const& ids, std::vector<std::vector<float>> const& weights = {}) {
  auto const k = static_cast<fl::index_t>(ids.empty() ? 1 : ids[0].size());
  fl::routing<> out(static_cast<fl::index_t>(ids.size()), k);
  for (std::size_t t = 0; t < ids.size(); ++t) {
    for (std::size_t j = 0; j < ids[t].size(); ++j) {
      auto const row = static_cast<fl::index_t>(t), slot = static_cast<fl::index_t>(j);
      out.view().experts(row, slot) = static_cast<fl::expert_id>(ids[t][j]);
      out.view().weights(row, slot) = ids[t][j] < 0 ? 0.0F : (weights.empty() ? 1.0F : weights[t][j]);
    }
  }
  return out;
}
template <class Routing>
fl::const_routing_view read(Routing const& routing) {
  return routing.view();
}

}  // namespace

TEST_CASE("the worked example: three tokens over five snapshots") {
  // Token A 0,0,1,1,1; B constant; C 1,0,1,0,1.
  int const a[] = {0, 0, 1, 1, 1}, c[] = {1, 0, 1, 0, 1};
  fl::arena<> memory(fluctuation_tracker::memory_bytes(3, 1));
  fl::workspace ws = memory.view();
  fluctuation_tracker tracker(3, 1, ws);
  for (int s = 0; s < 5; ++s) { tracker.observe(read(snapshot({{a[s]}, {2}, {c[s]}}))); }
  CHECK(tracker.snapshots() == 5);
  CHECK(tracker.last_change(0) == 2);
  CHECK(tracker.last_change(1) == 0);
  CHECK(tracker.last_change(2) == 4);
  CHECK(tracker.share_after(0.2) == Approx(2.0 / 3.0));
  CHECK(tracker.share_after(0.5) == Approx(1.0 / 3.0));
  CHECK(tracker.share_after(0.8) == 0.0);  // 4 / 5 is not more than 0.8
  CHECK(tracker.flips() == Approx(5.0 / 12.0));
  CHECK(tracker.jaccard() == Approx(7.0 / 12.0));
  CHECK(tracker.churn() == Approx(5.0 / 12.0));
  std::vector<double> shares(6);
  tracker.distribution(shares);
  for (int s = 0; s < 6; ++s) { CHECK(shares[static_cast<std::size_t>(s)] == Approx(s < 2 ? 1 / 3.0 : s < 4 ? 2 / 3.0 : 1.0)); }
}

TEST_CASE("a change exactly at the border of a share is not after it, whatever the run's length") {
  for (int run = 2; run <= 200; ++run) {
    for (int change = 1; change < run; ++change) {
      if (change > 12 && change * 5 % run != 0) { continue; }
      fl::arena<> memory(fluctuation_tracker::memory_bytes(1, 1));
      fl::workspace ws = memory.view();
      fluctuation_tracker tracker(1, 1, ws);
      for (int s = 1; s <= run; ++s) { tracker.observe(read(snapshot({{s <= change ? 0 : 1}}))); }
      CAPTURE(run, change);
      REQUIRE(tracker.last_change(0) == change);
      for (int const percent : {20, 50, 80}) {
        REQUIRE((tracker.share_after(percent / 100.0) > 0.5) == (change * 100 > percent * run));
      }
    }
  }
}

TEST_CASE("experts of a token are sets: order does not matter, none is no expert, gate weight moves") {
  fl::arena<> memory(fluctuation_tracker::memory_bytes(2, 3));
  fl::workspace ws = memory.view();
  fluctuation_tracker tracker(2, 3, ws);
  tracker.observe(read(snapshot({{0, 1, -1}, {-1, -1, -1}})));
  tracker.observe(read(snapshot({{1, -1, 0}, {-1, -1, -1}})));
  CHECK(tracker.flips() == 0.0);
  CHECK(tracker.jaccard() == 1.0);
  CHECK(tracker.churn() == 0.0);
  // {0,1} -> {0,2,3}: one of four in common; of the new weight 1, 0.7 is on new experts.
  tracker.observe(read(snapshot({{0, 2, 3}, {-1, 4, -1}}, {{0.3F, 0.5F, 0.2F}, {0.0F, 0.25F, 0.0F}})));
  CHECK(tracker.last_change(0) == 2);
  CHECK(tracker.flips() == Approx(2.0 / 4.0));
  CHECK(tracker.jaccard() == Approx((1.0 + 1.0 + 0.25 + 0.0) / 4.0));
  CHECK(tracker.churn() == Approx((0.7 + 0.25) / (2.0 + 1.25)));
  tracker.restart();
  CHECK(tracker.snapshots() == 0);
  CHECK(tracker.share_after(0.0) == 0.0);
}

TEST_CASE("the tracker agrees with one that keeps every snapshot") {
  constexpr fl::index_t tokens = 50, k = 2, experts = 5;
  constexpr int run = 23;
  fl::arena<> memory(fluctuation_tracker::memory_bytes(tokens, k));
  fl::workspace ws = memory.view();
  fluctuation_tracker tracker(tokens, k, ws);
  std::vector<std::vector<std::set<int>>> history;
  for (int s = 0; s < run; ++s) {
    std::vector<std::vector<int>> ids;
    std::vector<std::set<int>> sets;
    for (fl::index_t t = 0; t < tokens; ++t) {
      // Later tokens change more rarely.
      auto const epoch = static_cast<std::uint64_t>(s / (1 + t / 10));
      auto const word = fl::philox::draw(9, epoch, static_cast<std::uint64_t>(t));
      int const first = static_cast<int>(word[0] % experts);
      int const second = word[1] % 4 == 0 ? -1 : static_cast<int>((word[0] + 1 + word[2] % (experts - 1)) % experts);
      ids.push_back({first, second});
      sets.push_back(second < 0 ? std::set<int>{first} : std::set<int>{first, second});
    }
    tracker.observe(read(snapshot(ids)));
    history.push_back(sets);
  }
  int flips = 0;
  for (fl::index_t t = 0; t < tokens; ++t) {
    auto const at = static_cast<std::size_t>(t);
    int last = 0;
    for (int s = 1; s <= run; ++s) {
      if (history[static_cast<std::size_t>(s - 1)][at] != history[run - 1][at]) { last = s; }
      if (s > 1) { flips += history[static_cast<std::size_t>(s - 1)][at] != history[static_cast<std::size_t>(s - 2)][at] ? 1 : 0; }
    }
    CHECK(tracker.last_change(t) == last);
  }
  CHECK(tracker.flips() == Approx(flips / (50.0 * (run - 1))));
  std::vector<double> shares(run + 1);
  tracker.distribution(shares);
  CHECK(shares.back() == 1.0);
  for (double const part : {0.0, 0.2, 0.5, 0.8}) {
    auto const s = static_cast<std::size_t>(std::floor(part * run));
    CHECK(tracker.share_after(part) == Approx(1.0 - shares[s]).margin(1e-12));
  }
}

TEST_CASE("no tokens and one snapshot are legal, other shapes are refused") {
  fl::arena<> memory(4096);
  fl::workspace ws = memory.view();
  fluctuation_tracker none(0, 1, ws);
  none.observe({{nullptr, 0, 1}, {nullptr, 0, 1}});
  CHECK(none.flips() == 0.0);
  CHECK(none.share_after(0.2) == 0.0);
  fluctuation_tracker one(1, 1, ws);
  one.observe(read(snapshot({{3}})));
  CHECK(one.flips() == 0.0);
  CHECK(one.jaccard() == 1.0);
  CHECK_THROWS_AS(one.observe(read(snapshot({{3, 4}}))), fl::contract_violation);
  CHECK_THROWS_AS(one.share_after(1.5), fl::contract_violation);
  std::vector<double> wrong(1);
  CHECK_THROWS_AS(one.distribution(wrong), fl::contract_violation);
}

TEST_CASE("cross-entropy of a snapshot with itself is its entropy, with another one more") {
  float const infinity = std::numeric_limits<float>::infinity();
  fl::matrix<float> a(2, 3), b(2, 3);
  for (int e = 0; e < 3; ++e) {
    a(0, e) = 0.0F;
    a(1, e) = e == 2 ? -infinity : 1.0F;
    b(0, e) = static_cast<float>(e);
    b(1, e) = a(1, e);
  }
  using fl::metrics::routing_cross_entropy;
  double const itself = routing_cross_entropy(a.view(), a.view());
  CHECK(itself == Approx((std::log(3.0) + std::log(2.0)) / 2.0));
  double const log_sum = std::log(1.0 + std::exp(1.0) + std::exp(2.0));
  CHECK(routing_cross_entropy(a.view(), b.view()) == Approx((log_sum - 1.0 + std::log(2.0)) / 2.0));
  b(1, 0) = std::numeric_limits<float>::quiet_NaN();
  CHECK(routing_cross_entropy(a.view(), b.view()) == std::numeric_limits<double>::infinity());
  CHECK(routing_cross_entropy({nullptr, 0, 3}, {nullptr, 0, 3}) == 0.0);
}
