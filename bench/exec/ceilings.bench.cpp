// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The physical ceilings that the other benches are compared with, as benches of their own.
#include "support/ceilings.hpp"

#include <benchmark/benchmark.h>

namespace {

using fl_bench::index_t;

// A ceiling is measured once by its own best-of-n rule; the bench only shows it.
template <class Measure>
void show_bytes(benchmark::State& state, Measure measure) {
  double rate = 0.0;
  for (auto _ : state) {
    rate = measure();
    state.SetIterationTime(1.0 / rate);
  }
  state.counters["bytes_per_second"] = benchmark::Counter(rate, {}, benchmark::Counter::kIs1024);
}

template <class Measure>
void show_flop(benchmark::State& state, Measure measure) {
  double rate = 0.0;
  for (auto _ : state) {
    rate = measure();
    if (rate == 0.0) {
      state.SkipWithError("this binary has no BLAS");
      break;
    }
    state.SetIterationTime(1.0 / rate);
  }
  state.counters["flop_per_second"] = benchmark::Counter(rate);
}

int const registered = [] {
  auto const bytes = [](std::string const& name, auto measure) {
    benchmark::RegisterBenchmark(name.c_str(), [measure](benchmark::State& state) { show_bytes(state, measure); })
        ->UseManualTime()
        ->Iterations(1);
  };
  auto const flop = [](std::string const& name, auto measure) {
    benchmark::RegisterBenchmark(name.c_str(), [measure](benchmark::State& state) { show_flop(state, measure); })
        ->UseManualTime()
        ->Iterations(1);
  };
  bytes("exec/stream/read", [] { return fl_bench::stream_read_rate(); });
  bytes("exec/stream/copy", [] { return fl_bench::stream_copy_rate(); });
  bytes("exec/stream/triad", [] { return fl_bench::triad_rate(); });
  for (auto const& sizes : fl_bench::axes::rows_cases) {
    index_t const rows_out = sizes.tokens * sizes.fan_out;
    if (fl_bench::axes::quick() && sizes.width > 1024) { continue; }
    bytes("exec/gather/" + sizes.name(),
          [sizes, rows_out] { return fl_bench::row_gather_rate(sizes.width, sizes.tokens, rows_out); });
  }
  for (fl_bench::gemm_shape const shape : {fl_bench::gemm_shape{512, 1024, 4096}, fl_bench::gemm_shape{512, 2048, 512},
                                           fl_bench::gemm_shape{512, 512, 2048}, fl_bench::gemm_shape{2048, 2048, 512},
                                           fl_bench::gemm_shape{32, 512, 512}}) {
    std::string const name = fl_bench::text_of("exec/gemm/", shape.rows, "x", shape.cols, "x", shape.depth);
    flop(name, [shape] { return fl_bench::gemm_rate(shape); });
    flop(name + "_two_threads", [shape] { return fl_bench::gemm_rate_two_threads(shape); });
  }
  return 0;
}();

}  // namespace
