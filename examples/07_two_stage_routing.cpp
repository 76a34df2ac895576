// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Two-stage routing (StableMoE): learn the routing, teach it to a light router that sees token ids alone, freeze that.
// Prints how often the expert of a token id changed in each stage; in the second it never does.
#include <fairlead/balance/distillation_loss.hpp>
#include <fairlead/balance/over_under_loss.hpp>
#include <fairlead/balance/signals.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/dense_ffn.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/metrics/fluctuation.hpp>
#include <fairlead/optim/adamw.hpp>
#include <fairlead/route/distilled_gate.hpp>
#include <fairlead/route/two_stage.hpp>

#include <cstdint>
#include <cstdio>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr index_t width = 16, vocabulary = 64, tokens_each = 128, ranks = 2;
constexpr std::uint64_t switch_step = 60, steps = 100;  // the paper switches after a tenth of its steps

float noise(std::uint64_t stream, index_t i) { return static_cast<float>(fl::philox::normal(1, stream, static_cast<std::uint64_t>(i))); }

// A hidden state: what the id says, and a little of everything else.
void hidden_state(std::int32_t id, std::uint64_t stream, index_t row, float* h) {
  for (index_t c = 0; c < width; ++c) { h[c] = noise(2, id * width + c) + 0.3F * noise(stream, row * width + c); }
}

struct outcome {
  double flips[2];   // changes of an id's expert a step, in each stage
  double taught[2];  // losses of the first stage at its beginning and end, over all ranks
};

outcome train(fl::inproc::communicator comm) {
  fl::moe_layer const layer{
      .gate = fl::distilled_gate<>{.backbone = {.width = width, .experts = 8}, .features = {.vocabulary = vocabulary}, .switch_step = switch_step},
      .router = fl::two_stage<>{.first = {.experts = 8}, .switch_step = switch_step},
      .signal = fl::all_of(fl::over_under_loss{.switch_step = switch_step}, fl::distillation_loss{.switch_step = switch_step}),
      .expert = fl::dense_ffn<float>{.width = width, .hidden = 32}};
  fl::serial const on;
  auto state = layer.make_state(on, comm, {.max_tokens = tokens_each, .seed = 1});
  auto record = layer.make_record(state), seen = layer.make_record(state);
  fl::adamw const optimizer{.rate = 1e-2};
  std::vector<fl::adamw_state<float, fl::host_space>> moments;
  layer.each_parameter(state, [&](fl::parameter_array<float> const& p) {
    moments.push_back(optimizer.make_state<float>(on, static_cast<index_t>(p.values.size())));
  });

  fl::arena<> memory(fl::metrics::fluctuation_tracker::memory_bytes(vocabulary, 1));
  fl::workspace ws = memory.view();
  fl::metrics::fluctuation_tracker tracker(vocabulary, 1, ws);
  fl::matrix<float> tokens(tokens_each, width), output(tokens_each, width), grad(tokens_each, width), grad_tokens(tokens_each, width);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens_each));
  outcome result{};
  for (std::uint64_t step = 0; step < steps; ++step) {
    if (step == switch_step) {
      result.flips[0] = tracker.flips();
      tracker.restart();
    }
    // Train: the output shall be the mirror image of the hidden state.
    auto const stream = 100 + step * ranks + static_cast<std::uint64_t>(comm.rank());
    for (index_t t = 0; t < tokens_each; ++t) {
      auto const word = fl::philox::draw(3, stream, static_cast<std::uint64_t>(t))[0];
      ids[static_cast<std::size_t>(t)] = static_cast<std::int32_t>(word % static_cast<std::uint32_t>(vocabulary));
      hidden_state(ids[static_cast<std::size_t>(t)], stream, t, tokens.view().row(t));
    }
    auto context = layer.default_context(state, fl::phase::train);
    context.token_ids = ids;
    (void)layer.forward(state, std::as_const(tokens).view(), output.view(), record, context);
    for (index_t t = 0; t < tokens_each; ++t) {
      for (index_t c = 0; c < width; ++c) { grad(t, c) = (output(t, c) - tokens(t, width - 1 - c)) / static_cast<float>(tokens_each * ranks); }
    }
    layer.backward(state, record, std::as_const(grad).view(), grad_tokens.view());
    layer.reduce_gradients(state);
    std::size_t array = 0;
    layer.each_parameter(state, [&](fl::parameter_array<float> const& p) {  // p.layout says what is frozen
      optimizer.update(on, *p.layout, p.values, p.gradients, moments[array++], static_cast<std::int64_t>(step + 1));
    });
    layer.zero_gradients(state);
    layer.end_global_batch(state);
    double losses[1]{record.signal_loss};
    comm.all_reduce(on, std::span<double>(losses), fl::reduction::sum).wait();
    if (step == 0) { result.taught[0] = losses[0]; }
    if (step + 1 == switch_step) { result.taught[1] = losses[0]; }

    // Look: where does one token of each id go now?
    std::vector<std::int32_t> all(static_cast<std::size_t>(vocabulary));
    for (index_t id = 0; id < vocabulary; ++id) {
      all[static_cast<std::size_t>(id)] = static_cast<std::int32_t>(id);
      hidden_state(static_cast<std::int32_t>(id), 50, id, tokens.view().row(id));
    }
    auto look = layer.default_context(state, fl::phase::evaluate);
    look.token_ids = all;
    (void)layer.forward(state, std::as_const(tokens).view().rows(0, vocabulary), output.view().rows(0, vocabulary), seen, look);
    // After the last update of the first stage a look is in the second stage already: it counts for neither.
    if (step + 1 != switch_step) { tracker.observe(std::as_const(seen.routing).view()); }
  }
  result.flips[1] = tracker.flips();
  return result;
}

}  // namespace

int main() {
  fl::inproc::world world{ranks};
  outcome const result = world.run(train)[0];
  std::printf("losses of the first stage: %.3f at its beginning, %.3f at its end\n", result.taught[0], result.taught[1]);
  std::printf("experts changed per id and step: %.4f in the first stage, %.4f in the second\n", result.flips[0], result.flips[1]);
  return result.flips[0] > 0.0 && result.flips[1] == 0.0 && result.taught[1] < result.taught[0] ? 0 : 1;
}
