// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of `adamw`.
#include <fairlead/cuda/memory.cuh>
#include <fairlead/optim/adamw.hpp>

#include <cmath>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {
template <class Value>
struct adamw_element {
  Value* values;
  Value const* gradients;
  Value* means;
  Value* squares;
  Value first, first_new, second, second_new, size, rate, epsilon, keep;
  FAIRLEAD_HD void operator()(index_t i) const {
    Value const gradient = gradients[i];
    Value const mean = first * means[i] + first_new * gradient;
    Value const square = second * squares[i] + second_new * gradient * gradient;
    means[i] = mean;
    squares[i] = square;
    values[i] = keep * values[i] - rate * mean / (std::sqrt(square) * size + epsilon);
  }
};
}  // namespace detail

/// @brief The text of `adamw` for CUDA: one launch a parameter block.
template <cuda_backend Backend>
struct implementation<adamw, Backend> {
  /// @copydoc adamw::update
  template <class Value>
  static void update(adamw const& self, Backend const& on, parameter_layout const& layout, std::span<Value> values,
                     std::span<Value const> gradients, adamw_state<Value, device_space>& state, std::int64_t step) {
    // All that is the same for every element, in double; 1 / (1 - beta^t) is folded into two factors, as on the host.
    double const t = static_cast<double>(step);
    for (parameter_block const& block : layout.blocks()) {
      if (block.frozen) { continue; }
      on.for_each(block.size(),
                  detail::adamw_element<Value>{
                      values.data() + block.offset, gradients.data() + block.offset, state.first.data() + block.offset,
                      state.second.data() + block.offset, static_cast<Value>(self.first_decay),
                      static_cast<Value>(1.0 - self.first_decay), static_cast<Value>(self.second_decay),
                      static_cast<Value>(1.0 - self.second_decay),
                      static_cast<Value>(1.0 / std::sqrt(1.0 - std::pow(self.second_decay, t))),
                      static_cast<Value>(self.rate / (1.0 - std::pow(self.first_decay, t))), static_cast<Value>(self.epsilon),
                      static_cast<Value>(block.decays ? 1.0 - self.rate * self.decay : 1.0)});
    }
  }
};

FAIRLEAD_NAMESPACE_END
