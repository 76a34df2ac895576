// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Plan (counting sort), permutation and weighted combine on one rank.
#include <fairlead/comm/alone.hpp>
#include <fairlead/dispatch/exchange.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/exec/threads.hpp>
#include <fairlead/place/contiguous.hpp>

#include "support/ceilings.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

struct planned {
  planned(index_t tokens, index_t experts, index_t fan_out, double skew)
      : routed(tokens, fan_out), where(fl::contiguous_placement{}.initial(1, experts)), kept(1, experts),
        memory(fl::exchange<>{}.workspace_bytes(tokens * fan_out, experts, 8)) {
    auto const choices = fl_bench::make_choices(tokens, experts, fan_out, skew);
    std::copy(choices.span().begin(), choices.span().end(), routed.view().experts.data());
    std::fill_n(routed.view().weights.data(), tokens * fan_out, 1.0F / static_cast<float>(fan_out));
  }
  template <class Backend>
  void run(Backend const& on) {
    auto ws = memory.view();
    fl::exchange<> const dispatcher{};
    dispatcher.admit(on, std::as_const(routed).view(), {}, where.experts(), plan, ws);
    dispatcher.limit(plan.count_row.as_matrix(1, 2 * where.experts() + 1), where, routed.fan_out(), kept.view());
    dispatcher.plan(on, comm, std::as_const(routed).view(), where, std::as_const(kept).view(), plan, ws);
  }
  fl::routing<> routed;
  fl::placement where;
  fl::matrix<fl::count_t> kept;
  fl::arena<> memory;
  fl::alone comm;
  fl::exchange_plan<> plan;
};

// The peer sorts what the plan sorts, and nothing else.
void counting_sort(benchmark::State& state, fl_bench::axes::routing_case c, double skew) {
  planned p(c.tokens, c.experts, c.fan_out, skew);
  index_t const copies = c.tokens * c.fan_out;
  using pair = std::pair<std::int32_t, std::int32_t>;
  std::vector<pair> unsorted(static_cast<std::size_t>(copies)), sorted;
  for (index_t i = 0; i < copies; ++i) {
    unsorted[static_cast<std::size_t>(i)] = {static_cast<std::int32_t>(p.routed.view().experts.data()[i]), static_cast<std::int32_t>(i)};
  }
  fl_bench::run_interleaved(
      state,
      [&] {
        sorted = unsorted;
        std::stable_sort(sorted.begin(), sorted.end(), [](pair const& a, pair const& b) { return a.first < b.first; });
        benchmark::DoNotOptimize(sorted.data());
      },
      [&] { p.run(fl::serial{}); benchmark::DoNotOptimize(p.plan.outer_to_copy.data()); });
  state.SetItemsProcessed(state.iterations() * copies);
}

template <class Backend>
void permute(benchmark::State& state, fl_bench::axes::rows_case c, Backend on) {
  planned p(c.tokens, c.experts, c.fan_out, 0.0);
  p.run(on);
  fl::matrix<float> tokens(c.tokens, c.width), rows(p.plan.buffer_rows, c.width);
  fl_bench::fill_normal(tokens.span(), 5);
  for (auto _ : state) {
    fl::gather_rows{.divisor = c.fan_out}(on, std::as_const(tokens).view(), p.plan.outer_to_copy.span(), rows.view());
    benchmark::DoNotOptimize(rows.data());
  }
  double const bytes = 2.0 * 4.0 * static_cast<double>(c.tokens * c.fan_out * c.width);
  fl_bench::report_fraction_of_stream(state, bytes);
  fl_bench::report_fraction_of_gather(state, bytes, c.width, c.tokens, c.tokens * c.fan_out);
}

template <class Backend>
void combine(benchmark::State& state, fl_bench::axes::rows_case c, Backend on, bool backward) {
  planned p(c.tokens, c.experts, c.fan_out, 0.0);
  p.run(on);
  fl::matrix<float> rows(p.plan.buffer_rows, c.width), out(c.tokens, c.width), grad_weights(c.tokens, c.fan_out);
  fl_bench::fill_normal(rows.span(), 6);
  auto const index = std::as_const(p.plan).copy_to_outer.as_matrix(c.tokens, c.fan_out);
  auto const weights = std::as_const(p.plan).weights.as_matrix(c.tokens, c.fan_out);
  for (auto _ : state) {
    if (backward) {
      fl::combine_rows_backward{}(on, std::as_const(out).view(), index, weights, fl::matrix_view<float const>{}, rows.view(), grad_weights.view());
    } else {
      fl::combine_rows{}(on, std::as_const(rows).view(), index, weights, fl::matrix_view<float const>{}, out.view());
    }
    benchmark::DoNotOptimize(out.data());
  }
  double const moved = backward ? 2.0 * static_cast<double>(c.fan_out) + 1.0 : static_cast<double>(c.fan_out) + 1.0;
  // Several reads and a write, like the triad; memcpy's streaming stores are no ceiling for a sum.
  fl_bench::report_fraction_of_stream(state, moved * 4.0 * static_cast<double>(c.tokens * c.width), fl_bench::triad_rate());
}

int const registered = [] {
  namespace axes = fl_bench::axes;
  for (auto const& c : axes::permutation_cases) {
    for (double const skew : {0.0, 1.0}) {
      benchmark::RegisterBenchmark(fl_bench::text_of("dispatch/plan/", c.name(), "_zipf", skew).c_str(), counting_sort, c, skew)->UseManualTime();
    }
  }
  for (auto const& c : axes::rows_cases) {
    if (axes::quick() && c.tokens * c.fan_out * c.width > 16384 * 2048) { continue; }
    benchmark::RegisterBenchmark(fl_bench::text_of("dispatch/permute/", c.name()).c_str(), permute<fl::serial>, c, fl::serial{});
    benchmark::RegisterBenchmark(fl_bench::text_of("dispatch/permute/", c.name(), "_threads2").c_str(), permute<fl::threads>, c, fl::threads{2})->UseRealTime();
    benchmark::RegisterBenchmark(fl_bench::text_of("dispatch/combine/", c.name()).c_str(), combine<fl::serial>, c, fl::serial{}, false);
    benchmark::RegisterBenchmark(fl_bench::text_of("dispatch/combine/", c.name(), "_threads2").c_str(), combine<fl::threads>, c, fl::threads{2}, false)->UseRealTime();
    benchmark::RegisterBenchmark(fl_bench::text_of("dispatch/combine_backward/", c.name()).c_str(), combine<fl::serial>, c, fl::serial{}, true);
  }
  return 0;
}();

}  // namespace
