// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/replica_split.hpp>
#include <fairlead/schedule/equal_shares.hpp>
#include <fairlead/schedule/interior_point_split.hpp>
#include <fairlead/schedule/min_max_flow.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::expert_id;
using fl::index_t;

namespace {

// Two experts a rank, each with a second host on a neighbour in a cube (8 ranks) or a hypercube (16 ranks).
fl::placement cube(int dimensions) {
  int const ranks = 1 << dimensions;
  std::vector<std::vector<expert_id>> on(static_cast<std::size_t>(ranks));
  for (int j = 0; j < ranks; ++j) {
    for (int k = 0; k < 2; ++k) {
      int const neighbour = j ^ (1 << ((2 * (j & 1) + k) % dimensions));
      on[static_cast<std::size_t>(j)].push_back(static_cast<expert_id>(2 * j + k));
      on[static_cast<std::size_t>(neighbour)].push_back(static_cast<expert_id>(2 * j + k));
    }
  }
  std::vector<index_t> offsets{0};
  std::vector<expert_id> slots;
  for (auto const& mine : on) {
    slots.insert(slots.end(), mine.begin(), mine.end());
    offsets.push_back(static_cast<index_t>(slots.size()));
  }
  return {2 * ranks, offsets, slots};
}

std::vector<index_t> totals_of(index_t experts, int kind, std::uint64_t draw) {
  std::vector<index_t> totals;
  for (index_t e = 0; e < experts; ++e) {
    double const z = fl::philox::normal(7, draw, static_cast<std::uint64_t>(e));
    double const zipf = 1.0 / static_cast<double>(1 + (e * 7919 + static_cast<index_t>(draw) * 31) % experts);
    double const value = kind == 0 ? 1.0 + 0.3 * z : kind == 1 ? std::exp(z) : zipf;
    totals.push_back(std::max<index_t>(0, static_cast<index_t>(10000.0 * value)));
  }
  return totals;
}

template <class Split>
fl::report split(Split const& rule, std::vector<index_t> const& totals, fl::placement const& where, std::vector<count_t>& shares) {
  shares.assign(static_cast<std::size_t>(where.replicas()), -1);
  fl::arena<> memory(rule.workspace_bytes(where));
  auto ws = memory.view();
  return rule.split(totals, where, shares, ws);
}

}  // namespace

TEST_CASE("interior_point_split keeps the laws of a split where experts have two hosts", "[schedule][laws]") {
  for (int const dimensions : {3, 4}) {
    fl::placement const where = cube(dimensions);
    for (int number = 0; number < 40; ++number) {
      auto const totals = fl::laws::detail::adversarial_totals(where.experts(), 400, 3, number);
      CHECK(fl::laws::check_replica_split_on(fl::interior_point_split{}, where, totals));
      CHECK(fl::laws::check_replica_split_on(fl::interior_point_split{.steps = 12}, where, totals));
      CHECK(fl::laws::check_replica_split_on(fl::interior_point_split{.reduction = fl::step_reduction::last_per_lane}, where, totals));
      auto broken = totals;
      broken[0] = 5;
      CHECK(fl::laws::check_replica_split_on(fl::interior_point_split{}, fl::laws::detail::without_expert(where, 0), broken));
    }
  }
  CHECK(fl::laws::check_replica_split(fl::interior_point_split{}, {.ranks = 4, .experts = 9, .extra_slots = 0}));
}

TEST_CASE("five single-precision steps come within a few per cent of the exact split and never below it", "[schedule]") {
  for (int const dimensions : {3, 4}) {
    fl::placement const where = cube(dimensions);
    for (int const kind : {0, 1, 2}) {
      double gap = 0.0, worst = 0.0;
      for (std::uint64_t draw = 0; draw < 100; ++draw) {
        auto const totals = totals_of(where.experts(), kind, draw);
        std::vector<count_t> shares;
        fl::report const approximate = split(fl::interior_point_split{}, totals, where, shares);
        fl::report const exact = split(fl::min_max_flow{}, totals, where, shares);
        REQUIRE(approximate);
        REQUIRE(exact);
        CHECK(exact.value <= approximate.value);
        gap += approximate.value / exact.value - 1.0;
        worst = std::max(worst, approximate.value / exact.value - 1.0);
      }
      INFO("dimensions " << dimensions << ", kind " << kind << ", mean gap " << gap / 100.0 << ", worst " << worst);
      CHECK(gap / 100.0 < 0.03);
      CHECK(gap > 0.0);
      CHECK(worst < 0.08);
    }
  }
}

TEST_CASE("more steps break down in single precision, and the status says so", "[schedule]") {
  fl::placement const where = cube(3);
  int accepted = 0;
  for (std::uint64_t draw = 0; draw < 100; ++draw) {
    std::vector<count_t> shares;
    auto const totals = totals_of(where.experts(), 0, draw);
    fl::report const ended = split(fl::interior_point_split{.steps = 12}, totals, where, shares);
    accepted += ended ? 1 : 0;
    if (ended) { continue; }
    CHECK(ended.status == fl::status::iteration_limit);
    for (index_t e = 0; e < where.experts(); ++e) {  // halves
      CHECK(shares[static_cast<std::size_t>(2 * e)] == totals[static_cast<std::size_t>(e)] / 2);
    }
  }
  CHECK(accepted < 20);
}

TEST_CASE("a maximum that overwrites oversteps with more than 32 variables and does not with fewer", "[schedule]") {
  auto const differ = [](fl::placement const& where) {
    int count = 0;
    for (std::uint64_t draw = 0; draw < 50; ++draw) {
      auto const totals = totals_of(where.experts(), 2, draw);
      std::vector<count_t> right, wrong;
      (void)split(fl::interior_point_split{}, totals, where, right);
      (void)split(fl::interior_point_split{.reduction = fl::step_reduction::last_per_lane}, totals, where, wrong);
      count += right != wrong ? 1 : 0;
    }
    return count;
  };
  CHECK(differ(cube(3)) > 10);
  // A ring of eight ranks, one expert each: 2 * 8 + 8 + 2 = 26 variables.
  std::vector<index_t> offsets{0};
  std::vector<expert_id> slots;
  for (int j = 0; j < 8; ++j) {
    slots.push_back(expert_id{j});
    slots.push_back(expert_id{(j + 1) % 8});
    offsets.push_back(static_cast<index_t>(slots.size()));
  }
  CHECK(differ(fl::placement(8, offsets, slots)) == 0);
}

TEST_CASE("interior_point_split refuses experts on three ranks", "[schedule]") {
  std::vector<index_t> const offsets{0, 2, 3, 4};
  std::vector<expert_id> const slots{expert_id{0}, expert_id{0}, expert_id{0}, expert_id{0}};
  fl::placement const where(1, offsets, slots);
  std::vector<count_t> shares;
  CHECK(split(fl::interior_point_split{}, {7}, where, shares).status == fl::status::unsupported);
  CHECK(shares == std::vector<count_t>{0, 0, 0, 0});
}
