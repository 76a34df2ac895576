// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What routing a slot costs in states that the router itself has led to; how that grows; and a controller's whole step.
//
// A controller with the router runs from empty queues at load 0.86 (slot_overload: 1.15, where queues grow), and some of its slots are kept (edge/recorded_slots.hpp).
// A row is the median over the kept slots of processor time; a slot's own time is the median of several passes over all
// slots, so that no slot is repeated at once. The clock's own time is taken off. The exact routers' certificates must hold.
#include "edge/recorded_slots.hpp"
#include "support/axes.hpp"
#include "support/ceilings.hpp"

#include <fairlead/edge/frozen_routers.hpp>
#include <fairlead/edge/lyapunov_linear.hpp>
#include <fairlead/edge/sequential_routers.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <string>
#include <utility>
#include <vector>

namespace {

namespace fl = fairlead;
using edge_bench::network;
using edge_bench::quantile;
using edge_bench::recorded_slot;
using fl::index_t;
using fl_bench::axes::choice_case;

template <class Router>
inline constexpr bool is_exact = std::same_as<Router, fl::lyapunov_convex> || std::same_as<Router, fl::exact_drift>;
// Reads every score once, and does little besides.
template <class Router>
inline constexpr bool reads_scores = std::same_as<Router, fl::lyapunov_linear> || std::same_as<Router, fl::score_first>;

// Where a router writes.
struct answer {
  answer(network const& of, std::size_t bytes)
      : choice(of.most_arrivals(), of.sizes.fan_out), counts(static_cast<std::size_t>(of.sizes.servers)), memory(bytes) {}
  fl::matrix_view<fl::expert_id> rows(fl::slot_view const& view) { return {choice.data(), view.tokens(), view.fan_out}; }

  fl::matrix<fl::expert_id> choice;
  std::vector<index_t> counts;
  fl::arena<> memory;
};

template <class Router>
double route_seconds(network const& of, recorded_slot const& slot, answer& to) {
  fl::slot_view const view = slot.view(of);
  return edge_bench::seconds_of([&] {
    fl::workspace ws = to.memory.view();
    Router{}.route(view, of.servers, fl::ties_by_id{}, to.rows(view), to.counts, ws);
    benchmark::DoNotOptimize(to.counts.data());
    benchmark::ClobberMemory();
  });
}

template <class Router>
void route(benchmark::State& state, choice_case sizes, double load) {
  network const of(sizes, load);
  std::vector<recorded_slot> const slots = edge_bench::record<Router>(of, edge_bench::length_of(sizes));
  answer to(of, Router{}.workspace_bytes(of.most_arrivals(), sizes.servers, sizes.fan_out));
  std::size_t const passes = sizes.servers * sizes.tokens <= 1 << 17 ? 5 : 3;
  for (auto _ : state) {
    std::vector<std::vector<double>> times(slots.size());
    for (std::size_t pass = 0; pass <= passes; ++pass) {
      for (std::size_t s = 0; s < slots.size(); ++s) {
        double const seconds = route_seconds<Router>(of, slots[s], to);
        if (pass > 0) { times[s].push_back(seconds); }  // the first one warms up
      }
    }
    std::vector<double> seconds;
    for (auto& own : times) { seconds.push_back(fl_bench::median_of(own)); }
    double const median = fl_bench::median_of(seconds);  // sorts
    state.SetIterationTime(median);
    state.counters["p95_us"] = 1e6 * quantile(seconds, 0.95);
    state.counters["slowest_us"] = 1e6 * seconds.back();
    state.counters["slots"] = static_cast<double>(slots.size());
    state.counters["ns_per_pair"] = 1e9 * median / static_cast<double>(sizes.servers * sizes.tokens);
    if constexpr (reads_scores<Router>) {
      index_t const bytes = sizes.servers * sizes.tokens * static_cast<index_t>(sizeof(float));
      state.counters["reads_of_scores"] = median * fl_bench::stream_read_rate() / static_cast<double>(bytes);
      state.counters["reads_at_this_size"] = median * fl_bench::stream_read_rate(bytes) / static_cast<double>(bytes);
    }
    if constexpr (is_exact<Router>) {
      std::vector<double> searches;
      double gap = 0.0;
      for (recorded_slot const& slot : slots) {
        fl::slot_view const view = slot.view(of);
        fl::workspace ws = to.memory.view();
        auto const report = Router{}.solve(view, of.servers, fl::ties_by_id{}, to.rows(view), to.counts, ws);
        searches.push_back(static_cast<double>(report.iterations));
        gap = std::max(gap, report.gap() / std::max(1.0, std::fabs(report.value)));
        if (report.status != fl::status::ok || gap > 1e-9) { return state.SkipWithError("no proof of optimality"); }
      }
      state.counters["gap"] = gap;
      state.counters["searches"] = fl_bench::median_of(searches);
    }
  }
}

// A whole slot of the controller, from empty queues on; then the same run again with the router alone.
template <class Router>
void step(benchmark::State& state, choice_case sizes, double load) {
  network const of(sizes, load);
  index_t const slots = edge_bench::length_of(sizes).slots;
  std::vector<fl::matrix<float>> scores;
  for (index_t slot = 0; slot < slots; ++slot) { scores.push_back(of.scores(slot)); }
  for (auto _ : state) {
    std::vector<double> steps, routes;
    edge_bench::running<Router> run(of, slots);
    double completed = 0.0;
    for (auto const& own : scores) {
      steps.push_back(edge_bench::seconds_of([&] { completed += static_cast<double>(run.step(own).completed.size()); }));
    }
    edge_bench::running<Router> again(of, slots);
    answer to(of, Router{}.workspace_bytes(of.most_arrivals(), sizes.servers, sizes.fan_out));
    for (auto& own : scores) {
      recorded_slot now{std::move(own), again.state.backlog, again.state.energy_debt, again.state.slot, again.state.next_token};
      routes.push_back(route_seconds<Router>(of, now, to));
      again.step(now.scores);
      own = std::move(now.scores);
    }
    double total = 0.0;
    for (double const own : steps) { total += own; }
    double const median = fl_bench::median_of(steps);
    state.SetIterationTime(median);
    state.counters["p95_us"] = 1e6 * quantile(steps, 0.95);
    state.counters["slowest_us"] = 1e6 * steps.back();
    state.counters["slots_per_second"] = static_cast<double>(slots) / total;
    state.counters["bookkeeping_us"] = 1e6 * (median - fl_bench::median_of(routes));
    state.counters["bookkeeping_share"] = 1.0 - fl_bench::median_of(routes) / median;
    state.counters["completed_a_slot"] = completed / static_cast<double>(slots);
  }
}

void add(std::string const& name, void (*run)(benchmark::State&, choice_case, double), choice_case sizes,
         double load = fl_bench::axes::slot_load) {
  if (fl_bench::axes::quick() && !sizes.quick) { return; }
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { run(state, sizes, load); })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMicrosecond);
}

template <class Router>
void add_router(char const* name) {
  for (choice_case const sizes : fl_bench::axes::slot_cases) {
    add(fl_bench::text_of("edge/slot_routers/", name, "/", sizes.name()), &route<Router>, sizes);
  }
  choice_case const small = fl_bench::axes::slot_cases.front();
  add(fl_bench::text_of("edge/slot_overload/", name, "/", small.name()), &route<Router>, small, fl_bench::axes::slot_overload);
}

template <class Router>
void add_growth(char const* name) {
  auto const lines = [&](char const* fixed, auto const& cases) {
    for (choice_case const sizes : cases) {
      add(fl_bench::text_of("edge/slot_growth/", fixed, "/", name, "/", sizes.servers, "x", sizes.tokens), &route<Router>, sizes);
    }
  };
  lines("J10", fl_bench::axes::slot_growth_tokens_10);
  lines("J64", fl_bench::axes::slot_growth_tokens_64);
  lines("N4096", fl_bench::axes::slot_growth_servers);
}

template <class Router>
void add_step(char const* name) {
  choice_case const sizes = fl_bench::axes::slot_cases.front();
  add(fl_bench::text_of("edge/slot_step/", name, "/", sizes.name()), &step<Router>, sizes);
}

int const registered = [] {
  add_router<fl::random_servers>("random");
  add_router<fl::score_first>("score_first");
  add_router<fl::queue_first>("queue_first");
  add_router<fl::energy_first>("energy_first");
  add_router<fl::max_weight>("max_weight");
  add_router<fl::join_shortest_queue>("join_shortest_queue");
  add_router<fl::shortest_delay>("shortest_delay");
  add_router<fl::lyapunov_linear>("lyapunov_linear");
  add_router<fl::lyapunov_convex>("lyapunov_convex");
  add_router<fl::exact_drift>("exact_drift");
  add_step<fl::lyapunov_linear>("lyapunov_linear");
  add_step<fl::lyapunov_convex>("lyapunov_convex");
  add_step<fl::exact_drift>("exact_drift");
  add_growth<fl::lyapunov_linear>("lyapunov_linear");
  add_growth<fl::join_shortest_queue>("join_shortest_queue");
  add_growth<fl::lyapunov_convex>("lyapunov_convex");
  add_growth<fl::exact_drift>("exact_drift");
  return 0;
}();

}  // namespace
