// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Stochastic gradient descent with momentum.
#include <fairlead/concepts/optimizer.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/optim/detail/pieces.hpp>

#include <cstdint>
#include <span>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The moments of `sgd`: one velocity a parameter, none without momentum.
template <class Value, memory_space Space>
struct sgd_state {
  buffer<Value, Space> velocity;  ///< @shape{parameters}, empty if the policy had no momentum
};

/// @brief Move against the gradient: v = momentum v + g + decay p, p = p - rate v.
///
/// The decay is the classical one: a penalty in the gradient. Change `rate` between steps for a schedule.
/// @source{sutskever2013, On the importance of initialization and momentum in deep learning, section 2}
struct sgd {
  double rate = 0.1;      ///< learning rate
  double momentum = 0.0;  ///< share of the old velocity, 0 <= momentum < 1; 0 needs no state
  double decay = 0.0;     ///< weight decay of the blocks that decay

  /// @brief Make the state of an array of parameters before its first step.
  /// @tparam Value element type
  /// @param on execution context
  /// @param size number of parameters
  /// @returns a velocity of zeros, or nothing without momentum
  /// @throws std::bad_alloc, or what the memory space throws
  template <class Value, execution_backend Backend>
  [[nodiscard]] auto make_state(Backend const& on, index_t size) const {
    sgd_state<Value, typename Backend::memory_space> state;
    if (momentum != 0.0) {
      state.velocity.resize(size);
      on.fill_zero(state.velocity.data(), static_cast<std::size_t>(size) * sizeof(Value));
      on.wait();
    }
    return state;
  }

  /// @brief Update an array of parameters.
  /// @param on execution context
  /// @param layout blocks of the array: says where decay applies
  /// @param[in,out] values parameters @shape{layout.size()}
  /// @param gradients gradients @shape{layout.size()}
  /// @param[in,out] state what `make_state` made for this array
  /// @param step number of this step, from 1
  /// @throws contract_violation (level 1) on sizes that do not fit or fields out of range
  /// @complexity O(layout.size()), no allocation
  /// @determinism every element is computed alone
  template <execution_backend Backend, class Value>
  void update(Backend const& on, parameter_layout const& layout, std::span<Value> values,
              std::span<std::type_identity_t<Value> const> gradients,
              sgd_state<Value, typename Backend::memory_space>& state, std::int64_t step) const {
    FAIRLEAD_EXPECTS(rate >= 0.0 && momentum >= 0.0 && momentum < 1.0 && decay >= 0.0,
                     "need rate >= 0, 0 <= momentum < 1, decay >= 0", rate, momentum, decay);
    FAIRLEAD_EXPECTS(static_cast<index_t>(values.size()) == layout.size() && gradients.size() == values.size(),
                     "one value and one gradient a parameter", values.size(), gradients.size(), layout.size());
    FAIRLEAD_EXPECTS(momentum == 0.0 || state.velocity.size() == layout.size(),
                     "the state must be made for this array, by a policy with momentum", state.velocity.size());
    FAIRLEAD_EXPECTS(step >= 1, "steps count from 1", step);
    implementation<sgd, Backend>::update(*this, on, layout, values, gradients, state, step);
  }
};

/// @brief The text of `sgd` for host memory.
template <host_backend Backend>
struct implementation<sgd, Backend> {
  /// @copydoc sgd::update
  template <class Value>
  static void update(sgd const& self, Backend const& on, parameter_layout const& layout, std::span<Value> values,
                     std::span<Value const> gradients, sgd_state<Value, host_space>& state, std::int64_t) {
    detail::for_each_range(on, layout, [&](index_t first, index_t last, bool decays) {
      Value const decay = decays ? static_cast<Value>(self.decay) : Value{0};
      if (self.momentum == 0.0) {
        plain(values.data() + first, gradients.data() + first, last - first, static_cast<Value>(self.rate), decay);
      } else {
        heavy(values.data() + first, gradients.data() + first, state.velocity.data() + first, last - first,
              static_cast<Value>(self.rate), static_cast<Value>(self.momentum), decay);
      }
    });
  }

 private:
  template <class Value>
  static void plain(Value* __restrict p, Value const* __restrict g, index_t n, Value rate, Value decay) noexcept {
    for (index_t i = 0; i < n; ++i) { p[i] -= rate * (g[i] + decay * p[i]); }
  }
  template <class Value>
  static void heavy(Value* __restrict p, Value const* __restrict g, Value* __restrict v, index_t n, Value rate,
                    Value momentum, Value decay) noexcept {
    for (index_t i = 0; i < n; ++i) {
      Value const now = momentum * v[i] + (g[i] + decay * p[i]);
      v[i] = now;
      p[i] -= rate * now;
    }
  }
};
static_assert(optimizer_on<sgd, serial, float> && optimizer_on<sgd, serial, double>);

FAIRLEAD_NAMESPACE_END
