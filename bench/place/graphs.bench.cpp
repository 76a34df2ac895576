// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Placements on graphs and placements that survive failures: time of one decision and its quality, every time for another
// load (lognormal, sigma 0.6). Beside the two evaluators the plain loop over all sets runs in turns on the same inputs; rows
// fail if the answers differ.
#include "support/axes.hpp"

#include <fairlead/core/plan.hpp>
#include <fairlead/metrics/placement_recovery.hpp>
#include <fairlead/place/cayley.hpp>
#include <fairlead/place/fixed_graph.hpp>
#include <fairlead/place/grouped_overlap.hpp>
#include <fairlead/place/monte_carlo_placement.hpp>
#include <fairlead/place/resilient_search.hpp>
#include <fairlead/place/row_partition.hpp>
#include <fairlead/place/sequential_quota.hpp>
#include <fairlead/place/spread_nodes.hpp>

#include <benchmark/benchmark.h>

#include <bit>
#include <cmath>
#include <ctime>
#include <string>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;
using fl_bench::axes::graph_case;
using fl_bench::axes::resilience_case;
using integers = std::vector<index_t>;

constexpr std::size_t inputs = 256;

double seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

std::vector<integers> lognormal_loads(index_t experts) {
  std::vector<integers> loads(inputs, integers(static_cast<std::size_t>(experts)));
  for (std::size_t i = 0; i < inputs; ++i) {
    for (std::size_t e = 0; e < loads[i].size(); ++e) {
      loads[i][e] = 1 + static_cast<index_t>(1e4 * std::exp(0.6 * fl::philox::normal(fl_bench::axes::seed, 301 + i, e)));
    }
  }
  return loads;
}

double mean(integers const& load, index_t ranks) {
  index_t sum = 0;
  for (index_t const one : load) { sum += one; }
  return static_cast<double>(sum) / static_cast<double>(ranks);
}

template <class Planner>
void plan(benchmark::State& state, Planner const& planner, graph_case const& sizes) {
  fl::topology const cluster(sizes.ranks, sizes.slots);
  index_t const experts = sizes.ranks * sizes.slots / 2;
  auto const loads = lognormal_loads(experts);
  std::vector<expert_id> slots(static_cast<std::size_t>(cluster.slots()));
  fl::arena<> memory(planner.workspace_bytes(cluster, experts));
  fl::workspace ws = memory.view();
  std::size_t at = 0;
  double draws = 0.0;
  for (auto _ : state) {
    fl::report const ended = planner.plan(cluster, {loads[at++ % inputs]}, {}, slots, ws);
    draws += static_cast<double>(ended.iterations);
    if (ended.status == fl::status::infeasible) { state.SkipWithError("infeasible"); break; }
    benchmark::DoNotOptimize(slots.data());
  }
  if (draws > 0.0) { state.counters["draws"] = benchmark::Counter(draws, benchmark::Counter::kAvgIterations); }
  if (!sizes.enumerated) { return; }
  double rho = 0.0;
  fl::arena<> more(fl::enumerated_score::workspace_bytes(cluster, experts));
  fl::workspace scratch = more.view();
  std::size_t const judged = std::min<std::size_t>(inputs, 32);
  for (std::size_t i = 0; i < judged; ++i) {
    (void)static_cast<bool>(planner.plan(cluster, {loads[i]}, {}, slots, ws));
    rho += fl::enumerated_score{}.evaluate(cluster, slots, loads[i], nullptr, scratch).value() / mean(loads[i], sizes.ranks) / static_cast<double>(judged);
  }
  state.counters["max_over_mean"] = rho;
}

/// Sums over subsets in one table of all sets, then the largest quotient.
double all_sets(std::vector<std::uint64_t> const& hosts, integers const& load, index_t ranks, std::vector<index_t>& table) {
  std::size_t const size = std::size_t{1} << static_cast<unsigned>(ranks);
  table.assign(size, 0);
  for (std::size_t e = 0; e < load.size(); ++e) { table[hosts[e]] += load[e]; }
  for (std::size_t stride = 1; stride < size; stride *= 2) {
    for (std::size_t i = 0; i < size; i += 2 * stride) {
      for (std::size_t j = i; j < i + stride; ++j) { table[j + stride] += table[j]; }
    }
  }
  double best = 0.0;
  for (std::size_t set = 1; set < size; ++set) { best = std::max(best, static_cast<double>(table[set]) / static_cast<double>(std::popcount(set))); }
  return best;
}

void density(benchmark::State& state, index_t ranks) {
  fl::topology const cluster(ranks, 4);
  index_t const experts = ranks * 2;
  auto const loads = lognormal_loads(experts);
  std::vector<std::vector<std::uint64_t>> hosts(inputs, std::vector<std::uint64_t>(static_cast<std::size_t>(experts)));
  std::vector<expert_id> slots(static_cast<std::size_t>(cluster.slots()));
  fl::row_partition planner;
  fl::arena<> memory(planner.workspace_bytes(cluster, experts) + fl::metrics::induced_density_bytes(experts));
  fl::workspace ws = memory.view();
  for (std::size_t i = 0; i < inputs; ++i) {
    planner.draw = i;
    (void)static_cast<bool>(planner.plan(cluster, {loads[i]}, {}, slots, ws));
    fl::metrics::host_masks(cluster.slot_offsets(), slots, hosts[i]);
  }
  std::vector<index_t> table;
  double ours = 0.0;
  double plain = 0.0;
  std::size_t at = 0;
  for (auto _ : state) {
    std::size_t const i = at++ % inputs;
    double const begin = seconds();
    double const found = fl::metrics::enumerated_density{}.evaluate(hosts[i], loads[i], ws).value();
    double const middle = seconds();
    double const wanted = all_sets(hosts[i], loads[i], ranks, table);
    double const end = seconds();
    if (std::abs(found - wanted) > 1e-9 * wanted) { state.SkipWithError("the densities differ"); break; }
    state.SetIterationTime(middle - begin);
    ours += middle - begin;
    plain += end - middle;
  }
  state.counters["one_table_over_ours"] = plain / ours;
}

struct failures {
  fl::topology cluster;
  std::vector<integers> counts;
};
failures make_failures(resilience_case const& sizes) {
  failures made{fl::topology(sizes.nodes, sizes.slots), {}};
  fl::sequential_quota const rule{.least = 2};
  fl::arena<> memory(rule.workspace_bytes(sizes.experts, made.cluster.slots()));
  fl::workspace ws = memory.view();
  for (std::size_t i = 0; i < 32; ++i) {
    integers load(static_cast<std::size_t>(sizes.experts));
    for (std::size_t e = 0; e < load.size(); ++e) {
      double const noise = std::exp(0.3 * fl::philox::normal(fl_bench::axes::seed, 900 + i, e));
      load[e] = 1 + static_cast<index_t>(1e5 * std::pow(1.0 + static_cast<double>(e), -sizes.skew) * noise);
    }
    integers counts(load.size());
    (void)static_cast<bool>(rule.apportion(load, made.cluster.slots(), 1, counts, ws));
    made.counts.push_back(counts);
  }
  return made;
}

double recovers(fl::placement const& where, index_t alive) {
  fl::metrics::sampled_recovery const sampled{};
  fl::arena<> memory(std::max(fl::metrics::recovery_bytes(where), fl::metrics::recovery_bytes(where, sampled)));
  fl::workspace ws = memory.view();
  auto const exact = fl::metrics::recovery_probability(where, alive, ws);
  return exact.status == fl::status::ok ? exact.probability : fl::metrics::recovery_probability(where, alive, ws, sampled).probability;
}

template <class Assigner>
void assign(benchmark::State& state, Assigner const& assigner, resilience_case const& sizes) {
  failures const instance = make_failures(sizes);
  index_t const alive = sizes.nodes - 4;
  std::vector<expert_id> slots(static_cast<std::size_t>(instance.cluster.slots()));
  fl::arena<> memory(assigner.workspace_bytes(instance.cluster, sizes.experts));
  fl::workspace ws = memory.view();
  std::size_t at = 0;
  for (auto _ : state) {
    integers const& counts = instance.counts[at++ % instance.counts.size()];
    (void)static_cast<bool>(assigner.assign(instance.cluster, counts, counts, slots, ws));
    benchmark::DoNotOptimize(slots.data());
  }
  double probability = 0.0;
  for (std::size_t i = 0; i < 8; ++i) {
    (void)static_cast<bool>(assigner.assign(instance.cluster, instance.counts[i], instance.counts[i], slots, ws));
    probability += recovers(fl::make_placement(instance.cluster, sizes.experts, slots), alive) / 8.0;
  }
  state.counters["recovers_from_4"] = probability;
}

/// Going through all sets of alive units with one loop over the experts each.
double all_failures(std::vector<std::uint64_t> const& sets, index_t units, index_t alive) {
  double good = 0.0;
  double count = 0.0;
  for (std::uint64_t living = (std::uint64_t{1} << static_cast<unsigned>(alive)) - 1; living < (std::uint64_t{1} << static_cast<unsigned>(units));) {
    bool recovered = true;
    for (std::size_t e = 0; recovered && e < sets.size(); ++e) { recovered = (sets[e] & living) != 0; }
    good += recovered ? 1.0 : 0.0;
    count += 1.0;
    std::uint64_t const low = living & (~living + 1);  // the next number with as many bits
    std::uint64_t const next = living + low;
    living = next | (((living ^ next) / low) >> 2U);
  }
  return good / count;
}

void recovery(benchmark::State& state, index_t units) {
  std::vector<std::vector<std::uint64_t>> sets(inputs, std::vector<std::uint64_t>(static_cast<std::size_t>(2 * units)));
  for (std::size_t i = 0; i < inputs; ++i) {
    for (std::size_t e = 0; e < sets[i].size(); ++e) {
      for (std::uint64_t r = 0; r < 3; ++r) {
        sets[i][e] |= std::uint64_t{1} << (fl::philox::draw(fl_bench::axes::seed, 400 + i, 8 * e + r)[0] % static_cast<unsigned>(units));
      }
    }
  }
  fl::metrics::exact_recovery const method;
  fl::arena<> memory(method.workspace_bytes(units, 2 * units));
  fl::workspace ws = memory.view();
  double ours = 0.0;
  double plain = 0.0;
  std::size_t at = 0;
  for (auto _ : state) {
    std::vector<std::uint64_t> const& mine = sets[at++ % inputs];
    double const begin = seconds();
    double const found = method.evaluate({mine.data(), 2 * units, 1}, units, units / 2, ws).probability;
    double const middle = seconds();
    double const wanted = all_failures(mine, units, units / 2);
    double const end = seconds();
    if (std::abs(found - wanted) > 1e-12) { state.SkipWithError("the probabilities differ"); break; }
    state.SetIterationTime(middle - begin);
    ours += middle - begin;
    plain += end - middle;
  }
  state.counters["one_size_by_loops_over_all_sizes"] = plain / ours;
}

[[maybe_unused]] bool const registered = [] {
  auto const name = [](char const* component, std::string const& sizes) { return fl_bench::text_of("place/", component, "/", sizes); };
  for (graph_case const& sizes : fl_bench::axes::graph_cases) {
    benchmark::RegisterBenchmark(name("cayley", sizes.name()).c_str(), [=](benchmark::State& state) { plan(state, fl::cayley_placement{}, sizes); });
    benchmark::RegisterBenchmark(name("row_partition", sizes.name()).c_str(), [=](benchmark::State& state) { plan(state, fl::row_partition{}, sizes); });
    benchmark::RegisterBenchmark(name("monte_carlo_placement", sizes.name()).c_str(),
                                 [=](benchmark::State& state) { plan(state, fl::monte_carlo_placement<>{}, sizes); })->Unit(benchmark::kMicrosecond);
    if (!sizes.enumerated) { continue; }
    benchmark::RegisterBenchmark(name("monte_carlo_placement/all_sets", sizes.name()).c_str(),
                                 [=](benchmark::State& state) { plan(state, fl::monte_carlo_placement<fl::greedy_max_replicas, fl::enumerated_score>{}, sizes); })->Unit(benchmark::kMicrosecond);
  }
  for (index_t const ranks : fl_bench::axes::enumerated_ranks) {
    benchmark::RegisterBenchmark(name("induced_density", fl_bench::text_of(ranks)).c_str(), [=](benchmark::State& state) { density(state, ranks); })
        ->UseManualTime()->Unit(benchmark::kMicrosecond);
    benchmark::RegisterBenchmark(name("recovery", fl_bench::text_of(ranks)).c_str(), [=](benchmark::State& state) { recovery(state, ranks); })
        ->UseManualTime()->Unit(benchmark::kMicrosecond);
  }
  for (resilience_case const& sizes : fl_bench::axes::resilience_cases) {
    index_t const alive = sizes.nodes - 4;
    benchmark::RegisterBenchmark(name("grouped_overlap", sizes.name()).c_str(), [=](benchmark::State& state) { assign(state, fl::grouped_overlap{}, sizes); })
        ->Unit(benchmark::kMicrosecond);
    benchmark::RegisterBenchmark(name("spread_nodes", sizes.name()).c_str(), [=](benchmark::State& state) { assign(state, fl::spread_nodes{}, sizes); })
        ->Unit(benchmark::kMicrosecond);
    benchmark::RegisterBenchmark(name("resilient_search", sizes.name()).c_str(),
                                 [=](benchmark::State& state) { assign(state, fl::resilient_search<>{.alive = alive}, sizes); })
        ->Unit(benchmark::kMicrosecond);
  }
  return true;
}();

}  // namespace
