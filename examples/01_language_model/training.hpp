// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Train and evaluate one composition, the same on every rank.
#include "options.hpp"
#include "progress.hpp"
#include "results.hpp"
#include "../common/gemm.hpp"
#include "../common/interrupt.hpp"
#include "../common/optimizer.hpp"
#include "../common/text.hpp"
#include "../common/trunk.hpp"

#include <fairlead/comm/counted.hpp>
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/parameters.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <span>
#include <string>
#include <vector>

namespace language_model {

/// @brief The rows of a global batch that belong to one rank: consecutive, and all rows belong to somebody.
struct share {
  index_t first = 0;  ///< first row of this rank
  index_t count = 0;  ///< rows of this rank, possibly none
  /// @param rows rows of all ranks
  /// @param rank this rank
  /// @param ranks number of ranks
  /// @returns its share
  static share of(index_t rows, index_t rank, index_t ranks) {
    index_t const first = rows * rank / ranks;
    return {first, rows * (rank + 1) / ranks - first};
  }
};

/// @brief Learning rate: a short warm-up, then half a cosine down to a tenth.
/// @param highest its maximum
/// @param step number of the step, from 1
/// @param done share of the training that is over, 0 to 1
/// @returns the rate of this step
inline double learning_rate(double highest, index_t step, double done) {
  double const warm = std::min(1.0, static_cast<double>(step) / 20.0);
  return highest * warm * (0.55 + 0.45 * std::cos(std::numbers::pi * std::min(done, 1.0)));
}

/// @brief What all ranks agree on after a step: sums over the ranks, in one message.
struct agreement {
  double loss = 0.0;     ///< sum of -log p
  double rows = 0.0;     ///< rows of all ranks
  double stop = 0.0;     ///< ranks that were interrupted
  double seconds = 0.0;  ///< clock of rank 0

  /// @brief Sum over the ranks.
  template <class Comm>
  void reduce(fl::serial const& on, Comm& comm) {
    if (comm.rank() != 0) { seconds = 0.0; }
    std::array<double, 4> values{loss, rows, stop, seconds};
    comm.all_reduce(on, std::span<double>(values), fl::reduction::sum).wait();
    loss = values[0], rows = values[1], stop = values[2], seconds = values[3];
  }
};

/// @brief What a layer says about one forward pass over all ranks.
struct layer_numbers {
  double imbalance = 1.0;  ///< most copies of an expert over the mean
  double dropped = 0.0;    ///< share of the copies that found no room
};

/// @brief The rows of one rank, as the model reads them.
struct batch {
  std::vector<std::int32_t> contexts;  ///< @shape{rows x context}
  std::vector<std::int32_t> targets;   ///< @shape{rows}

  /// @brief Take rows of a text.
  /// @param tokens the text
  /// @param context words in front of a target
  /// @param rows number of rows
  /// @param position position(i) is where row i starts
  template <class Position>
  void fill(std::span<std::int32_t const> tokens, index_t context, index_t rows, Position position) {
    auto const length = static_cast<std::size_t>(context);
    contexts.resize(static_cast<std::size_t>(rows) * length);
    targets.resize(static_cast<std::size_t>(rows));
    for (std::size_t i = 0; i < targets.size(); ++i) {
      targets[i] = copy_context(tokens, position(static_cast<index_t>(i)), std::span(contexts).subspan(i * length, length));
    }
  }
};

/// @brief Train one composition and measure it on the validation text. Collective: every rank calls it alike.
///
/// The same global batches are used at every number of ranks: rank r takes its share of the rows. Dense parameters are
/// replicated, their gradients summed over the ranks; the loss is divided by the rows of all ranks.
/// @param name for the output
/// @param part what stands in the place of the experts: `moe_part` of moe.hpp
/// @param text the numbered text
/// @param chosen the options
/// @param seconds most seconds of this training, 0 = no limit
/// @param comm the ranks
/// @returns the result; loads and losses are those of all ranks
template <class Part, class Comm>
outcome train(std::string const& name, Part& part, corpus const& text, options const& chosen, double seconds, Comm& comm) {
  using clock = std::chrono::steady_clock;
  fl::serial const on;
  index_t const rank = comm.rank(), ranks = comm.size();
  share const mine = share::of(chosen.batch, rank, ranks);

  trunk<float, examples::gemm_policy> const model{.vocabulary = static_cast<index_t>(text.vocabulary.size()),
                                        .context = chosen.context,
                                        .embedding = chosen.embedding,
                                        .width = chosen.width};
  auto const layout = model.parameter_layout();
  fl::matrix<float> parameters(1, layout.size()), gradients(1, layout.size());
  fl::initialise(layout, chosen.seed, 0, parameters.span());  // the same values on every rank
  optimizer dense(layout);
  auto kept = model.make_activations(mine.count);
  fl::matrix<float> output(mine.count, chosen.width), grad_output(mine.count, chosen.width),
      grad_input(mine.count, chosen.width);
  batch rows;
  fl::counted gradient_traffic(comm);

  outcome result{.name = name, .batch = chosen.batch};
  result.curve.reserve(static_cast<std::size_t>(std::min<index_t>(chosen.steps, 1'000'000)));
  progress line(name, chosen.steps, chosen.batch, rank == 0, chosen.plain);
  sampler const order(static_cast<index_t>(text.train.size()) - chosen.context);
  auto const start = clock::now();
  double done = 0.0;
  for (index_t step = 1; step <= chosen.steps; ++step) {
    rows.fill(text.train, chosen.context, mine.count,
              [&](index_t i) { return order.position((step - 1) * chosen.batch + mine.first + i); });
    model.enter(on, parameters.span(), rows.contexts, kept);
    layer_numbers const layer = part.forward(kept.layer_input.view().rows(0, mine.count), output.view(),
                                             {.phase = fl::phase::train,
                                              .seed = chosen.seed,
                                              .step = static_cast<std::uint64_t>(step),
                                              .first_token = mine.first});
    agreement sums{.loss = model.leave(on, parameters.span(), output.view(), rows.targets, kept),
                   .rows = static_cast<double>(mine.count),
                   .stop = examples::interrupt::came() ? 1.0 : 0.0,
                   .seconds = std::chrono::duration<double>(clock::now() - start).count()};
    sums.reduce(on, comm);

    std::fill_n(gradients.data(), layout.size(), 0.0F);
    model.leave_backward(on, parameters.span(), rows.targets, static_cast<float>(1.0 / sums.rows), kept,
                         gradients.span(), grad_output.view());
    part.backward(grad_output.view(), grad_input.view());
    model.enter_backward(on, parameters.span(), rows.contexts, grad_output.view(), grad_input.view(), kept,
                         gradients.span());
    gradient_traffic.all_reduce(on, gradients.span(), fl::reduction::sum).wait();

    double const rate = learning_rate(chosen.rate, step, done);
    dense.update(on, layout, parameters.span(), gradients.span(), rate);
    part.update(rate);

    // Time and signals differ from rank to rank; the sums do not, so all ranks leave the loop after the same step.
    result.interrupted = sums.stop > 0.0;
    done = static_cast<double>(step) / static_cast<double>(chosen.steps);
    if (seconds > 0.0) { done = std::max(done, sums.seconds / seconds); }
    double const loss = sums.loss / sums.rows;
    result.curve.push_back({step, sums.seconds, loss, layer.imbalance, layer.dropped});
    line.show(result.curve.back(), done);
    if (result.interrupted || done >= 1.0) { break; }
  }
  line.close();

  auto const last = std::max<std::size_t>(1, result.curve.size() / 5);
  result.train_imbalance = 0.0;
  for (auto row = result.curve.end() - static_cast<std::ptrdiff_t>(last); row != result.curve.end(); ++row) {
    result.train_imbalance += row->imbalance / static_cast<double>(last);
    result.dropped += row->dropped / static_cast<double>(last);
  }
  double const steps = static_cast<double>(result.curve.size());
  agreement bytes{.loss = part.exchanged_bytes(),
                  .rows = static_cast<double>(gradient_traffic.counters().total().bytes_out),
                  .seconds = std::chrono::duration<double>(clock::now() - start).count()};
  bytes.reduce(on, comm);
  result.curve.back().seconds = bytes.seconds;
  result.exchanged_bytes = bytes.loss / result.tokens();
  result.gradient_bytes = bytes.rows / steps;

  // Validation: every position once; the last batch is smaller, and some ranks may have no row of it.
  index_t const positions = static_cast<index_t>(text.validation.size()) - chosen.context;
  double loss = 0.0, imbalance = 0.0, batches = 0.0;
  for (index_t first = 0; first < positions; first += chosen.batch) {
    share const part_of = share::of(std::min(chosen.batch, positions - first), rank, ranks);
    rows.fill(text.validation, chosen.context, part_of.count, [&](index_t i) { return first + part_of.first + i; });
    model.enter(on, parameters.span(), rows.contexts, kept);
    layer_numbers const layer =
        part.forward(kept.layer_input.view().rows(0, part_of.count), output.view().rows(0, part_of.count),
                     {.phase = fl::phase::evaluate, .seed = chosen.seed, .first_token = first + part_of.first});
    loss += model.leave(on, parameters.span(), output.view().rows(0, part_of.count), rows.targets, kept);
    if (first + chosen.batch <= positions || first == 0) { imbalance += layer.imbalance, batches += 1.0; }
  }
  agreement validation{.loss = loss};
  validation.reduce(on, comm);
  result.validation_loss = validation.loss / static_cast<double>(positions);
  result.validation_imbalance = imbalance / batches;
  return result;
}

}  // namespace language_model
