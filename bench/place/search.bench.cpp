// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Planners that search, one core, over many distinct loads that drift. `max_over_mean` is the largest over mean load of
// a rank for the loads that come `lag` micro-batches later: split as well as can be for flow_search and joint_free,
// equal shares for the others. `packed` is the same for a packing of the same slots (replicas where the load is
// largest).
#include "support/assignment.hpp"
#include "support/axes.hpp"

#include <fairlead/core/buffer.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/place/bounded_swaps.hpp>
#include <fairlead/place/flow_search.hpp>
#include <fairlead/place/global_pack.hpp>
#include <fairlead/place/joint_search.hpp>
#include <fairlead/place/lpt_permutation.hpp>
#include <fairlead/place/paired_transfer.hpp>
#include <fairlead/place/split_objective.hpp>
#include <fairlead/workload/drifting_load.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;

struct search_case {
  index_t ranks, experts, slots_per_rank;
  double spread;  // of the drift
};

constexpr index_t history = 32;
constexpr index_t lag = 4;

fl::matrix<index_t> make_totals(search_case const& size, index_t records) {
  auto const loads = fl::workload::drifting_load{.ranks = 1,
                                                 .experts = size.experts,
                                                 .copies = 4096 * size.ranks,
                                                 .skew = 1.0,
                                                 .spread = size.spread,
                                                 .persistence = 0.97,
                                                 .seed = fl_bench::axes::seed}
                         .make(records);
  fl::matrix<index_t> totals(records, size.experts);
  for (index_t t = 0; t < records; ++t) {
    for (index_t e = 0; e < size.experts; ++e) { totals(t, e) = loads[static_cast<std::size_t>(t)](0, e); }
  }
  return totals;
}

template <class Planner, class Objective>
void search(benchmark::State& bench, search_case size, Planner planner, Objective objective, bool starts_from_now) {
  index_t const records = history + lag + (fl_bench::axes::quick() ? 32 : 200);
  fl::matrix<index_t> const totals = make_totals(size, records);
  fl::topology const cluster(size.ranks, size.slots_per_rank, 8);
  fl::global_pack const packer{.repeats = fl::repeats_on_a_rank::avoided};
  fl::arena<> memory(
      std::max({planner.workspace_bytes(cluster, size.experts), packer.workspace_bytes(cluster, size.experts),
                objective.workspace_bytes(cluster, size.experts)}));
  fl::workspace ws = memory.view();
  auto const row = [&](index_t t) {
    return std::span<index_t const>(totals.view().row(t), static_cast<std::size_t>(size.experts));
  };
  std::vector<expert_id> now(static_cast<std::size_t>(cluster.slots())), next(now), packed(now);
  (void)packer.plan(cluster, {.totals = row(0)}, {}, now, ws);
  double sum = 0.0, packed_sum = 0.0, evaluations = 0.0;
  index_t plans = 0;
  index_t t = history - 1;
  for (auto _ : bench) {
    double const start = fl_bench::thread_seconds();
    fl::report const ended = planner.plan(
        cluster, {.totals = row(t), .samples = {totals.view().row(t + 1 - history), history, size.experts}},
        starts_from_now ? std::span<expert_id const>(now) : std::span<expert_id const>(), next, ws);
    bench.SetIterationTime(fl_bench::thread_seconds() - start);
    (void)packer.plan(cluster, {.totals = row(t)}, {}, packed, ws);
    sum += static_cast<double>(objective.cost(cluster, row(t + lag), next, {}, ws)) /
           static_cast<double>(fl::slot_cost_unit);
    packed_sum += static_cast<double>(objective.cost(cluster, row(t + lag), packed, {}, ws)) /
                  static_cast<double>(fl::slot_cost_unit);
    evaluations += static_cast<double>(ended.iterations);
    if (starts_from_now) { now = next; }
    ++plans;
    t = t + lag + 1 < records ? t + 1 : history - 1;
  }
  bench.counters["max_over_mean"] = sum / static_cast<double>(plans);
  bench.counters["packed"] = packed_sum / static_cast<double>(plans);
  bench.counters["evaluations"] = evaluations / static_cast<double>(plans);
}

template <class Planner, class Objective>
void add(char const* name, search_case size, Planner planner, Objective objective, bool from_now) {
  auto const label = fl_bench::text_of("place/", name, "/", size.ranks, "x", size.experts, "x", size.slots_per_rank,
                                       size.spread < 0.5 ? "/calm" : "/wild");
  benchmark::RegisterBenchmark(label.c_str(), search<Planner, Objective>, size, planner, objective, from_now)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond)
      ->MinTime(fl_bench::axes::quick() ? 0.05 : 0.5);
}

int const registered = [] {
  for (double const spread : {0.2, 0.8}) {
    search_case const small{16, 32, 4, spread};
    add("flow_search", small, fl::flow_search<>{}, fl::free_split_objective{}, false);
    add("joint_search", small, fl::joint_search<>{.evaluations = 1000}, fl::equal_share_objective{}, false);
    add("joint_free", small, fl::joint_search<fl::free_split_objective>{.evaluations = 200}, fl::free_split_objective{},
        false);
    add("paired_transfer", small, fl::paired_transfer{}, fl::equal_share_objective{}, true);
    add("bounded_swaps", small, fl::bounded_swaps{}, fl::equal_share_objective{}, true);
    add("lpt_permutation", {16, 32, 2, spread}, fl::lpt_permutation{}, fl::equal_share_objective{}, true);
    add("flow_search", {32, 256, 9, spread}, fl::flow_search<>{}, fl::free_split_objective{}, false);
    add("bounded_swaps", {32, 256, 9, spread}, fl::bounded_swaps{}, fl::equal_share_objective{}, true);
  }
  return 0;
}();

}  // namespace
