// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The exact slot routers beside other ways to solve the same slots, by turns.
//
// Recorded slots as in slot_routers.bench.cpp. A row's time is the router's, the median over slots; counters say how many
// times as long each peer takes (median of the ratios) and where a peer is not exact, by how much it misses. Peers get the
// marginal costs as a table, whose making is not counted, nor is that of graphs and programs; the router calculates its own.
// LEMON works on integers: scores and steps on a grid of 1 / 1024 copy^2, so that its value may differ by the rounding of
// each copy; Clp and GLPK have tolerances of their own, 1e-6 is allowed. Successive paths must find the router's value up to
// rounding of sums. Else the row fails.
#include "edge/recorded_slots.hpp"
#include "support/axes.hpp"
#include "support/ceilings.hpp"
#include "support/peers/exchange_paths.hpp"
#include "support/peers/lp_convex_choice.hpp"
#include "support/peers/marginal_descent.hpp"

#include <fairlead/edge/slot_cost.hpp>

#if __has_include(<lemon/network_simplex.h>)
#  include "support/peers/lemon_convex_choice.hpp"
#  define FAIRLEAD_BENCH_LEMON 1
#else
#  define FAIRLEAD_BENCH_LEMON 0
#endif

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <string>
#include <vector>

namespace {

namespace fl = fairlead;
using edge_bench::network;
using edge_bench::recorded_slot;
using fl::index_t;
using fl_bench::axes::choice_case;

template <class Router>
using cost_of = std::conditional_t<std::same_as<Router, fl::exact_drift>, fl::exact_drift_cost<fl::cubic_energy>,
                                   fl::coupled_cost<fl::cubic_energy>>;

// All steps of all servers.
struct step_table {
  template <class Cost>
  step_table(Cost const& cost, index_t servers, index_t tokens_) : tokens(tokens_) {
    for (index_t j = 0; j < servers; ++j) {
      for (index_t n = 0; n < tokens; ++n) { steps.push_back(cost.marginal(j, n)); }
    }
  }
  double operator()(index_t server, index_t copies) const {
    // A server takes no more copies than there are tokens; asking for one more has to be harmless.
    return copies < tokens ? steps[static_cast<std::size_t>(server * tokens + copies)] : 1e300;
  }
  index_t tokens;
  std::vector<double> steps;
};

// Times of a peer next to ours, as long as its share of time lasts; one slot at least.
class turns {
 public:
  turns(char const* name, double budget) : name_(name), budget_(budget) {}
  template <class Run>
  void take(double ours, Run&& run) {
    if (!ratios_.empty() && spent_ + spent_ / static_cast<double>(ratios_.size()) > budget_) { return; }
    double const seconds = edge_bench::seconds_of(run);
    spent_ += seconds;
    ratios_.push_back(seconds / ours);
  }
  // How often `take` would run `run` again.
  [[nodiscard]] bool has_time() const { return ratios_.empty() || spent_ + spent_ / static_cast<double>(ratios_.size()) <= budget_; }
  void report(benchmark::State& state) {
    if (!ratios_.empty()) { state.counters[fl_bench::text_of(name_, "_times")] = fl_bench::median_of(ratios_); }
  }

 private:
  char const* name_;
  double budget_;
  double spent_ = 0.0;
  std::vector<double> ratios_;
};

template <class Router>
void peers(benchmark::State& state, choice_case sizes) {
  network const of(sizes);
  std::vector<recorded_slot> const slots = edge_bench::record<Router>(of, edge_bench::length_of(sizes));
  bool const quick = fl_bench::axes::quick();
  double const budget = quick ? 0.3 : 5.0;
  [[maybe_unused]] bool const programs = sizes.tokens * sizes.servers <= 1 << 13;
  fl::arena<> memory(Router{}.workspace_bytes(of.most_arrivals(), sizes.servers, sizes.fan_out));
  fl::matrix<fl::expert_id> choice(of.most_arrivals(), sizes.fan_out), other(of.most_arrivals(), sizes.fan_out);
  std::vector<index_t> counts(static_cast<std::size_t>(sizes.servers)), other_counts(counts.size());
  for (auto _ : state) {
    std::vector<double> seconds, misses;
    turns paths("textbook", budget), descent("descent", budget);
    [[maybe_unused]] turns lemon("lemon", budget), clp("clp", budget), glpk("glpk", budget);
    for (recorded_slot const& slot : slots) {
      fl::slot_view const view = slot.view(of);
      cost_of<Router> const cost{&view, &of.servers};
      step_table const steps(cost, sizes.servers, view.tokens());
      double const scale = of.weights.utility * of.weights.gate;
      fl::matrix_view<fl::expert_id> const rows{choice.data(), view.tokens(), view.fan_out};
      fl::matrix_view<fl::expert_id> const other_rows{other.data(), view.tokens(), view.fan_out};
      fl::convex_choice_report report;
      double const ours = edge_bench::seconds_of([&] {
        fl::workspace ws = memory.view();
        report = Router{}.solve(view, of.servers, fl::ties_by_id{}, rows, counts, ws);
      });
      seconds.push_back(ours);
      double const size = std::fabs(report.value) + scale;
      auto const equal = [&](double value) { return std::fabs(value - report.value) <= 1e-9 * size; };
      if (report.status != fl::status::ok || !equal(fl_bench::choice_value(steps, view.scores, scale, rows, counts))) {
        return state.SkipWithError("the router's value is not its choice's");
      }
      if (paths.has_time()) {
        fl_bench::exchange_paths<step_table> peer(steps, view.tokens(), sizes.servers);
        paths.take(ours, [&] { peer.solve(view.scores, scale, other_rows, other_counts); });
        if (!equal(fl_bench::choice_value(steps, view.scores, scale, other_rows, other_counts))) {
          return state.SkipWithError("successive shortest paths found another value");
        }
      }
      if (descent.has_time()) {
        fl_bench::marginal_descent<step_table> peer(steps, sizes.servers);
        descent.take(ours, [&] { peer.solve(view.scores, scale, other_rows, other_counts); });
        // In the slot's own objective, costs of empty servers included.
        double const best = fl::slot_value(cost, rows, counts);
        double const found = fl::slot_value(cost, other_rows, other_counts);
        if (found < best - 1e-9 * size) { return state.SkipWithError("descent undercuts the optimum"); }
        misses.push_back((found - best) / std::fabs(best));
      }
#if FAIRLEAD_BENCH_LEMON
      if (lemon.has_time()) {
        constexpr double grid = 1024.0;
        fl::matrix<float> rounded(view.tokens(), sizes.servers);
        for (index_t t = 0; t < view.tokens(); ++t) {
          for (index_t j = 0; j < sizes.servers; ++j) {
            rounded(t, j) = static_cast<float>(std::nearbyint(grid * scale * static_cast<double>(view.scores(t, j))));
          }
        }
        fl_bench::lemon_convex_choice peer(rounded.view(), sizes.fan_out, 1.0,
                                           [&](index_t j, index_t n) { return std::nearbyint(grid * steps(j, n)); });
        bool solved = false;
        lemon.take(ours, [&] { solved = peer.solve(); });
        auto const copies = static_cast<double>(view.tokens() * sizes.fan_out);
        if (!solved || std::fabs(static_cast<double>(peer.value()) / grid - report.value) > copies / grid) {
          return state.SkipWithError("LEMON found another value");
        }
      }
#endif
#if defined(FAIRLEAD_BENCH_CLP)
      if (programs && clp.has_time()) {
        fl_bench::clp_convex_choice peer({view.scores, sizes.fan_out, scale, steps});
        bool solved = false;
        clp.take(ours, [&] { solved = peer.solve(); });
        if (!solved || std::fabs(peer.value() - report.value) > 1e-6 * size) { return state.SkipWithError("Clp found another value"); }
      }
#endif
#if defined(FAIRLEAD_BENCH_GLPK)
      if (programs && glpk.has_time()) {
        fl_bench::glpk_convex_choice peer({view.scores, sizes.fan_out, scale, steps});
        bool solved = false;
        glpk.take(ours, [&] { solved = peer.solve(); });
        if (!solved || std::fabs(peer.value() - report.value) > 1e-6 * size) { return state.SkipWithError("GLPK found another value"); }
      }
#endif
    }
    state.SetIterationTime(fl_bench::median_of(seconds));
    for (turns* const peer : {&paths, &descent, &lemon, &clp, &glpk}) { peer->report(state); }
    double sum = 0.0;
    for (double const own : misses) { sum += own; }
    state.counters["descent_misses_mean"] = sum / static_cast<double>(misses.size());
    state.counters["descent_misses_worst"] = *std::max_element(misses.begin(), misses.end());
    state.counters["slots"] = static_cast<double>(slots.size());
  }
}

int const registered = [] {
  auto const add = [](char const* name, void (*run)(benchmark::State&, choice_case)) {
    for (choice_case const sizes : fl_bench::axes::slot_peer_cases) {
      if (fl_bench::axes::quick() && !sizes.quick) { continue; }
      benchmark::RegisterBenchmark(fl_bench::text_of("edge/slot_peers/", name, "/", sizes.name()).c_str(),
                                   [=](benchmark::State& state) { run(state, sizes); })
          ->UseManualTime()
          ->Iterations(1)
          ->Unit(benchmark::kMicrosecond);
    }
  };
  add("lyapunov_convex", &peers<fl::lyapunov_convex>);
  add("exact_drift", &peers<fl::exact_drift>);
  return 0;
}();

}  // namespace
