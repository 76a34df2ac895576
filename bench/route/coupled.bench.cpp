// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Routers that look at the batch, training, one core: time against one read of the scores, how even the loads are, and
// what tiles of 128 rows would waste. The plain top-k stands beside them.
#include "support/axes.hpp"
#include "support/ceilings.hpp"

#include <fairlead/core/workspace.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/metrics/fluctuation.hpp>
#include <fairlead/metrics/load.hpp>
#include <fairlead/route/expert_choice.hpp>
#include <fairlead/route/sinkhorn_router.hpp>
#include <fairlead/route/token_rounding.hpp>
#include <fairlead/route/top_k.hpp>

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;

template <class Router>
void route(benchmark::State& state, Router router, fl_bench::axes::routing_case sizes) {
  fl::matrix<float> const scores = fl_bench::make_scores(sizes.tokens, sizes.experts, 0.5);
  fl::arena<> memory(router.workspace_bytes(sizes.tokens));
  fl::workspace ws = memory.view();
  fl::routing<> out(sizes.tokens, router.fan_out());
  for (auto _ : state) {
    router.route(fl::serial{}, scores.view(), {}, out.view(), ws);
    benchmark::ClobberMemory();
  }
  std::vector<index_t> loads(static_cast<std::size_t>(sizes.experts), 0);
  for (index_t t = 0; t < sizes.tokens; ++t) {
    for (index_t j = 0; j < router.fan_out(); ++j) {
      index_t const e = fl::to_index(out.view().experts(t, j));
      if (e >= 0) { ++loads[static_cast<std::size_t>(e)]; }
    }
  }
  double used = 0.0, rows = 0.0;
  for (index_t const load : loads) {
    used += static_cast<double>(load);
    rows += static_cast<double>((load + 127) / 128 * 128);
  }
  state.counters["max_over_mean"] = fl::metrics::imbalance(std::span<index_t const>(loads));
  state.counters["copies_per_token"] = used / static_cast<double>(sizes.tokens);
  state.counters["padding_waste"] = rows > 0.0 ? (rows - used) / rows : 0.0;
  fl_bench::report_reads_of_scores(state, static_cast<double>(sizes.tokens * sizes.experts) * sizeof(float));
}

template <class Router>
void add(std::string const& component, Router const& router, fl_bench::axes::routing_case sizes) {
  benchmark::RegisterBenchmark(("route/" + component + "/" + sizes.name()).c_str(),
                               [=](benchmark::State& state) { route(state, router, sizes); });
}

int const registered = [] {
  for (fl_bench::axes::routing_case const sizes : fl_bench::axes::routing_cases) {
    if (sizes.tokens > 8192 || (fl_bench::axes::quick() && sizes.fan_out == 1)) { continue; }
    index_t const experts = sizes.experts, k = sizes.fan_out, slots = std::min(experts, 2 * k + 2);
    auto const factor = static_cast<double>(k);
    add("plain_top_k", fl::softmax_top_k{.experts = experts, .k = k, .selection = {}, .noise = {}}, sizes);
    add("expert_choice", fl::expert_choice{.experts = experts, .capacity_factor = factor, .max_choices = slots, .shares = {}}, sizes);
    add("expert_choice_over_tokens",
        fl::expert_choice_over_tokens{.experts = experts, .capacity_factor = factor, .max_choices = slots, .shares = {}}, sizes);
    add("sinkhorn_router", fl::sinkhorn_router{.experts = experts, .k = k, .iteration = {}}, sizes);
    add("alternating_sinkhorn_router", fl::alternating_sinkhorn_router{.experts = experts, .k = k, .iteration = {}}, sizes);
    add("token_rounding", fl::token_rounding{.experts = experts, .k = k, .max_choices = slots}, sizes);
  }
  return 0;
}();

// One snapshot of a validation set.
void observe(benchmark::State& state) {
  fl_bench::axes::routing_case const sizes{8192, 64, 2};
  fl::matrix<float> const scores = fl_bench::make_scores(sizes.tokens, sizes.experts, 0.5);
  fl::top_k const router{.experts = sizes.experts, .k = sizes.fan_out, .selection = {}, .noise = {}};
  fl::arena<> memory(router.workspace_bytes(sizes.tokens)),
      kept(fl::metrics::fluctuation_tracker::memory_bytes(sizes.tokens, sizes.fan_out));
  fl::workspace ws = memory.view(), hold = kept.view();
  fl::routing<> out(sizes.tokens, sizes.fan_out);
  router.route(fl::serial{}, scores.view(), {}, out.view(), ws);
  fl::metrics::fluctuation_tracker tracker(sizes.tokens, sizes.fan_out, hold);
  for (auto _ : state) {
    tracker.observe(std::as_const(out).view());
    benchmark::DoNotOptimize(tracker.flips());
  }
  state.counters["flips"] = tracker.flips();
}
BENCHMARK(observe)->Name("metrics/fluctuation_tracker/T8192_k2");

}  // namespace
