// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Value and gradient of the balance losses, one core, against one read of the scores.
#include "support/axes.hpp"
#include "support/ceilings.hpp"

#include <fairlead/balance/framework_losses.hpp>
#include <fairlead/balance/importance_loss.hpp>
#include <fairlead/balance/noisy_load_loss.hpp>
#include <fairlead/balance/second_place_loss.hpp>
#include <fairlead/balance/z_loss.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/noisy_top_k.hpp>
#include <fairlead/route/top_k.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;

template <class Signal, class Router>
void loss(benchmark::State& state, Signal signal, Router router, fl_bench::axes::routing_case sizes) {
  index_t const columns = fl::logit_columns(router);
  fl::matrix<float> const scores = fl_bench::make_scores(sizes.tokens, columns, 0.5);
  fl::arena<> memory(std::max(router.workspace_bytes(sizes.tokens), signal.workspace_bytes(sizes.tokens, sizes.experts)));
  fl::workspace ws = memory.view();
  fl::routing<> out(sizes.tokens, sizes.fan_out);
  fl::matrix<float> grad(sizes.tokens, columns);
  fl::route_context const context{.phase = fl::phase::train, .seed = fl_bench::axes::seed};
  router.route(fl::serial{}, scores.view(), context, out.view(), ws);
  std::vector<index_t> counts(static_cast<std::size_t>(sizes.experts), 0);
  for (index_t t = 0; t < sizes.tokens; ++t) {
    for (index_t j = 0; j < sizes.fan_out; ++j) { ++counts[static_cast<std::size_t>(out.view().experts(t, j))]; }
  }
  auto carried = signal.make_state(sizes.experts);
  signal.accumulate(counts, sizes.tokens, carried);
  double value = 0.0;
  for (auto _ : state) {
    value = signal.add_gradient(fl::serial{}, scores.view(), std::as_const(out).view(), context, carried, 1.0, grad.view(), ws);
    benchmark::ClobberMemory();
  }
  state.counters["loss"] = value;
  fl_bench::report_reads_of_scores(state, static_cast<double>(sizes.tokens * columns) * sizeof(float));
}

template <class Signal, class Router>
void add(std::string const& component, Signal const& signal, Router const& router, fl_bench::axes::routing_case sizes) {
  benchmark::RegisterBenchmark(("balance/" + component + "/" + sizes.name()).c_str(),
                               [=](benchmark::State& state) { loss(state, signal, router, sizes); });
}

int const registered = [] {
  for (fl_bench::axes::routing_case const sizes : fl_bench::axes::routing_cases) {
    if (fl_bench::axes::quick() && sizes.tokens > 8192) { continue; }
    fl::top_k const plain{.experts = sizes.experts, .k = sizes.fan_out, .selection = {}, .noise = {}};
    fl::noisy_top_k const noisy{.experts = sizes.experts, .k = sizes.fan_out};
    add("switch_loss", fl::switch_loss{.coefficient = 1.0, .share = {}, .scope = {}}, plain, sizes);
    add("megatron_loss", fl::megatron_loss<>{.coefficient = 1.0, .share = {}, .scope = {}}, plain, sizes);
    add("importance_loss", fl::importance_loss{.coefficient = 1.0}, plain, sizes);
    if (sizes.fan_out >= 2) { add("second_place_loss", fl::second_place_loss{.coefficient = 1.0}, plain, sizes); }
    add("z_loss", fl::z_loss{.coefficient = 1.0}, plain, sizes);
    add("weight_importance_loss", fl::weight_importance_loss<fl::noisy_top_k>{.router = noisy, .coefficient = 1.0}, noisy, sizes);
    add("noisy_load_loss", fl::noisy_load_loss<fl::noisy_top_k>{.source = noisy, .coefficient = 1.0}, noisy, sizes);
  }
  return 0;
}();

}  // namespace
