// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How many replicas each expert gets, and where they sit side by side: time of one decision, every time for another load.
// Loads follow a Zipf law with lognormal noise, in another order for each. Beside the rules that have a published loop, that
// loop runs in turns on the same loads (in fp64, as published; rows fail if counts add up to something else).
#include "support/assignment.hpp"
#include "support/axes.hpp"

#include <fairlead/place/divisor_rules.hpp>
#include <fairlead/place/even_replicas.hpp>
#include <fairlead/place/greedy_max_replicas.hpp>
#include <fairlead/place/node_symmetric_greedy.hpp>
#include <fairlead/place/replicate_then_place.hpp>
#include <fairlead/place/sequential_quota.hpp>
#include <fairlead/place/top_load_slots.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <queue>
#include <string>
#include <utility>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;
using fl_bench::axes::count_case;
using integers = std::vector<index_t>;

constexpr index_t nodes = 4;

std::vector<integers> make_loads(index_t experts, double skew) {
  std::size_t const number = experts > 1000 ? 32 : 2048;
  std::vector<integers> loads(number, integers(static_cast<std::size_t>(experts)));
  std::uint64_t draw = 0;
  for (integers& load : loads) {
    for (std::size_t e = 0; e < load.size(); ++e) {
      double const noise = std::exp(0.5 * static_cast<double>(fl::philox::normal(fl_bench::axes::seed, 91, draw++)));
      load[e] = static_cast<index_t>(1e6 * std::pow(1.0 + static_cast<double>(e), -skew) * noise);
    }
    for (std::size_t e = load.size(); e > 1; --e) {
      std::swap(load[e - 1], load[fl::philox::below(fl::philox::draw(fl_bench::axes::seed, 92, draw++)[0], static_cast<std::uint32_t>(e))]);
    }
  }
  return loads;
}

// The loops of SYMI's algorithm 1 with an argmax a step.
struct remainder_loops {
  std::vector<double> diff;
  void operator()(integers const& load, index_t slots, integers& count) {
    double const total = static_cast<double>(std::accumulate(load.begin(), load.end(), index_t{0}));
    diff.resize(load.size());
    index_t sum = 0;
    for (std::size_t e = 0; e < load.size(); ++e) {
      double const goal = static_cast<double>(load[e]) / total * static_cast<double>(slots);
      count[e] = static_cast<index_t>(std::max(goal, 1.0));
      diff[e] = static_cast<double>(count[e]) - goal;
      sum += count[e];
    }
    while (sum > slots) {
      auto const i = static_cast<std::size_t>(std::max_element(diff.begin(), diff.end()) - diff.begin());
      if (count[i] > 1) { --count[i], --sum; }
      diff[i] -= 1.0;
    }
    while (sum < slots) {
      auto const i = static_cast<std::size_t>(std::min_element(diff.begin(), diff.end()) - diff.begin());
      ++count[i], ++sum;
      diff[i] += 1.0;
    }
  }
};

// One replica at a time from a heap of quotients.
struct heap_loop {
  void operator()(integers const& load, index_t slots, integers& count) const {
    std::vector<std::pair<double, index_t>> items;
    items.reserve(load.size());
    for (std::size_t e = 0; e < load.size(); ++e) { items.emplace_back(static_cast<double>(load[e]), -static_cast<index_t>(e)); }
    std::priority_queue<std::pair<double, index_t>> heap({}, std::move(items));
    std::fill(count.begin(), count.end(), index_t{1});
    for (auto sum = static_cast<index_t>(load.size()); sum < slots; ++sum) {
      auto const e = static_cast<std::size_t>(-heap.top().second);
      heap.pop();
      ++count[e];
      heap.emplace(static_cast<double>(load[e]) / static_cast<double>(count[e]), -static_cast<index_t>(e));
    }
  }
};

struct no_peer {};

template <class Rule, class Peer>
void count(benchmark::State& state, Rule const& rule, Peer peer, count_case sizes, double skew) {
  auto const loads = make_loads(sizes.experts, skew);
  integers replicas(static_cast<std::size_t>(sizes.experts));
  fl::arena<> memory(rule.workspace_bytes(sizes.experts, sizes.slots));
  std::size_t next = 0;
  double above = 0.0;
  for (auto _ : state) {
    fl::workspace ws = memory.view();
    auto const ended = rule.apportion(loads[next], sizes.slots, nodes, replicas, ws);
    benchmark::DoNotOptimize(replicas.data());
    above += ended.value;
    next = next + 1 == loads.size() ? 0 : next + 1;
  }
  benchmark::DoNotOptimize(above);
  // Quality, and the peer in turns of 64 loads.
  double worst = 0.0;
  double own_s = 0.0;
  double peer_s = 0.0;
  integers by_peer(replicas.size());
  std::size_t judged = 0;
  double const budget = fl_bench::axes::quick() ? 0.01 : 0.3;  // the loops are slow, and the library runs a bench several times
  for (std::size_t first = 0; first < loads.size() && peer_s < budget; first += 64) {
    std::size_t const last = std::min(loads.size(), first + 64);
    double const start = fl_bench::thread_seconds();
    for (std::size_t i = first; i < last; ++i) {
      fl::workspace ws = memory.view();
      auto const ended = rule.apportion(loads[i], sizes.slots, nodes, replicas, ws);
      worst += ended.value * static_cast<double>(sizes.slots) / static_cast<double>(std::accumulate(loads[i].begin(), loads[i].end(), index_t{0}));
    }
    judged = last;
    double const middle = fl_bench::thread_seconds();
    own_s += middle - start;
    if constexpr (!std::is_same_v<Peer, no_peer>) {
      for (std::size_t i = first; i < last; ++i) {
        peer(loads[i], sizes.slots, by_peer);
        benchmark::DoNotOptimize(by_peer.data());
      }
      peer_s += fl_bench::thread_seconds() - middle;
      if (std::accumulate(by_peer.begin(), by_peer.end(), index_t{0}) != std::accumulate(replicas.begin(), replicas.end(), index_t{0})) {
        state.SkipWithError("the peer's counts add up to something else");
      }
    }
  }
  state.counters["max_share_over_mean"] = worst / static_cast<double>(judged);
  if constexpr (!std::is_same_v<Peer, no_peer>) { state.counters["speedup_vs_loops"] = peer_s / own_s; }
}

// Counts and the slot table; 8 slots a rank, 8 ranks a node.
template <class Planner>
void plan(benchmark::State& state, Planner const& planner, count_case sizes, double skew) {
  auto const loads = make_loads(sizes.experts, skew);
  fl::topology const cluster(sizes.slots / 8, 8, 8);
  std::vector<fl::expert_id> slots(static_cast<std::size_t>(cluster.slots()));
  fl::arena<> memory(planner.workspace_bytes(cluster, sizes.experts));
  std::size_t next = 0;
  double sum = 0.0;
  for (auto _ : state) {
    fl::workspace ws = memory.view();
    auto const ended = planner.plan(cluster, {.totals = loads[next]}, {}, slots, ws);
    benchmark::DoNotOptimize(slots.data());
    sum += ended.value;
    next = next + 1 == loads.size() ? 0 : next + 1;
  }
  benchmark::DoNotOptimize(sum);
  double over = 0.0;
  for (integers const& load : loads) {
    fl::workspace ws = memory.view();
    double const value = planner.plan(cluster, {.totals = load}, {}, slots, ws).value;
    over += value * static_cast<double>(cluster.ranks()) / static_cast<double>(std::accumulate(load.begin(), load.end(), index_t{0}));
  }
  state.counters["max_over_mean"] = over / static_cast<double>(loads.size());
}

template <class Rule, class Peer = no_peer>
void add(char const* component, Rule const& rule, Peer const& peer = {}) {
  for (count_case const sizes : fl_bench::axes::count_cases) {
    if (fl_bench::axes::quick() && !sizes.quick) { continue; }
    for (double const skew : {0.5, 1.0}) {
      auto const name = fl_bench::text_of("place/", component, "/", sizes.name(), "/zipf", skew);
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { count(state, rule, peer, sizes, skew); })
          ->Unit(benchmark::kMicrosecond);
    }
  }
}

int const registered = [] {
  add("largest_remainder", fl::largest_remainder{}, remainder_loops{});
  add("greedy_max_replicas", fl::greedy_max_replicas{}, heap_loop{});
  add("node_symmetric_greedy", fl::node_symmetric_greedy{});
  add("even_replicas", fl::even_replicas{});
  add("sequential_quota", fl::sequential_quota{});
  add("webster_replicas", fl::webster_replicas{});
  add("huntington_hill_replicas", fl::huntington_hill_replicas{});
  add("top_load_slots", fl::top_load_slots{.most = 8});
  for (count_case const sizes : fl_bench::axes::count_cases) {
    if (fl_bench::axes::quick() && !sizes.quick) { continue; }
    for (double const skew : {0.5, 1.0}) {
      auto const name = fl_bench::text_of("place/proportional_in_order/", sizes.name(), "/zipf", skew);
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { plan(state, fl::proportional_in_order{}, sizes, skew); })
          ->Unit(benchmark::kMicrosecond);
    }
  }
  return 0;
}();

}  // namespace
