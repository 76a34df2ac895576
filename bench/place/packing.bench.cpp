// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Replication and packing of 58 layers at once, as a model re-plans them: time of all layers, every time for other
// loads.
//
// Loads follow a Zipf law, in another order for each layer, with 1 % of noise. Beside each planner the reference's
// algorithm runs in turns on the same loads, with scans and with heaps. Rows of global_pack and hierarchical_pack fail
// if their balance is not that of the reference (up to the near-ties that fp32 decides otherwise); rows of
// balanced_hierarchy fail if a group leaves its node or the bound is not kept.
#include "support/assignment.hpp"
#include "support/axes.hpp"
#include "support/peers/plain_packing.hpp"

#include <fairlead/core/matrix.hpp>
#include <fairlead/place/balanced_hierarchy.hpp>
#include <fairlead/place/global_pack.hpp>
#include <fairlead/place/hierarchical_pack.hpp>
#include <fairlead/place/plan_layers.hpp>
#include <fairlead/workload/zipf.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;
using fl_bench::axes::packing_case;

std::vector<fl::matrix<index_t>> make_models(packing_case sizes, double skew) {
  int const number = fl_bench::axes::quick() ? 2 : 16;
  auto const counts = fl::workload::zipf_counts(sizes.experts, 1000000, skew);
  std::vector<fl::matrix<index_t>> models;
  std::uint64_t stream = 3000;
  for (int model = 0; model < number; ++model) {
    models.emplace_back(sizes.layers, sizes.experts);
    for (index_t layer = 0; layer < sizes.layers; ++layer) {
      auto const ids = fl::workload::shuffled_ids(sizes.experts, fl_bench::axes::seed + stream);
      for (index_t e = 0; e < sizes.experts; ++e) {
        double const noise = 1.0 + 0.01 * static_cast<double>(fl::philox::normal(fl_bench::axes::seed, stream,
                                                                                 static_cast<std::uint64_t>(e)));
        auto const id = static_cast<std::size_t>(ids[static_cast<std::size_t>(e)]);
        models.back()(layer, e) = static_cast<index_t>(static_cast<double>(counts[id]) * std::max(noise, 0.0));
      }
      ++stream;
    }
  }
  return models;
}

template <class Planner>
void layers(benchmark::State& state, Planner const& planner, packing_case sizes, double skew) {
  constexpr bool is_flat = std::is_same_v<Planner, fl::global_pack>;
  constexpr bool is_reference = is_flat || std::is_same_v<Planner, fl::hierarchical_pack>;
  auto const models = make_models(sizes, skew);
  fl::topology const cluster(sizes.ranks, sizes.slots / sizes.ranks, sizes.ranks / sizes.nodes);
  fl::arena<> memory(planner.workspace_bytes(cluster, sizes.experts));
  fl::matrix<fl::expert_id> next(sizes.layers, cluster.slots());
  std::vector<fl::report> reports(static_cast<std::size_t>(sizes.layers));
  auto const run = [&](fl::matrix<index_t> const& model) {
    fl::workspace ws = memory.view();
    auto const worst = fl::plan_layers(planner, cluster, model.view(), {}, next.view(), reports, ws);
    benchmark::DoNotOptimize(next.data());
    return worst.status;
  };
  std::size_t at = 0;
  for (auto _ : state) {
    if (run(models[at]) != fl::status::ok) { state.SkipWithError("a layer was not planned"); }
    at = at + 1 == models.size() ? 0 : at + 1;
  }
  // Quality, and the reference in turns.
  double own_s = 0.0;
  double scan_s = 0.0;
  double heap_s = 0.0;
  double over_mean = 0.0;
  double scan_over_mean = 0.0;
  double gap = 0.0;
  double scan_gap = 0.0;
  double largest_gap = 0.0;
  double seen = 0.0;
  for (auto const& model : models) {
    double const start = fl_bench::thread_seconds();
    static_cast<void>(run(model));
    own_s += fl_bench::thread_seconds() - start;
    for (bool const heaps : {false, true}) {
      double const begin = fl_bench::thread_seconds();
      for (index_t layer = 0; layer < sizes.layers; ++layer) {
        std::span const load(model.view().row(layer), static_cast<std::size_t>(sizes.experts));
        auto const made = fl_bench::plain_packing{heaps}.plan(
            load, static_cast<int>(sizes.slots), static_cast<int>(sizes.ranks),
            is_flat ? 1 : static_cast<int>(sizes.nodes), is_flat ? 1 : static_cast<int>(sizes.groups));
        benchmark::DoNotOptimize(made.slots.data());
        if (heaps) { continue; }
        double const mean = static_cast<double>(std::accumulate(load.begin(), load.end(), index_t{0})) /
                            static_cast<double>(sizes.ranks);
        fl::report const& ended = reports[static_cast<std::size_t>(layer)];
        over_mean += ended.value / mean;
        scan_over_mean += made.value / mean;
        gap += ended.value / ended.bound - 1.0;
        scan_gap += made.value / ended.bound - 1.0;
        largest_gap = std::max(largest_gap, ended.value / ended.bound - 1.0);
        seen += 1.0;
      }
      (heaps ? heap_s : scan_s) += fl_bench::thread_seconds() - begin;
    }
  }
  if (is_reference && std::abs(over_mean / scan_over_mean - 1.0) > 1e-3) {
    state.SkipWithError("not the balance of the reference");
  }
  if (gap < -1e-9) { state.SkipWithError("below the bound"); }
  state.counters["max_over_mean"] = over_mean / seen;
  state.counters["gap_to_bound"] = gap / seen;
  state.counters["largest_gap"] = largest_gap;
  state.counters["us_per_layer"] = 1e6 * own_s / seen;
  state.counters["scan_max_over_mean"] = scan_over_mean / seen;
  if (!is_reference) { state.counters["scan_gap_to_bound"] = scan_gap / seen; }
  state.counters["speedup_vs_scans"] = scan_s / own_s;
  state.counters["speedup_vs_heaps"] = heap_s / own_s;
}

template <class Planner>
void add(char const* component, Planner const& planner, packing_case sizes, double skew) {
  auto const name = fl_bench::text_of("place/", component, "/", sizes.name(), "/zipf", skew);
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
    layers(state, planner, sizes, skew);
  })->Unit(benchmark::kMicrosecond);
}

int const registered = [] {
  for (packing_case const sizes : fl_bench::axes::packing_cases) {
    if (fl_bench::axes::quick() && !sizes.quick) { continue; }
    for (double const skew : {0.5, 1.0}) {
      add("global_pack", fl::global_pack{}, sizes, skew);
      if (sizes.nodes == 1) { continue; }
      add("hierarchical_pack", fl::hierarchical_pack{.groups = sizes.groups}, sizes, skew);
      add("balanced_hierarchy", fl::balanced_hierarchy{.groups = sizes.groups}, sizes, skew);
    }
  }
  return 0;
}();

}  // namespace
