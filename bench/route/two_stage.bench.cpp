// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a light router costs beside the gate it is distilled from, and how fast its scores are read.
#include "support/axes.hpp"
#include "support/ceilings.hpp"

#include <fairlead/core/workspace.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/distilled_gate.hpp>
#include <fairlead/route/two_stage.hpp>

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;

constexpr index_t tokens = 4096, width = 256, experts = 64, vocabulary = 8000;

template <class Gate, bool Backward>
void gate(benchmark::State& state, Gate gate) {
  auto const layout = gate.parameter_layout();
  std::vector<float> parameters(static_cast<std::size_t>(layout.size())), gradients(parameters.size());
  fl::initialise<float>(layout, 1, 0, std::span<float>(parameters));
  index_t const columns = fl::has_context_gate<Gate, fl::serial> ? 2 * experts : experts;
  fl::matrix<float> rows(tokens, width), logits(tokens, columns), grad_rows(tokens, width);
  fl_bench::fill_normal(rows.span(), 1);
  fl_bench::fill_normal(logits.span(), 2);
  std::vector<std::int32_t> ids;
  for (index_t t = 0; t < tokens; ++t) {
    ids.push_back(static_cast<std::int32_t>(fl::philox::draw(3, 0, static_cast<std::uint64_t>(t))[0] % vocabulary));
  }
  fl::route_context const context{.token_ids = ids};
  fl::arena<> memory(gate.workspace_bytes(tokens));
  fl::workspace ws = memory.view();
  fl::serial const on;
  std::span<float const> const p(parameters);
  for (auto _ : state) {
    if constexpr (fl::has_context_gate<Gate, fl::serial>) {
      if constexpr (Backward) {
        gate.backward(on, p, std::as_const(rows).view(), context, std::as_const(logits).view(), std::span<float>(gradients), grad_rows.view(), ws);
      } else {
        gate.forward(on, p, std::as_const(rows).view(), context, logits.view(), ws);
      }
    } else if constexpr (Backward) {
      gate.backward(on, p, std::as_const(rows).view(), std::as_const(logits).view(), std::span<float>(gradients), grad_rows.view(), ws);
    } else {
      gate.forward(on, p, std::as_const(rows).view(), logits.view(), ws);
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * tokens);
}

void light_stage(benchmark::State& state) {
  fl::two_stage<> const router{.first = {.experts = experts}, .switch_step = 0};
  fl::matrix<float> const scores = fl_bench::make_scores(tokens, 2 * experts, 0.5);
  fl::arena<> memory(router.workspace_bytes(tokens));
  fl::workspace ws = memory.view();
  fl::routing<> out(tokens, 1);
  for (auto _ : state) {
    router.route(fl::serial{}, scores.view(), {}, out.view(), ws);
    benchmark::ClobberMemory();
  }
  fl_bench::report_reads_of_scores(state, static_cast<double>(tokens * 2 * experts) * sizeof(float));
}

template <class Gate>
void add(std::string const& component, Gate const& value) {
  std::string const name = "route/" + component + "/" + std::to_string(tokens) + "x" + std::to_string(width) + "x" + std::to_string(experts);
  benchmark::RegisterBenchmark((name + "/forward").c_str(), [=](benchmark::State& state) { gate<Gate, false>(state, value); });
  benchmark::RegisterBenchmark((name + "/backward").c_str(), [=](benchmark::State& state) { gate<Gate, true>(state, value); });
}
template <class Features>
fl::distilled_gate<Features> distilled(Features features) {
  return {.backbone = {.width = width, .experts = experts}, .features = features};
}

int const registered = [] {
  add("linear_gate", fl::linear_gate<>{.width = width, .experts = experts});
  add("distilled_gate_token", distilled(fl::token_embedding{.vocabulary = vocabulary}));
  add("distilled_gate_bigram", distilled(fl::bigram_embedding{.vocabulary = vocabulary, .sequence_length = 256}));
  add("distilled_gate_convolution", distilled(fl::convolution_embedding{.vocabulary = vocabulary, .sequence_length = 256}));
  benchmark::RegisterBenchmark(("route/two_stage_light/" + std::to_string(tokens) + "x" + std::to_string(experts)).c_str(), light_stage);
  return 0;
}();

}  // namespace
