// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Splits other than the exact one: time and distance to the optimum, over many distinct micro-batches on one core.
#include "support/axes.hpp"
#include "support/assignment.hpp"

#include <fairlead/core/workspace.hpp>
#include <fairlead/schedule/equal_shares.hpp>
#include <fairlead/schedule/interior_point_split.hpp>
#include <fairlead/schedule/min_max_flow.hpp>
#include <fairlead/schedule/water_fill.hpp>
#include <fairlead/workload/micro_batches.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;
using fl_bench::axes::split_case;

template <class Split>
void split(benchmark::State& state, Split const& rule, split_case sizes, index_t count) {
  fl::placement const where = fl::workload::random_hosts(sizes.ranks, sizes.experts, sizes.replicas, fl_bench::axes::seed);
  fl::workload::micro_batches const loads{.experts = sizes.experts, .copies = sizes.ranks * 8192, .skew = sizes.skew, .redraw = sizes.redraw,
                                          .seed = fl_bench::axes::seed + 1};
  std::vector<std::vector<index_t>> batches;
  for (index_t i = 0; i < count; ++i) { batches.push_back(loads.at(i)); }
  std::vector<fl::count_t> shares(static_cast<std::size_t>(where.replicas()));
  fl::min_max_flow const exact;
  fl::arena<> memory(std::max<std::size_t>(rule.workspace_bytes(where), exact.workspace_bytes(where)));
  for (auto _ : state) {
    double const begin = fl_bench::thread_seconds();
    for (auto const& totals : batches) {
      auto ws = memory.view();
      benchmark::DoNotOptimize(rule.split(totals, where, shares, ws).value);
    }
    state.SetIterationTime((fl_bench::thread_seconds() - begin) / static_cast<double>(count));
    double gap = 0.0, worst = 0.0, refused = 0.0;
    for (auto const& totals : batches) {
      auto ws = memory.view();
      fl::report const mine = rule.split(totals, where, shares, ws);
      auto again = memory.view();
      double const over = mine.value / exact.split(totals, where, shares, again).value - 1.0;
      gap += over;
      worst = std::max(worst, over);
      refused += mine ? 0.0 : 1.0;
    }
    state.counters["gap"] = gap / static_cast<double>(count);
    state.counters["worst_gap"] = worst;
    state.counters["not_accepted"] = refused / static_cast<double>(count);
  }
}

int const registered = [] {
  for (auto const& sizes : fl_bench::axes::split_cases) {
    if (fl_bench::axes::quick() && !sizes.quick) { continue; }
    auto const add = [&](char const* rule_name, auto const& rule, index_t count) {
      std::string const name = fl_bench::text_of("schedule/", rule_name, "/", sizes.name());
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { split(state, rule, sizes, count); })
          ->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(1);
    };
    add("water_fill", fl::water_fill{}, 500);
    add("equal_shares", fl::equal_shares{}, 500);
    if (sizes.replicas == 2 && sizes.ranks <= 64) { add("interior_point_split", fl::interior_point_split{}, 10); }
  }
  return 0;
}();

}  // namespace
