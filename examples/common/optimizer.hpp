// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief AdamW for one array of parameters, with its state and its step count.
#include <fairlead/core/parameters.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/optim/adamw.hpp>

#include <cstdint>
#include <span>

namespace language_model {
namespace fl = fairlead;

/// @brief The optimizer of one parameter array.
class optimizer {
 public:
  /// @param layout blocks of the array
  explicit optimizer(fl::parameter_layout const& layout)
      : state_(policy_.make_state<float>(fl::serial{}, layout.size())) {}
  /// @brief Take a step.
  /// @param on where
  /// @param layout blocks of the array
  /// @param values[in,out] parameters
  /// @param gradients their gradients
  /// @param rate learning rate of this step
  void update(fl::serial const& on, fl::parameter_layout const& layout, std::span<float> values,
              std::span<float const> gradients, double rate) {
    policy_.rate = rate;
    policy_.update(on, layout, values, gradients, state_, ++step_);
  }

 private:
  fl::adamw policy_{.second_decay = 0.98, .decay = 0.01};  // few steps: a short memory
  fl::adamw_state<float, fl::host_space> state_;
  std::int64_t step_ = 0;
};

}  // namespace language_model
