// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The split by waves, made for devices, on one host core beside min_max_flow: how many waves a problem takes, and what a
// host pays for the parallel form. A row fails if the two largest loads differ.
#include "support/assignment.hpp"
#include "support/axes.hpp"

#include <fairlead/core/matrix.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/schedule/min_max_flow.hpp>
#include <fairlead/schedule/min_max_waves.hpp>
#include <fairlead/workload/micro_batches.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;
using fl_bench::axes::split_case;

void waves(benchmark::State& state, split_case sizes) {
  index_t const count = sizes.ranks > 256 ? 20 : 1000;
  auto const where = fl::workload::random_hosts(sizes.ranks, sizes.experts, sizes.replicas, fl_bench::axes::seed);
  fl::workload::micro_batches const loads{.experts = sizes.experts, .copies = sizes.ranks * 8192, .skew = sizes.skew,
                                          .redraw = sizes.redraw, .seed = fl_bench::axes::seed + 1};
  fl::matrix<index_t> totals(count, sizes.experts);
  for (index_t i = 0; i < count; ++i) {
    auto const batch = loads.at(i);
    std::copy(batch.begin(), batch.end(), totals.view().row(i));
  }
  fl::column_table<> const table(fl::serial{}, where);
  fl::host_graph const graph(where);
  fl::min_max_waves const solver;
  fl::min_max_flow const flow;
  fl::matrix<fl::count_t> shares(count, where.replicas());
  std::vector<fl::wave_report> reports(static_cast<std::size_t>(count));
  std::vector<fl::count_t> other(static_cast<std::size_t>(where.replicas()));
  fl::arena<> memory(std::max(solver.batch_workspace_bytes(count, sizes.ranks, sizes.experts, where.replicas()), flow.workspace_bytes(graph.view())));
  for (auto _ : state) {
    fl::workspace ws = memory.view();
    double begin = fl_bench::thread_seconds();
    solver.solve_batch(fl::serial{}, table.view(), totals.view(), shares.view(), reports, ws);
    double const ours = (fl_bench::thread_seconds() - begin) / static_cast<double>(count);
    std::vector<double> best;
    begin = fl_bench::thread_seconds();
    for (index_t i = 0; i < count; ++i) {
      best.push_back(flow.solve(graph.view(), {totals.view().row(i), static_cast<std::size_t>(sizes.experts)}, {}, fl::split_start::cold, other, ws).summary.value);
    }
    double const theirs = (fl_bench::thread_seconds() - begin) / static_cast<double>(count);
    state.SetIterationTime(ours);
    double mean = 0.0, most = 0.0, raises = 0.0;
    for (std::size_t i = 0; i < reports.size(); ++i) {
      if (reports[i].status != fl::status::ok || static_cast<double>(reports[i].largest) != best[i]) {
        return state.SkipWithError("another largest load than min_max_flow");
      }
      mean += static_cast<double>(reports[i].waves);
      most = std::max(most, static_cast<double>(reports[i].waves));
      raises += static_cast<double>(reports[i].raises);
    }
    state.counters["waves"] = mean / static_cast<double>(count);
    state.counters["most_waves"] = most;
    state.counters["raises"] = raises / static_cast<double>(count);
    state.counters["time_over_min_max_flow"] = ours / theirs;
  }
}

void add(split_case const& sizes) {
  if (fl_bench::axes::quick() && !sizes.quick) { return; }
  benchmark::RegisterBenchmark(fl_bench::text_of("schedule/min_max_waves/", sizes.ranks, "x", sizes.experts, "x", sizes.replicas, "/zipf",
                                                 sizes.skew, sizes.redraw ? "/redraw" : "/drift").c_str(),
                               [=](benchmark::State& state) { waves(state, sizes); })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMicrosecond);
}

int const registered = [] {
  for (auto const& sizes : fl_bench::axes::split_cases) { add(sizes); }
  for (auto const& sizes : fl_bench::axes::split_growth_cases) { add(sizes); }
  return 0;
}();

}  // namespace
