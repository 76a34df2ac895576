// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// nearest_flow against exhaustive enumeration, and against LEMON's network simplex where it is installed.
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/replica_split.hpp>
#include <fairlead/laws/token_scheduler.hpp>
#include <fairlead/schedule/nearest_flow.hpp>
#include <fairlead/schedule/split_then_route.hpp>
#include <fairlead/schedule/tiled_split.hpp>
#include <fairlead/schedule/water_fill.hpp>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#if __has_include(<lemon/network_simplex.h>)
#  pragma GCC diagnostic push
#  pragma GCC diagnostic ignored "-Wall"
#  pragma GCC diagnostic ignored "-Wextra"
#  pragma GCC diagnostic ignored "-Wconversion"
#  pragma GCC diagnostic ignored "-Wshadow"
#  pragma GCC diagnostic ignored "-Wsign-conversion"
#  pragma GCC diagnostic ignored "-Wpedantic"
#  include <lemon/network_simplex.h>
#  include <lemon/smart_graph.h>
#  pragma GCC diagnostic pop
#  define HAS_LEMON 1
#endif

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::expert_id;
using fl::index_t;

namespace {

struct kept {
  index_t on_rank = 0;
  index_t on_node = 0;
  friend bool operator==(kept const&, kept const&) = default;
};

kept kept_of(fl::topology const& cluster, fl::placement const& where, fl::const_token_schedule_view out) {
  kept result;
  for (index_t e = 0; e < where.experts(); ++e) {
    index_t column = where.replica_offset(static_cast<expert_id>(e));
    for (fl::replica const& copy : where.replicas(static_cast<expert_id>(e))) {
      for (index_t source = 0; source < out.rows(); ++source) {
        index_t const rank = fl::to_index(copy.rank);
        result.on_rank += source == rank ? out(source, column) : 0;
        result.on_node += cluster.node_of(source) == cluster.node_of(rank) ? out(source, column) : 0;
      }
      ++column;
    }
  }
  return result;
}

// All shares within the limits, expert by expert; the best (on rank, on node).
kept best_by_enumeration(fl::topology const& cluster, fl::load_view load, fl::placement const& where, std::vector<index_t> room) {
  kept best{-1, -1};
  std::vector<index_t> totals(static_cast<std::size_t>(where.experts()));
  fl::sum_over_ranks(load, totals);
  std::function<void(index_t, kept)> expert = [&](index_t e, kept sofar) {
    if (e == where.experts()) {
      if (std::pair(sofar.on_rank, sofar.on_node) > std::pair(best.on_rank, best.on_node)) { best = sofar; }
      return;
    }
    std::vector<std::size_t> hosts;
    for (fl::replica const& copy : where.replicas(static_cast<expert_id>(e))) {
      if (hosts.empty() || hosts.back() != static_cast<std::size_t>(copy.rank)) { hosts.push_back(static_cast<std::size_t>(copy.rank)); }
    }
    std::vector<index_t> share(hosts.size(), 0);
    std::function<void(std::size_t, index_t)> host = [&](std::size_t k, index_t rest) {
      if (k == hosts.size()) {
        if (rest != 0) { return; }
        kept next = sofar;
        std::vector<index_t> to(static_cast<std::size_t>(cluster.nodes()), 0), from(to);
        for (std::size_t h = 0; h < hosts.size(); ++h) {
          next.on_rank += std::min<index_t>(share[h], load(static_cast<index_t>(hosts[h]), e));
          to[static_cast<std::size_t>(cluster.node_of(static_cast<index_t>(hosts[h])))] += share[h];
        }
        for (index_t rank = 0; rank < where.ranks(); ++rank) { from[static_cast<std::size_t>(cluster.node_of(rank))] += load(rank, e); }
        for (std::size_t node = 0; node < to.size(); ++node) { next.on_node += std::min(to[node], from[node]); }
        expert(e + 1, next);
        return;
      }
      for (share[k] = 0; share[k] <= std::min(rest, room[hosts[k]]); ++share[k]) {
        room[hosts[k]] -= share[k];
        host(k + 1, rest - share[k]);
        room[hosts[k]] += share[k];
      }
      share[k] = 0;
    };
    host(0, totals[static_cast<std::size_t>(e)]);
  };
  expert(0, {});
  return best;
}

struct instance {
  fl::topology cluster;
  fl::placement where;
  fl::matrix<count_t> load;
};

instance random_instance(index_t ranks, index_t per_node, index_t experts, index_t extra, count_t largest, std::uint64_t number) {
  instance made{fl::topology(ranks, 0, per_node),
                fl::laws::detail::random_placement({.ranks = ranks, .experts = experts, .extra_slots = extra, .seed = 21}, number),
                fl::matrix<count_t>(ranks, experts)};
  for (std::size_t i = 0; i < made.load.span().size(); ++i) {
    auto const word = fl::philox::draw(22, number, i);
    made.load.span()[i] = word[1] % 3 == 0 ? 0 : static_cast<count_t>(fl::philox::below(word[0], static_cast<std::uint32_t>(largest + 1)));
  }
  return made;
}

template <class Scheduler>
std::pair<fl::report, kept> run(Scheduler const& scheduler, instance const& on) {
  fl::matrix<count_t> out(on.where.ranks(), on.where.replicas());
  fl::arena<> memory(scheduler.workspace_bytes(on.where));
  auto ws = memory.view();
  fl::report const ended = scheduler.schedule(on.load.view(), on.where, out.view(), ws);
  if (ended) { REQUIRE(fl::conserves(on.load.view(), on.where, std::as_const(out).view())); }
  return {ended, kept_of(on.cluster, on.where, std::as_const(out).view())};
}

#if defined(HAS_LEMON)
// The same optimum by an independent solver: gains as costs of a transportation network with one arc a segment.
index_t gain_by_lemon(instance const& on, std::vector<index_t> const& limits, index_t rank_gain, index_t node_gain) {
  using graph = lemon::SmartDigraph;
  graph g;
  graph::ArcMap<long long> upper(g), cost(g);
  auto const arc = [&](graph::Node a, graph::Node b, index_t capacity, index_t gain) {
    if (capacity <= 0) { return; }
    graph::Arc const made = g.addArc(a, b);
    upper[made] = capacity;
    cost[made] = -gain;
  };
  graph::Node const source = g.addNode(), sink = g.addNode();
  std::vector<graph::Node> ranks;
  for (index_t r = 0; r < on.where.ranks(); ++r) {
    ranks.push_back(g.addNode());
    arc(ranks.back(), sink, limits[static_cast<std::size_t>(r)], 0);
  }
  index_t all = 0;
  for (index_t e = 0; e < on.where.experts(); ++e) {
    index_t total = 0;
    for (index_t r = 0; r < on.where.ranks(); ++r) { total += on.load(r, e); }
    all += total;
    if (total == 0) { continue; }
    graph::Node const expert = g.addNode();
    arc(source, expert, total, 0);
    std::vector<int> group(static_cast<std::size_t>(on.cluster.nodes()), -1);
    std::vector<graph::Node> groups;
    index_t last = -1;
    for (fl::replica const& copy : on.where.replicas(static_cast<expert_id>(e))) {
      index_t const rank = fl::to_index(copy.rank);
      if (rank == last) { continue; }
      last = rank;
      auto const node = static_cast<std::size_t>(on.cluster.node_of(rank));
      if (group[node] < 0) {
        group[node] = static_cast<int>(groups.size());
        groups.push_back(g.addNode());
        index_t inside = 0;
        for (index_t r = 0; r < on.where.ranks(); ++r) { inside += static_cast<std::size_t>(on.cluster.node_of(r)) == node ? on.load(r, e) : 0; }
        arc(expert, groups.back(), inside, node_gain);
        arc(expert, groups.back(), total, 0);
      }
      arc(groups[static_cast<std::size_t>(group[node])], ranks[static_cast<std::size_t>(rank)], on.load(rank, e), rank_gain);
      arc(groups[static_cast<std::size_t>(group[node])], ranks[static_cast<std::size_t>(rank)], total, 0);
    }
  }
  lemon::NetworkSimplex<graph, long long, long long> simplex(g);
  simplex.upperMap(upper).costMap(cost).stSupply(source, sink, all);
  if (simplex.run() != lemon::NetworkSimplex<graph, long long, long long>::OPTIMAL) { return -1; }
  return -simplex.totalCost();
}
#endif

}  // namespace

TEST_CASE("nearest_flow keeps the laws of a scheduler", "[schedule][laws]") {
  fl::laws::token_scheduler_problem problem;
  for (index_t const ranks : {1, 2, 3, 8}) {
    for (index_t const experts : {1, 3, 16}) {
      for (index_t const extra : {0, 1, 9, 30}) {
        problem.ranks = ranks;
        problem.experts = experts;
        problem.extra_slots = extra;
        problem.seed = static_cast<std::uint64_t>(100 * ranks + 10 * experts + extra);
        CHECK(fl::laws::check_token_scheduler(fl::nearest_flow<>{}, problem));
        CHECK(fl::laws::check_token_scheduler(fl::nearest_flow<fl::water_fill>{.cluster = fl::topology(ranks, 0, 2)}, problem));
        CHECK(fl::laws::check_token_scheduler(fl::nearest_flow<>{.cluster = fl::topology(ranks, 0, 3), .slack = 5}, problem));
      }
    }
  }
}

TEST_CASE("nearest_flow equals enumeration: load first, then ranks, then nodes", "[schedule]") {
  index_t better = 0;
  for (std::uint64_t number = 0; number < 400; ++number) {
    index_t const ranks = 2 + static_cast<index_t>(number % 4);
    instance const on = random_instance(ranks, 1 + static_cast<index_t>(number % 3), 3, static_cast<index_t>(number % 5), 3, number);
    std::vector<index_t> totals(3);
    fl::sum_over_ranks(on.load.view(), totals);
    for (index_t const slack : {0, 2}) {
      auto const [ended, got] = run(fl::nearest_flow<>{.cluster = on.cluster, .slack = slack}, on);
      REQUIRE(ended);
      index_t const least = fl::laws::detail::least_largest_load(on.where, totals);
      CHECK(ended.value <= static_cast<double>(least + slack));
      CHECK(ended.bound == static_cast<double>(least));
      kept const best = best_by_enumeration(on.cluster, on.load.view(), on.where, std::vector<index_t>(static_cast<std::size_t>(ranks), least + slack));
      INFO("case " << number << ", slack " << slack);
      REQUIRE(got == best);
    }
    // Only then is the second stage worth testing: it has to beat the first one's shares sometimes.
    auto const plain = run(fl::split_then_route<fl::min_max_flow, fl::tiered>{.router = {on.cluster}}, on);
    better += run(fl::nearest_flow<>{.cluster = on.cluster}, on).second.on_rank > plain.second.on_rank ? 1 : 0;
  }
  CHECK(better > 20);
}

TEST_CASE("nearest_flow obeys the limits of each rank, or says that they do not suffice", "[schedule]") {
  int feasible = 0, infeasible = 0;
  for (std::uint64_t number = 0; number < 300; ++number) {
    instance const on = random_instance(3, 2, 3, 4, 3, number);
    std::vector<index_t> limits;
    for (std::size_t r = 0; r < 3; ++r) { limits.push_back(static_cast<index_t>(fl::philox::below(fl::philox::draw(5, number, r)[0], 16))); }
    auto const [ended, got] = run(fl::nearest_flow<>{.cluster = on.cluster, .limits = limits}, on);
    kept const best = best_by_enumeration(on.cluster, on.load.view(), on.where, limits);
    INFO("case " << number);
    if (best.on_rank < 0) {
      ++infeasible;
      REQUIRE(ended.status == fl::status::infeasible);
    } else {
      ++feasible;
      REQUIRE(ended);
      REQUIRE(got == best);
    }
  }
  CHECK(feasible > 50);
  CHECK(infeasible > 50);
}

TEST_CASE("nearest_flow keeps base loads, speeds and failed ranks of its split", "[schedule]") {
  int solved = 0, lost = 0;
  auto const check = [&](auto rule, std::uint64_t number) {
    instance const on = random_instance(3, 2, 3, 4, 3, number);
    std::vector<index_t> base;
    std::vector<count_t> speed;
    for (std::size_t r = 0; r < 3; ++r) {
      base.push_back(static_cast<index_t>(fl::philox::below(fl::philox::draw(6, number, r)[0], 5)));
      speed.push_back(static_cast<count_t>(fl::philox::below(fl::philox::draw(7, number, r)[0], 4)));
    }
    if (number % 4 != 0) { rule.conditions.base = base; }
    rule.conditions.speed = speed;
    std::vector<index_t> totals(3);
    fl::sum_over_ranks(on.load.view(), totals);
    std::vector<count_t> shares(static_cast<std::size_t>(on.where.replicas()));
    fl::arena<> memory(rule.workspace_bytes(on.where));
    auto ws = memory.view();
    fl::report const level = rule.split(totals, on.where, shares, ws);
    auto const [ended, got] = run(fl::nearest_flow<decltype(rule)>{.split = rule, .cluster = on.cluster}, on);
    INFO("case " << number);
    REQUIRE(ended.status == level.status);
    if (!level) {
      ++lost;
      return;
    }
    ++solved;
    std::vector<index_t> limits;
    for (std::size_t r = 0; r < 3; ++r) {
      auto const most = static_cast<index_t>(level.value * static_cast<double>(speed[r]) + 1e-9);
      limits.push_back(speed[r] == 0 ? 0 : most - (number % 4 != 0 ? base[r] : 0));
    }
    REQUIRE(ended.value <= level.value);
    REQUIRE(got == best_by_enumeration(on.cluster, on.load.view(), on.where, limits));
  };
  for (std::uint64_t number = 0; number < 200; ++number) {
    check(fl::min_max_flow{}, number);
    check(fl::water_fill{}, number);
  }
  CHECK(solved > 100);
  CHECK(lost > 50);
}

TEST_CASE("a split of tiles hands the speeds of its ranks on to nearest_flow, and refuses base loads", "[schedule]") {
  std::vector<index_t> const offsets{0, 1, 2};
  std::vector<expert_id> const slots{expert_id{0}, expert_id{0}};
  fl::placement const where(1, offsets, slots);
  std::vector<count_t> const copies{100, 7}, speed{0, 1};
  fl::nearest_flow<fl::tiled_split<fl::min_max_flow>> rule{.split = {.split_tiles = {.conditions = {.speed = speed}}, .tile = 16}};
  fl::arena<> memory(rule.workspace_bytes(where));
  std::vector<count_t> out(4, -1);
  auto ws = memory.view();
  CHECK(rule.schedule({copies.data(), 2, 1}, where, {out.data(), 2, 2}, ws));
  CHECK(out == std::vector<count_t>{0, 100, 0, 7});
  std::vector<index_t> const base{1, 1};
  rule.split.split_tiles.conditions.base = base;
  CHECK_THROWS_AS(rule.schedule({copies.data(), 2, 1}, where, {out.data(), 2, 2}, ws), fl::contract_violation);
}

#if defined(HAS_LEMON)
TEST_CASE("nearest_flow equals LEMON's network simplex", "[schedule]") {
  for (std::uint64_t number = 0; number < 150; ++number) {
    index_t const ranks = 4 + static_cast<index_t>(number % 13);
    index_t const experts = 8 + static_cast<index_t>(number % 25);
    count_t const largest = number % 3 == 0 ? 5 : number % 3 == 1 ? 3000 : 60000000;
    instance const on = random_instance(ranks, 1 + static_cast<index_t>(number % 6), experts, static_cast<index_t>(number % 50), largest, number);
    auto const [ended, got] = run(fl::nearest_flow<>{.cluster = on.cluster, .slack = static_cast<index_t>(number % 2) * 3}, on);
    REQUIRE(ended);
    index_t const weight = 4 * ranks + 8;
    // The limit is whatever the split reaches.
    std::vector<index_t> totals(static_cast<std::size_t>(experts));
    fl::sum_over_ranks(on.load.view(), totals);
    std::vector<count_t> shares(static_cast<std::size_t>(on.where.replicas()));
    fl::arena<> memory(fl::min_max_flow{}.workspace_bytes(on.where));
    auto ws = memory.view();
    REQUIRE(fl::min_max_flow{}.split(totals, on.where, shares, ws));
    auto const loads = fl::laws::detail::rank_loads(on.where, shares);
    index_t const most = *std::max_element(loads.begin(), loads.end()) + static_cast<index_t>(number % 2) * 3;
    std::vector<index_t> const limits(static_cast<std::size_t>(ranks), most);
    INFO("case " << number);
    CHECK(ended.value <= static_cast<double>(most));
    CHECK(gain_by_lemon(on, limits, weight, 1) == weight * got.on_rank + got.on_node);
    CHECK(gain_by_lemon(on, limits, 1, 0) == got.on_rank);
    // Without nodes the same copies stay on ranks.
    CHECK(run(fl::nearest_flow<>{.slack = static_cast<index_t>(number % 2) * 3}, on).second.on_rank == got.on_rank);
  }
}
#endif

TEST_CASE("nearest_flow names a wrong cluster, limits and slack", "[schedule][contract]") {
  instance const on = random_instance(3, 2, 3, 4, 3, 1);
  std::vector<index_t> const limits{1, 2};
  CHECK_THROWS_AS(run(fl::nearest_flow<>{.cluster = fl::topology(2, 1)}, on), fl::contract_violation);
  CHECK_THROWS_AS(run(fl::nearest_flow<>{.limits = limits}, on), fl::contract_violation);
  CHECK_THROWS_AS(run(fl::nearest_flow<>{.slack = -1}, on), fl::contract_violation);
}
