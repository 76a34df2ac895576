// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The parameters of one run: they give scores, learn from completed tokens, and are tested.
#include "../common/gemm.hpp"
#include "images.hpp"
#include "mixture.hpp"

#include <fairlead/core/matrix.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/optim/sgd.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace edge_training {

/// @brief Gate and experts with their gradients, optimizer and scratch.
class learner {
 public:
  using model_type = mixture<float, examples::gemm_policy>;  ///< fp32, the BLAS where there is one

  /// @param model sizes
  /// @param most_rows most images of a call
  /// @param rate learning rate
  /// @param seed of the initial parameters
  learner(model_type const& model, index_t most_rows, double rate, std::uint64_t seed)
      : model_(model),
        layout_(model.parameter_layout()),
        parameters_(1, layout_.size()),
        gradients_(1, layout_.size()),
        kept_(model.make_activations(most_rows)),
        images_(most_rows, model.width),
        scores_(most_rows, model.experts),
        choice_(static_cast<std::size_t>(most_rows * model.fan_out)),
        labels_(static_cast<std::size_t>(most_rows)),
        policy_{.rate = rate},
        state_(policy_.make_state<float>(fl::serial{}, layout_.size())) {
    fl::initialise(layout_, seed, 0, parameters_.span());
  }

  /// @brief Score images with the parameters of now.
  /// @param set where they are
  /// @param numbers which. @shape{rows}
  /// @returns the gate's softmax, until the next call. @shape{rows x experts}
  fl::matrix_view<float const> score(image_set const& set, std::span<index_t const> numbers) {
    auto const rows = fetch(set, numbers);
    auto const scores = scores_.view().rows(0, rows.rows());
    model_.score(on_, std::as_const(parameters_).span(), rows, scores);
    return scores;
  }
  /// @param token row of the batch
  /// @returns where the experts of that token belong before `learn`. @shape{fan_out}
  std::span<fl::expert_id> choice(index_t token) {
    return std::span(choice_).subspan(static_cast<std::size_t>(token * model_.fan_out), static_cast<std::size_t>(model_.fan_out));
  }
  /// @brief Take one step of gradient descent on the mean loss; each image by the experts in `choice()`.
  /// @param set where the images are
  /// @param numbers which. @shape{rows}
  /// @returns the mean loss before the step, 0 without images
  double learn(image_set const& set, std::span<index_t const> numbers) {
    if (numbers.empty()) { return 0.0; }
    auto const rows = fetch(set, numbers);
    fl::matrix_view<fl::expert_id const> const chosen(choice_.data(), rows.rows(), model_.fan_out);
    auto const labels = std::span<std::uint8_t const>(labels_).first(numbers.size());
    model_.forward(on_, std::as_const(parameters_).span(), rows, chosen, kept_);
    double const loss = model_.loss(labels, kept_);
    model_.backward(on_, std::as_const(parameters_).span(), rows, labels, chosen, 1.0F / static_cast<float>(rows.rows()), kept_,
                    gradients_.span());
    policy_.update(on_, layout_, parameters_.span(), std::as_const(gradients_).span(), state_, ++step_);
    return loss / static_cast<double>(rows.rows());
  }
  /// @brief Classify images by the K best experts of each, whatever queues there are.
  /// @param set test images
  /// @param count how many of the first ones
  /// @returns share that is right
  double accuracy(image_set const& set, index_t count) {
    index_t right = 0;
    index_t const most = std::min<index_t>(images_.rows(), 500);
    std::vector<index_t> numbers;
    for (index_t first = 0; first < count; first += most) {
      numbers.clear();
      for (index_t i = first; i < std::min(first + most, count); ++i) { numbers.push_back(i); }
      auto const rows = static_cast<index_t>(numbers.size());
      fl::matrix_view<fl::expert_id> const chosen(choice_.data(), rows, model_.fan_out);
      choose_best(score(set, numbers), chosen);
      model_.forward(on_, std::as_const(parameters_).span(), images_.view().rows(0, rows), chosen, kept_);
      for (index_t row = 0; row < rows; ++row) { right += model_.answer(row, kept_) == labels_[static_cast<std::size_t>(row)] ? 1 : 0; }
    }
    return static_cast<double>(right) / static_cast<double>(count);
  }

 private:
  fl::matrix_view<float const> fetch(image_set const& set, std::span<index_t const> numbers) {
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      set.copy(numbers[i], images_.view().row(static_cast<index_t>(i)));
      labels_[i] = set.labels[static_cast<std::size_t>(numbers[i])];
    }
    return images_.view().rows(0, static_cast<index_t>(numbers.size()));
  }

  fl::serial on_{};
  model_type model_;
  fl::parameter_layout layout_;
  fl::matrix<float> parameters_;
  fl::matrix<float> gradients_;
  model_type::activations kept_;
  fl::matrix<float> images_;
  fl::matrix<float> scores_;
  std::vector<fl::expert_id> choice_;
  std::vector<std::uint8_t> labels_;
  fl::sgd policy_;
  fl::sgd_state<float, fl::host_space> state_;
  std::int64_t step_ = 0;
};

}  // namespace edge_training
