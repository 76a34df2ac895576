// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The exact min-max split on one core, by turns with linear programs and a max-flow, over many distinct micro-batches.
//
// A row's time is the mean of all micro-batches (a thousand where peers take less than about a second for them), each
// solved once a round; median and 95th percentile come from micro-batches that are timed alone. The row fails if an answer
// differs from a peer's, breaks conservation, or misses its own certificate.
#include "support/assignment.hpp"
#include "support/axes.hpp"
#include "support/ceilings.hpp"
#include "support/peers/lp_min_max.hpp"

#include <fairlead/core/workspace.hpp>
#include <fairlead/schedule/min_max_flow.hpp>
#include <fairlead/workload/micro_batches.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;
using fl_bench::axes::split_case;

constexpr index_t copies_per_rank = 8192;

struct problem {
  fl::placement where;
  fl::host_graph graph;
  std::vector<std::vector<index_t>> batches;

  problem(split_case const& sizes, index_t count)
      : where(fl::workload::random_hosts(sizes.ranks, sizes.experts, sizes.replicas, fl_bench::axes::seed)), graph(where) {
    fl::workload::micro_batches const loads{.experts = sizes.experts, .copies = sizes.ranks * copies_per_rank, .skew = sizes.skew,
                                            .redraw = sizes.redraw, .seed = fl_bench::axes::seed + 1};
    for (index_t i = 0; i < count; ++i) { batches.push_back(loads.at(i)); }
  }
};

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
}

// A peer over the first `turns` micro-batches, one at a time so that ours and its own share the machine's moods.
template <class Peer>
struct timed_peer {
  Peer peer;
  double seconds = 0.0;
  index_t turns = 0;
  bool agrees = true;
  template <class... Arguments>
  explicit timed_peer(Arguments const&... arguments) : peer(arguments...) {}
  void take_turn(std::vector<index_t> const& totals, double value) {
    double const begin = fl_bench::thread_seconds();
    auto const reached = static_cast<double>(peer.solve(totals));
    seconds += fl_bench::thread_seconds() - begin;
    ++turns;
    agrees = agrees && std::ceil(reached - 1e-6 * reached) == value;
  }
  [[nodiscard]] double mean() const { return seconds / static_cast<double>(turns); }
};

void min_max_flow(benchmark::State& state, split_case sizes, bool peers, bool warm) {
  bool const quick = fl_bench::axes::quick();
  bool const large = sizes.ranks > 256;
  index_t const count = large ? 20 : 1000;
  problem const now(sizes, count);
  auto const& graph = now.graph.view();
  fl::min_max_flow const solver;
  fl::split_start const start = warm ? fl::split_start::warm : fl::split_start::cold;
  fl::arena<> memory(solver.workspace_bytes(graph));
  std::vector<fl::count_t> shares(static_cast<std::size_t>(graph.columns), 0);
  auto const solve = [&](std::vector<index_t> const& totals) {
    fl::workspace ws = memory.view();
    return solver.solve(graph, totals, {}, start, shares, ws);
  };
  for (auto _ : state) {
    double seconds = 0.0, imbalance = 0.0, searches = 0.0, raises = 0.0;
    std::vector<double> alone;
    bool valid = true;
    index_t rounds = 0;
    // Whole passes: every micro-batch is new to the caches and branch predictors when its turn comes.
    for (; rounds < (quick ? 3 : 10); ++rounds) {
      double const begin = fl_bench::thread_seconds();
      for (auto const& totals : now.batches) { benchmark::DoNotOptimize(solve(totals).summary.value); }
      seconds += fl_bench::thread_seconds() - begin;
    }
    seconds /= static_cast<double>(rounds * count);
    for (auto const& totals : now.batches) {
      double const begin = fl_bench::thread_seconds();
      auto const report = solve(totals);
      alone.push_back(fl_bench::thread_seconds() - begin);
      index_t sum = 0;
      for (index_t const total : totals) { sum += total; }
      index_t kept = 0;
      for (fl::count_t const share : shares) { kept += share, valid = valid && share >= 0; }
      valid = valid && kept == sum && report.summary.status == fl::status::ok &&
              (report.numerator + report.denominator - 1) / report.denominator == static_cast<index_t>(report.summary.value);
      imbalance += report.summary.value * static_cast<double>(sizes.ranks) / static_cast<double>(sum);
      searches += static_cast<double>(report.summary.iterations);
      raises += static_cast<double>(report.raises);
    }
    state.SetIterationTime(seconds);
    state.counters["median_us"] = 1e6 * quantile(alone, 0.5);
    state.counters["p95_us"] = 1e6 * quantile(alone, 0.95);
    state.counters["max_over_mean"] = imbalance / static_cast<double>(count);
    state.counters["searches"] = searches / static_cast<double>(count);
    state.counters["raises"] = raises / static_cast<double>(count);
    state.counters["micro_batches"] = static_cast<double>(count);
    if (!valid) { return state.SkipWithError("an answer loses copies or misses its certificate"); }
    if (!peers) { continue; }
    // Peers and ours by turns over the same micro-batches; a slow peer gets fewer of them in a short run.
    double const budget = quick ? 1.0 : 8.0;
    auto const race = [&](auto& peer, char const* name) {
      for (auto const& totals : now.batches) {
        peer.take_turn(totals, solve(totals).summary.value);
        if (peer.seconds > budget) { break; }
      }
      state.counters[name] = peer.mean() / seconds;
      return peer.agrees;
    };
    bool agree = true;
#if defined(FAIRLEAD_BENCH_CLP)
    timed_peer<fl_bench::clp_min_max> clp(graph);
    agree = race(clp, "speedup_vs_clp_warm") && agree;
#endif
#if defined(FAIRLEAD_BENCH_GLPK)
    timed_peer<fl_bench::glpk_min_max> glpk(graph);
    agree = race(glpk, "speedup_vs_glpk_warm") && agree;
#endif
#if defined(FAIRLEAD_BENCH_LEMON_FLOW)
    timed_peer<fl_bench::lemon_min_max> lemon(graph);
    agree = race(lemon, "speedup_vs_lemon_flow") && agree;
    timed_peer<fl_bench::lemon_guess_min_max> guess(graph);
    agree = race(guess, "speedup_vs_lemon_guess") && agree;
#endif
    if (!agree) { return state.SkipWithError("a peer found another optimum"); }
  }
}

// How the time grows: four experts a rank, at most 8192.
void growth(benchmark::State& state, split_case sizes) {
  problem const now(sizes, 20);
  auto const& graph = now.graph.view();
  fl::min_max_flow const solver;
  fl::arena<> memory(solver.workspace_bytes(graph));
  std::vector<fl::count_t> shares(static_cast<std::size_t>(graph.columns));
  for (auto _ : state) {
    std::vector<double> seconds;
    for (int round = 0; round < 3; ++round) {
      for (auto const& totals : now.batches) {
        fl::workspace ws = memory.view();
        double const begin = fl_bench::thread_seconds();
        benchmark::DoNotOptimize(solver.solve(graph, totals, {}, fl::split_start::cold, shares, ws).summary.value);
        seconds.push_back(fl_bench::thread_seconds() - begin);
      }
    }
    state.SetIterationTime(fl_bench::median_of(seconds));
  }
}

int const registered = [] {
  for (index_t const replicas : {2, 4}) {
    for (double const skew : {0.3, 1.0}) {
      for (index_t const ranks : fl_bench::axes::growth_ranks) {
        if (fl_bench::axes::quick() && ranks > 256) { continue; }
        split_case const sizes{ranks, std::min<index_t>(4 * ranks, 8192), replicas, skew, true};
        std::string const name = fl_bench::text_of("schedule/growth/", replicas, "_hosts_zipf", skew, "/", ranks, "x", sizes.experts);
        benchmark::RegisterBenchmark(name.c_str(), growth, sizes)->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(1);
      }
    }
  }
  auto const add = [](split_case const& sizes, bool peers, bool warm) {
    if (fl_bench::axes::quick() && !sizes.quick) { return; }
    std::string const name = fl_bench::text_of("schedule/min_max_flow/", sizes.name(), warm ? "/warm" : "");
    benchmark::RegisterBenchmark(name.c_str(), min_max_flow, sizes, peers, warm)->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(1);
  };
  for (auto const& sizes : fl_bench::axes::split_cases) {
    add(sizes, true, false);
    if (!sizes.redraw) { add(sizes, false, true); }
  }
  for (auto const& sizes : fl_bench::axes::split_growth_cases) { add(sizes, false, false); }
  return 0;
}();

}  // namespace
