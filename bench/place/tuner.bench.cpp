// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One decision of the layout tuner on one core: three rules, their slot tables, their costs. Loads are uniform in [0, 1000)
// as in the published table of planner times, or follow a Zipf law. Every iteration takes another load out of many.
//
// Where it is small enough, a solver that scans all ranks and fills the tensor of all copies runs in turns on the same
// loads; a row fails if the costs of the two differ.
#include "support/assignment.hpp"
#include "support/axes.hpp"
#include "support/ceilings.hpp"
#include "support/peers/dense_layout.hpp"

#include <fairlead/core/buffer.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/place/even_replicas.hpp>
#include <fairlead/place/greedy_max_replicas.hpp>
#include <fairlead/place/layout_port_cost.hpp>
#include <fairlead/place/layout_tuner.hpp>
#include <fairlead/place/node_symmetric_greedy.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;
using fl_bench::axes::layout_case;

using rules = std::tuple<fl::greedy_max_replicas, fl::node_symmetric_greedy, fl::even_replicas>;
using tuner_type = fl::layout_tuner<rules>;

template <class Work>
double cpu_seconds(Work&& work) {
  double const start = fl_bench::thread_seconds();
  work();
  return fl_bench::thread_seconds() - start;
}

struct load_of_ranks {
  fl::matrix<index_t> copies;
  std::vector<index_t> totals;
  [[nodiscard]] fl::load_estimate estimate() const { return {totals, copies.view(), {}}; }
};

// Popularity of expert e falls like (e + 1)^-skew, in another order for each load.
std::vector<load_of_ranks> make_loads(layout_case sizes, double skew, int count) {
  std::vector<load_of_ranks> loads;
  for (int number = 0; number < count; ++number) {
    load_of_ranks load{fl::matrix<index_t>(sizes.ranks, sizes.experts), std::vector<index_t>(static_cast<std::size_t>(sizes.experts), 0)};
    for (index_t r = 0; r < sizes.ranks; ++r) {
      for (index_t e = 0; e < sizes.experts; ++e) {
        auto const word = fl::philox::draw(fl_bench::axes::seed, static_cast<std::uint64_t>(number),
                                           static_cast<std::uint64_t>(r * sizes.experts + e))[0];
        double const popular = std::pow(1.0 + static_cast<double>((e * 7 + number * 5) % sizes.experts), -skew);
        load.copies(r, e) = static_cast<index_t>(popular * static_cast<double>(fl::philox::below(word, 1000)));
        load.totals[static_cast<std::size_t>(e)] += load.copies(r, e);
      }
    }
    loads.push_back(std::move(load));
  }
  return loads;
}

void tune(benchmark::State& state, layout_case sizes, index_t ranks_per_node, double skew) {
  fl::topology const cluster(sizes.ranks, sizes.slots, ranks_per_node);
  tuner_type const tuner{.rules = rules{}};
  auto const loads = make_loads(sizes, skew, fl_bench::axes::quick() ? 4 : 16);
  fl::arena memory(tuner.workspace_bytes(cluster, sizes.experts));
  std::vector<fl::expert_id> next(static_cast<std::size_t>(cluster.slots()));
  fl_bench::dense_layout peer(cluster, sizes.experts);
  std::vector<index_t> replicas(static_cast<std::size_t>(sizes.experts));
  std::vector<fl::expert_id> peer_slots(next.size());
  std::vector<double> ratios, peer_seconds;
  double peer_spent = 0.0;
  bool same_cost = true;
  double imbalance = 0.0;
  double crossing = 0.0;
  index_t candidates = 0;
  index_t decisions = 0;
  std::vector<double> rank_loads(static_cast<std::size_t>(sizes.ranks));

  for (auto _ : state) {
    auto const& load = loads[static_cast<std::size_t>(decisions % static_cast<index_t>(loads.size()))];
    fl::workspace ws = memory.view();
    fl::layout_choice choice;
    double const seconds = cpu_seconds([&] { choice = tuner.tune(cluster, load.estimate(), {}, next, ws); });
    state.SetIterationTime(seconds);
    if (choice.report.status != fl::status::ok) { return state.SkipWithError("the tuner did not say ok"); }
    candidates += choice.report.iterations;
    ++decisions;
    if (decisions <= static_cast<index_t>(loads.size())) {
      auto const sources = tuner.objective.prepare(cluster, load.estimate(), ws);
      auto const copies = tuner.objective.traffic(cluster, sources, next, rank_loads, ws);
      double const all = copies.same_rank + copies.same_node + copies.other_node;
      imbalance += copies.busiest * static_cast<double>(sizes.ranks) / all;
      crossing += copies.other_node / all;
    }
    if (!sizes.dense || peer_spent > (fl_bench::axes::quick() ? 0.1 : 2.0)) { continue; }
    // The counts that the tuner evaluates, each once, from the same rules; making them is not counted.
    double best = std::numeric_limits<double>::infinity();
    double spent = 0.0;
    std::vector<std::vector<index_t>> seen;
    std::apply(
        [&](auto const&... rule) {
          ((static_cast<void>(rule.apportion(load.totals, cluster.slots(), cluster.nodes(), replicas, ws)),
            std::find(seen.begin(), seen.end(), replicas) == seen.end()
                ? (seen.push_back(replicas), spent += cpu_seconds([&] {
                     peer.place(load.totals, replicas, peer_slots);
                     best = std::min(best, peer.cost(tuner.objective.model, load.copies.view(), peer_slots));
                   }))
                : 0.0),
           ...);
        },
        tuner.rules);
    peer_spent += spent;
    peer_seconds.push_back(spent);
    ratios.push_back(spent / seconds);
    // Shares in fp64 may break a tie of rounded shares otherwise, which moves few copies.
    same_cost = same_cost && std::abs(best - choice.report.value) <= 1e-3 * best;
  }
  if (!same_cost) { return state.SkipWithError("the dense solver found another cost"); }
  double const shown = static_cast<double>(std::min<index_t>(decisions, static_cast<index_t>(loads.size())));
  state.counters["candidates"] = static_cast<double>(candidates) / static_cast<double>(decisions);
  state.counters["max_over_mean"] = imbalance / shown;
  state.counters["crossing"] = crossing / shown;
  if (!ratios.empty()) {
    state.counters["peer_ms"] = 1e3 * fl_bench::median_of(peer_seconds);
    state.counters["speedup_over_peer"] = fl_bench::median_of(ratios);
  }
}

// The parts of a decision alone, for greedy counts.
enum class decision_part { assign, pair_cost, port_cost };

void part(benchmark::State& state, layout_case sizes, index_t ranks_per_node, decision_part which) {
  fl::topology const cluster(sizes.ranks, sizes.slots, ranks_per_node);
  fl::spread_greedy const assigner;
  fl::greedy_max_replicas const rule;
  fl::layout_cost const pairs;
  fl::layout_port_cost const ports{
      .ports = {.bytes_per_copy = 8192.0, .intra_bytes_per_s = 200e9, .inter_bytes_per_s = 50e9}, .seconds_per_copy = 1.5e-6};
  auto const loads = make_loads(sizes, 0.0, 8);
  fl::arena memory(std::max({assigner.workspace_bytes(cluster, sizes.experts), pairs.workspace_bytes(cluster, sizes.experts),
                             ports.workspace_bytes(cluster, sizes.experts),
                             rule.workspace_bytes(sizes.experts, cluster.slots())}));
  std::vector<std::vector<index_t>> replicas(loads.size(), std::vector<index_t>(static_cast<std::size_t>(sizes.experts)));
  std::vector<std::vector<fl::expert_id>> slots(loads.size(), std::vector<fl::expert_id>(static_cast<std::size_t>(cluster.slots())));
  for (std::size_t i = 0; i < loads.size(); ++i) {
    fl::workspace ws = memory.view();
    static_cast<void>(rule.apportion(loads[i].totals, cluster.slots(), cluster.nodes(), replicas[i], ws));
    static_cast<void>(assigner.assign(cluster, loads[i].totals, replicas[i], slots[i], ws));
  }
  std::size_t i = 0;
  double sum = 0.0;
  auto const cost = [&](auto const& objective, fl::workspace& ws) {
    auto const sources = objective.prepare(cluster, loads[i].estimate(), ws);
    return cpu_seconds([&] { sum += objective.cost(cluster, sources, slots[i], ws).total_s(); });
  };
  for (auto _ : state) {
    fl::workspace ws = memory.view();
    switch (which) {
      case decision_part::assign:
        state.SetIterationTime(cpu_seconds([&] {
          sum += assigner.assign(cluster, loads[i].totals, replicas[i], slots[i], ws).value;
        }));
        break;
      case decision_part::pair_cost:
        state.SetIterationTime(cost(pairs, ws));
        break;
      case decision_part::port_cost:
        state.SetIterationTime(cost(ports, ws));
        break;
    }
    i = (i + 1) % loads.size();
  }
  benchmark::DoNotOptimize(sum);
}

int const registered = [] {
  auto const add = [](std::string const& name, auto run) {
    benchmark::RegisterBenchmark(name.c_str(), run)->UseManualTime()->Unit(benchmark::kMicrosecond);
  };
  for (layout_case const sizes : fl_bench::axes::layout_cases) {
    if (fl_bench::axes::quick() && !sizes.quick) { continue; }
    add("place/layout_tuner/" + sizes.name(), [=](benchmark::State& state) { tune(state, sizes, 8, 0.0); });
  }
  for (layout_case const sizes : {layout_case{64, 32, 2, true}, layout_case{1024, 32, 16}}) {
    add("place/layout_tuner/zipf1/" + sizes.name(), [=](benchmark::State& state) { tune(state, sizes, 8, 1.0); });
    add("place/layout_tuner/one_node/" + sizes.name(), [=](benchmark::State& state) { tune(state, sizes, 0, 0.0); });
    add("place/layout_tuner/nodes_of_7/" + sizes.name(), [=](benchmark::State& state) { tune(state, sizes, 7, 0.0); });
    add("place/spread_greedy/" + sizes.name(), [=](benchmark::State& state) { part(state, sizes, 8, decision_part::assign); });
    add("place/layout_cost/" + sizes.name(), [=](benchmark::State& state) { part(state, sizes, 8, decision_part::pair_cost); });
    add("place/layout_port_cost/" + sizes.name(),
        [=](benchmark::State& state) { part(state, sizes, 8, decision_part::port_cost); });
  }
  return 0;
}();

}  // namespace
