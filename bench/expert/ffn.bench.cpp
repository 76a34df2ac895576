// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Banks of feed-forward experts, forward and forward + backward, even and skewed loads, one and two threads.
#include "support/axes.hpp"
#include "support/ceilings.hpp"

#include <fairlead/core/matrix.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/exec/gemm_reference.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/dense_ffn.hpp>
#include <fairlead/expert/gated_ffn.hpp>
#if FAIRLEAD_BENCH_BLAS
#  include <fairlead/exec/gemm_blas.hpp>
#endif
#if defined(_OPENMP)
#  include <fairlead/exec/threads.hpp>
#endif

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;

#if FAIRLEAD_BENCH_BLAS
using fastest = fl::gemm::blas;
#else
using fastest = fl::gemm::reference;
#endif

// Rows of each expert: proportional to rank^-skew, in all rows.
std::vector<index_t> counts_of(fl_bench::axes::layer_case const& sizes, double skew) {
  double sum = 0.0;
  for (index_t e = 0; e < sizes.experts; ++e) { sum += std::pow(1.0 + static_cast<double>(e), -skew); }
  index_t left = sizes.tokens * sizes.fan_out;
  double const all = static_cast<double>(left);
  std::vector<index_t> counts;
  for (index_t e = 0; e < sizes.experts; ++e) {
    auto const share = static_cast<index_t>(all * std::pow(1.0 + static_cast<double>(e), -skew) / sum);
    counts.push_back(e + 1 == sizes.experts ? left : std::min(left, share));
    left -= counts.back();
  }
  return counts;
}

template <class Expert, class Backend>
void run(benchmark::State& state, Expert expert, Backend on, fl_bench::axes::layer_case sizes, double skew, bool train) {
  std::vector<index_t> const counts = counts_of(sizes, skew);
  std::vector<index_t> offsets{0};
  for (index_t const count : counts) { offsets.push_back(offsets.back() + count); }
  index_t const rows = offsets.back(), size = expert.parameter_layout().size();
  fl::matrix<float> parameters(sizes.experts, size), gradients(sizes.experts, size);
  fl_bench::fill_normal(parameters.span(), 1, 0.04F);
  std::vector<float const*> values;
  std::vector<float*> targets;
  for (index_t e = 0; e < sizes.experts; ++e) {
    values.push_back(parameters.view().row(e));
    targets.push_back(gradients.view().row(e));
  }
  fl::matrix<float> in(rows, sizes.width), out(rows, sizes.width), grad_in(rows, sizes.width);
  fl::matrix<float> kept(rows, expert.kept_width());
  fl_bench::fill_normal(in.span(), 2);
  fl::arena<> memory(expert.workspace_bytes(rows, on.concurrency()));
  fl::workspace ws = memory.view();
  fl::row_groups const groups{offsets, counts};
  auto const keep = train ? kept.view() : fl::matrix_view<float>(kept.data(), rows, 0);
  double const ceiling = on.concurrency() == 1 ? fl_bench::gemm_rate() : fl_bench::gemm_rate_two_threads();
  for (auto _ : state) {
    expert.forward(on, values, groups, in.view(), keep, out.view(), ws);
    if (train) {
      expert.backward(on, values, targets, groups, in.view(), kept.view(), out.view(), grad_in.view(), ws);
    }
    benchmark::ClobberMemory();
  }
  // Matrix elements of one expert without biases, twice for a multiply-add, three products in training.
  index_t const elements = (expert.kept_width() + expert.hidden) * expert.width;
  double const flop = 2.0 * static_cast<double>(rows) * static_cast<double>(elements) * (train ? 3.0 : 1.0);
  fl_bench::report_fraction_of_gemm(state, flop, ceiling);
}

template <class Expert>
void add(std::string const& component, fl_bench::axes::layer_case sizes) {
  Expert const expert{.width = sizes.width, .hidden = sizes.hidden};
  for (double const skew : {0.0, 1.0}) {
    for (bool const train : {false, true}) {
      std::string const name = fl_bench::text_of("expert/", component, "/", sizes.name(), skew == 0.0 ? "_even" : "_zipf",
                                                 train ? "_train" : "_forward");
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        run(state, expert, fl::serial{}, sizes, skew, train);
      })->UseRealTime()->Unit(benchmark::kMillisecond);
#if defined(_OPENMP)
      benchmark::RegisterBenchmark((name + "_2threads").c_str(), [=](benchmark::State& state) {
        run(state, expert, fl::threads{2}, sizes, skew, train);
      })->UseRealTime()->Unit(benchmark::kMillisecond);
#endif
    }
  }
}

int const registered = [] {
  for (auto const& sizes : fl_bench::axes::layer_cases) {
    if (fl_bench::axes::quick() && sizes.tokens > 2048) { continue; }
    add<fl::dense_ffn<float, fl::gelu, fastest>>("dense_gelu", sizes);
    add<fl::dense_ffn<float, fl::relu, fastest>>("dense_relu", sizes);
    add<fl::gated_ffn<float, fl::silu, fastest>>("gated_silu", sizes);
  }
  add<fl::dense_ffn<float, fl::gelu, fl::gemm::reference>>("dense_gelu_reference", fl_bench::axes::layer_cases[0]);
  return 0;
}();

}  // namespace
