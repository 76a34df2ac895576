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
#include <atomic>
#include <cmath>
#include <thread>
#include <utility>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

// The ceiling: the products of the experts and nothing else, on matrices of the layer's own sizes, as plain BLAS calls,
// one a group and kind, run by as many threads. Interleaved with the layer, so that both meet the same machine.
class bare_products {
 public:
  bare_products(fl_bench::axes::layer_case c, std::vector<index_t> rows, index_t threads, bool backward)
      : c_(c), rows_(std::move(rows)), threads_(threads), backward_(backward), first_(1, 0) {
    for (index_t const r : rows_) { first_.push_back(first_.back() + r); }
    x_ = fl::matrix<float>(first_.back(), c.width);
    y_ = fl::matrix<float>(first_.back(), c.width);
    h_ = fl::matrix<float>(first_.back(), c.hidden);
    g_ = fl::matrix<float>(first_.back(), c.hidden);
    up_ = fl::matrix<float>(c.experts * c.hidden, c.width);
    down_ = fl::matrix<float>(c.experts * c.width, c.hidden);
    grad_up_ = fl::matrix<float>(c.experts * c.hidden, c.width);
    grad_down_ = fl::matrix<float>(c.experts * c.width, c.hidden);
    for (auto* const m : {&x_, &y_, &h_, &g_, &up_, &down_}) { fl_bench::fill_normal(m->span(), 13, 0.05F); }
  }
  void operator()() {
    // Pieces of at most 1024 rows, largest first, handed out as threads become free: what a good schedule needs.
    std::vector<std::pair<index_t, index_t>> pieces;
    for (std::size_t e = 0; e < rows_.size(); ++e) {
      index_t const cuts = std::max<index_t>(1, (rows_[e] + 512) / 1024);
      for (index_t i = 0; i < cuts && rows_[e] > 0; ++i) { pieces.emplace_back(static_cast<index_t>(e), i); }
    }
    std::sort(pieces.begin(), pieces.end(), [this](auto const& a, auto const& b) { return rows_[static_cast<std::size_t>(a.first)] > rows_[static_cast<std::size_t>(b.first)]; });
    std::atomic<std::size_t> next{0};
    auto const work = [&] {
      for (std::size_t i = next++; i < pieces.size(); i = next++) { piece(pieces[i].first, pieces[i].second); }
    };
    run(work);
    if (!backward_) { return; }
    std::atomic<index_t> unit{0};
    auto const gradients = [&] {
      for (index_t i = unit++; i < 2 * c_.experts; i = unit++) { gradient(i / 2, i % 2); }
    };
    run(gradients);
  }

 private:
  template <class Work>
  void run(Work const& work) {
    std::vector<std::thread> helpers;
    for (index_t t = 1; t < threads_; ++t) { helpers.emplace_back(work); }
    work();
    for (auto& helper : helpers) { helper.join(); }
  }
  void multiply(fl::transpose a, fl::transpose b, fl::matrix_view<float const> x, fl::matrix_view<float const> y, fl::matrix_view<float> z) {
    fl::gemm::blas{}.multiply(fl::serial{}, a, b, 1.0F, x, y, 0.0F, z);
  }
  void piece(index_t e, index_t cut) {
    using enum fl::transpose;
    index_t const rows = rows_[static_cast<std::size_t>(e)], cuts = std::max<index_t>(1, (rows + 512) / 1024);
    index_t const first = first_[static_cast<std::size_t>(e)] + rows * cut / cuts, count = rows * (cut + 1) / cuts - rows * cut / cuts;
    auto const up = std::as_const(up_).view().rows(e * c_.hidden, c_.hidden);
    auto const down = std::as_const(down_).view().rows(e * c_.width, c_.width);
    multiply(no, yes, std::as_const(x_).view().rows(first, count), up, h_.view().rows(first, count));
    multiply(no, yes, std::as_const(h_).view().rows(first, count), down, y_.view().rows(first, count));
    if (!backward_) { return; }
    multiply(no, no, std::as_const(y_).view().rows(first, count), down, g_.view().rows(first, count));
    multiply(no, no, std::as_const(g_).view().rows(first, count), up, x_.view().rows(first, count));
  }
  void gradient(index_t e, index_t which) {
    using enum fl::transpose;
    auto const part = [&](fl::matrix<float> const& m) { return m.view().rows(first_[static_cast<std::size_t>(e)], rows_[static_cast<std::size_t>(e)]); };
    if (which == 0) {
      multiply(yes, no, part(g_), part(x_), grad_up_.view().rows(e * c_.hidden, c_.hidden));
    } else {
      multiply(yes, no, part(y_), part(h_), grad_down_.view().rows(e * c_.width, c_.width));
    }
  }
  fl_bench::axes::layer_case c_;
  std::vector<index_t> rows_;
  index_t threads_;
  bool backward_;
  std::vector<index_t> first_;
  fl::matrix<float> x_, y_, h_, g_, up_, down_, grad_up_, grad_down_;
};

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
  std::vector<index_t> rows;
  for (index_t const total : running.totals) { rows.push_back(total); }
  bare_products products(c, rows, on.concurrency(), backward);
  fl_bench::run_interleaved(state, products, [&] {
    report = layer.forward(running, std::as_const(tokens).view(), out.view(), record);
    if (backward) { layer.backward(running, record, std::as_const(grad_out).view(), grad_tokens.view()); }
    benchmark::DoNotOptimize(out.data());
  });
  // The median of products / layer: the part of the layer's time that its products alone would take.
  state.counters["fraction_of_gemm"] = state.counters["speedup_over_peer"];
  double const flop = 4.0 * static_cast<double>(c.tokens * c.fan_out * c.width * c.hidden) * (backward ? 3.0 : 1.0);
  fl_bench::gemm_shape const big{};
  double const best = on.concurrency() == 1 ? fl_bench::gemm_rate(big) : fl_bench::gemm_rate_two_threads(big);
  state.counters["flop_per_second"] = benchmark::Counter(flop, benchmark::Counter::kIsIterationInvariantRate);
  if (best > 0.0) { state.counters["fraction_of_large_gemm"] = benchmark::Counter(flop / best, benchmark::Counter::kIsIterationInvariantRate); }
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
        benchmark::RegisterBenchmark(fl_bench::text_of("layer/", kind, name).c_str(), layer<fl::serial>, c, fl::serial{}, backward, skew)->UseManualTime();
        benchmark::RegisterBenchmark(fl_bench::text_of("layer/", kind, name, "_threads2").c_str(), layer<fl::threads>, c, fl::threads{2}, backward, skew)->UseManualTime();
      }
    }
  }
  return 0;
}();

}  // namespace
