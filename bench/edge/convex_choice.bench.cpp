// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The exact choice of servers under convex costs: one slot of an edge network, one batch of a data center, and growth.
//
// A row is the median of processor time over distinct inputs. Numbers are integers after scaling, so that LEMON's network
// simplex (its graph building not counted), solved in turns where it is fast enough, must agree to the last digit: else
// the row fails, as it does where the prices leave more than rounding between value and bound.
#include "support/assignment.hpp"
#include "support/axes.hpp"
#include "support/ceilings.hpp"

#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/flow/convex_choice.hpp>

#if __has_include(<lemon/network_simplex.h>)
#  include "support/peers/lemon_convex_choice.hpp"
#  define FAIRLEAD_BENCH_LEMON 1
#else
#  define FAIRLEAD_BENCH_LEMON 0
#endif

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;
using fl_bench::axes::choice_case;

enum class score_kind { uniform, softmax, rows };  // rows: eight tokens each share their scores
enum class cost_kind { queues, drift };            // cubic energy for what is served; linear in the queue, or its square

constexpr double grid = 1024.0;
constexpr double worth = 50.0;  // of a score of 1

struct slot {
  fl::matrix<float> scores;
  std::vector<double> queue, energy, most;
  cost_kind kind;

  slot(choice_case const& sizes, score_kind scores_kind, cost_kind costs, std::uint64_t stream)
      : scores(sizes.tokens, sizes.servers), kind(costs) {
    std::uint64_t draw = 0;
    auto const uniform = [&] { return static_cast<double>(fl::philox::uniform(fl_bench::axes::seed, 500 + stream, draw++)); };
    for (index_t t = 0; t < sizes.tokens; ++t) {
      double sum = 0.0;
      float* const row = scores.view().row(t);
      if (scores_kind == score_kind::rows && t % 8 != 0) {
        std::copy_n(scores.view().row(t - 1), sizes.servers, row);
        continue;
      }
      for (index_t j = 0; j < sizes.servers; ++j) {
        row[j] = static_cast<float>(scores_kind == score_kind::softmax ? std::exp(6.0 * uniform()) : uniform());
        sum += static_cast<double>(row[j]);
      }
      double const scale = scores_kind == score_kind::softmax ? 1.0 / sum : 1.0;
      for (index_t j = 0; j < sizes.servers; ++j) { row[j] = static_cast<float>(std::nearbyint(static_cast<double>(row[j]) * scale * grid) / grid); }
    }
    double const share = static_cast<double>(sizes.tokens * sizes.fan_out) / static_cast<double>(sizes.servers);
    for (index_t j = 0; j < sizes.servers; ++j) {
      queue.push_back(2.0 * share * uniform());
      energy.push_back(j % 4 == 0 ? 0.0 : 20.0 / (share * share) * uniform());
      most.push_back(share * (0.5 + uniform()));
    }
  }
  // Cost of n arrivals at the best speed. The service is capped, so that more of a queue than that only waits.
  [[nodiscard]] double whole(index_t server, double n) const {
    auto const j = static_cast<std::size_t>(server);
    double const held = queue[j] + n;
    double const energy3 = 3.0 * energy[j];
    if (kind == cost_kind::queues) {
      double const gain = queue[j] + worth;
      double const served = std::min({energy3 > 0.0 ? std::sqrt(gain / energy3) : held, held, most[j]});
      return queue[j] * n - gain * served + energy[j] * served * served * served;
    }
    double const best = energy3 > 0.0 ? (std::sqrt(1.0 + 4.0 * energy3 * (held + worth)) - 1.0) / (2.0 * energy3) : held;
    double const served = std::min({best, held, most[j]});
    return 0.5 * (held - served) * (held - served) - worth * served + energy[j] * served * served * served;
  }
  double operator()(index_t server, index_t n) const {
    // Rounding to the grid keeps the marginals from falling.
    return std::nearbyint(grid * (whole(server, static_cast<double>(n) + 1.0) - whole(server, static_cast<double>(n))));
  }
};

void choose(benchmark::State& state, score_kind scores, cost_kind costs, choice_case sizes) {
  bool const small = sizes.tokens * sizes.servers <= 1 << 14;
  bool const quick = fl_bench::axes::quick();
  std::uint64_t const inputs = small ? (quick ? 21 : 101) : (quick ? 3 : 7);
  fl::convex_choice const solver;
  fl::arena<> memory(solver.workspace_bytes(sizes.tokens, sizes.servers, sizes.fan_out));
  fl::matrix<fl::expert_id> choices(sizes.tokens, sizes.fan_out);
  std::vector<index_t> counts(static_cast<std::size_t>(sizes.servers));
  std::vector<double> prices(counts.size());
  for (auto _ : state) {
    std::vector<double> seconds, peer_seconds, searches;
    double spent = 0.0;
    double worst_gap = 0.0;
    for (std::uint64_t input = 0; input < inputs; ++input) {
      slot const now(sizes, scores, costs, input);
      fl::convex_choice_problem const problem{.scores = now.scores.view(), .fan_out = sizes.fan_out, .scale = worth * grid, .warm_prices = {}, .priority = {}};
      fl::workspace ws = memory.view();
      double const start = fl_bench::thread_seconds();
      auto const report = solver.solve(fl::serial{}, problem, now, {.choices = choices.view(), .counts = counts, .prices = prices}, ws);
      seconds.push_back(fl_bench::thread_seconds() - start);
      searches.push_back(static_cast<double>(report.iterations));
      worst_gap = std::max(worst_gap, report.gap() / std::max(1.0, std::fabs(report.value)));
      if (report.status != fl::status::ok || worst_gap > 1e-9) { return state.SkipWithError("no proof of optimality"); }
#if FAIRLEAD_BENCH_LEMON
      if (sizes.tokens * sizes.servers <= 1 << 16 && (peer_seconds.empty() || spent < (quick ? 0.2 : 2.0))) {
        fl_bench::lemon_convex_choice peer(now.scores.view(), sizes.fan_out, worth * grid, now);
        double const begin = fl_bench::thread_seconds();
        bool const solved = peer.solve();
        peer_seconds.push_back(fl_bench::thread_seconds() - begin);
        spent += peer_seconds.back();
        if (!solved || static_cast<double>(peer.value()) != report.value) { return state.SkipWithError("LEMON found another value"); }
      }
#endif
    }
    double const median = fl_bench::median_of(seconds);
    state.SetIterationTime(median);
    state.counters["slowest_ms"] = 1e3 * *std::max_element(seconds.begin(), seconds.end());
    state.counters["searches"] = fl_bench::median_of(searches);
    state.counters["gap"] = worst_gap;
    if (!peer_seconds.empty()) {
      double const peer = fl_bench::median_of(peer_seconds);
      state.counters["lemon_ms"] = 1e3 * peer;
      state.counters["speedup_over_lemon"] = peer / median;
    }
  }
}

int const registered = [] {
  struct named {
    char const* name;
    score_kind scores;
    cost_kind costs;
  };
  for (named const kind : {named{"uniform_queues", score_kind::uniform, cost_kind::queues}, named{"softmax_queues", score_kind::softmax, cost_kind::queues},
                           named{"uniform_drift", score_kind::uniform, cost_kind::drift}, named{"rows_drift", score_kind::rows, cost_kind::drift}}) {
    for (choice_case const sizes : fl_bench::axes::choice_cases) {
      if (fl_bench::axes::quick() && !sizes.quick) { continue; }
      benchmark::RegisterBenchmark(fl_bench::text_of("edge/convex_choice/", kind.name, "/", sizes.name()).c_str(),
                                   [=](benchmark::State& state) { choose(state, kind.scores, kind.costs, sizes); })
          ->UseManualTime()
          ->Iterations(1)
          ->Unit(benchmark::kMillisecond);
    }
  }
  return 0;
}();

}  // namespace
