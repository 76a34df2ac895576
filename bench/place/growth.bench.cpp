// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How planning grows with the cluster: two experts a rank, four slots a rank, nodes of eight, Zipf loads.
#include "support/assignment.hpp"
#include "support/axes.hpp"
#include "support/ceilings.hpp"

#include <fairlead/concepts/planner.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/place/balanced_hierarchy.hpp>
#include <fairlead/place/even_replicas.hpp>
#include <fairlead/place/global_pack.hpp>
#include <fairlead/place/greedy_max_replicas.hpp>
#include <fairlead/place/hierarchical_pack.hpp>
#include <fairlead/place/layout_tuner.hpp>
#include <fairlead/place/node_symmetric_greedy.hpp>
#include <fairlead/place/replicate_then_place.hpp>
#include <fairlead/place/spread_greedy.hpp>
#include <fairlead/workload/micro_batches.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;

template <class Planner>
void growth(benchmark::State& state, Planner const& planner, index_t ranks) {
  fl::topology const cluster(ranks, 4, 8);
  index_t const experts = 2 * ranks;
  fl::workload::micro_batches const loads{.experts = experts, .copies = 4096 * ranks, .skew = 1.0, .redraw = true, .seed = fl_bench::axes::seed};
  fl::arena<> memory(planner.workspace_bytes(cluster, experts));
  std::vector<fl::expert_id> next(static_cast<std::size_t>(cluster.slots()));
  for (auto _ : state) {
    std::vector<double> seconds;
    double busiest = 0.0;
    for (index_t batch = 0; batch < 9; ++batch) {
      auto const totals = loads.at(batch);
      fl::workspace ws = memory.view();
      double const begin = fl_bench::thread_seconds();
      fl::report const report = planner.plan(cluster, {.totals = totals}, {}, next, ws);
      seconds.push_back(fl_bench::thread_seconds() - begin);
      if (report.status == fl::status::infeasible) { return state.SkipWithError("the planner found no table"); }
      std::vector<double> share(totals.size(), 0.0), load(static_cast<std::size_t>(ranks), 0.0);
      for (fl::expert_id const expert : next) { share[static_cast<std::size_t>(expert)] += 1.0; }
      for (std::size_t slot = 0; slot < next.size(); ++slot) {
        auto const e = static_cast<std::size_t>(next[slot]);
        load[slot / 4] += static_cast<double>(totals[e]) / share[e];
      }
      busiest += *std::max_element(load.begin(), load.end()) / 4096.0;
    }
    state.SetIterationTime(fl_bench::median_of(seconds));
    state.counters["max_over_mean"] = busiest / 9.0;
  }
}

// `make(ranks)` gives the planner.
template <class Make>
void add(char const* name, Make const& make) {
  for (index_t const ranks : fl_bench::axes::growth_ranks) {
    if (fl_bench::axes::quick() && ranks > 256) { continue; }
    std::string const text = fl_bench::text_of("place/growth/", name, "/", ranks, "x", 2 * ranks);
    benchmark::RegisterBenchmark(text.c_str(), [=](benchmark::State& state) { growth(state, make(ranks), ranks); })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond)
        ->Iterations(1);
  }
}

int const registered = [] {
  add("proportional_in_order", [](index_t) { return fl::proportional_in_order{}; });
  add("global_pack", [](index_t) { return fl::global_pack{}; });
  add("hierarchical_pack", [](index_t ranks) { return fl::hierarchical_pack{.groups = ranks / 4}; });  // of eight experts
  add("balanced_hierarchy", [](index_t) { return fl::balanced_hierarchy{}; });
  add("greedy_spread", [](index_t) { return fl::replicate_then_place<fl::greedy_max_replicas, fl::spread_greedy>{}; });
  add("layout_tuner", [](index_t) { return fl::layout_tuner<std::tuple<fl::greedy_max_replicas, fl::node_symmetric_greedy, fl::even_replicas>>{.rules = {}}; });
  return 0;
}();

}  // namespace
