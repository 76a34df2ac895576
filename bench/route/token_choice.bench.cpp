// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Fused score, selection and weights on one core, against one read of the scores.
#include "support/axes.hpp"
#include "support/ceilings.hpp"

#include <fairlead/core/workspace.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/top_k.hpp>

#include <benchmark/benchmark.h>

#include <string>

namespace {

namespace fl = fairlead;
using fl::index_t;

template <class Router>
void route(benchmark::State& state, Router router, fl_bench::axes::routing_case sizes) {
  fl::matrix<float> const scores = fl_bench::make_scores(sizes.tokens, sizes.experts, 0.5);
  fl::arena<> memory(router.workspace_bytes(sizes.tokens));
  fl::workspace ws = memory.view();
  fl::routing<> out(sizes.tokens, sizes.fan_out);
  if constexpr (fl::has_state<Router>) {
    auto const bias = router.make_state();
    for (auto _ : state) {
      router.route(fl::serial{}, scores.view(), {}, bias, out.view(), ws);
      benchmark::ClobberMemory();
    }
  } else {
    for (auto _ : state) {
      router.route(fl::serial{}, scores.view(), {}, out.view(), ws);
      benchmark::ClobberMemory();
    }
  }
  auto const bytes = static_cast<double>(sizes.tokens * sizes.experts) * sizeof(float);
  fl_bench::report_reads_of_scores(state, bytes);
  // The same input may sit in a cache between iterations; this counter compares with reads that hit the same caches.
  state.counters["reads_at_this_size"] = benchmark::Counter(
      bytes / fl_bench::stream_read_rate(sizes.tokens * sizes.experts * 4),
      static_cast<benchmark::Counter::Flags>(benchmark::Counter::kIsIterationInvariantRate |
                                             benchmark::Counter::kInvert));
}

template <class Router>
void backward(benchmark::State& state, Router router, fl_bench::axes::routing_case sizes) {
  fl::matrix<float> const scores = fl_bench::make_scores(sizes.tokens, sizes.experts, 0.5);
  fl::arena<> memory(router.workspace_bytes(sizes.tokens));
  fl::workspace ws = memory.view();
  fl::routing<> out(sizes.tokens, sizes.fan_out);
  fl::matrix<float> grad_weights(sizes.tokens, sizes.fan_out), grad_logits(sizes.tokens, sizes.experts);
  fl_bench::fill_normal(grad_weights.span(), 3);
  router.route(fl::serial{}, scores.view(), {}, out.view(), ws);
  for (auto _ : state) {
    router.backward(fl::serial{}, scores.view(), {}, out.view(), grad_weights.view(), grad_logits.view(), ws);
    benchmark::ClobberMemory();
  }
  fl_bench::report_reads_of_scores(state, static_cast<double>(sizes.tokens * sizes.experts) * sizeof(float));
}

template <class Router>
void add(std::string const& component, Router const& router, fl_bench::axes::routing_case sizes) {
  benchmark::RegisterBenchmark(("route/" + component + "/" + sizes.name()).c_str(),
                               [=](benchmark::State& state) { route(state, router, sizes); });
}

int const registered = [] {
  for (fl_bench::axes::routing_case const sizes : fl_bench::axes::routing_cases) {
    if (fl_bench::axes::quick() && sizes.tokens > 8192) { continue; }
    index_t const experts = sizes.experts, k = sizes.fan_out;
    add("top_k", fl::top_k{.experts = experts, .k = k, .selection = {}, .noise = {}}, sizes);
    add("softmax_top_k_renormalised",
        fl::softmax_top_k_renormalised{.experts = experts, .k = k, .selection = {}, .noise = {}}, sizes);
    add("softmax_top_k", fl::softmax_top_k{.experts = experts, .k = k, .selection = {}, .noise = {}}, sizes);
    add("sigmoid_bias_top_k", fl::sigmoid_bias_top_k{.experts = experts, .k = k, .selection = {}, .noise = {}}, sizes);
    benchmark::RegisterBenchmark(("route/top_k_backward/" + sizes.name()).c_str(), [=](benchmark::State& state) {
      backward(state, fl::top_k{.experts = experts, .k = k, .selection = {}, .noise = {}}, sizes);
    });
  }
  for (index_t const experts : {64, 128, 256}) {  // what the target names and the axes leave out
    for (index_t const k : {1, 2, 4, 8}) {
      fl_bench::axes::routing_case const sizes{8192, experts, k};
      bool known = false;
      for (auto const& other : fl_bench::axes::routing_cases) { known = known || other.name() == sizes.name(); }
      if (!known) { add("top_k", fl::top_k{.experts = experts, .k = k, .selection = {}, .noise = {}}, sizes); }
    }
  }
  return 0;
}();

}  // namespace
