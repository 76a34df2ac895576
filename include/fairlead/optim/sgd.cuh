// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of `sgd`.
#include <fairlead/cuda/memory.cuh>
#include <fairlead/optim/sgd.hpp>

#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {
template <class Value>
struct sgd_element {
  Value* values;
  Value const* gradients;
  Value* velocity;  // null without momentum
  Value rate, momentum, decay;
  FAIRLEAD_HD void operator()(index_t i) const {
    Value step = gradients[i] + decay * values[i];
    if (velocity != nullptr) {
      step += momentum * velocity[i];
      velocity[i] = step;
    }
    values[i] -= rate * step;
  }
};
}  // namespace detail

/// @brief The text of `sgd` for CUDA: one launch a parameter block.
template <cuda_backend Backend>
struct implementation<sgd, Backend> {
  /// @copydoc sgd::update
  template <class Value>
  static void update(sgd const& self, Backend const& on, parameter_layout const& layout, std::span<Value> values,
                     std::span<Value const> gradients, sgd_state<Value, device_space>& state, std::int64_t) {
    for (parameter_block const& block : layout.blocks()) {
      if (block.frozen) { continue; }
      on.for_each(block.size(), detail::sgd_element<Value>{
                                    values.data() + block.offset, gradients.data() + block.offset,
                                    self.momentum == 0.0 ? nullptr : state.velocity.data() + block.offset,
                                    static_cast<Value>(self.rate), static_cast<Value>(self.momentum),
                                    static_cast<Value>(block.decays ? self.decay : 0.0)});
    }
  }
};

FAIRLEAD_NAMESPACE_END
