// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Bias controllers: time of one global batch (without routing), and how even the loads are after how many of them.
#include "support/axes.hpp"
#include "support/ceilings.hpp"

#include <fairlead/assign/balanced_flow.hpp>
#include <fairlead/balance/exact_dual_bias.hpp>
#include <fairlead/balance/pid_bias.hpp>
#include <fairlead/balance/quantile_bias.hpp>
#include <fairlead/balance/sign_bias.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/metrics/load.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/workload/assignment_scores.hpp>

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;

// Clustered tokens, experts of different popularity; sigmoid scores of these are what the bias is added to.
fl::matrix<float> make_logits(fl_bench::axes::routing_case sizes, index_t first_token) {
  auto logits = fl::workload::assignment_scores{.tokens = sizes.tokens, .experts = sizes.experts,
                                                .kind = fl::workload::score_kind::cluster,
                                                .seed = fl_bench::axes::seed, .first_token = first_token}.make();
  for (index_t t = 0; t < sizes.tokens; ++t) {
    for (index_t e = 0; e < sizes.experts; ++e) {
      logits(t, e) += 0.5F * static_cast<float>(fl::philox::normal(fl_bench::axes::seed, 5, static_cast<std::uint64_t>(e)));
    }
  }
  return logits;
}

template <class Controller>
struct loop {
  using router_type = fl::with_controller<fl::sigmoid_bias_top_k, Controller>;
  router_type router;
  fl::router_state_t<router_type> state;
  fl::arena<> memory;
  fl::routing<> out;
  fl::alone comm;
  fl::serial on;

  loop(Controller const& controller, fl_bench::axes::routing_case sizes)
      : router{.experts = sizes.experts, .k = sizes.fan_out, .selection = {}, .noise = {}, .controller = controller},
        state(router.make_state()),
        memory(router.workspace_bytes(sizes.tokens)),
        out(sizes.tokens, sizes.fan_out) {}

  std::vector<index_t> route(fl::matrix<float> const& logits, fl::phase why) {
    fl::workspace ws = memory.view();
    if constexpr (fl::reads_scores_on<Controller, fl::serial>) {
      router.route_and_learn(on, logits.view(), {.phase = why}, state, out.view(), ws);
    } else {
      router.route(on, logits.view(), {.phase = why}, state, out.view(), ws);
    }
    std::vector<index_t> counts(static_cast<std::size_t>(logits.cols()), 0);
    for (index_t t = 0; t < logits.rows(); ++t) {
      for (index_t j = 0; j < router.k; ++j) { ++counts[static_cast<std::size_t>(out.view().experts(t, j))]; }
    }
    return counts;
  }
};

double violation(std::vector<index_t> const& counts) {
  return fl::metrics::max_violation(std::span<index_t const>(counts));
}

template <class Controller>
void control(benchmark::State& state, Controller controller, fl_bench::axes::routing_case sizes) {
  fl::matrix<float> const logits = make_logits(sizes, 0);
  loop<Controller> closed(controller, sizes);
  int const most = fl_bench::axes::quick() ? 64 : 256;
  int settled = most + 1;
  for (int step = 0; step <= most; ++step) {
    auto const counts = closed.route(logits, fl::phase::train);
    double const now = violation(counts);
    if (step == 0) { state.counters["max_violation_start"] = now; }
    if (step == 1 || step == 2 || step == 4 || step == 8) {
      state.counters["max_violation_" + std::to_string(step)] = now;
    }
    if (now < 0.1 && settled > most) { settled = step; }
    if (step >= 8 && settled <= most) { break; }
    closed.router.observe(closed.on, closed.comm, counts, closed.state);
  }
  state.counters["steps_to_tenth"] = settled;  // most + 1: not reached

  // New tokens of the same kind in each global batch: what the bias is worth to the next one. Mean of the later half.
  constexpr int batches = 16;
  loop<Controller> open(controller, sizes);
  double mean = 0.0;
  for (int batch = 1; batch <= batches; ++batch) {
    auto const counts = open.route(make_logits(sizes, batch * sizes.tokens), fl::phase::train);
    if (batch > batches / 2) { mean += violation(counts) / (batches / 2); }
    open.router.observe(open.on, open.comm, counts, open.state);
  }
  state.counters["max_violation_fresh"] = mean;

  // One global batch of the controller alone, from the bias it has come to.
  fl::matrix<float> scores(sizes.tokens, sizes.experts);
  for (index_t i = 0; i < sizes.tokens * sizes.experts; ++i) { scores.data()[i] = fl::numeric::sigmoid(logits.data()[i]); }
  std::vector<index_t> const counts = closed.route(logits, fl::phase::evaluate);
  fl::arena<> memory(controller.workspace_bytes(sizes.tokens, sizes.experts, sizes.fan_out));
  for (auto _ : state) {
    if constexpr (fl::reads_scores_on<Controller, fl::serial>) {
      fl::workspace ws = memory.view();
      controller.accumulate(closed.on, scores.view(), sizes.fan_out, {}, std::span<float const>(closed.state.values),
                            closed.state.controller, ws);
    }
    controller.end_global_batch(closed.on, closed.comm, std::span<index_t const>(counts), closed.state.controller,
                                std::span<float>(closed.state.values));
    benchmark::ClobberMemory();
  }
  if constexpr (!fl::reads_scores_on<Controller, fl::serial>) { return; }
  fl_bench::report_reads_of_scores(state, static_cast<double>(sizes.tokens * sizes.experts) * sizeof(float));
}

template <class Controller>
void add(std::string const& component, Controller const& controller, fl_bench::axes::routing_case sizes) {
  auto const name = fl_bench::text_of("balance/", component, "/", sizes.tokens, "x", sizes.experts, "k", sizes.fan_out);
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { control(state, controller, sizes); })
      ->Unit(benchmark::kMicrosecond);
}

int const registered = [] {
  for (fl_bench::axes::routing_case const sizes : {fl_bench::axes::routing_case{8192, 64, 8}, {8192, 256, 8}, {4096, 128, 2}}) {
    if (fl_bench::axes::quick() && sizes.experts > 128) { continue; }
    add("sign_bias", fl::sign_bias{.step = 1e-3F}, sizes);
    add("sign_bias_coarse", fl::sign_bias{.step = 1e-2F}, sizes);
    add("pid_bias", fl::pid_bias{}, sizes);
    add("quantile_bias", fl::quantile_bias{}, sizes);
    add("quantile_bias_averaged", fl::quantile_bias{.decay = 0.9}, sizes);
    add("exact_dual_bias", fl::exact_dual_bias<fl::balanced_flow>{}, sizes);
    add("exact_dual_bias_averaged", fl::exact_dual_bias<fl::balanced_flow>{.decay = 0.9}, sizes);
  }
  return 0;
}();

}  // namespace
