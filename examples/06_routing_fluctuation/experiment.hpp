// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief One run: train a model around a layer on one rank, and follow where validation tokens are routed.
#include "options.hpp"
#include "results.hpp"
#include "../common/gemm.hpp"
#include "../common/interrupt.hpp"
#include "../common/optimizer.hpp"
#include "../common/text.hpp"
#include "../common/trunk.hpp"

#include <fairlead/comm/alone.hpp>
#include <fairlead/core/initial_values.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/metrics/fluctuation.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace routing_fluctuation {
namespace lm = language_model;

/// @brief Rows of a text as the model reads them.
struct batch {
  std::vector<std::int32_t> contexts;  ///< words in front. @shape{rows x context}
  std::vector<std::int32_t> words;     ///< the last of them: what routers by word see. @shape{rows}
  std::vector<std::int32_t> targets;   ///< the word to predict. @shape{rows}

  /// @brief Take rows of a text.
  /// @param tokens the text
  /// @param context words in front of a target
  /// @param rows number of rows
  /// @param position position(i) is where row i starts
  template <class Position>
  void fill(std::span<std::int32_t const> tokens, index_t context, index_t rows, Position position) {
    auto const length = static_cast<std::size_t>(context);
    contexts.resize(static_cast<std::size_t>(rows) * length);
    words.resize(static_cast<std::size_t>(rows));
    targets.resize(static_cast<std::size_t>(rows));
    for (std::size_t i = 0; i < targets.size(); ++i) {
      auto const front = std::span(contexts).subspan(i * length, length);
      targets[i] = lm::copy_context(tokens, position(static_cast<index_t>(i)), front);
      words[i] = front.back();
    }
  }
};

/// @brief All learn from these starts: centroids orthogonal with gain 0.1, experts that add nothing yet.
template <class Layer, class State>
void start_alike(Layer const& layer, State& state) {
  layer.each_parameter(state, [](auto const& array) {
    for (fl::parameter_block const& block : array.layout->blocks()) {
      auto const values = fl::named_block(*array.layout, block.name, array.values);
      std::string_view const name = block.name;
      if (name == "down") { fl::fill(values, 0.0F); }
      if (name == "gate" || name == "centroids") { fl::orthogonalise(values, 0.1); }
    }
  });
}

/// @brief Train, take snapshots, validate.
/// @param name composition
/// @param seed of the run: initial parameters, and where in the text training begins
/// @param layer the composition
/// @param text the numbered text
/// @param chosen the options
/// @param tick called after each step
/// @returns what was measured
template <class Layer, class Tick>
outcome run(std::string name, std::uint64_t seed, Layer const& layer, lm::corpus const& text, options const& chosen,
            Tick const& tick) {
  using clock = std::chrono::steady_clock;
  auto const start = clock::now();
  fl::serial const on;
  auto const vocabulary = static_cast<index_t>(text.vocabulary.size());
  index_t const positions = static_cast<index_t>(text.validation.size()) - chosen.context;
  index_t const followed = std::min(chosen.followed, positions);
  index_t const most = std::max(chosen.batch, followed);

  lm::trunk<float, examples::gemm_policy> const model{
      .vocabulary = vocabulary, .context = chosen.context, .embedding = chosen.embedding, .width = chosen.width};
  auto const layout = model.parameter_layout();
  fl::matrix<float> parameters(1, layout.size()), gradients(1, layout.size());
  fl::initialise(layout, seed, 0, parameters.span());
  lm::optimizer dense(layout);
  auto kept = model.make_activations(most);
  fl::matrix<float> output(most, chosen.width), grad_output(most, chosen.width), grad_input(most, chosen.width);

  auto state = layer.make_state(on, fl::alone{}, {.max_tokens = most, .seed = seed});
  auto record = layer.make_record(state);
  start_alike(layer, state);
  std::vector<lm::optimizer> optimizers;
  layer.each_parameter(state, [&](auto const& array) { optimizers.emplace_back(*array.layout); });

  // The followed tokens lie evenly in the validation text.
  batch rows, watched;
  watched.fill(text.validation, chosen.context, followed, [&](index_t i) { return i * positions / followed; });
  fl::arena<> memory(fl::metrics::fluctuation_tracker::memory_bytes(followed, 1));
  auto tracker_memory = memory.view();
  fl::metrics::fluctuation_tracker tracker(followed, 1, tracker_memory);
  std::vector<index_t> counts(static_cast<std::size_t>(chosen.experts));

  outcome result{.name = std::move(name), .seed = seed};
  lm::sampler const order(static_cast<index_t>(text.train.size()) - chosen.context);
  index_t const offset = static_cast<index_t>(seed) * 1'000'003;
  for (index_t step = 1; step <= chosen.steps; ++step) {
    rows.fill(text.train, chosen.context, chosen.batch,
              [&](index_t i) { return order.position(offset + (step - 1) * chosen.batch + i); });
    auto const now = static_cast<std::uint64_t>(step);
    auto const in = kept.layer_input.view().rows(0, chosen.batch);
    auto const out = output.view().rows(0, chosen.batch);
    auto const grad_out = grad_output.view().rows(0, chosen.batch);
    auto const grad_in = grad_input.view().rows(0, chosen.batch);
    model.enter(on, parameters.span(), rows.contexts, kept);
    auto const report = layer.forward(state, in, out, record, {.seed = seed, .step = now, .token_ids = rows.words});
    double const loss = model.leave(on, parameters.span(), out, rows.targets, kept) / static_cast<double>(chosen.batch);
    std::fill_n(gradients.data(), layout.size(), 0.0F);
    model.leave_backward(on, parameters.span(), rows.targets, 1.0F / static_cast<float>(chosen.batch), kept,
                         gradients.span(), grad_out);
    layer.backward(state, record, grad_out, grad_in);
    model.enter_backward(on, parameters.span(), rows.contexts, grad_out, grad_in, kept, gradients.span());

    // A short warm-up, then linear decay.
    double const rate = chosen.rate * std::min(1.0, static_cast<double>(step) / 20.0) *
                        (1.0 - 0.95 * static_cast<double>(step) / static_cast<double>(chosen.steps));
    dense.update(on, layout, parameters.span(), gradients.span(), rate);
    layer.reduce_gradients(state);
    std::size_t array_number = 0;
    layer.each_parameter(state, [&](auto const& array) {
      optimizers[array_number++].update(on, *array.layout, array.values, array.gradients, rate);
    });
    layer.zero_gradients(state);
    layer.end_global_batch(state);

    point seen{.step = step, .loss = loss, .train_load = report.imbalance()};
    if (step * chosen.snapshots / chosen.steps > (step - 1) * chosen.snapshots / chosen.steps) {
      model.enter(on, parameters.span(), watched.contexts, kept);
      layer.route(state, kept.layer_input.view().rows(0, followed), record,
                  {.phase = fl::phase::evaluate, .seed = seed, .step = now, .token_ids = watched.words});
      auto const routed = std::as_const(record.routing).view();
      tracker.observe(routed);
      std::fill(counts.begin(), counts.end(), 0);
      for (index_t t = 0; t < followed; ++t) { ++counts[static_cast<std::size_t>(fl::to_index(routed.experts(t, 0)))]; }
      seen.evaluation_load = static_cast<double>(*std::max_element(counts.begin(), counts.end())) *
                             static_cast<double>(chosen.experts) / static_cast<double>(followed);
    }
    result.curve.push_back(seen);
    tick();
    if (examples::interrupt::came()) {
      result.interrupted = true;
      return result;
    }
  }

  double loss = 0.0;
  for (index_t first = 0; first < positions; first += most) {
    index_t const count = std::min(most, positions - first);
    rows.fill(text.validation, chosen.context, count, [&](index_t i) { return first + i; });
    model.enter(on, parameters.span(), rows.contexts, kept);
    (void)layer.forward(state, kept.layer_input.view().rows(0, count), output.view().rows(0, count), record,
                        {.phase = fl::phase::evaluate,
                         .seed = seed,
                         .step = static_cast<std::uint64_t>(chosen.steps),
                         .first_token = first,
                         .token_ids = rows.words});
    loss += model.leave(on, parameters.span(), output.view().rows(0, count), rows.targets, kept);
  }
  result.validation_loss = loss / static_cast<double>(positions);
  result.after_20 = tracker.share_after(0.2);
  result.after_50 = tracker.share_after(0.5);
  result.after_80 = tracker.share_after(0.8);
  result.flips = tracker.flips();
  result.distribution.resize(static_cast<std::size_t>(tracker.snapshots()) + 1);
  tracker.distribution(result.distribution);
  result.average_loads();
  if constexpr (requires { state.router.fallbacks; }) { result.fallbacks = state.router.fallbacks; }
  result.seconds = std::chrono::duration<double>(clock::now() - start).count();
  return result;
}

}  // namespace routing_fluctuation
