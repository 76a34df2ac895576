// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What kernels of this module run, on host backends: the split by waves against enumeration and against min_max_flow, and
// the rules over flat arrays against the schedulers and routers that they restate.
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/replica_split.hpp>
#include <fairlead/schedule/column_rules.hpp>
#include <fairlead/schedule/copy_slots.hpp>
#include <fairlead/schedule/local_node_even.hpp>
#include <fairlead/schedule/min_max_flow.hpp>
#include <fairlead/schedule/min_max_waves.hpp>
#include <fairlead/schedule/staircase.hpp>
#include <fairlead/schedule/token_slots.hpp>

#include "support/catch.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace {
namespace fl = fairlead;
using fl::index_t;

struct random_numbers {
  std::uint64_t stream;
  std::uint64_t at = 0;
  index_t below(index_t bound) {
    return static_cast<index_t>(fl::philox::below(fl::philox::draw(77, stream, at++)[0], static_cast<std::uint32_t>(bound)));
  }
};

// Ragged ranks, empty slots, second replicas on one rank; every expert at least once unless `lossy`.
fl::placement any_placement(index_t ranks, index_t experts, index_t extra, random_numbers& random, bool lossy = false) {
  std::vector<fl::expert_id> slots;
  for (index_t e = lossy ? 1 : 0; e < experts; ++e) { slots.push_back(static_cast<fl::expert_id>(e)); }
  for (index_t i = 0; i < extra; ++i) {
    slots.push_back(static_cast<fl::expert_id>(lossy ? std::max<index_t>(random.below(experts), 1) : random.below(experts + 1) - 1));
  }
  if (lossy && experts == 1) { slots.assign(slots.size(), fl::expert_id::none); }
  for (std::size_t i = slots.size(); i > 1; --i) { std::swap(slots[i - 1], slots[static_cast<std::size_t>(random.below(static_cast<index_t>(i)))]); }
  std::vector<index_t> offsets(static_cast<std::size_t>(ranks) + 1, 0);
  for (std::size_t r = 1; r + 1 < offsets.size(); ++r) { offsets[r] = random.below(static_cast<index_t>(slots.size()) + 1); }
  offsets.back() = static_cast<index_t>(slots.size());
  std::sort(offsets.begin(), offsets.end());
  return {experts, offsets, slots};
}

// Equation 3 of MicroMoE: the densest set of ranks, by enumeration.
index_t densest(std::vector<index_t> const& totals, fl::placement const& where) {
  index_t best = 0;
  for (unsigned set = 1; set < 1U << where.ranks(); ++set) {
    index_t inside = 0, size = 0;
    for (index_t r = 0; r < where.ranks(); ++r) { size += (set >> r & 1U) != 0 ? 1 : 0; }
    for (std::size_t e = 0; e < totals.size(); ++e) {
      auto const hosts = where.replicas(static_cast<fl::expert_id>(e));
      bool const closed = std::all_of(hosts.begin(), hosts.end(), [&](auto const& r) { return (set >> fl::to_index(r.rank) & 1U) != 0; });
      inside += closed ? totals[e] : 0;
    }
    best = std::max(best, (inside + size - 1) / size);
  }
  return best;
}

// Legal shares whose largest load is what the report says.
void check_shares(std::vector<index_t> const& totals, fl::placement const& where, std::vector<fl::count_t> const& shares, double largest) {
  std::vector<index_t> loads(static_cast<std::size_t>(where.ranks()), 0);
  for (std::size_t e = 0; e < totals.size(); ++e) {
    auto const hosts = where.replicas(static_cast<fl::expert_id>(e));
    auto const column = static_cast<std::size_t>(where.replica_offset(static_cast<fl::expert_id>(e)));
    index_t sum = 0;
    for (std::size_t k = 0; k < hosts.size(); ++k) {
      REQUIRE(shares[column + k] >= 0);
      if (k > 0 && hosts[k].rank == hosts[k - 1].rank) { REQUIRE(shares[column + k] == 0); }
      sum += shares[column + k];
      loads[static_cast<std::size_t>(hosts[k].rank)] += shares[column + k];
    }
    REQUIRE(sum == totals[e]);
  }
  REQUIRE(static_cast<double>(*std::max_element(loads.begin(), loads.end())) == largest);
}

template <class Rule>
std::pair<fl::report, std::vector<fl::count_t>> split(Rule const& rule, std::vector<index_t> const& totals, fl::placement const& where) {
  std::vector<fl::count_t> shares(static_cast<std::size_t>(where.replicas()), -7);
  fl::arena<> scratch(rule.workspace_bytes(where));
  fl::workspace ws = scratch.view();
  auto const report = rule.split(totals, where, shares, ws);
  REQUIRE(ws.used() == 0);
  return {report, shares};
}

struct routed_case {
  fl::placement where;
  fl::matrix<fl::count_t> load;
  std::vector<index_t> totals;
};

routed_case any_case(std::uint64_t number, bool lossy = false) {
  random_numbers random{number};
  index_t const ranks = 1 + random.below(7);
  index_t const experts = 1 + random.below(12);
  fl::placement where = any_placement(ranks, experts, random.below(12), random, lossy);
  fl::matrix<fl::count_t> load(ranks, experts);
  for (fl::count_t& count : load.span()) { count = static_cast<fl::count_t>(random.below(3) == 0 ? 0 : random.below(30)); }
  std::vector<index_t> totals(static_cast<std::size_t>(experts));
  fl::sum_over_ranks(fl::serial{}, load.view(), totals);
  return {std::move(where), std::move(load), std::move(totals)};
}

}  // namespace

TEST_CASE("waves attain the densest set of ranks, found by enumeration") {
  index_t raised = 0;
  for (std::uint64_t number = 0; number < 3000; ++number) {
    random_numbers random{number};
    index_t const ranks = 1 + random.below(6);
    index_t const experts = 1 + random.below(9);
    auto const where = any_placement(ranks, experts, random.below(10), random);
    std::vector<index_t> totals(static_cast<std::size_t>(experts));
    index_t const kind = random.below(4);
    for (index_t& total : totals) { total = kind == 0 ? random.below(3) : random.below(40) * (random.below(3) == 0 ? 10 : 1); }
    if (kind == 3) { std::fill(totals.begin() + 1, totals.end(), index_t{0}); }
    INFO("instance " << number);
    auto const [report, shares] = split(fl::min_max_waves{}, totals, where);
    REQUIRE(report.status == fl::status::ok);
    REQUIRE(report.value == static_cast<double>(densest(totals, where)));
    REQUIRE(report.bound == report.value);
    check_shares(totals, where, shares, report.value);
    raised += report.iterations > 3 ? 1 : 0;
  }
  REQUIRE(raised > 20);
}

TEST_CASE("waves keep the laws of replica splits") {
  REQUIRE(fl::laws::check_replica_split(fl::min_max_waves{}));
  REQUIRE(fl::laws::check_replica_split(fl::min_max_waves{}, {.ranks = 1, .experts = 1}));
  REQUIRE(fl::laws::check_replica_split(fl::min_max_waves{}, {.ranks = 9, .experts = 20, .seed = 3}));
}

TEST_CASE("waves and min_max_flow find the same largest load at the sizes of clusters") {
  for (auto const [ranks, experts, replicas] : {std::array{8, 32, 2}, std::array{64, 256, 2}, std::array{64, 256, 4}, std::array{256, 1024, 2}}) {
    for (int skew = 0; skew < 4; ++skew) {
      random_numbers random{static_cast<std::uint64_t>(100000 + ranks * 10 + replicas * 100 + skew)};
      std::vector<fl::expert_id> slots;
      for (int copy = 0; copy < replicas; ++copy) {
        std::size_t const begin = slots.size();
        for (int e = 0; e < experts; ++e) { slots.push_back(static_cast<fl::expert_id>(e)); }
        for (std::size_t i = slots.size() - begin; i > 1; --i) {
          std::swap(slots[begin + i - 1], slots[begin + static_cast<std::size_t>(random.below(static_cast<index_t>(i)))]);
        }
      }
      std::vector<index_t> offsets;
      for (int r = 0; r <= ranks; ++r) { offsets.push_back(static_cast<index_t>(slots.size()) * r / ranks); }
      fl::placement const where(experts, offsets, slots);
      std::vector<index_t> totals(static_cast<std::size_t>(experts));
      for (int draw = 0; draw < 5; ++draw) {
        for (std::size_t e = 0; e < totals.size(); ++e) {
          totals[e] = static_cast<index_t>(1e6 * std::pow(static_cast<double>(e + 1), -0.4 * skew) * (0.7 + 0.001 * static_cast<double>(random.below(600))));
        }
        auto const [waves, shares] = split(fl::min_max_waves{}, totals, where);
        auto const [flow, others] = split(fl::min_max_flow{}, totals, where);
        REQUIRE(waves.status == fl::status::ok);
        REQUIRE(waves.value == flow.value);
        REQUIRE(waves.iterations < 100);
        check_shares(totals, where, shares, waves.value);
      }
    }
  }
}

TEST_CASE("chains and trees of hosts, where copies have far to go, take some dozens of waves") {
  for (index_t const ranks : {2, 33, 256}) {
    for (int kind = 0; kind < 3; ++kind) {
      random_numbers random{static_cast<std::uint64_t>(700000 + ranks * 3 + kind)};
      std::vector<std::vector<fl::expert_id>> on(static_cast<std::size_t>(ranks));
      std::vector<index_t> totals;
      for (index_t r = 1; r < ranks; ++r) {
        auto const expert = static_cast<fl::expert_id>(r - 1);
        on[static_cast<std::size_t>(r)].push_back(expert);
        on[static_cast<std::size_t>(kind == 2 ? random.below(r) : r - 1)].push_back(expert);
        totals.push_back(kind == 0 ? (r < ranks / 2 ? 1000 : 0) : random.below(1000));
      }
      std::vector<index_t> offsets{0};
      std::vector<fl::expert_id> slots;
      for (auto const& mine : on) {
        slots.insert(slots.end(), mine.begin(), mine.end());
        offsets.push_back(static_cast<index_t>(slots.size()));
      }
      fl::placement const where(ranks - 1, offsets, slots);
      auto const [waves, shares] = split(fl::min_max_waves{}, totals, where);
      REQUIRE(waves.status == fl::status::ok);
      REQUIRE(waves.value == split(fl::min_max_flow{}, totals, where).first.value);
      REQUIRE(waves.iterations < 200);
      check_shares(totals, where, shares, waves.value);
    }
  }
}

TEST_CASE("waves report lost experts, stop at their limit, and take empty problems") {
  random_numbers random{5};
  auto const lost = any_placement(3, 4, 4, random, true);
  auto const [report, shares] = split(fl::min_max_waves{}, {5, 1, 2, 3}, lost);
  REQUIRE(report.status == fl::status::lost_expert);
  REQUIRE(std::all_of(shares.begin(), shares.end(), [](fl::count_t c) { return c == 0; }));
  REQUIRE(split(fl::min_max_waves{}, {0, 1, 2, 3}, lost).first.status == fl::status::ok);

  // A chain: even parts are not the best, and without waves they stay.
  std::vector<index_t> const offsets{0, 2, 4, 5};
  std::vector<fl::expert_id> const slots{fl::expert_id{0}, fl::expert_id{1}, fl::expert_id{1}, fl::expert_id{2}, fl::expert_id{2}};
  fl::placement const chain(3, offsets, slots);
  auto const [stopped, even] = split(fl::min_max_waves{.most_waves = 0}, {12, 6, 6}, chain);
  REQUIRE(stopped.status == fl::status::iteration_limit);
  REQUIRE(stopped.value == 15.0);
  REQUIRE(stopped.bound == 0.0);
  check_shares({12, 6, 6}, chain, even, 15.0);
  auto const [done, best] = split(fl::min_max_waves{}, {12, 6, 6}, chain);
  REQUIRE(done.value == 12.0);
  check_shares({12, 6, 6}, chain, best, 12.0);

  REQUIRE(split(fl::min_max_waves{}, {}, fl::placement{}).first.status == fl::status::ok);
  REQUIRE(split(fl::min_max_waves{}, {0, 0, 0}, chain).first.value == 0.0);
  // Loads whose sum on a rank does not fit 32 bits.
  index_t const large = INT32_MAX;
  fl::placement const one(3, std::vector<index_t>{0, 3, 4}, std::vector<fl::expert_id>{fl::expert_id{0}, fl::expert_id{1}, fl::expert_id{2}, fl::expert_id{2}});
  REQUIRE(split(fl::min_max_waves{}, {large, large, large}, one).first.value == static_cast<double>(2 * large));
}

TEST_CASE("a batch gives every problem what it gets alone") {
  auto const c = any_case(4711);
  fl::column_table<> const table(fl::serial{}, c.where);
  auto const& where = table.view();
  fl::matrix<index_t> totals(5, where.experts);
  random_numbers random{6};
  for (index_t& total : totals.span()) { total = random.below(50); }
  fl::matrix<fl::count_t> shares(5, where.columns);
  std::vector<fl::wave_report> reports(5);
  fl::min_max_waves const rule{};
  fl::arena<> scratch(rule.batch_workspace_bytes(5, where.ranks, where.experts, where.columns));
  fl::workspace ws = scratch.view();
  rule.solve_batch(fl::serial{}, where, totals.view(), shares.view(), reports, ws);
  for (index_t problem = 0; problem < 5; ++problem) {
    std::vector<index_t> const mine(totals.view().row(problem), totals.view().row(problem) + where.experts);
    auto const [report, alone] = split(rule, mine, c.where);
    REQUIRE(std::equal(alone.begin(), alone.end(), shares.view().row(problem)));
    REQUIRE(static_cast<double>(reports[static_cast<std::size_t>(problem)].largest) == report.value);
  }
}

TEST_CASE("the flat staircase gives the counts of the router") {
  for (std::uint64_t number = 0; number < 1500; ++number) {
    auto const c = any_case(200000 + number);
    auto const shares = split(fl::min_max_waves{}, c.totals, c.where).second;
    fl::column_table<> const table(fl::serial{}, c.where);
    for (bool const rotate : {false, true}) {
      fl::matrix<fl::count_t> expected(c.where.ranks(), c.where.replicas()), found(c.where.ranks(), c.where.replicas());
      std::fill(found.span().begin(), found.span().end(), fl::count_t{-3});
      fl::staircase const rule{.rotate = rotate};
      fl::arena<> scratch(rule.workspace_bytes(c.where));
      fl::workspace ws = scratch.view();
      REQUIRE(rule.route(c.load.view(), c.where, shares, expected.view(), ws).status == fl::status::ok);
      fl::route_staircase(fl::serial{}, table.view(), c.load.view(), shares, rotate, found.view());
      INFO("case " << number << ", rotated " << rotate);
      REQUIRE(std::equal(expected.span().begin(), expected.span().end(), found.span().begin()));
    }
  }
}

TEST_CASE("flat even parts on a node give the counts of local_node_even") {
  index_t lost_cases = 0;
  for (std::uint64_t number = 0; number < 1500; ++number) {
    auto const c = any_case(300000 + number, number % 10 == 0);
    random_numbers random{400000 + number};
    std::vector<index_t> nodes{0};
    while (nodes.back() < c.where.ranks()) { nodes.push_back(std::min(c.where.ranks(), nodes.back() + 1 + random.below(3))); }
    std::vector<index_t> slot_offsets(static_cast<std::size_t>(c.where.ranks()) + 1, 0);
    fl::topology const cluster(nodes, slot_offsets);
    fl::column_table<> const table(fl::serial{}, c.where);
    fl::node_table<> const node_table(fl::serial{}, cluster);
    for (bool const rotate : {false, true}) {
      fl::matrix<fl::count_t> expected(c.where.ranks(), c.where.replicas()), found(c.where.ranks(), c.where.replicas());
      std::fill(found.span().begin(), found.span().end(), fl::count_t{-3});
      fl::local_node_even const rule{.cluster = cluster, .rotate = rotate};
      fl::arena<> scratch(rule.workspace_bytes(c.where));
      fl::workspace ws = scratch.view();
      auto const report = rule.schedule(c.load.view(), c.where, expected.view(), ws);
      std::int32_t lost = -1;
      fl::spread_on_nodes(fl::serial{}, table.view(), node_table, c.load.view(), rotate, found.view(), &lost);
      INFO("case " << number << ", rotated " << rotate);
      REQUIRE((lost > 0) == (report.status == fl::status::lost_expert));
      REQUIRE(std::equal(expected.span().begin(), expected.span().end(), found.span().begin()));
      lost_cases += lost > 0 ? 1 : 0;
    }
  }
  REQUIRE(lost_cases > 50);
}

TEST_CASE("slots by places and running sums are those of token_slots") {
  for (std::uint64_t number = 0; number < 800; ++number) {
    auto const c = any_case(500000 + number);
    random_numbers random{600000 + number};
    index_t const tokens = random.below(40);
    index_t const fan_out = 1 + random.below(3);
    fl::matrix<fl::expert_id> experts(tokens, fan_out);
    fl::matrix<float> weights(tokens, fan_out);
    std::fill(weights.span().begin(), weights.span().end(), 1.0F);
    for (fl::expert_id& e : experts.span()) { e = static_cast<fl::expert_id>(random.below(c.where.experts() + 1) - 1); }
    std::vector<std::int32_t> sequence(static_cast<std::size_t>(tokens * fan_out));
    std::iota(sequence.begin(), sequence.end(), 0);
    for (std::size_t i = sequence.size(); i > 1; --i) { std::swap(sequence[i - 1], sequence[static_cast<std::size_t>(random.below(static_cast<index_t>(i)))]); }
    if (number % 2 == 0) { sequence.clear(); }
    std::vector<fl::count_t> quota(static_cast<std::size_t>(c.where.replicas()));
    for (fl::count_t& q : quota) { q = static_cast<fl::count_t>(random.below(12)); }
    std::vector<fl::slot_id> expected(experts.span().size()), found(experts.span().size());
    fl::token_slots const rule{};
    fl::arena<> scratch(rule.workspace_bytes(c.where));
    fl::workspace ws = scratch.view();
    auto const report = rule.assign({experts.view(), weights.view()}, sequence, c.where, quota, expected, ws);
    fl::column_table<> const table(fl::serial{}, c.where);
    fl::arena<> flat_scratch(fl::copy_slots{}.workspace_bytes(fl::serial{}, c.where.experts(), c.where.replicas()));
    fl::workspace flat = flat_scratch.view();
    fl::copy_slots{}.assign(fl::serial{}, experts.span(), sequence, table.view(), quota, found, flat);
    REQUIRE(expected == found);
    REQUIRE(static_cast<double>(std::count_if(found.begin(), found.end(), [](auto s) { return s != fl::slot_id::none; })) == report.value);
  }
}
