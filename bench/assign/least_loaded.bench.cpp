// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Plans of transient expert weights on one core: the time of a plan over many distinct loads, and what the plan costs.
#include "support/assignment.hpp"
#include "support/axes.hpp"

#include <fairlead/assign/least_loaded.hpp>
#include <fairlead/assign/rerouting_cost.hpp>
#include <fairlead/core/philox.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;

struct rerouting_case {
  index_t experts, ranks;
  [[nodiscard]] std::string name() const { return fl_bench::text_of(experts, "x", ranks); }
};

// Zipf popularity over experts in random places, each load times its own noise: no two loads rank their experts alike.
std::vector<std::vector<index_t>> distinct_loads(rerouting_case const& sizes, double skew, index_t count) {
  std::vector<double> popularity(static_cast<std::size_t>(sizes.experts));
  double sum = 0.0;
  for (std::size_t e = 0; e < popularity.size(); ++e) { sum += popularity[e] = std::pow(static_cast<double>(e + 1), -skew); }
  double const copies = 16384.0 * 8.0 * static_cast<double>(sizes.ranks);
  std::vector<std::vector<index_t>> result(static_cast<std::size_t>(count), std::vector<index_t>(popularity.size()));
  for (std::size_t i = 0; i < result.size(); ++i) {
    std::vector<std::size_t> place(popularity.size());
    std::iota(place.begin(), place.end(), std::size_t{0});
    for (std::size_t e = place.size(); e > 1; --e) {
      auto const word = fl::philox::draw(fl_bench::axes::seed, 2 * i, e)[0];
      std::swap(place[e - 1], place[fl::philox::below(word, static_cast<std::uint32_t>(e))]);
    }
    for (std::size_t e = 0; e < place.size(); ++e) {
      double const noise = std::exp(0.2 * static_cast<double>(fl::philox::normal(fl_bench::axes::seed, 2 * i + 1, e)));
      result[i][place[e]] = static_cast<index_t>(copies * popularity[e] / sum * noise);
    }
  }
  return result;
}

template <class Planner>
void plans(benchmark::State& state, Planner const& planner, rerouting_case sizes, double skew) {
  index_t const count = fl_bench::axes::quick() ? 1000 : 4000;
  auto const loads = distinct_loads(sizes, skew, sizes.experts > 1000 ? count / 10 : count);
  std::vector<index_t> offsets;
  std::vector<fl::expert_id> slots;
  for (index_t p = 0; p <= sizes.ranks; ++p) { offsets.push_back(p * sizes.experts / sizes.ranks); }
  for (index_t e = 0; e < sizes.experts; ++e) { slots.push_back(static_cast<fl::expert_id>(e)); }
  fl::placement const where(sizes.experts, offsets, slots);
  fl::rerouting_memory memory(sizes.experts, sizes.ranks);
  fl::rerouting out = memory.view();
  fl::arena<> scratch(std::max(planner.workspace_bytes(sizes.experts, sizes.ranks), fl::rerouting_cost_bytes(sizes.experts, sizes.ranks)));
  fl::workspace ws = scratch.view();
  double plans_made = 0.0, transfers = 0.0, forced = 0.0, over = 0.0, fewest = 0.0, plain = 0.0;
  for (auto _ : state) {
    double const start = fl_bench::thread_seconds();
    for (auto const& load : loads) { benchmark::DoNotOptimize(planner.plan(load, where, out, ws)); }
    state.SetIterationTime((fl_bench::thread_seconds() - start) / static_cast<double>(loads.size()));
  }
  for (auto const& load : loads) {
    auto const report = planner.plan(load, where, out, ws);
    plans_made += 1.0;
    transfers += static_cast<double>(out.transfer_count);
    forced += static_cast<double>(out.forced);
    over = std::max(over, report.value / static_cast<double>(out.capacity));
    fewest += static_cast<double>(fl::fewest_transfers(load, where, out.capacity, ws));
    std::vector<double> native(static_cast<std::size_t>(sizes.ranks), 0.0);
    for (index_t e = 0; e < sizes.experts; ++e) {
      native[static_cast<std::size_t>(where.replicas(static_cast<fl::expert_id>(e))[0].rank)] += static_cast<double>(load[static_cast<std::size_t>(e)]);
    }
    plain += *std::max_element(native.begin(), native.end()) / report.bound;
  }
  state.counters["transfers"] = transfers / plans_made;
  state.counters["transfers_bound"] = fewest / plans_made;
  state.counters["forced"] = forced / plans_made;
  state.counters["max_over_cap"] = over;
  state.counters["max_over_mean_before"] = plain / plans_made;
}

template <class Planner>
void add(std::string const& name, Planner const& planner, rerouting_case sizes, double skew) {
  benchmark::RegisterBenchmark(fl_bench::text_of("assign/", name, "/", sizes.name(), "/zipf", skew).c_str(),
                               [=](benchmark::State& state) { plans(state, planner, sizes, skew); })
      ->UseManualTime()
      ->Iterations(3)
      ->Unit(benchmark::kMicrosecond);
}

int const registered = [] {
  using planner = fl::least_loaded<fl::ceil_capacity, fl::always_reroute>;
  for (double const skew : fl_bench::axes::skews) {
    for (rerouting_case const sizes : {rerouting_case{128, 8}, {384, 8}, {256, 64}}) {
      add("least_loaded", planner{}, sizes, skew);
      add("least_loaded_m1024", planner{.least_chunk = 1024}, sizes, skew);
    }
    add("least_loaded_absorb_native", planner{.least_chunk = 1024, .tail = fl::tail_rule::absorb_native}, {384, 8}, skew);
    add("least_loaded_absorb_least_excess", planner{.least_chunk = 1024, .tail = fl::tail_rule::absorb_least_excess}, {384, 8}, skew);
    add("least_loaded_any", planner{.least_chunk = 1024, .forced = fl::forced_rule::least_loaded_any}, {384, 8}, skew);
    add("least_loaded_forced_stays", planner{.least_chunk = 1024, .forced_shed = false}, {384, 8}, skew);
    add("released_least_loaded", fl::make_released_least_loaded(), {384, 8}, skew);
    if (!fl_bench::axes::quick()) { add("least_loaded", planner{}, {4096, 1024}, skew); }
  }
  return 0;
}();

}  // namespace
