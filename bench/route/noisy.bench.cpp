// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Routers with random numbers in training, one core: time against one read of the scores, and how uneven the loads are.
#include "support/axes.hpp"
#include "support/ceilings.hpp"

#include <fairlead/core/workspace.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/gshard_top_2.hpp>
#include <fairlead/route/noisy_top_k.hpp>
#include <fairlead/route/sampled_choice.hpp>
#include <fairlead/route/top_k.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;

template <class Router>
void route(benchmark::State& state, Router router, fl_bench::axes::routing_case sizes, bool backward) {
  index_t const columns = fl::logit_columns(router);
  fl::matrix<float> const scores = fl_bench::make_scores(sizes.tokens, columns, 0.5);
  fl::arena<> memory(router.workspace_bytes(sizes.tokens));
  fl::workspace ws = memory.view();
  fl::routing<> out(sizes.tokens, router.fan_out());
  fl::matrix<float> grad_weights(sizes.tokens, router.fan_out()), grad_logits(sizes.tokens, columns);
  fl_bench::fill_normal(grad_weights.span(), 3);
  fl::route_context context{.phase = fl::phase::train, .seed = fl_bench::axes::seed};
  router.route(fl::serial{}, scores.view(), context, out.view(), ws);
  for (auto _ : state) {
    if (backward) {
      router.backward(fl::serial{}, scores.view(), context, std::as_const(out).view(), std::as_const(grad_weights).view(),
                      grad_logits.view(), ws);
    } else {
      router.route(fl::serial{}, scores.view(), context, out.view(), ws);
    }
    benchmark::ClobberMemory();
  }
  std::vector<double> loads(static_cast<std::size_t>(sizes.experts), 0.0);
  double copies = 0.0;
  for (index_t t = 0; t < sizes.tokens; ++t) {
    for (index_t j = 0; j < router.fan_out(); ++j) {
      if (out.view().experts(t, j) == fl::expert_id::none) { continue; }
      loads[static_cast<std::size_t>(out.view().experts(t, j))] += 1.0;
      copies += 1.0;
    }
  }
  state.counters["max_over_mean"] = *std::max_element(loads.begin(), loads.end()) * static_cast<double>(sizes.experts) / copies;
  fl_bench::report_reads_of_scores(state, static_cast<double>(sizes.tokens * columns) * sizeof(float));
}

template <class Router>
void add(std::string const& component, Router const& router, fl_bench::axes::routing_case sizes, bool backward = false) {
  benchmark::RegisterBenchmark(("route/" + component + "/" + sizes.name()).c_str(),
                               [=](benchmark::State& state) { route(state, router, sizes, backward); });
}

int const registered = [] {
  for (fl_bench::axes::routing_case const sizes : fl_bench::axes::routing_cases) {
    if (fl_bench::axes::quick() && sizes.tokens > 8192) { continue; }
    index_t const experts = sizes.experts, k = sizes.fan_out;
    add("fixed_noise_top_k", fl::with_noise<fl::top_k, fl::fixed_noise>{.experts = experts, .k = k, .selection = {}, .noise = {}}, sizes);
    add("noisy_top_k", fl::noisy_top_k{.experts = experts, .k = k}, sizes);
    add("noisy_top_k_backward", fl::noisy_top_k{.experts = experts, .k = k}, sizes, true);
    add("sampled_top_k", fl::sampled_top_k{.experts = experts, .k = k}, sizes);
    if (k == 2) {
      add("sampled_second", fl::sampled_second(experts), sizes);
      add("gshard_top_2", fl::gshard_top_2{.experts = experts}, sizes);
    }
  }
  return 0;
}();

}  // namespace
