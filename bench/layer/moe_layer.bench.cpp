// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A whole layer on one rank, forward and backward, against products of the same sizes and nothing else.
#include <fairlead/comm/alone.hpp>
#include <fairlead/exec/gemm_blas.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/exec/threads.hpp>
#include <fairlead/expert/dense_ffn.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/route/top_k.hpp>

#include "support/ceilings.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace fl = fairlead;
using fl::index_t;

namespace {

// The ceiling is the best of big products; the products of the layer itself are measured beside it.
double ceiling(index_t threads) {
  constexpr std::array<fl_bench::gemm_shape, 3> shapes{{{512, 1024, 4096}, {1024, 2048, 512}, {1024, 512, 2048}}};
  double best = 0.0;
  for (auto const& shape : shapes) {
    best = std::max(best, threads == 1 ? fl_bench::gemm_rate(shape) : fl_bench::gemm_rate_two_threads(shape));
  }
  return best;
}

template <class Backend>
void layer(benchmark::State& state, fl_bench::axes::layer_case c, Backend on, bool backward, double skew) {
  fl::moe_layer const layer{
      .gate = fl::linear_gate<fl::gemm::blas>{.width = c.width, .experts = c.experts},
      .router = fl::top_k{.experts = c.experts, .k = c.fan_out},
      .expert = fl::dense_ffn<float, fl::gelu, fl::gemm::blas>{.width = c.width, .hidden = c.hidden}};
  auto running = layer.make_state(on, fl::alone{}, {.max_tokens = c.tokens});
  auto record = layer.make_record(running);
  fl::matrix<float> tokens(c.tokens, c.width), out(c.tokens, c.width), grad_out(c.tokens, c.width), grad_tokens(c.tokens, c.width);
  fl_bench::fill_normal(tokens.span(), 11);
  fl_bench::fill_normal(grad_out.span(), 12);
  // Skewed popularity: all tokens lean along one direction, on which expert e's gate lies ever lower.
  for (index_t t = 0; t < c.tokens && skew > 0.0; ++t) { tokens(t, 0) = 1.0F; }
  for (index_t e = 0; e < c.experts && skew > 0.0; ++e) {
    running.gate.values[e * c.width] = static_cast<float>(-skew * std::log(1.0 + static_cast<double>(e)));
  }
  auto report = layer.forward(running, std::as_const(tokens).view(), out.view(), record);
  double const limit = ceiling(on.concurrency());
  for (auto _ : state) {
    report = layer.forward(running, std::as_const(tokens).view(), out.view(), record);
    if (backward) { layer.backward(running, record, std::as_const(grad_out).view(), grad_tokens.view()); }
    benchmark::DoNotOptimize(out.data());
  }
  double const products = 2.0 * 2.0 * static_cast<double>(c.tokens * c.fan_out * c.width * c.hidden);
  double const gate = 2.0 * static_cast<double>(c.tokens * c.width * c.experts);
  fl_bench::report_fraction_of_gemm(state, (products + gate) * (backward ? 3.0 : 1.0), limit);
  state.counters["max_over_mean"] = report.imbalance();
  state.counters["tokens_per_second"] = benchmark::Counter(static_cast<double>(c.tokens), benchmark::Counter::kIsIterationInvariantRate);
}

int const registered = [] {
  namespace axes = fl_bench::axes;
  for (auto const& c : axes::layer_cases) {
    if (axes::quick() && c.tokens > 2048) { continue; }
    for (bool const backward : {false, true}) {
      for (double const skew : {0.0, 1.0}) {
        auto const name = fl_bench::text_of(c.name(), "_zipf", skew);
        char const* const kind = backward ? "forward_backward/" : "forward/";
        benchmark::RegisterBenchmark(fl_bench::text_of("layer/", kind, name).c_str(), layer<fl::serial>, c, fl::serial{}, backward, skew)->UseRealTime();
        benchmark::RegisterBenchmark(fl_bench::text_of("layer/", kind, name, "_threads2").c_str(), layer<fl::threads>, c, fl::threads{2}, backward, skew)->UseRealTime();
      }
    }
  }
  return 0;
}();

}  // namespace
