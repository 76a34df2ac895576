// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The exact balanced assignment on one core, cold and warm, by turns with its peers; and how its time grows.
//
// A row is one measurement: the median of several solves by processor time, in turns with LEMON's network simplex (its
// graph building not counted) and with the auction that fairseq ships. The row fails if the value differs from LEMON's
// by anything, if a capacity is broken, or if two threads answer differently.
#include "assign/instance.hpp"
#include "support/assignment.hpp"
#include "support/axes.hpp"
#include "support/ceilings.hpp"
#include "support/peers/fairseq_auction.hpp"

#include <fairlead/assign/balanced_flow.hpp>
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/exec/serial.hpp>
#if defined(_OPENMP)
#  include <fairlead/exec/threads.hpp>
#endif
#include <fairlead/workload/assignment_scores.hpp>

#if __has_include(<lemon/network_simplex.h>)
#  include "support/peers/lemon_assignment.hpp"
#  define FAIRLEAD_BENCH_LEMON 1
#else
#  define FAIRLEAD_BENCH_LEMON 0
#endif

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

namespace {

namespace fl = fairlead;
namespace wl = fairlead::workload;
using fl::index_t;
using assign_bench::cpu_seconds_of;
using assign_bench::instance;
using assign_bench::reads;
using assign_bench::wanted;
using fl_bench::axes::assignment_case;

using exact = fl::balanced_flow;
static_assert(fl::assignment_solver_on<exact, fl::serial>);

// A peer that runs in turns with our solves as long as its share of time lasts, once at least.
template <class Run>
class timed_peer {
 public:
  timed_peer(Run run, double budget) : run_(run), budget_(budget) {}
  void take_turn() {
    if (!seconds_.empty() && spent_ + seconds_.back() > budget_) { return; }
    seconds_.push_back(cpu_seconds_of(run_));
    spent_ += seconds_.back();
  }
  double median() { return fl_bench::median_of(seconds_); }

 private:
  Run run_;
  double budget_;
  double spent_ = 0.0;
  std::vector<double> seconds_;
};

void balanced(benchmark::State& state, wl::score_kind kind, assignment_case sizes, bool warm) {
  bool const quick = fl_bench::axes::quick();
  instance now(sizes, kind);
  if (warm) { now.become_warm(exact{}); }

  fl_bench::auction_outcome auction;
  timed_peer auction_peer(
      [&] { auction = fl_bench::fairseq_auction(now.scores.view(), 10000, quick ? 1.0 : 30.0); }, quick ? 0.05 : 1.0);
  bool const has_auction = sizes.fan_out == 1;
#if FAIRLEAD_BENCH_LEMON
  using lemon = fl_bench::lemon_assignment;
  bool solved = true;
  std::int64_t lemon_value = 0;
  // Two arc orders; a run at a time holds the memory of both graphs, so the largest case has the first only.
  auto const graph = [&](lemon::order order) {
    return std::make_unique<lemon>(now.scores.view(), sizes.fan_out, now.capacity, now.capacity,
                                   wl::assignment_scores::score_scale, order);
  };
  bool const second_order = !quick && !warm;
  auto const by_token = graph(lemon::order::by_token);
  auto const by_expert = second_order ? graph(lemon::order::by_expert) : nullptr;
  timed_peer lemon_peer(
      [&] {
        solved = by_token->solve() && solved;
        lemon_value = by_token->scaled_value();
      },
      quick ? 0.05 : 2.0);
  timed_peer lemon_by_expert_peer(
      [&] { solved = by_expert->solve() && by_expert->scaled_value() == lemon_value && solved; }, 2.0);
#endif

  for (auto _ : state) {
    fl::assignment_report report;
    std::vector<double> ours, ours_wall, two_wall;
    bool same_answer = true;
    static_cast<void>(now.solve(fl::serial{}, exact{}));  // touches the workspace
    double const budget = quick ? 0.05 : 1.0;
    double spent = 0.0;
    [[maybe_unused]] double two_spent = 0.0;
    for (int round = 0; round < 1 || (round < 3 && spent < 10.0) || (round < 41 && spent < budget); ++round) {
      ours_wall.push_back(fl_bench::seconds_of([&] {
        ours.push_back(cpu_seconds_of([&] { report = now.solve(fl::serial{}, exact{}); }));
      }));
      spent += ours_wall.back();
      if (has_auction) { auction_peer.take_turn(); }
#if FAIRLEAD_BENCH_LEMON
      lemon_peer.take_turn();
      if (second_order) { lemon_by_expert_peer.take_turn(); }
#endif
#if defined(_OPENMP)
      // On a machine that is busy with other things two threads wait for each other: a few rounds then have to do.
      if (two_spent > budget && two_wall.size() >= 3) { continue; }
      std::vector<fl::expert_id> const owner(now.owner.span().begin(), now.owner.span().end());
      auto const prices = now.prices;
      two_wall.push_back(fl_bench::seconds_of([&] { static_cast<void>(now.solve(fl::threads{.count = 2}, exact{})); }));
      two_spent += two_wall.back();
      same_answer = same_answer && prices == now.prices &&
                    std::equal(owner.begin(), owner.end(), now.owner.span().begin());
#endif
    }
    double const seconds = fl_bench::median_of(ours);
    state.SetIterationTime(seconds);

    auto const quality = fl_bench::judge(now.problem(), now.owner.view(), now.prices);
    if (report.status != fl::status::ok) { return state.SkipWithError("the solver did not say ok"); }
    if (!quality.complete || quality.max_violation > 0.0) { return state.SkipWithError("not an assignment"); }
    if (!same_answer) { return state.SkipWithError("two threads gave another answer"); }
#if FAIRLEAD_BENCH_LEMON
    if (!solved) { return state.SkipWithError("LEMON found no optimum, or two"); }
    if (static_cast<double>(lemon_value) != quality.value * wl::assignment_scores::score_scale) {
      return state.SkipWithError("the value is not LEMON's");
    }
    state.counters["speedup_vs_lemon"] = lemon_peer.median() / seconds;
    state.counters["lemon_ms"] = 1e3 * lemon_peer.median();
    if (second_order) { state.counters["speedup_vs_lemon_by_expert"] = lemon_by_expert_peer.median() / seconds; }
#endif
    state.counters["gap"] = quality.gap();
    state.counters["reads"] = reads(seconds, sizes);
    state.counters["augmentations"] = static_cast<double>(report.augmentations);
    state.counters["scans"] = static_cast<double>(report.scans);
    if (!two_wall.empty()) {
      state.counters["speedup_two_threads"] = fl_bench::median_of(ours_wall) / fl_bench::median_of(two_wall);
    }
    if (has_auction) {
      bool const valid = auction.valid(sizes.tokens);
      double worth = 0.0;
      for (std::size_t e = 0; valid && e < auction.tokens_of.size(); ++e) {
        for (auto const t : auction.tokens_of[e]) {
          worth += static_cast<double>(now.scores(t, static_cast<index_t>(e)));
        }
      }
      state.counters["speedup_vs_auction"] = auction_peer.median() / seconds;
      state.counters["auction_valid"] = valid ? 1.0 : 0.0;
      if (valid) { state.counters["auction_gap"] = (quality.value - worth) / std::fabs(quality.value); }
      std::string const label = valid                ? ""
                                : auction.finished   ? "the auction's answer is not an assignment: lost"
                                                     : "the auction was stopped: lost, its time is a lower bound";
      state.SetLabel(label);
    }
#if !FAIRLEAD_BENCH_LEMON
    state.SetLabel("without LEMON (Debian: liblemon-dev): value not compared");
#endif
  }
}

// Median time of cold solves, measured once a process.
double growth_seconds(wl::score_kind kind, assignment_case sizes) {
  static std::map<std::tuple<wl::score_kind, index_t, index_t>, double> known;
  auto const key = std::tuple(kind, sizes.tokens, sizes.experts);
  auto const found = known.find(key);
  if (found != known.end()) { return found->second; }
  instance now(sizes, kind);
  static_cast<void>(now.solve(fl::serial{}, exact{}));
  std::vector<double> seconds;
  double spent = 0.0;
  double const budget = fl_bench::axes::quick() ? 0.03 : 0.5;
  while (seconds.empty() || (seconds.size() < 3 && spent < 2.0) || (seconds.size() < 21 && spent < budget)) {
    seconds.push_back(cpu_seconds_of([&] { static_cast<void>(now.solve(fl::serial{}, exact{})); }));
    spent += seconds.back();
  }
  return known[key] = fl_bench::median_of(seconds);
}

// Slope of log(time) over log(size), by least squares.
void exponent(benchmark::State& state, wl::score_kind kind, std::vector<assignment_case> const& cases, bool in_tokens) {
  for (auto _ : state) {
    double n = 0.0, x = 0.0, y = 0.0, xx = 0.0, xy = 0.0, total = 0.0;
    for (auto const sizes : cases) {
      double const seconds = growth_seconds(kind, sizes);
      double const log_size = std::log(static_cast<double>(in_tokens ? sizes.tokens : sizes.experts));
      n += 1.0, x += log_size, xx += log_size * log_size, y += std::log(seconds), xy += log_size * std::log(seconds);
      total += seconds;
    }
    state.SetIterationTime(total);
    state.counters["exponent"] = (n * xy - x * y) / (n * xx - x * x);
  }
}

void add_growth(std::string const& name, std::vector<assignment_case> const& cases, bool in_tokens) {
  for (wl::score_kind const kind : wl::all_score_kinds) {
    std::string const prefix = fl_bench::text_of("assign/", name, "/", wl::name(kind), "/");
    for (auto const sizes : cases) {
      benchmark::RegisterBenchmark((prefix + sizes.name()).c_str(),
                                   [=](benchmark::State& state) {
                                     for (auto _ : state) {
                                       double const seconds = growth_seconds(kind, sizes);
                                       state.SetIterationTime(seconds);
                                       state.counters["reads"] = reads(seconds, sizes);
                                     }
                                   })
          ->UseManualTime()
          ->Iterations(1)
          ->Unit(benchmark::kMillisecond);
    }
    benchmark::RegisterBenchmark((prefix + "exponent").c_str(),
                                 [=](benchmark::State& state) { exponent(state, kind, cases, in_tokens); })
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMillisecond);
  }
}

int const registered = [] {
  for (auto const sizes : wanted(fl_bench::axes::assignment_cases)) {
    for (wl::score_kind const kind : wl::all_score_kinds) {
      for (bool const warm : {false, true}) {
        std::string const name = fl_bench::text_of("assign/balanced/", wl::name(kind), "/", sizes.name(),
                                                   warm ? "/warm" : "/cold");
        benchmark::RegisterBenchmark(name.c_str(),
                                     [=](benchmark::State& state) { balanced(state, kind, sizes, warm); })
            ->UseManualTime()
            ->Iterations(1)
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
  add_growth("growth_tokens", wanted(fl_bench::axes::assignment_growth_tokens), true);
  add_growth("growth_experts", wanted(fl_bench::axes::assignment_growth_experts), false);
  return 0;
}();

}  // namespace
