// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What even loads cost beside a plain choice: a balanced training step from cold and from last step's prices, and the
// two ways to route an evaluation. The load of fresh scores stands beside the time.
#include "support/axes.hpp"
#include "support/ceilings.hpp"

#include <fairlead/assign/balanced_flow.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/balanced_choice.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;
using router_type = fl::balanced_choice<fl::balanced_flow, fl::priced_evaluation>;

constexpr double skew = 0.5;

enum class kind { cold, warm, greedy, priced };

double imbalance(fl::const_routing_view routed, index_t experts) {
  std::vector<index_t> loads(static_cast<std::size_t>(experts), 0);
  for (index_t t = 0; t < routed.tokens(); ++t) { ++loads[static_cast<std::size_t>(fl::to_index(routed.experts(t, 0)))]; }
  return static_cast<double>(*std::max_element(loads.begin(), loads.end())) * static_cast<double>(experts) /
         static_cast<double>(routed.tokens());
}

// The scores of an expert keep their mean from batch to batch; the noise is fresh.
fl::matrix<float> batch(index_t tokens, index_t experts, std::uint64_t stream) {
  fl::matrix<float> scores = fl_bench::make_scores(tokens, experts, skew);
  for (index_t i = 0; i < tokens * experts; ++i) {
    auto const at = static_cast<std::uint64_t>(i);
    scores.data()[i] += static_cast<float>(fl::philox::normal(fl_bench::axes::seed, 100 + stream, at));
  }
  return scores;
}

void balanced(benchmark::State& bench, fl_bench::axes::assignment_case size, kind what) {
  router_type const router{.experts = size.experts};
  fl::matrix<float> const first = batch(size.tokens, size.experts, 1), second = batch(size.tokens, size.experts, 2);
  fl::arena<> memory(router.workspace_bytes(size.tokens));
  fl::workspace ws = memory.view();
  fl::routing<> out(size.tokens, 1);
  fl::serial const on;
  auto state = router.make_state();
  if (what == kind::warm || what == kind::priced) {
    fl::alone comm;
    router.route_and_learn(on, first.view(), {}, state, out.view(), ws);
    router.observe(on, comm, std::vector<index_t>(static_cast<std::size_t>(size.experts), 0), state);
  }
  bool const trains = what == kind::cold || what == kind::warm;
  fl::route_context const context{.phase = trains ? fl::phase::recompute : fl::phase::evaluate};
  auto const choice = router.choice();
  for (auto _ : bench) {
    if (what == kind::greedy) {
      choice.route(on, second.view(), context, out.view(), ws);
    } else {
      router.route(on, second.view(), context, state, out.view(), ws);
    }
    benchmark::ClobberMemory();
  }
  bench.counters["load_max_over_mean"] = imbalance(std::as_const(out).view(), size.experts);
  fl_bench::report_reads_of_scores(bench, static_cast<double>(size.tokens * size.experts) * sizeof(float));
}

int const registered = [] {
  for (auto const size : fl_bench::axes::assignment_solver_cases) {
    if (fl_bench::axes::quick() && !size.quick) { continue; }
    std::string const name = fl_bench::text_of("route/balanced_choice/", size.name(), "/");
    for (auto const& [suffix, what] : {std::pair{"train_cold", kind::cold}, std::pair{"train_warm", kind::warm},
                                       std::pair{"evaluate_greedy", kind::greedy}, std::pair{"evaluate_priced", kind::priced}}) {
      benchmark::RegisterBenchmark((name + suffix).c_str(), [=](benchmark::State& state) { balanced(state, size, what); });
    }
  }
  return 0;
}();

}  // namespace
