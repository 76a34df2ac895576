// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The model that is trained: a linear softmax gate over small experts, forward and backward.
///
///     image -> gate -> logits -> softmax over the K chosen -> weights ---.
///          '-> each chosen expert: dense -> ReLU -> dense -> answer -> weighted sum -> softmax over the classes
#include <fairlead/concepts/gemm.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/numeric.hpp>
#include <fairlead/core/parameters.hpp>
#include <fairlead/dispatch/rows.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

namespace edge_training {
namespace fl = fairlead;
using fl::index_t;

/// @brief Gate and experts as one stateless description: parameters, gradients and activations come from outside.
///
/// `dense_ffn` keeps the width of a token, as the expert of a transformer does; here 784 pixels become 10 classes, so the
/// bank is written out: one product a layer and expert, over copies that are grouped by expert. `linear_gate` is fp32 and
/// wants the gradient of its tokens; the gradient test is in fp64, and images need none.
/// @tparam Value float; double in the gradient test
/// @tparam Gemm matrix product policy
template <class Value, class Gemm>
struct mixture {
  index_t width = 784;   ///< pixels of an image
  index_t hidden = 32;   ///< hidden units of an expert
  index_t classes = 10;  ///< classes
  index_t experts = 10;  ///< experts
  index_t fan_out = 3;   ///< K, experts of an image
  Gemm gemm = {};        ///< multiplies matrices

  /// What backward needs of one batch, and its scratch; allocated once.
  struct activations {
    fl::matrix<Value> gate;            ///< logits; after backward their gradient. @shape{rows x experts}
    fl::matrix<Value> weights;         ///< softmax over the chosen logits. @shape{rows x fan_out}
    fl::matrix<Value> copies;          ///< images grouped by expert. @shape{rows * fan_out x width}
    fl::matrix<Value> units;           ///< after ReLU. @shape{rows * fan_out x hidden}
    fl::matrix<Value> answers;         ///< outputs of the experts; after backward their gradient. @shape{rows * fan_out x classes}
    fl::matrix<Value> mixed;           ///< weighted sums; after `loss` probabilities. @shape{rows x classes}
    fl::matrix<Value> grad_units;      ///< @shape{rows * fan_out x hidden}
    std::vector<std::int32_t> source;  ///< copy number of each grouped row. @shape{rows * fan_out}
    std::vector<index_t> place;        ///< grouped row of each copy. @shape{rows * fan_out}
    std::vector<index_t> offsets;      ///< first grouped row of each expert, and the end. @shape{experts + 1}
  };

  /// Blocks of the layout, in order; the experts' matrices stand below each other.
  enum block : index_t { gate_weight, gate_bias, up_weight, up_bias, down_weight, down_bias };

  /// @returns how the parameters lie in memory
  [[nodiscard]] fl::parameter_layout parameter_layout() const {
    fl::parameter_layout layout;
    layout.add("gate_weight", experts, width, 1.0 / std::sqrt(static_cast<double>(width)))
        .add("gate_bias", 1, experts, 0.0, false)
        .add("up_weight", experts * hidden, width, std::sqrt(2.0 / static_cast<double>(width)))
        .add("up_bias", experts, hidden, 0.0, false)
        .add("down_weight", experts * classes, hidden, 1.0 / std::sqrt(static_cast<double>(hidden)))
        .add("down_bias", experts, classes, 0.0, false);
    return layout;
  }
  /// @param rows most images of a batch
  /// @returns memory for such a batch
  [[nodiscard]] activations make_activations(index_t rows) const {
    index_t const all = rows * fan_out;
    return {fl::matrix<Value>(rows, experts), fl::matrix<Value>(rows, fan_out),  fl::matrix<Value>(all, width),
            fl::matrix<Value>(all, hidden),   fl::matrix<Value>(all, classes),   fl::matrix<Value>(rows, classes),
            fl::matrix<Value>(all, hidden),   std::vector<std::int32_t>(static_cast<std::size_t>(all)),
            std::vector<index_t>(static_cast<std::size_t>(all)),
            std::vector<index_t>(static_cast<std::size_t>(experts + 1))};
  }

  /// @brief Compute the gate's scores: the softmax over all experts.
  /// @param on where
  /// @param parameters of the model
  /// @param images @shape{rows x width}
  /// @param[out] scores @shape{rows x experts}
  template <class Backend>
  void score(Backend const& on, std::span<Value const> parameters, fl::matrix_view<Value const> images,
             fl::matrix_view<Value> scores) const {
    gate_logits(on, parameters, images, scores);
    for (index_t row = 0; row < scores.rows(); ++row) { softmax(scores.row(row), experts); }
  }

  /// @brief Let the chosen experts answer, and mix their answers with the gate's weights over the chosen.
  /// @param on where
  /// @param parameters of the model
  /// @param images @shape{rows x width}
  /// @param choice distinct experts. @shape{rows x fan_out}
  /// @param[out] kept for `loss` and `backward`
  template <class Backend>
  void forward(Backend const& on, std::span<Value const> parameters, fl::matrix_view<Value const> images,
               fl::matrix_view<fl::expert_id const> choice, activations& kept) const {
    index_t const rows = images.rows();
    auto const layout = parameter_layout();
    gate_logits(on, parameters, images, kept.gate.view().rows(0, rows));
    group(choice, kept);
    auto const copies = kept.copies.view().rows(0, rows * fan_out);
    fl::gather_rows{.divisor = fan_out}(on, images, std::span<std::int32_t const>(kept.source.data(), static_cast<std::size_t>(rows * fan_out)), copies);
    for (index_t e = 0; e < experts; ++e) {
      auto const part = part_of(e, kept);
      if (part.count == 0) { continue; }
      auto const units = kept.units.view().rows(part.first, part.count);
      auto const answers = kept.answers.view().rows(part.first, part.count);
      repeat(layout.view(up_bias, parameters.data()).row(e), units);
      gemm.multiply(on, fl::transpose::no, fl::transpose::yes, Value{1}, copies.rows(part.first, part.count),
                    own(layout.view(up_weight, parameters.data()), e, hidden), Value{1}, units);
      for (index_t i = 0; i < part.count * hidden; ++i) { units.data()[i] = units.data()[i] > Value{0} ? units.data()[i] : Value{0}; }
      repeat(layout.view(down_bias, parameters.data()).row(e), answers);
      gemm.multiply(on, fl::transpose::no, fl::transpose::yes, Value{1}, units,
                    own(layout.view(down_weight, parameters.data()), e, classes), Value{1}, answers);
    }
    for (index_t row = 0; row < rows; ++row) {
      Value* const weights = kept.weights.view().row(row);
      Value* const mixed = kept.mixed.view().row(row);
      for (index_t k = 0; k < fan_out; ++k) { weights[k] = kept.gate(row, fl::to_index(choice(row, k))); }
      softmax(weights, fan_out);
      std::fill_n(mixed, classes, Value{0});
      for (index_t k = 0; k < fan_out; ++k) {
        Value const* const answer = kept.answers.view().row(place_of(row, k, kept));
        for (index_t c = 0; c < classes; ++c) { mixed[c] += weights[k] * answer[c]; }
      }
    }
  }

  /// @param row an image of the batch that went forward
  /// @param kept what `forward` kept
  /// @returns the class with the highest logit, the lowest id among equals
  [[nodiscard]] index_t answer(index_t row, activations const& kept) const {
    Value const* const mixed = kept.mixed.view().row(row);
    return std::max_element(mixed, mixed + classes) - mixed;
  }

  /// @brief Turn mixed answers into probabilities.
  /// @param labels the right classes. @shape{rows}
  /// @param[in,out] kept what `forward` kept
  /// @returns the sum of -log p(label) over the rows
  double loss(std::span<std::uint8_t const> labels, activations& kept) const {
    double sum = 0.0;
    for (std::size_t row = 0; row < labels.size(); ++row) {
      Value* const mixed = kept.mixed.view().row(static_cast<index_t>(row));
      Value const right = mixed[labels[row]];
      sum += softmax(mixed, classes) - static_cast<double>(right);
    }
    return sum;
  }

  /// @brief Compute the gradient of `scale` times the sum of the losses; after `loss`.
  /// @param on where
  /// @param parameters as in `forward`
  /// @param labels as in `loss`
  /// @param choice as in `forward`
  /// @param scale one over the number of rows, for the mean
  /// @param[in,out] kept what `forward` and `loss` kept
  /// @param[out] gradients overwritten. @shape{parameters}
  template <class Backend>
  void backward(Backend const& on, std::span<Value const> parameters, fl::matrix_view<Value const> images,
                std::span<std::uint8_t const> labels, fl::matrix_view<fl::expert_id const> choice, Value scale,
                activations& kept, std::span<Value> gradients) const {
    index_t const rows = images.rows();
    auto const layout = parameter_layout();
    for (index_t row = 0; row < rows; ++row) {
      Value* const grad_mixed = kept.mixed.view().row(row);
      grad_mixed[labels[static_cast<std::size_t>(row)]] -= Value{1};
      for (index_t c = 0; c < classes; ++c) { grad_mixed[c] *= scale; }
      Value const* const weights = kept.weights.view().row(row);
      Value* const grad_gate = kept.gate.view().row(row);
      std::fill_n(grad_gate, experts, Value{0});
      Value mean{0};  // the softmax's gradient: w (g - sum of w g)
      for (index_t k = 0; k < fan_out; ++k) {
        Value* const answer = kept.answers.view().row(place_of(row, k, kept));
        Value dot{0};
        for (index_t c = 0; c < classes; ++c) {
          dot += grad_mixed[c] * answer[c];
          answer[c] = weights[k] * grad_mixed[c];
        }
        grad_gate[fl::to_index(choice(row, k))] = dot;
        mean += weights[k] * dot;
      }
      for (index_t k = 0; k < fan_out; ++k) {
        Value& own_gradient = grad_gate[fl::to_index(choice(row, k))];
        own_gradient = weights[k] * (own_gradient - mean);
      }
    }
    auto const grad_gate = kept.gate.view().rows(0, rows);
    sum_rows(grad_gate, layout.view(gate_bias, gradients.data()).row(0));
    gemm.multiply(on, fl::transpose::yes, fl::transpose::no, Value{1}, grad_gate, images, Value{0},
                  layout.view(gate_weight, gradients.data()));
    for (index_t e = 0; e < experts; ++e) {
      auto const part = part_of(e, kept);
      auto const units = kept.units.view().rows(part.first, part.count);
      auto const grad_units = kept.grad_units.view().rows(part.first, part.count);
      auto const grad_answers = kept.answers.view().rows(part.first, part.count);
      sum_rows(grad_answers, layout.view(down_bias, gradients.data()).row(e));
      gemm.multiply(on, fl::transpose::yes, fl::transpose::no, Value{1}, grad_answers, units, Value{0},
                    own(layout.view(down_weight, gradients.data()), e, classes));
      gemm.multiply(on, fl::transpose::no, fl::transpose::no, Value{1}, grad_answers,
                    own(layout.view(down_weight, parameters.data()), e, classes), Value{0}, grad_units);
      for (index_t i = 0; i < part.count * hidden; ++i) {
        if (!(units.data()[i] > Value{0})) { grad_units.data()[i] = Value{0}; }
      }
      sum_rows(grad_units, layout.view(up_bias, gradients.data()).row(e));
      gemm.multiply(on, fl::transpose::yes, fl::transpose::no, Value{1}, grad_units,
                    kept.copies.view().rows(part.first, part.count), Value{0}, own(layout.view(up_weight, gradients.data()), e, hidden));
    }
  }

 private:
  struct range {
    index_t first;
    index_t count;
  };
  [[nodiscard]] static range part_of(index_t expert, activations const& kept) {
    index_t const first = kept.offsets[static_cast<std::size_t>(expert)];
    return {first, kept.offsets[static_cast<std::size_t>(expert + 1)] - first};
  }
  [[nodiscard]] index_t place_of(index_t row, index_t k, activations const& kept) const {
    return kept.place[static_cast<std::size_t>(row * fan_out + k)];
  }
  // The rows of one expert in a matrix of all.
  template <class Any>
  [[nodiscard]] static fl::matrix_view<Any> own(fl::matrix_view<Any> all, index_t expert, index_t rows) {
    return all.rows(expert * rows, rows);
  }
  static void repeat(Value const* row, fl::matrix_view<Value> to) {
    for (index_t i = 0; i < to.rows(); ++i) { std::copy_n(row, to.cols(), to.row(i)); }
  }
  static void sum_rows(fl::matrix_view<Value const> from, Value* to) {
    std::fill_n(to, from.cols(), Value{0});
    for (index_t row = 0; row < from.rows(); ++row) {
      for (index_t i = 0; i < from.cols(); ++i) { to[i] += from(row, i); }
    }
  }
  template <class Backend>
  void gate_logits(Backend const& on, std::span<Value const> parameters, fl::matrix_view<Value const> images,
                   fl::matrix_view<Value> logits) const {
    auto const layout = parameter_layout();
    repeat(layout.view(gate_bias, parameters.data()).row(0), logits);
    gemm.multiply(on, fl::transpose::no, fl::transpose::yes, Value{1}, images, layout.view(gate_weight, parameters.data()),
                  Value{1}, logits);
  }
  // Counting sort of the copies by expert; inside an expert in the order of tokens.
  void group(fl::matrix_view<fl::expert_id const> choice, activations& kept) const {
    std::fill(kept.offsets.begin(), kept.offsets.end(), 0);
    for (index_t row = 0; row < choice.rows(); ++row) {
      for (index_t k = 0; k < fan_out; ++k) { ++kept.offsets[static_cast<std::size_t>(fl::to_index(choice(row, k)) + 1)]; }
    }
    for (std::size_t e = 1; e < kept.offsets.size(); ++e) { kept.offsets[e] += kept.offsets[e - 1]; }
    for (index_t row = 0; row < choice.rows(); ++row) {
      for (index_t k = 0; k < fan_out; ++k) {
        index_t const to = kept.offsets[static_cast<std::size_t>(fl::to_index(choice(row, k)))]++;
        kept.place[static_cast<std::size_t>(row * fan_out + k)] = to;
        kept.source[static_cast<std::size_t>(to)] = static_cast<std::int32_t>(row * fan_out + k);
      }
    }
    std::copy_backward(kept.offsets.begin(), kept.offsets.end() - 1, kept.offsets.end());
    kept.offsets.front() = 0;
  }
  // In place; returns the logarithm of the sum of exponentials.
  static double softmax(Value* values, index_t count) {
    Value const top = *std::max_element(values, values + count);
    Value sum{0};
    for (index_t i = 0; i < count; ++i) { sum += values[i] = exponential(values[i] - top); }
    for (index_t i = 0; i < count; ++i) { values[i] /= sum; }
    return static_cast<double>(top) + std::log(static_cast<double>(sum));
  }
  static Value exponential(Value x) noexcept {
    if constexpr (std::is_same_v<Value, float>) {
      return fl::numeric::exp(x);
    } else {
      return std::exp(x);
    }
  }
};

/// @brief Choose the experts with the highest scores, the lowest ids among equals.
/// @param scores @shape{rows x experts}
/// @param[out] choice best first. @shape{rows x fan_out}
template <class Value>
void choose_best(fl::matrix_view<Value const> scores, fl::matrix_view<fl::expert_id> choice) {
  for (index_t row = 0; row < scores.rows(); ++row) {
    for (index_t k = 0; k < choice.cols(); ++k) {
      index_t best = -1;
      for (index_t e = 0; e < scores.cols(); ++e) {
        fl::expert_id const* const chosen = choice.row(row);
        if (std::find(chosen, chosen + k, static_cast<fl::expert_id>(e)) != chosen + k) { continue; }
        if (best < 0 || scores(row, e) > scores(row, best)) { best = e; }
      }
      choice(row, k) = static_cast<fl::expert_id>(best);
    }
  }
}

}  // namespace edge_training
