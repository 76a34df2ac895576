// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/replica_split.hpp>
#include <fairlead/schedule/equal_shares.hpp>
#include <fairlead/schedule/water_fill.hpp>

#include <algorithm>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::expert_id;
using fl::index_t;

namespace {

index_t below(std::uint64_t stream, std::uint64_t& index, index_t bound) {
  return static_cast<index_t>(fl::philox::below(fl::philox::draw(11, stream, index++)[0], static_cast<std::uint32_t>(bound)));
}

// One expert after the other in the same order, copy by copy to the host that ends lowest; ties to the lower rank.
std::vector<count_t> poured_one_by_one(std::vector<index_t> const& totals, fl::placement const& where, std::vector<index_t> loads,
                                       std::vector<count_t> const& speeds) {
  std::vector<count_t> shares(static_cast<std::size_t>(where.replicas()), 0);
  std::vector<std::size_t> order(totals.size());
  for (std::size_t e = 0; e < order.size(); ++e) { order[e] = e; }
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return totals[a] != totals[b] ? totals[a] > totals[b] : a < b; });
  for (std::size_t const e : order) {
    auto const replicas = where.replicas(static_cast<expert_id>(e));
    auto const first = static_cast<std::size_t>(where.replica_offset(static_cast<expert_id>(e)));
    for (index_t copy = 0; copy < totals[e]; ++copy) {
      std::size_t best = replicas.size();
      for (std::size_t k = 0; k < replicas.size(); ++k) {
        auto const rank = static_cast<std::size_t>(replicas[k].rank);
        if (speeds[rank] == 0) { continue; }
        if (best == replicas.size()) { best = k; continue; }
        auto const other = static_cast<std::size_t>(replicas[best].rank);
        if ((loads[rank] + 1) * speeds[other] < (loads[other] + 1) * speeds[rank]) { best = k; }
      }
      ++loads[static_cast<std::size_t>(replicas[best].rank)];
      ++shares[first + best];
    }
  }
  return shares;
}

fl::placement some_placement(index_t ranks, index_t experts, index_t extra, std::uint64_t number) {
  return fl::laws::detail::random_placement({.ranks = ranks, .experts = experts, .extra_slots = extra, .seed = 5}, number);
}

// The first replica of an expert on a rank stands for all of them there.
std::vector<count_t> per_host(fl::placement const& where, std::vector<count_t> shares) {
  for (index_t e = 0; e < where.experts(); ++e) {
    auto const replicas = where.replicas(static_cast<expert_id>(e));
    auto const first = static_cast<std::size_t>(where.replica_offset(static_cast<expert_id>(e)));
    for (std::size_t k = replicas.size(); k-- > 1;) {
      if (replicas[k].rank == replicas[k - 1].rank) {
        shares[first + k - 1] += shares[first + k];
        shares[first + k] = 0;
      }
    }
  }
  return shares;
}

}  // namespace

TEST_CASE("water_fill equals pouring one copy after the other, also with base loads and speeds", "[schedule]") {
  std::uint64_t index = 0;
  for (std::uint64_t number = 0; number < 300; ++number) {
    index_t const ranks = 1 + below(1, index, 7);
    index_t const experts = 1 + below(1, index, 9);
    fl::placement const where = some_placement(ranks, experts, below(1, index, 20), number);
    std::vector<index_t> totals, base, zeros(static_cast<std::size_t>(ranks), 0);
    std::vector<count_t> speeds, ones(static_cast<std::size_t>(ranks), 1);
    for (index_t e = 0; e < experts; ++e) { totals.push_back(below(1, index, number % 3 == 0 ? 4 : 60)); }
    for (index_t r = 0; r < ranks; ++r) {
      base.push_back(below(1, index, 30));
      speeds.push_back(static_cast<count_t>(1 + below(1, index, 4)));
    }
    fl::arena<> memory(fl::water_fill{}.workspace_bytes(where));
    for (int kind = 0; kind < 4; ++kind) {
      bool const busy = (kind & 1) != 0;
      bool const uneven = (kind & 2) != 0;
      fl::water_fill rule;
      if (busy) { rule.conditions.base = base; }
      if (uneven) { rule.conditions.speed = speeds; }
      std::vector<count_t> shares(static_cast<std::size_t>(where.replicas()), -1);
      auto ws = memory.view();
      fl::report const ended = rule.split(totals, where, shares, ws);
      REQUIRE(ended);
      auto const expected = per_host(where, poured_one_by_one(totals, where, busy ? base : zeros, uneven ? speeds : ones));
      REQUIRE(shares == expected);
      auto loads = fl::laws::detail::rank_loads(where, shares);
      double level = 0.0;
      for (std::size_t r = 0; r < loads.size(); ++r) {
        level = std::max(level, static_cast<double>(loads[r] + (busy ? base[r] : 0)) / static_cast<double>(uneven ? speeds[r] : 1));
      }
      REQUIRE(ended.value == level);
    }
  }
}

TEST_CASE("water_fill leaves failed ranks empty and reports an expert whose hosts all failed", "[schedule]") {
  std::vector<index_t> const offsets{0, 2, 4};
  std::vector<expert_id> const slots{expert_id{0}, expert_id{1}, expert_id{0}, expert_id{2}};
  fl::placement const where(3, offsets, slots);
  std::vector<count_t> const speeds{0, 1};
  fl::water_fill const rule{.conditions = {.speed = speeds}};
  fl::arena<> memory(rule.workspace_bytes(where));
  std::vector<count_t> shares(4, -1);
  auto ws = memory.view();
  CHECK(rule.split(std::vector<index_t>{10, 0, 5}, where, shares, ws).value == 15.0);
  CHECK(shares == std::vector<count_t>{0, 10, 0, 5});
  CHECK(rule.split(std::vector<index_t>{10, 1, 5}, where, shares, ws).status == fl::status::lost_expert);
  CHECK(shares == std::vector<count_t>{0, 0, 0, 0});
}

TEST_CASE("equal_shares gives replicas counts that differ by at most one, also two on one rank", "[schedule]") {
  std::uint64_t index = 0;
  for (std::uint64_t number = 0; number < 50; ++number) {
    fl::placement const where = some_placement(4, 6, 15, number);
    std::vector<index_t> totals;
    for (index_t e = 0; e < 6; ++e) { totals.push_back(below(2, index, 100)); }
    std::vector<count_t> shares(static_cast<std::size_t>(where.replicas()), -1);
    fl::workspace ws;
    REQUIRE(fl::equal_shares{}.split(totals, where, shares, ws));
    for (index_t e = 0; e < 6; ++e) {
      auto const replicas = static_cast<index_t>(where.replicas(expert_id{static_cast<std::int32_t>(e)}).size());
      auto const first = static_cast<std::size_t>(where.replica_offset(expert_id{static_cast<std::int32_t>(e)}));
      for (std::size_t k = 0; k < static_cast<std::size_t>(replicas); ++k) {
        index_t const floor = totals[static_cast<std::size_t>(e)] / replicas;
        CHECK((shares[first + k] == floor || shares[first + k] == floor + 1));
      }
    }
  }
}

TEST_CASE("equal_shares turns the remainders by expert", "[schedule]") {
  std::vector<index_t> const offsets{0, 3, 6};
  std::vector<expert_id> const slots{expert_id{0}, expert_id{1}, expert_id{2}, expert_id{0}, expert_id{1}, expert_id{2}};
  fl::placement const where(3, offsets, slots);
  std::vector<count_t> shares(6);
  fl::workspace ws;
  CHECK(fl::equal_shares{}.split(std::vector<index_t>{3, 3, 3}, where, shares, ws).value == 5.0);
  CHECK(shares == std::vector<count_t>{2, 1, 1, 2, 2, 1});
}

TEST_CASE("splits name a wrong shape and totals out of range", "[schedule][contract]") {
  fl::placement const where = some_placement(3, 4, 3, 1);
  std::vector<count_t> shares(static_cast<std::size_t>(where.replicas())), few(2);
  fl::arena<> memory(fl::water_fill{}.workspace_bytes(where));
  auto const refuses = [&](auto const& rule) {
    auto ws = memory.view();
    CHECK_THROWS_AS(rule.split(std::vector<index_t>{1, 2, 3}, where, shares, ws), fl::contract_violation);
    CHECK_THROWS_AS(rule.split(std::vector<index_t>{1, 2, 3, 4}, where, few, ws), fl::contract_violation);
#if FAIRLEAD_CONTRACT_LEVEL >= 2
    CHECK_THROWS_AS(rule.split(std::vector<index_t>{1, 2, -3, 4}, where, shares, ws), fl::contract_violation);
    CHECK_THROWS_AS(rule.split(std::vector<index_t>{1, 2, 3, index_t{1} << 31}, where, shares, ws), fl::contract_violation);
#endif
  };
  refuses(fl::equal_shares{});
  refuses(fl::water_fill{});
  std::vector<index_t> const two{1, 1};
  auto ws = memory.view();
  CHECK_THROWS_AS((fl::water_fill{.conditions = {.base = two}}.split(std::vector<index_t>{1, 2, 3, 4}, where, shares, ws)), fl::contract_violation);
}

TEST_CASE("the largest rank load is the same for few and for many ranks", "[schedule]") {
  // 600 ranks take the path for many; the same columns on the first ranks of a smaller placement that for few.
  for (index_t const ranks : {1, 3, 511, 512, 513, 600}) {
    fl::placement const where = some_placement(ranks, 70, 90, static_cast<std::uint64_t>(ranks));
    fl::matrix<count_t> out(4, where.replicas());
    std::vector<count_t> shares(static_cast<std::size_t>(where.replicas()), 0);
    for (index_t i = 0; i < static_cast<index_t>(out.span().size()); ++i) {
      count_t const count = static_cast<count_t>(fl::philox::draw(4, 4, static_cast<std::uint64_t>(i))[0] % 100);
      out.span()[static_cast<std::size_t>(i)] = count;
      shares[static_cast<std::size_t>(i % where.replicas())] += count;
    }
    auto const loads = fl::laws::detail::rank_loads(where, shares);
    CHECK(fl::detail::largest_rank_load(where, std::as_const(out).view()) == *std::max_element(loads.begin(), loads.end()));
  }
}
