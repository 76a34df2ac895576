// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The exact min-max split against the density of every set of ranks, with base loads, speeds and failed ranks.
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/replica_split.hpp>
#include <fairlead/laws/token_scheduler.hpp>
#include <fairlead/schedule/equal_shares.hpp>
#include <fairlead/schedule/forest_split.hpp>
#include <fairlead/schedule/forest_support.hpp>
#include <fairlead/schedule/min_max_flow.hpp>
#include <fairlead/schedule/tiled_split.hpp>
#include <fairlead/schedule/water_fill.hpp>
#include <fairlead/workload/micro_batches.hpp>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::expert_id;
using fl::index_t;

namespace {

struct draws {
  std::uint64_t seed;
  std::uint64_t next = 0;
  index_t below(index_t bound) {
    return static_cast<index_t>(fl::philox::below(fl::philox::draw(seed, 77, next++)[0], static_cast<std::uint32_t>(bound)));
  }
};

// A problem with everything that may differ: ragged slots, empty slots, second replicas on a rank, lost experts.
struct problem {
  fl::placement where;
  std::vector<index_t> totals;
  std::vector<index_t> base;
  std::vector<count_t> speed;

  explicit problem(std::uint64_t seed) {
    draws draw{seed};
    index_t const ranks = 1 + draw.below(7);
    index_t const experts = draw.below(9);
    std::vector<index_t> offsets{0};
    std::vector<expert_id> slots;
    for (index_t r = 0; r < ranks; ++r) {
      for (index_t s = draw.below(5); s > 0; --s) { slots.push_back(static_cast<expert_id>(draw.below(experts + 1) - 1)); }
      offsets.push_back(static_cast<index_t>(slots.size()));
    }
    where = fl::placement(experts, offsets, slots);
    index_t const largest = draw.below(3) == 0 ? 3 : draw.below(2) == 0 ? 50 : 100000;
    for (index_t e = 0; e < experts; ++e) { totals.push_back(draw.below(4) == 0 ? 0 : draw.below(largest)); }
    if (draw.below(2) == 0) {
      for (index_t r = 0; r < ranks; ++r) { base.push_back(draw.below(largest)); }
    }
    if (draw.below(3) == 0) {
      index_t const fastest = 2 + draw.below(5);
      for (index_t r = 0; r < ranks; ++r) { speed.push_back(static_cast<count_t>(draw.below(fastest))); }
    }
  }
  [[nodiscard]] fl::split_conditions conditions() const { return {.base = base, .speed = speed}; }
  [[nodiscard]] index_t speed_of(index_t rank) const { return speed.empty() ? 1 : speed[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] index_t base_of(index_t rank) const { return base.empty() || speed_of(rank) == 0 ? 0 : base[static_cast<std::size_t>(rank)]; }
  // Live hosts of an expert, one bit a rank.
  [[nodiscard]] std::uint32_t hosts(index_t expert) const {
    std::uint32_t set = 0;
    for (fl::replica const& copy : where.replicas(static_cast<expert_id>(expert))) {
      if (speed_of(fl::to_index(copy.rank)) > 0) { set |= 1U << static_cast<unsigned>(copy.rank); }
    }
    return set;
  }
  // What lives inside a set of ranks whatever the split.
  [[nodiscard]] index_t inside(std::uint32_t set) const {
    index_t sum = 0;
    for (index_t r = 0; r < where.ranks(); ++r) { sum += (set >> static_cast<unsigned>(r) & 1U) != 0 ? base_of(r) : 0; }
    for (std::size_t e = 0; e < totals.size(); ++e) { sum += (hosts(static_cast<index_t>(e)) & ~set) == 0 ? totals[e] : 0; }
    return sum;
  }
  // Whether caps allow a split (Hall's condition over every set of ranks).
  [[nodiscard]] bool feasible(std::vector<index_t> const& cap) const {
    for (std::uint32_t set = 1; set < (1U << static_cast<unsigned>(where.ranks())); ++set) {
      index_t room = 0;
      for (index_t r = 0; r < where.ranks(); ++r) {
        if ((set >> static_cast<unsigned>(r) & 1U) == 0 || speed_of(r) == 0) { continue; }
        if (cap[static_cast<std::size_t>(r)] < base_of(r)) { return false; }
        room += cap[static_cast<std::size_t>(r)];
      }
      if (inside(set) > room) { return false; }
    }
    return true;
  }
  [[nodiscard]] bool lost() const {
    for (std::size_t e = 0; e < totals.size(); ++e) {
      if (totals[e] > 0 && hosts(static_cast<index_t>(e)) == 0) { return true; }
    }
    return false;
  }
  // Loads of ranks by shares; empty if the shares lose copies, are negative, or lie on a failed rank.
  [[nodiscard]] std::vector<index_t> loads(std::span<count_t const> shares) const {
    std::vector<index_t> load;
    for (index_t r = 0; r < where.ranks(); ++r) { load.push_back(base_of(r)); }
    for (index_t e = 0; e < where.experts(); ++e) {
      index_t left = totals[static_cast<std::size_t>(e)];
      auto column = static_cast<std::size_t>(where.replica_offset(static_cast<expert_id>(e)));
      for (fl::replica const& copy : where.replicas(static_cast<expert_id>(e))) {
        count_t const share = shares[column++];
        if (share < 0 || (share > 0 && speed_of(fl::to_index(copy.rank)) == 0)) { return {}; }
        left -= share;
        load[static_cast<std::size_t>(copy.rank)] += share;
      }
      if (left != 0) { return {}; }
    }
    return load;
  }
};

fl::min_max_report solve(fl::host_graph const& graph, problem const& given, fl::split_start start, std::span<count_t> shares, fl::arena<>& memory,
                         index_t sweeps = 2) {
  fl::min_max_flow const solver{.sweeps = sweeps};
  memory.reserve(solver.workspace_bytes(graph.view()));
  fl::workspace ws = memory.view();
  return solver.solve(graph.view(), given.totals, given.conditions(), start, shares, ws);
}

fl::placement placed(index_t experts, std::vector<std::vector<int>> const& ranks) {
  std::vector<index_t> offsets{0};
  std::vector<expert_id> slots;
  for (auto const& rank : ranks) {
    for (int const expert : rank) { slots.push_back(static_cast<expert_id>(expert)); }
    offsets.push_back(static_cast<index_t>(slots.size()));
  }
  return {experts, offsets, slots};
}

}  // namespace

TEST_CASE("min_max_flow keeps the laws of a split and of a scheduler") {
  for (index_t const ranks : {1, 2, 5, 9}) {
    INFO("ranks " << ranks);
    auto const split = fl::laws::check_replica_split(fl::min_max_flow{}, {.ranks = ranks, .seed = 3});
    INFO(split.reason());
    CHECK(split);
    auto const schedule = fl::laws::check_token_scheduler(fl::min_max_flow{}, {.ranks = ranks, .seed = 4});
    INFO(schedule.reason());
    CHECK(schedule);
    auto const tiled = fl::laws::check_replica_split(fl::tiled_split<fl::equal_shares>{.tile = 8}, {.ranks = ranks, .seed = 5});
    INFO(tiled.reason());
    CHECK(tiled);
  }
}

TEST_CASE("min_max_flow attains the density bound with base loads, speeds and failed ranks, cold and warm") {
  int raised = 0, augmented = 0, lost = 0, weighted = 0;
  fl::arena<> memory;
  for (std::uint64_t seed = 0; seed < 6000; ++seed) {
    problem const given(seed);
    fl::host_graph const graph(given.where);
    std::vector<count_t> shares(static_cast<std::size_t>(given.where.replicas()));
    for (std::size_t i = 0; i < shares.size(); ++i) { shares[i] = static_cast<count_t>(seed * 31 + i * 7) % 50; }
    auto const start = seed % 2 == 0 ? fl::split_start::cold : fl::split_start::warm;
    auto const report = solve(graph, given, start, shares, memory, static_cast<index_t>(seed % 4));
    INFO("seed " << seed);
    if (given.lost()) {
      ++lost;
      REQUIRE(report.summary.status == fl::status::lost_expert);
      REQUIRE(std::all_of(shares.begin(), shares.end(), [](count_t share) { return share == 0; }));
      continue;
    }
    REQUIRE(report.summary.status == fl::status::ok);
    auto const load = given.loads(shares);
    REQUIRE(static_cast<index_t>(load.size()) == given.where.ranks());
    // The largest load a unit of speed, as a fraction.
    index_t top = 0, unit = 1;
    for (index_t r = 0; r < given.where.ranks(); ++r) {
      index_t const speed = given.speed_of(r);
      if (speed > 0 && load[static_cast<std::size_t>(r)] * unit > top * speed) { top = load[static_cast<std::size_t>(r)], unit = speed; }
    }
    REQUIRE(report.summary.value == static_cast<double>(top) / static_cast<double>(unit));
    REQUIRE(report.summary.bound == report.summary.value);
    std::vector<index_t> here, below;
    for (index_t r = 0; r < given.where.ranks(); ++r) {
      index_t const scaled = top * given.speed_of(r);
      here.push_back(scaled / unit);
      below.push_back((scaled + unit - 1) / unit - 1);  // the largest load strictly below the value
    }
    REQUIRE(given.feasible(here));
    REQUIRE((top == 0 || !given.feasible(below)));
    raised += report.raises > 0 ? 1 : 0;
    augmented += report.paths > 0 ? 1 : 0;
    bool const plain = std::all_of(given.speed.begin(), given.speed.end(), [](count_t speed) { return speed <= 1; });
    weighted += plain ? 0 : 1;
    if (plain && top > 0) {  // the certificate: what its ranks cannot get rid of, over their number
      std::uint32_t set = 0;
      for (std::int32_t const rank : report.cut) { set |= 1U << static_cast<unsigned>(rank); }
      REQUIRE(report.denominator == static_cast<index_t>(report.cut.size()));
      REQUIRE(given.inside(set) >= report.numerator);
      REQUIRE((report.numerator + report.denominator - 1) / report.denominator == top);
    } else if (top > 0) {  // with speeds: below the value, in whole copies, its ranks together have too little room
      std::uint32_t set = 0;
      index_t room = 0, speeds = 0;
      for (std::int32_t const rank : report.cut) {
        set |= 1U << static_cast<unsigned>(rank);
        room += below[static_cast<std::size_t>(rank)];
        speeds += given.speed_of(rank);
      }
      REQUIRE(given.inside(set) == report.numerator);
      REQUIRE(report.denominator == speeds);
      REQUIRE(room < report.numerator);
    }
  }
  CHECK(raised > 500);
  CHECK(augmented > 300);
  CHECK(lost > 100);
  CHECK(weighted > 300);
}

TEST_CASE("split and schedule take base loads and speeds from the fields") {
  auto const where = placed(3, {{0, 1}, {0, 2}, {1, 2}});
  std::vector<index_t> const base{0, 50, 0};
  std::vector<count_t> const speed{2, 1, 0};
  fl::min_max_flow const rule{.conditions = {.base = base, .speed = speed}};
  fl::arena<> memory(rule.workspace_bytes(where));
  auto ws = memory.view();
  std::vector<count_t> shares(6, -1);
  auto const report = rule.split(std::vector<index_t>{100, 30, 0}, where, shares, ws);
  CHECK(report.value == 60.0);  // (100 + 30 + 50) / 3: rank 0 takes 120, rank 1 has 50 and takes 10
  CHECK(report.bound == 60.0);
  CHECK(shares == std::vector<count_t>{90, 10, 30, 0, 0, 0});
  std::vector<count_t> const load{0, 0, 0, 100, 30, 0, 0, 0, 0};
  std::vector<count_t> out(18, -1);
  CHECK(rule.schedule({load.data(), 3, 3}, where, {out.data(), 3, 6}, ws).value == 60.0);
  CHECK(std::vector<count_t>(out.begin() + 6, out.begin() + 12) == shares);
  CHECK(rule.split(std::vector<index_t>{100, 30, 1}, where, shares, ws).value == 60.5);
  std::vector<count_t> const failed{0, 1, 0};
  CHECK((fl::min_max_flow{.conditions = {.speed = failed}}.split(std::vector<index_t>{100, 30, 1}, where, shares, ws).status) == fl::status::lost_expert);
}

TEST_CASE("cold and warm splits have the same largest load, and relabelling changes nothing") {
  auto const where = fl::workload::random_hosts(24, 80, 3, 5);
  fl::host_graph const graph(where);
  fl::workload::micro_batches const batches{.experts = 80, .copies = 24 * 512, .skew = 0.7, .seed = 8};
  fl::min_max_flow const solver;
  fl::arena<> memory(solver.workspace_bytes(graph.view()));
  std::vector<count_t> warm(static_cast<std::size_t>(where.replicas()), 0), cold(warm);
  // The same placement with ranks in reverse order.
  std::vector<index_t> offsets{0};
  std::vector<expert_id> slots;
  for (index_t r = 24; r-- > 0;) {
    for (expert_id const expert : where.experts_on(static_cast<fl::rank_id>(r))) { slots.push_back(expert); }
    offsets.push_back(static_cast<index_t>(slots.size()));
  }
  fl::host_graph const mirrored(fl::placement(80, offsets, slots));
  for (index_t i = 0; i < 40; ++i) {
    auto const totals = batches.at(i);
    fl::workspace ws = memory.view();
    auto const one = solver.solve(graph.view(), totals, {}, fl::split_start::cold, cold, ws);
    auto const two = solver.solve(graph.view(), totals, {}, fl::split_start::warm, warm, ws);
    std::vector<count_t> again(cold.size(), 99);
    REQUIRE(solver.solve(graph.view(), totals, {}, fl::split_start::cold, again, ws).summary.value == one.summary.value);
    REQUIRE(again == cold);
    REQUIRE(two.summary.value == one.summary.value);
    REQUIRE(solver.solve(mirrored.view(), totals, {}, fl::split_start::cold, again, ws).summary.value == one.summary.value);
  }
}

TEST_CASE("clusters of hundreds of ranks prove their optimum") {
  // A valid split and a cut that no split can beat: together they need no other solver.
  draws draw{77};
  index_t raised = 0;
  for (index_t const ranks : {65, 100, 400}) {
    for (index_t const replicas : {2, 3}) {
      for (int kind = 0; kind < 3; ++kind) {
        index_t const experts = 4 * ranks;
        auto const where = fl::workload::random_hosts(ranks, experts, replicas, 12);
        fl::host_graph const graph(where);
        std::vector<index_t> totals(static_cast<std::size_t>(experts), 1000);
        for (index_t& total : totals) { total = kind == 0 ? total : kind == 1 ? draw.below(2000) : draw.below(4) == 0 ? draw.below(5000) : 1; }
        fl::min_max_flow const solver;
        fl::arena<> memory(solver.workspace_bytes(graph.view()));
        fl::workspace ws = memory.view();
        std::vector<count_t> shares(static_cast<std::size_t>(where.replicas()));
        auto const report = solver.solve(graph.view(), totals, {}, fl::split_start::cold, shares, ws);
        INFO(ranks << " ranks, " << replicas << " hosts an expert, kind " << kind);
        problem given(0);
        given.where = where, given.totals = totals, given.base = {}, given.speed = {};
        auto const load = given.loads(shares);
        REQUIRE_FALSE(load.empty());
        REQUIRE(static_cast<double>(*std::max_element(load.begin(), load.end())) == report.summary.value);
        std::vector<bool> in_cut(static_cast<std::size_t>(ranks), false);
        for (std::int32_t const rank : report.cut) { in_cut[static_cast<std::size_t>(rank)] = true; }
        index_t inside = 0;
        for (index_t e = 0; e < experts; ++e) {
          auto const hosts = where.replicas(static_cast<expert_id>(e));
          bool const stays = std::all_of(hosts.begin(), hosts.end(), [&](fl::replica const& host) { return in_cut[static_cast<std::size_t>(host.rank)]; });
          inside += stays ? totals[static_cast<std::size_t>(e)] : 0;
        }
        REQUIRE(inside >= report.numerator);
        REQUIRE(static_cast<index_t>(report.cut.size()) == report.denominator);
        REQUIRE(static_cast<double>((inside + report.denominator - 1) / report.denominator) == report.summary.value);
        raised += report.raises;
      }
    }
  }
  CHECK(raised > 0);
}

TEST_CASE("loads near 2^31 are split in 64-bit sums") {
  index_t const most = INT32_MAX;
  fl::host_graph const graph(placed(3, {{0, 1}, {0, 2}, {1, 2}, {0}}));
  std::vector<index_t> const totals{most, most, most};
  fl::min_max_flow const solver;
  fl::arena<> memory(solver.workspace_bytes(graph.view()));
  std::vector<count_t> shares(7);
  fl::workspace ws = memory.view();
  auto const report = solver.solve(graph.view(), totals, {}, fl::split_start::cold, shares, ws);
  REQUIRE(report.summary.status == fl::status::ok);
  CHECK(report.summary.value == static_cast<double>((3 * most + 3) / 4));
  CHECK(report.denominator == 4);
  CHECK(std::accumulate(shares.begin(), shares.end(), index_t{0}) == 3 * most);
}

TEST_CASE("long ways between ranks, separate groups, one host, and hosts everywhere") {
  fl::min_max_flow const solver{.sweeps = 1};
  SECTION("a chain of 200 ranks passes surplus from one end to the other") {
    std::vector<std::vector<int>> ranks(200);
    for (int e = 0; e < 199; ++e) { ranks[static_cast<std::size_t>(e)].push_back(e), ranks[static_cast<std::size_t>(e) + 1].push_back(e); }
    auto const where = placed(199, ranks);
    fl::host_graph const graph(where);
    fl::arena<> memory(solver.workspace_bytes(graph.view()));
    std::vector<index_t> totals(199, 100);
    totals[0] = 300;
    std::vector<count_t> shares(static_cast<std::size_t>(where.replicas()));
    fl::workspace ws = memory.view();
    auto const report = solver.solve(graph.view(), totals, {}, fl::split_start::cold, shares, ws);
    // The densest set is a prefix of the chain: (300 + 100 (n - 2)) / n.
    index_t best = 0;
    for (index_t n = 2; n <= 200; ++n) { best = std::max(best, (300 + 100 * (n - 2) + n - 1) / n); }
    CHECK(report.summary.value == static_cast<double>(best));
  }
  SECTION("groups that share no rank have their own optimum") {
    auto const where = placed(4, {{0, 1}, {0, 1}, {2, 3}, {2, 3}});
    fl::host_graph const graph(where);
    fl::arena<> memory(solver.workspace_bytes(graph.view()));
    std::vector<index_t> const totals{100, 31, 3, 4};
    std::vector<count_t> shares(8);
    fl::workspace ws = memory.view();
    auto const report = solver.solve(graph.view(), totals, {}, fl::split_start::cold, shares, ws);
    CHECK(report.summary.value == 66.0);
    CHECK(std::vector<std::int32_t>(report.cut.begin(), report.cut.end()) == std::vector<std::int32_t>{0, 1});
  }
  SECTION("one host an expert leaves no choice") {
    auto const where = placed(3, {{0}, {1}, {2}});
    fl::arena<> memory(solver.workspace_bytes(where));
    std::vector<index_t> const totals{5, 9, 2};
    std::vector<count_t> shares(3);
    fl::workspace ws = memory.view();
    auto const report = solver.split(totals, where, shares, ws);
    CHECK(report.value == 9.0);
    CHECK(shares == std::vector<count_t>{5, 9, 2});
  }
  SECTION("hosts everywhere reach the mean") {
    std::vector<std::vector<int>> const ranks(70, {0, 1});
    auto const where = placed(2, ranks);
    fl::arena<> memory(solver.workspace_bytes(where));
    std::vector<index_t> const totals{6999, 71};
    std::vector<count_t> shares(140);
    fl::workspace ws = memory.view();
    CHECK(solver.split(totals, where, shares, ws).value == 101.0);
  }
  SECTION("nothing at all") {
    fl::placement const where(0, std::vector<index_t>{0, 0, 0}, {});
    fl::arena<> memory(solver.workspace_bytes(where));
    fl::workspace ws = memory.view();
    CHECK(solver.split({}, where, {}, ws).value == 0.0);
  }
}

TEST_CASE("bad loads, speeds and shapes are refused") {
  auto const where = placed(1, {{0}, {0}});
  fl::host_graph const graph(where);
  fl::min_max_flow const solver;
  fl::arena<> memory(solver.workspace_bytes(graph.view()));
  std::vector<count_t> shares(2);
  auto const attempt = [&](std::vector<index_t> const& totals, std::vector<index_t> const& base, std::vector<count_t> const& speed) {
    fl::workspace ws = memory.view();
    static_cast<void>(solver.solve(graph.view(), totals, {.base = base, .speed = speed}, fl::split_start::cold, shares, ws));
  };
  CHECK_THROWS_AS(attempt({-1}, {}, {}), fl::contract_violation);
  CHECK_THROWS_AS(attempt({index_t{1} << 31}, {}, {}), fl::contract_violation);
  CHECK_THROWS_AS(attempt({1, 2}, {}, {}), fl::contract_violation);
  CHECK_THROWS_AS(attempt({1}, {0}, {}), fl::contract_violation);
  CHECK_THROWS_AS(attempt({1}, {0, -1}, {}), fl::contract_violation);
  CHECK_THROWS_AS(attempt({1}, {}, {1, 1 << 21}), fl::contract_violation);
  CHECK_NOTHROW(attempt({1}, {0, 3}, {1, 2}));
}

TEST_CASE("forest_support keeps rank loads and totals and leaves no cycle") {
  fl::arena<> memory;
  index_t cancelled = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    index_t const ranks = 3 + static_cast<index_t>(seed % 9);
    index_t const experts = 4 + static_cast<index_t>(seed % 21);
    auto const where = fl::workload::random_hosts(ranks, experts, 2 + static_cast<index_t>(seed % 2), seed);
    fl::host_graph const graph(where);
    auto const totals = fl::workload::micro_batches{.experts = experts, .copies = ranks * 40, .skew = 0.3, .seed = seed}.at(0);
    fl::min_max_flow const solver;
    memory.reserve(solver.workspace_bytes(graph.view()) + fl::forest_support_bytes(graph.view()));
    fl::workspace ws = memory.view();
    std::vector<count_t> shares(static_cast<std::size_t>(where.replicas()));
    static_cast<void>(solver.solve(graph.view(), totals, {}, fl::split_start::cold, shares, ws));
    problem given(0);
    given.where = where, given.totals = totals, given.base = {}, given.speed = {};
    auto const before = given.loads(shares);
    auto const report = fl::forest_support(graph.view(), shares, ws);
    INFO("seed " << seed);
    REQUIRE(given.loads(shares) == before);
    REQUIRE_FALSE(before.empty());
    auto const positive = std::count_if(shares.begin(), shares.end(), [](count_t share) { return share > 0; });
    REQUIRE(report.value == static_cast<double>(positive));
    // A forest: joining the ends of every positive share never meets a node twice.
    std::vector<index_t> root(static_cast<std::size_t>(ranks + experts));
    std::iota(root.begin(), root.end(), index_t{0});
    auto const find = [&](index_t node) {
      while (root[static_cast<std::size_t>(node)] != node) { node = root[static_cast<std::size_t>(node)]; }
      return node;
    };
    for (std::int32_t c = 0; c < graph.view().columns; ++c) {
      if (shares[static_cast<std::size_t>(c)] == 0) { continue; }
      index_t const a = find(graph.view().rank[static_cast<std::size_t>(c)]);
      index_t const b = find(ranks + graph.view().expert[static_cast<std::size_t>(c)]);
      REQUIRE(a != b);
      root[static_cast<std::size_t>(a)] = b;
    }
    cancelled += report.iterations;
  }
  CHECK(cancelled > 1000);
}

TEST_CASE("forest_split keeps the laws of its split and what that proves, with at most experts + ranks - 1 shares") {
  CHECK(fl::laws::check_replica_split(fl::forest_split<fl::min_max_flow>{}, {.ranks = 9, .experts = 14, .extra_slots = 30}));
  CHECK(fl::laws::check_replica_split(fl::forest_split<fl::water_fill>{}, {.ranks = 5, .experts = 7, .extra_slots = 12}));
  auto const where = fl::workload::random_hosts(16, 64, 4, 9);
  fl::forest_split<fl::min_max_flow> const rule;
  fl::arena<> memory(rule.workspace_bytes(where));
  std::vector<count_t> sparse(256), dense(256);
  for (index_t batch = 0; batch < 20; ++batch) {
    auto const totals = fl::workload::micro_batches{.experts = 64, .copies = 16 * 4096, .skew = 0.5, .redraw = true, .seed = 3}.at(batch);
    auto ws = memory.view();
    auto const ended = rule.split(totals, where, sparse, ws);
    REQUIRE(ended.value == rule.split_first.split(totals, where, dense, ws).value);
    auto const positive = [](std::vector<count_t> const& shares) { return std::count_if(shares.begin(), shares.end(), [](count_t share) { return share > 0; }); };
    REQUIRE(positive(sparse) <= 64 + 16 - 1);
    REQUIRE(positive(sparse) < positive(dense));
    REQUIRE(fl::laws::detail::rank_loads(where, sparse) == fl::laws::detail::rank_loads(where, dense));
  }
}

TEST_CASE("tiled_split minimises the largest number of tiles of a rank") {
  fl::tiled_split<fl::min_max_flow> const tiled{.tile = 16};
  fl::arena<> memory;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    problem given(seed + 9000);
    given.base = {}, given.speed = {};
    if (given.lost()) { continue; }
    memory.reserve(tiled.workspace_bytes(given.where));
    fl::workspace ws = memory.view();
    std::vector<count_t> shares(static_cast<std::size_t>(given.where.replicas()));
    static_cast<void>(tiled.split(given.totals, given.where, shares, ws));
    INFO("seed " << seed);
    REQUIRE_FALSE(given.loads(shares).empty());
    std::vector<index_t> tiles(static_cast<std::size_t>(given.where.ranks()), 0);
    index_t all = 0, least = 0;
    for (index_t e = 0; e < given.where.experts(); ++e) {
      auto column = static_cast<std::size_t>(given.where.replica_offset(static_cast<expert_id>(e)));
      least += (given.totals[static_cast<std::size_t>(e)] + 15) / 16;
      for (fl::replica const& copy : given.where.replicas(static_cast<expert_id>(e))) {
        index_t const part = (shares[column++] + 15) / 16;
        tiles[static_cast<std::size_t>(copy.rank)] += part;
        all += part;
      }
    }
    REQUIRE(all == least);  // splitting costs no tile
    problem in_tiles = given;
    for (index_t& total : in_tiles.totals) { total = (total + 15) / 16; }
    index_t const top = *std::max_element(tiles.begin(), tiles.end());
    REQUIRE((top == 0 || !in_tiles.feasible(std::vector<index_t>(tiles.size(), top - 1))));
  }
}
