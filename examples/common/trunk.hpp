// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The dense part of the model: embedding and first layer below the experts, softmax above them.
///
///     words -> embedding -> concatenate -> dense -> SiLU -> x --> norm -> [experts] --> + -> norm -> softmax
///                                                           '------------------------'
#include <fairlead/concepts/gemm.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/numeric.hpp>
#include <fairlead/core/parameters.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <type_traits>

namespace language_model {
namespace fl = fairlead;
using fl::index_t;

/// @brief The dense layers, forward and backward, around whatever stands in the brackets.
///
/// A stateless description, like the components of the library: parameters, gradients and activations come from outside.
/// @tparam Value float; double in the gradient test
/// @tparam Gemm matrix product policy
template <class Value, class Gemm>
struct trunk {
  index_t vocabulary = 2048;  ///< words
  index_t context = 8;        ///< previous words that the model sees
  index_t embedding = 64;     ///< width of a word
  index_t width = 128;        ///< width of the hidden state
  Gemm gemm = {};             ///< multiplies matrices

  /// What backward needs of one batch, and its scratch; allocated once.
  struct activations {
    fl::matrix<Value> words;         ///< concatenated embeddings. @shape{rows x context * embedding}
    fl::matrix<Value> sums;          ///< before SiLU. @shape{rows x width}
    fl::matrix<Value> hidden;        ///< the residual stream x. @shape{rows x width}
    fl::matrix<Value> layer_input;   ///< what the experts get. @shape{rows x width}
    fl::matrix<Value> mixed;         ///< x + experts. @shape{rows x width}
    fl::matrix<Value> normed;        ///< what the softmax gets. @shape{rows x width}
    fl::matrix<Value> logits;        ///< after `leave`: probabilities; after its backward: their gradient. @shape{rows x vocabulary}
    fl::matrix<Value> grad_words;    ///< @shape{rows x context * embedding}
    fl::matrix<Value> grad_hidden;   ///< @shape{rows x width}
    fl::matrix<Value> grad_normed;   ///< @shape{rows x width}
  };

  /// Blocks of the layout, in order.
  enum block : index_t { embeddings, first_weight, first_bias, layer_gain, last_gain, last_weight, last_bias };

  /// @returns how the parameters lie in memory
  [[nodiscard]] fl::parameter_layout parameter_layout() const {
    double const fan_in = static_cast<double>(context * embedding);
    fl::parameter_layout layout;
    layout.add("embeddings", vocabulary, embedding, 1.0, false)
        .add("first_weight", context * embedding, width, std::sqrt(2.0 / fan_in))
        .add("first_bias", 1, width, 0.0, false)
        .add("layer_gain", 1, width, 0.0, false)  // a gain is 1 + its parameter
        .add("last_gain", 1, width, 0.0, false)
        .add("last_weight", width, vocabulary, 0.5 / std::sqrt(static_cast<double>(width)))
        .add("last_bias", 1, vocabulary, 0.0, false);
    return layout;
  }

  /// @param rows most rows of a batch
  /// @returns memory for such a batch
  [[nodiscard]] activations make_activations(index_t rows) const {
    auto const wide = [&] { return fl::matrix<Value>(rows, width); };
    auto const concatenated = [&] { return fl::matrix<Value>(rows, context * embedding); };
    return {concatenated(), wide(),         wide(), wide(), wide(), wide(), fl::matrix<Value>(rows, vocabulary),
            concatenated(), wide(),         wide()};
  }

  /// @brief Compute everything below the experts; `kept.layer_input` is for them.
  /// @param contexts words. @shape{rows * context}
  template <class Backend>
  void enter(Backend const& on, std::span<Value const> parameters, std::span<std::int32_t const> contexts,
             activations& kept) const {
    index_t const rows = static_cast<index_t>(contexts.size()) / context;
    auto const layout = parameter_layout();
    auto const table = layout.view(embeddings, parameters.data());
    auto const bias = layout.view(first_bias, parameters.data());
    for (index_t i = 0; i < rows * context; ++i) {
      Value const* const word = table.row(contexts[static_cast<std::size_t>(i)]);
      std::copy_n(word, embedding, kept.words.data() + i * embedding);
    }
    auto const sums = kept.sums.view().rows(0, rows);
    for (index_t row = 0; row < rows; ++row) { std::copy_n(bias.data(), width, sums.row(row)); }
    gemm.multiply(on, fl::transpose::no, fl::transpose::no, Value{1}, kept.words.view().rows(0, rows),
                  layout.view(first_weight, parameters.data()), Value{1}, sums);
    for (index_t i = 0; i < rows * width; ++i) {
      Value const x = sums.data()[i];
      kept.hidden.data()[i] = x / (Value{1} + exponential(-x));
    }
    normalise(kept.hidden.view().rows(0, rows), layout.view(layer_gain, parameters.data()),
              kept.layer_input.view().rows(0, rows));
  }

  /// @brief Compute everything above the experts.
  /// @param layer_output what the experts made. @shape{rows x width}
  /// @param targets words to predict. @shape{rows}
  /// @returns the sum of -log p(target) over the rows
  template <class Backend>
  double leave(Backend const& on, std::span<Value const> parameters, fl::matrix_view<Value const> layer_output,
               std::span<std::int32_t const> targets, activations& kept) const {
    index_t const rows = layer_output.rows();
    auto const layout = parameter_layout();
    auto const bias = layout.view(last_bias, parameters.data());
    for (index_t row = 0; row < rows; ++row) {
      for (index_t i = 0; i < width; ++i) { kept.mixed(row, i) = kept.hidden(row, i) + layer_output(row, i); }
    }
    auto const normed = kept.normed.view().rows(0, rows);
    auto const logits = kept.logits.view().rows(0, rows);
    normalise(kept.mixed.view().rows(0, rows), layout.view(last_gain, parameters.data()), normed);
    for (index_t row = 0; row < rows; ++row) { std::copy_n(bias.data(), vocabulary, logits.row(row)); }
    gemm.multiply(on, fl::transpose::no, fl::transpose::no, Value{1}, normed, layout.view(last_weight, parameters.data()),
                  Value{1}, logits);
    double loss = 0.0;
    for (index_t row = 0; row < rows; ++row) {
      Value* const p = logits.row(row);
      Value const target = p[targets[static_cast<std::size_t>(row)]];
      Value const top = fold(p, p[0], [](Value a, Value b) { return a < b ? b : a; });
      for (index_t i = 0; i < vocabulary; ++i) { p[i] = exponential(p[i] - top); }
      Value const sum = fold(p, Value{0}, [](Value a, Value b) { return a + b; });
      loss += std::log(static_cast<double>(sum)) - static_cast<double>(target - top);
      for (index_t i = 0; i < vocabulary; ++i) { p[i] /= sum; }
    }
    return loss;
  }

  /// @brief Go back to the experts' output; adds to the gradients of the upper parameters.
  /// @param scale what the sum of losses is multiplied by: one over the number of rows of all ranks
  /// @param grad_output[out] gradient with respect to `layer_output`. @shape{rows x width}
  template <class Backend>
  void leave_backward(Backend const& on, std::span<Value const> parameters, std::span<std::int32_t const> targets,
                      Value scale, activations& kept, std::span<Value> gradients,
                      fl::matrix_view<Value> grad_output) const {
    index_t const rows = grad_output.rows();
    auto const layout = parameter_layout();
    auto const grad_logits = kept.logits.view().rows(0, rows);
    Value* const grad_bias = layout.view(last_bias, gradients.data()).data();
    for (index_t row = 0; row < rows; ++row) {
      Value* const p = grad_logits.row(row);
      p[targets[static_cast<std::size_t>(row)]] -= Value{1};
      for (index_t i = 0; i < vocabulary; ++i) { grad_bias[i] += p[i] *= scale; }
    }
    auto const grad_normed = kept.grad_normed.view().rows(0, rows);
    gemm.multiply(on, fl::transpose::yes, fl::transpose::no, Value{1}, kept.normed.view().rows(0, rows), grad_logits,
                  Value{1}, layout.view(last_weight, gradients.data()));
    gemm.multiply(on, fl::transpose::no, fl::transpose::yes, Value{1}, grad_logits,
                  layout.view(last_weight, parameters.data()), Value{0}, grad_normed);
    normalise_backward(kept.mixed.view().rows(0, rows), layout.view(last_gain, parameters.data()), grad_normed,
                       layout.view(last_gain, gradients.data()), grad_output, Value{0});
  }

  /// @brief Go back to the words; adds to the gradients of the lower parameters.
  /// @param grad_output what `leave_backward` wrote: it also flows through the residual path
  /// @param grad_input gradient with respect to `kept.layer_input`. @shape{rows x width}
  template <class Backend>
  void enter_backward(Backend const& on, std::span<Value const> parameters, std::span<std::int32_t const> contexts,
                      fl::matrix_view<Value const> grad_output, fl::matrix_view<Value const> grad_input,
                      activations& kept, std::span<Value> gradients) const {
    index_t const rows = grad_output.rows();
    auto const layout = parameter_layout();
    auto const grad_hidden = kept.grad_hidden.view().rows(0, rows);
    auto const grad_words = kept.grad_words.view().rows(0, rows);
    for (index_t row = 0; row < rows; ++row) { std::copy_n(grad_output.row(row), width, grad_hidden.row(row)); }
    normalise_backward(kept.hidden.view().rows(0, rows), layout.view(layer_gain, parameters.data()), grad_input,
                       layout.view(layer_gain, gradients.data()), grad_hidden, Value{1});
    Value* const grad_bias = layout.view(first_bias, gradients.data()).data();
    for (index_t row = 0; row < rows; ++row) {
      for (index_t i = 0; i < width; ++i) {
        Value const x = kept.sums(row, i);
        Value const s = Value{1} / (Value{1} + exponential(-x));
        grad_hidden(row, i) *= s * (Value{1} + x * (Value{1} - s));
        grad_bias[i] += grad_hidden(row, i);
      }
    }
    gemm.multiply(on, fl::transpose::yes, fl::transpose::no, Value{1}, kept.words.view().rows(0, rows), grad_hidden,
                  Value{1}, layout.view(first_weight, gradients.data()));
    gemm.multiply(on, fl::transpose::no, fl::transpose::yes, Value{1}, grad_hidden,
                  layout.view(first_weight, parameters.data()), Value{0}, grad_words);
    auto const grad_table = layout.view(embeddings, gradients.data());
    for (index_t i = 0; i < rows * context; ++i) {
      Value* const to = grad_table.row(contexts[static_cast<std::size_t>(i)]);
      Value const* const from = grad_words.data() + i * embedding;
      for (index_t j = 0; j < embedding; ++j) { to[j] += from[j]; }
    }
  }

 private:
  // The library's exp is written so that compilers vectorise loops over it; the gradient test wants doubles.
  static Value exponential(Value x) noexcept {
    if constexpr (std::is_same_v<Value, float>) {
      return fl::numeric::exp(x);
    } else {
      return std::exp(x);
    }
  }
  // Reduce a row of the vocabulary; the lanes give compilers an order that vector registers can follow.
  template <class Combine>
  Value fold(Value const* row, Value start, Combine combine) const {
    constexpr index_t lane_count = 16;
    std::array<Value, lane_count> lanes;
    lanes.fill(start);
    index_t i = 0;
    for (; i + lane_count <= vocabulary; i += lane_count) {
      for (index_t lane = 0; lane < lane_count; ++lane) {
        auto& value = lanes[static_cast<std::size_t>(lane)];
        value = combine(value, row[i + lane]);
      }
    }
    for (; i < vocabulary; ++i) { lanes[0] = combine(lanes[0], row[i]); }
    Value result = lanes[0];
    for (std::size_t lane = 1; lane < lanes.size(); ++lane) { result = combine(result, lanes[lane]); }
    return result;
  }
  static Value inverse_norm(Value const* x, index_t count) {
    Value squares{0};
    for (index_t i = 0; i < count; ++i) { squares += x[i] * x[i]; }
    return Value{1} / std::sqrt(squares / static_cast<Value>(count) + static_cast<Value>(1e-6));
  }
  // y = x / rms(x) * (1 + gain)
  static void normalise(fl::matrix_view<Value const> in, fl::matrix_view<Value const> gain, fl::matrix_view<Value> out) {
    for (index_t row = 0; row < in.rows(); ++row) {
      Value const inverse = inverse_norm(in.row(row), in.cols());
      for (index_t i = 0; i < in.cols(); ++i) { out(row, i) = in(row, i) * inverse * (Value{1} + gain(0, i)); }
    }
  }
  // grad_in = keep * grad_in + dL/dx
  static void normalise_backward(fl::matrix_view<Value const> in, fl::matrix_view<Value const> gain,
                                 fl::matrix_view<Value const> grad_out, fl::matrix_view<Value> grad_gain,
                                 fl::matrix_view<Value> grad_in, Value keep) {
    for (index_t row = 0; row < in.rows(); ++row) {
      Value const inverse = inverse_norm(in.row(row), in.cols());
      Value dot{0};
      for (index_t i = 0; i < in.cols(); ++i) {
        dot += grad_out(row, i) * (Value{1} + gain(0, i)) * in(row, i);
        grad_gain(0, i) += grad_out(row, i) * in(row, i) * inverse;
      }
      Value const along = dot * inverse * inverse * inverse / static_cast<Value>(in.cols());
      for (index_t i = 0; i < in.cols(); ++i) {
        Value const old = keep == Value{0} ? Value{0} : keep * grad_in(row, i);
        grad_in(row, i) = old + grad_out(row, i) * (Value{1} + gain(0, i)) * inverse - in(row, i) * along;
      }
    }
  }
};

}  // namespace language_model
