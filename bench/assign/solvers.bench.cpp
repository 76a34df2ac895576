// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The other solvers, with quality beside time: how far below the optimum, how far above a capacity; and the distributed
// solver, with its messages.
#include "assign/instance.hpp"

#include <fairlead/assign/auction.hpp>
#include <fairlead/assign/balanced_flow.hpp>
#include <fairlead/assign/distributed_flow.hpp>
#include <fairlead/assign/greedy.hpp>
#include <fairlead/assign/greedy_order.hpp>
#include <fairlead/assign/jacobi_auction.hpp>
#include <fairlead/assign/quantile.hpp>
#include <fairlead/assign/sinkhorn.hpp>
#include <fairlead/comm/inproc.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace {

using namespace assign_bench;

template <class Solver>
void measure(benchmark::State& state, Solver const& solver, wl::score_kind kind, assignment_case sizes) {
  instance now(sizes, kind);
  for (auto _ : state) {
    static_cast<void>(now.solve(fl::serial{}, fl::balanced_flow{}));
    double const best = fl_bench::judge(now.problem(), now.owner.view(), {}).value;
    fl::assignment_report report = now.solve(fl::serial{}, solver);
    std::vector<double> seconds;
    double spent = 0.0;
    double const budget = fl_bench::axes::quick() ? 0.02 : 0.3;
    while (seconds.empty() || (seconds.size() < 21 && spent < budget)) {
      seconds.push_back(cpu_seconds_of([&] { report = now.solve(fl::serial{}, solver); }));
      spent += seconds.back();
    }
    double const median = fl_bench::median_of(seconds);
    state.SetIterationTime(median);
    auto const quality = fl_bench::judge(now.problem(), now.owner.view(), {});
    // Rules that only aim at balance may be worth more than the best assignment: their gap is negative.
    state.counters["gap"] = (best - quality.value) / std::fabs(best);
    state.counters["max_violation"] = quality.max_violation;
    state.counters["reads"] = reads(median, sizes);
    bool const ended = report.status == fl::status::ok || report.status == fl::status::iteration_limit;
    if (!ended) { return state.SkipWithError("no assignment was found"); }
    if (fl::keeps_capacity<Solver> && (!quality.complete || quality.max_violation > 0.0)) {
      return state.SkipWithError("a capacity that the solver states to keep is broken");
    }
    if (report.status == fl::status::iteration_limit) { state.SetLabel("not proved best"); }
  }
}

template <class Solver>
void add(std::string const& name, Solver const& solver) {
  for (wl::score_kind const kind : wl::all_score_kinds) {
    for (auto const sizes : wanted(fl_bench::axes::assignment_solver_cases)) {
      benchmark::RegisterBenchmark(fl_bench::text_of("assign/", name, "/", wl::name(kind), "/", sizes.name()).c_str(),
                                   [=](benchmark::State& state) { measure(state, solver, kind, sizes); })
          ->UseManualTime()
          ->Iterations(1)
          ->Unit(benchmark::kMillisecond);
    }
  }
}

// Wall time of threads as ranks that share this machine's cores: messages and phases are what carries over.
void distributed(benchmark::State& state, wl::score_kind kind, assignment_case sizes, index_t ranks) {
  instance const all(sizes, kind);
  for (auto _ : state) {
    fl::inproc::world world{ranks};
    fl::distributed_assignment_report report;
    double const seconds = fl_bench::seconds_of([&] {
      auto const reports = world.run([&](fl::inproc::communicator comm) {
        index_t const first = sizes.tokens * comm.rank() / ranks;
        index_t const rows = sizes.tokens * (comm.rank() + 1) / ranks - first;
        auto problem = all.problem();
        problem.scores = {all.scores.data() + first * sizes.experts, rows, sizes.experts};
        fl::distributed_flow const solver;
        fl::matrix<fl::expert_id> owner(rows, sizes.fan_out);
        fl::arena<> memory(solver.workspace_bytes(rows, sizes.experts, sizes.fan_out, ranks));
        fl::workspace ws = memory.view();
        return solver.solve(fl::serial{}, comm, problem, {.owner = owner.view(), .prices = {}}, ws);
      });
      report = reports.front();
    });
    state.SetIterationTime(seconds);
    state.counters["gap"] = report.gap();
    state.counters["phases"] = static_cast<double>(report.iterations);
    state.counters["messages"] = static_cast<double>(report.messages);
    state.counters["numbers_per_message"] =
        static_cast<double>(report.message_numbers) / static_cast<double>(std::max<index_t>(report.messages, 1));
    if (report.status != fl::status::ok) { return state.SkipWithError("the solver did not say ok"); }
  }
}

int const registered = [] {
  add("similar_object_auction", fl::similar_object_auction{});
  add("jacobi_auction", fl::jacobi_auction{});
  add("sinkhorn_rounding", fl::sinkhorn_rounding{});
  add("quantile_sweep", fl::quantile_sweep{});
  add("greedy_edge_sort", fl::greedy_edge_sort{});
  add("greedy_expert_order", fl::greedy_expert_order{});
  add("greedy_repair", fl::greedy_repair{});
  add("greedy_argmax", fl::greedy_argmax{});
  for (wl::score_kind const kind : wl::all_score_kinds) {
    for (int const ranks : {1, 4}) {
      assignment_case const sizes = fl_bench::axes::assignment_solver_cases[1];
      benchmark::RegisterBenchmark(
          fl_bench::text_of("assign/distributed_flow/", wl::name(kind), "/", sizes.name(), "/ranks", ranks).c_str(),
          [=](benchmark::State& state) { distributed(state, kind, sizes, ranks); })
          ->UseManualTime()
          ->Iterations(1)
          ->Unit(benchmark::kMillisecond);
    }
  }
  return 0;
}();

}  // namespace
