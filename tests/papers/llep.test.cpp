// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Least-loaded rerouting (arXiv 2601.17111): plans small enough for a hand, the released code's duplicates, the token map,
// the paper's 36 scenarios, and the ratios at which its gate opens.
#include <fairlead/assign/least_loaded.hpp>
#include <fairlead/assign/rerouting_cost.hpp>
#include <fairlead/assign/rerouting_map.hpp>
#include <fairlead/core/matrix.hpp>

#include "support/catch.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

namespace {
namespace fl = fairlead;
using fl::index_t;
using loads = std::vector<index_t>;
using exact = fl::least_loaded<fl::ceil_capacity, fl::always_reroute>;
using list = std::vector<std::array<index_t, 3>>;  // (rank, begin, end)

fl::placement blocks(index_t ranks, index_t each) {
  std::vector<index_t> offsets;
  std::vector<fl::expert_id> slots;
  for (index_t p = 0; p <= ranks; ++p) { offsets.push_back(p * each); }
  for (index_t e = 0; e < ranks * each; ++e) { slots.push_back(static_cast<fl::expert_id>(e)); }
  return {ranks * each, offsets, slots};
}

struct outcome {
  std::vector<list> segments;
  std::vector<fl::replica_move> transfers;
  loads rank_load;
  index_t forced, capacity;
  bool used_plan;
};

template <class Planner>
outcome plan(Planner const& planner, loads const& totals, index_t ranks) {
  auto const where = blocks(ranks, static_cast<index_t>(totals.size()) / ranks);
  fl::rerouting_memory memory(where.experts(), ranks);
  fl::rerouting out = memory.view();
  fl::arena<> scratch(planner.workspace_bytes(where.experts(), ranks));
  fl::workspace ws = scratch.view();
  REQUIRE(planner.plan(totals, where, out, ws).status == fl::status::ok);
  outcome result{{}, {out.transfers().begin(), out.transfers().end()}, {out.rank_load.begin(), out.rank_load.end()}, out.forced, out.capacity, out.used_plan};
  for (index_t e = 0; e < where.experts(); ++e) {
    list pieces;
    for (auto const& s : out.segments(static_cast<fl::expert_id>(e))) { pieces.push_back({fl::to_index(s.rank), s.begin, s.end}); }
    result.segments.push_back(pieces);
  }
  return result;
}

std::pair<index_t, index_t> busiest_links(outcome const& result) {
  loads egress(result.rank_load.size()), ingress(result.rank_load.size());
  fl::count_transfers(result.transfers, egress, ingress);
  return {*std::max_element(egress.begin(), egress.end()), *std::max_element(ingress.begin(), ingress.end())};
}

// Counts of the release's test generator: hot experts 0 ... hot - 1; equal rows on all ranks; so only min(hot, K) are hot.
struct model { index_t experts, fan_out, tokens; };
constexpr model gpt_oss{128, 4, 32768}, deepseek_v3{256, 8, 16384}, kimi_k2{384, 8, 16384};

loads generated(model const& m, int percent, index_t hot, index_t ranks) {
  loads totals(static_cast<std::size_t>(m.experts), 0);
  auto const rows = static_cast<index_t>(static_cast<double>(m.tokens) * (percent / 100.0));
  for (index_t row = 0; row < m.tokens; ++row) {
    for (index_t k = 0; k < m.fan_out; ++k) {
      totals[static_cast<std::size_t>(row < rows ? k % hot : hot + (row + k) % (m.experts - hot))] += ranks;
    }
  }
  return totals;
}

double ratio(loads const& totals, index_t ranks) {
  loads native(static_cast<std::size_t>(ranks), 0);
  for (std::size_t e = 0; e < totals.size(); ++e) { native[e * static_cast<std::size_t>(ranks) / totals.size()] += totals[e]; }
  auto const total = static_cast<double>(std::accumulate(totals.begin(), totals.end(), index_t{0}));
  return static_cast<double>(*std::max_element(native.begin(), native.end())) * static_cast<double>(ranks) / total;
}

struct scenario {
  model const& m;
  int percent;
  index_t hot;
  double closed_ratio, exact_ratio, load_ratio;
  index_t transfers, forced;
  double spilled;
  index_t smallest, egress, ingress;
};
scenario const scenarios[] = {
    {gpt_oss, 30, 16, 2.400, 2.400, 1.00000, 9, 0, 0.1750, 304, 9, 2},
    {gpt_oss, 50, 16, 4.000, 4.000, 1.00000, 9, 0, 0.3750, 18432, 9, 2},
    {gpt_oss, 80, 16, 6.400, 6.400, 1.00000, 10, 0, 0.6750, 6960, 10, 3},
    {gpt_oss, 95, 16, 7.600, 7.600, 1.00000, 10, 0, 0.8250, 1272, 10, 3},
    {gpt_oss, 30, 4, 2.942, 2.942, 1.00000, 10, 0, 0.2427, 5872, 10, 3},
    {gpt_oss, 50, 4, 4.387, 4.387, 1.00000, 10, 0, 0.4233, 4096, 10, 3},
    {gpt_oss, 80, 4, 6.555, 6.555, 1.00000, 10, 0, 0.6944, 1264, 10, 3},
    {gpt_oss, 95, 4, 7.639, 7.639, 1.00000, 10, 0, 0.8299, 200, 10, 2},
    {gpt_oss, 30, 1, 3.061, 3.060, 1.00000, 7, 0, 0.2575, 38400, 7, 1},
    {gpt_oss, 50, 1, 4.472, 4.473, 1.00000, 7, 0, 0.4341, 65024, 7, 1},
    {gpt_oss, 80, 1, 6.589, 6.588, 1.00000, 7, 0, 0.6984, 104448, 7, 1},
    {gpt_oss, 95, 1, 7.647, 7.645, 1.00000, 7, 0, 0.8306, 124416, 7, 1},
    {deepseek_v3, 30, 16, 2.773, 2.775, 1.00000, 12, 0, 0.2219, 4504, 12, 3},
    {deepseek_v3, 50, 16, 4.267, 4.266, 1.00000, 13, 0, 0.4082, 4096, 13, 4},
    {deepseek_v3, 80, 16, 6.507, 6.509, 1.00000, 13, 0, 0.6887, 408, 13, 4},
    {deepseek_v3, 95, 16, 7.627, 7.631, 1.00012, 18, 3, 0.8300, 16, 10, 4},
    {deepseek_v3, 30, 4, 3.022, 3.019, 1.00000, 10, 0, 0.2523, 816, 10, 3},
    {deepseek_v3, 50, 4, 4.444, 4.441, 1.00000, 9, 0, 0.4301, 1568, 9, 3},
    {deepseek_v3, 80, 4, 6.578, 6.578, 1.00000, 10, 0, 0.6973, 816, 10, 3},
    {deepseek_v3, 95, 4, 7.644, 7.644, 1.00000, 14, 1, 0.8313, 64, 9, 6},
    {deepseek_v3, 30, 1, 3.081, 3.081, 1.00000, 7, 0, 0.2601, 38912, 7, 1},
    {deepseek_v3, 50, 1, 4.486, 4.484, 1.00000, 7, 0, 0.4355, 63776, 7, 1},
    {deepseek_v3, 80, 1, 6.595, 6.597, 1.00000, 7, 0, 0.6996, 104448, 7, 1},
    {deepseek_v3, 95, 1, 7.649, 7.654, 1.00000, 7, 0, 0.8318, 122880, 7, 1},
    {kimi_k2, 30, 16, 2.887, 2.884, 1.00000, 13, 0, 0.2355, 3480, 13, 4},
    {kimi_k2, 50, 16, 4.348, 4.344, 1.00000, 13, 0, 0.4180, 2048, 13, 4},
    {kimi_k2, 80, 16, 6.539, 6.541, 1.00000, 13, 0, 0.6926, 392, 13, 4},
    {kimi_k2, 95, 16, 7.635, 7.631, 1.00000, 22, 3, 0.8301, 32, 10, 5},
    {kimi_k2, 30, 4, 3.048, 3.066, 1.00000, 10, 0, 0.2582, 816, 10, 2},
    {kimi_k2, 50, 4, 4.463, 4.473, 1.00000, 10, 0, 0.4341, 512, 10, 2},
    {kimi_k2, 80, 4, 6.585, 6.593, 1.00000, 10, 0, 0.6992, 152, 10, 2},
    {kimi_k2, 95, 4, 7.646, 7.664, 1.00024, 20, 2, 0.8344, 32, 12, 8},
    {kimi_k2, 30, 1, 3.087, 3.088, 1.00000, 7, 0, 0.2610, 38912, 7, 1},
    {kimi_k2, 50, 1, 4.491, 4.482, 1.00000, 7, 0, 0.4352, 63488, 7, 1},
    {kimi_k2, 80, 1, 6.596, 6.583, 1.00000, 7, 0, 0.6979, 103424, 7, 1},
    {kimi_k2, 95, 1, 7.649, 7.646, 1.00000, 7, 0, 0.8307, 122400, 7, 1},
};

}  // namespace

TEST_CASE("plans that can be checked by hand", "[llep]") {
  auto const two = plan(exact{}, {10, 2, 1, 3}, 2);
  CHECK(two.segments[0] == list{{0, 0, 6}, {1, 6, 10}});
  CHECK(two.rank_load == loads{8, 8});
  CHECK(two.transfers.size() == 1);
  CHECK(two.transfers[0] == fl::replica_move{fl::expert_id{0}, fl::rank_id{0}, fl::rank_id{1}, fl::local_slot_id{2}});

  auto const odd = plan(exact{}, {10, 2, 1, 2}, 2);
  CHECK(odd.capacity == 8);
  CHECK(odd.segments[0] == list{{0, 0, 6}, {1, 6, 10}});
  CHECK(odd.rank_load == loads{8, 7});
  CHECK(odd.forced == 0);

  for (index_t const least : {1, 3}) {
    auto const four = plan(exact{.least_chunk = least}, {12, 5, 3, 2, 1, 1, 0, 0}, 4);
    CHECK(four.segments[0] == list{{0, 0, 1}, {3, 1, 7}, {2, 7, 11}, {1, 11, 12}});
    CHECK(four.rank_load == loads{6, 6, 6, 6});
    CHECK(four.transfers.size() == 3);
    CHECK(four.forced == 0);
    for (std::size_t e = 1; e < 6; ++e) { CHECK(four.segments[e].size() == 1); }
  }

  auto const one_hot = plan(exact{}, {100, 0, 0, 0, 0, 0, 0, 0}, 8);
  CHECK(one_hot.segments[0] == list{{0, 0, 13}, {1, 13, 26}, {2, 26, 39}, {3, 39, 52}, {4, 52, 65}, {5, 65, 78}, {6, 78, 91}, {7, 91, 100}});
  CHECK(one_hot.rank_load == loads{13, 13, 13, 13, 13, 13, 13, 9});
  CHECK(one_hot.transfers.size() == 7);

  auto const alone = plan(exact{}, {5, 3}, 1);
  CHECK(alone.segments == std::vector<list>{{{0, 0, 5}}, {{0, 0, 3}}});
  CHECK(alone.transfers.empty());
  CHECK(alone.forced == 0);

  auto const empty = plan(exact{}, loads(8, 0), 8);
  CHECK(empty.rank_load == loads(8, 0));
  CHECK(empty.transfers.empty());
}

TEST_CASE("the released capacity forces copies across and ships an expert twice", "[llep]") {
  auto released = fl::make_released_least_loaded(1);
  auto const odd = plan(released, {10, 2, 1, 2}, 2);
  CHECK(odd.capacity == 7);
  CHECK(odd.segments[0] == list{{0, 0, 5}, {1, 5, 9}, {1, 9, 10}});
  CHECK(odd.segments[3] == list{{1, 0, 1}, {0, 1, 2}});
  CHECK(odd.rank_load == loads{8, 7});
  CHECK(odd.transfers.size() == 3);
  CHECK(odd.transfers[0].to == odd.transfers[1].to);
  CHECK(odd.transfers[0].slot != odd.transfers[1].slot);
  CHECK(odd.forced == 2);

  auto const one_hot = plan(released, {100, 0, 0, 0, 0, 0, 0, 0}, 8);
  CHECK(one_hot.segments[0].front() == std::array<index_t, 3>{0, 0, 12});
  CHECK(one_hot.segments[0].back() == std::array<index_t, 3>{1, 96, 100});
  CHECK(one_hot.rank_load == loads{12, 16, 12, 12, 12, 12, 12, 12});
  CHECK(one_hot.transfers.size() == 8);
  CHECK(one_hot.forced == 1);

  // Merged: two transfers, and ranges laid out anew where the pieces were not neighbours.
  released.coalesce = true;
  auto const merged = plan(released, {10, 2, 1, 2}, 2);
  CHECK(merged.segments[0] == list{{0, 0, 5}, {1, 5, 10}});
  CHECK(merged.transfers.size() == 2);
  auto const apart = plan(released, {100, 0, 0, 0, 0, 0, 0, 0}, 8);
  CHECK(apart.segments[0][1] == std::array<index_t, 3>{1, 12, 28});
  CHECK(apart.transfers.size() == 7);
}

TEST_CASE("copies leave by source rank, or stay where they are if their rank computes them anyway", "[llep]") {
  auto const send_of = [](loads const& counts, std::vector<fl::count_t> per_source, index_t ranks, fl::position_order order, bool reroute) {
    auto const experts = static_cast<index_t>(counts.size());
    auto const where = blocks(ranks, experts / ranks);
    fl::rerouting_memory memory(experts, ranks);
    fl::rerouting out = memory.view();
    fl::least_loaded<fl::ceil_capacity, fl::rank_ratio> const planner{.gate = {reroute ? 0 : 100, 1}};
    fl::arena<> scratch(std::max(planner.workspace_bytes(experts, ranks), fl::rerouting_map_bytes(experts, ranks)));
    fl::workspace ws = scratch.view();
    REQUIRE(planner.plan(counts, where, out, ws).status == fl::status::ok);
    fl::matrix<index_t> send(ranks, ranks);
    fl::count_sends(out, {per_source.data(), ranks, experts}, order, send.view(), ws);
    return loads(send.span().begin(), send.span().end());
  };
  auto const published = fl::position_order::source_rank_order;
  auto const local = fl::position_order::recipient_local_first;
  std::vector<fl::count_t> const counts{7, 1, 0, 1, 3, 1, 1, 2};
  CHECK(send_of({10, 2, 1, 3}, counts, 2, published, true) == loads{7, 2, 1, 6});
  CHECK(send_of({10, 2, 1, 3}, counts, 2, published, false) == loads{8, 1, 4, 3});

  // Expert 2 of rank 1 spills to rank 0, which has most of its copies: 9 rows travel as published, 3 with locality.
  std::vector<fl::count_t> const mixed{1, 3, 7, 0, 0, 0, 3, 2};
  CHECK(send_of({1, 3, 10, 2}, mixed, 2, published, true) == loads{5, 6, 3, 2});
  CHECK(send_of({1, 3, 10, 2}, mixed, 2, local, true) == loads{8, 3, 0, 5});
}

TEST_CASE("the paper's 36 scenarios give the recomputed plans", "[llep]") {
  for (scenario const& s : scenarios) {
    INFO(s.m.experts << " experts, " << s.percent << " % on " << s.hot);
    loads const totals = generated(s.m, s.percent, s.hot, 8);
    double const f = s.percent / 100.0;
    auto const each = static_cast<double>(s.m.experts / 8);
    CHECK(8.0 * (f + (1.0 - f) * (each - static_cast<double>(s.hot)) / static_cast<double>(s.m.experts - s.hot)) == Approx(s.closed_ratio).margin(0.0006));
    CHECK(ratio(totals, 8) == Approx(s.exact_ratio).margin(0.0006));
    exact const planner{.least_chunk = 1024};
    auto const result = plan(planner, totals, 8);
    index_t const total = std::accumulate(totals.begin(), totals.end(), index_t{0});
    REQUIRE(total == 8 * s.m.tokens * s.m.fan_out);
    double const most = static_cast<double>(*std::max_element(result.rank_load.begin(), result.rank_load.end()));
    CHECK(most * 8.0 / static_cast<double>(total) == Approx(s.load_ratio).margin(0.000006));
    CHECK(static_cast<index_t>(result.transfers.size()) == s.transfers);
    CHECK(result.forced == s.forced);
    index_t spilled = 0, smallest = total;
    for (std::size_t e = 0; e < totals.size(); ++e) {
      for (auto const& [rank, begin, end] : result.segments[e]) {
        if (rank == static_cast<index_t>(e) / (s.m.experts / 8)) { continue; }
        spilled += end - begin;
        smallest = std::min(smallest, end - begin);
      }
    }
    CHECK(static_cast<double>(spilled) / static_cast<double>(total) == Approx(s.spilled).margin(0.00006));
    CHECK(smallest == s.smallest);
    CHECK(busiest_links(result) == std::pair(s.egress, s.ingress));
    // The release's planner gives the same plan here, since 8 ranks divide the copies, and ships nothing twice.
    auto const released = plan(fl::make_released_least_loaded(), totals, 8);
    CHECK(released.transfers.size() == result.transfers.size());
    CHECK(released.forced == result.forced);
    CHECK(busiest_links(released) == std::pair(s.egress, s.ingress));
    std::set<std::pair<fl::expert_id, fl::rank_id>> pairs;
    for (auto const& move : released.transfers) { pairs.emplace(move.expert, move.to); }
    CHECK(pairs.size() == released.transfers.size());
  }
}

TEST_CASE("two of the scenarios' full plans", "[llep]") {
  auto const spread = plan(exact{.least_chunk = 1024}, generated(gpt_oss, 30, 16, 8), 8);
  CHECK(spread.capacity == 131072);
  CHECK(spread.segments[0] == list{{5, 0, 26576}, {6, 26576, 52928}, {1, 52928, 78640}});
  CHECK(spread.segments[1] == list{{2, 0, 26112}, {3, 26112, 52224}, {4, 52224, 78336}, {7, 78336, 78640}});
  CHECK(spread.segments[2] == list{{0, 0, 52432}, {7, 52432, 78240}, {1, 78240, 78640}});
  CHECK(spread.rank_load == loads(8, 131072));
  CHECK(spread.transfers.size() == 9);

  auto const one = plan(exact{.least_chunk = 1024}, generated(gpt_oss, 95, 1, 8), 8);
  CHECK(one.segments[0].size() == 8);
  CHECK(one.segments[0][0] == std::array<index_t, 3>{0, 0, 125192});
  CHECK(one.segments[0][1] == std::array<index_t, 3>{1, 125192, 249632});
  CHECK(one.segments[0][2] == std::array<index_t, 3>{2, 249632, 374048});
  for (std::size_t s = 3; s < 8; ++s) { CHECK(one.segments[0][s][2] - one.segments[0][s][1] == 124416); }
  CHECK(one.rank_load == loads(8, 131072));
}

TEST_CASE("the gate opens where the curves of figure 7a jump", "[llep]") {
  auto const opens = [](int percent, index_t numerator) {
    return plan(fl::least_loaded<fl::ceil_capacity, fl::rank_ratio>{.gate = {numerator, 10}}, generated(gpt_oss, percent, 4, 8), 8).used_plan;
  };
  CHECK(ratio(generated(gpt_oss, 15, 4, 8), 8) == Approx(1.858).margin(0.003));  // closed form; counts are rounded
  CHECK(ratio(generated(gpt_oss, 20, 4, 8), 8) == Approx(2.219).margin(0.003));
  CHECK(opens(15, 17));
  CHECK_FALSE(opens(15, 20));
  CHECK(opens(20, 20));
  CHECK_FALSE(opens(20, 23));
  CHECK(opens(30, 26));
  // Over experts the ratio at 15 % is 4.8: no gate of the figure would close.
  CHECK(plan(fl::least_loaded<fl::ceil_capacity, fl::expert_ratio>{.gate = {26, 10}}, generated(gpt_oss, 15, 4, 8), 8).used_plan);
}
