// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Adam with decoupled weight decay.
#include <fairlead/concepts/optimizer.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/optim/detail/pieces.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The moments of `adamw`.
template <class Value, memory_space Space>
struct adamw_state {
  buffer<Value, Space> first;   ///< running mean of gradients @shape{parameters}
  buffer<Value, Space> second;  ///< running mean of squared gradients @shape{parameters}
};

/// @brief Scale each gradient by its own running size, and shrink weights apart from that.
///
/// p = p (1 - rate decay) - rate m' / (sqrt(v') + epsilon), where m' and v' are the running means of g and g^2
/// corrected for their start at zero. Change `rate` between steps for a schedule.
/// @source{loshchilov2019, Decoupled weight decay regularization, algorithm 2; the schedule multiplier is in `rate`}
struct adamw {
  double rate = 1e-3;           ///< learning rate
  double first_decay = 0.9;     ///< share of the old first moment (beta 1)
  double second_decay = 0.999;  ///< share of the old second moment (beta 2)
  double epsilon = 1e-8;        ///< bounds the step where gradients vanish; positive and finite in the type of the parameters
  double decay = 0.01;          ///< weight decay of the blocks that decay

  /// @brief Make the state of an array of parameters before its first step.
  /// @tparam Value element type
  /// @param on execution context
  /// @param size number of parameters
  /// @returns moments of zeros
  /// @throws std::bad_alloc, or what the memory space throws
  template <class Value, execution_backend Backend>
  [[nodiscard]] auto make_state(Backend const& on, index_t size) const {
    adamw_state<Value, typename Backend::memory_space> state;
    state.first.resize(size);
    state.second.resize(size);
    on.fill_zero(state.first.data(), static_cast<std::size_t>(size) * sizeof(Value));
    on.fill_zero(state.second.data(), static_cast<std::size_t>(size) * sizeof(Value));
    on.wait();
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
              adamw_state<Value, typename Backend::memory_space>& state, std::int64_t step) const {
    FAIRLEAD_EXPECTS(rate >= 0.0 && decay >= 0.0, "need rate, decay >= 0", rate, decay);
    // With 0 a parameter whose gradients were all 0 would become 0 / 0; a small double may be 0 in `Value`.
    FAIRLEAD_EXPECTS(epsilon > 0.0 && epsilon <= static_cast<double>(std::numeric_limits<Value>::max()) &&
                         static_cast<Value>(epsilon) > Value{0},
                     "epsilon must be positive and finite in the type of the parameters", epsilon);
    FAIRLEAD_EXPECTS(first_decay >= 0.0 && first_decay < 1.0 && second_decay >= 0.0 && second_decay < 1.0,
                     "the decays of the moments must be in [0, 1)", first_decay, second_decay);
    FAIRLEAD_EXPECTS(static_cast<index_t>(values.size()) == layout.size() && gradients.size() == values.size(),
                     "one value and one gradient a parameter", values.size(), gradients.size(), layout.size());
    FAIRLEAD_EXPECTS(state.first.size() == layout.size() && state.second.size() == layout.size(),
                     "the state must be made for this array", state.first.size(), state.second.size(), layout.size());
    FAIRLEAD_EXPECTS(step >= 1, "steps count from 1", step);
    implementation<adamw, Backend>::update(*this, on, layout, values, gradients, state, step);
  }
};

/// @brief The text of `adamw` for host memory.
template <host_backend Backend>
struct implementation<adamw, Backend> {
  /// @copydoc adamw::update
  template <class Value>
  static void update(adamw const& self, Backend const& on, parameter_layout const& layout, std::span<Value> values,
                     std::span<Value const> gradients, adamw_state<Value, host_space>& state, std::int64_t step) {
    // All that is the same for every element, in double; 1 / (1 - beta^t) is folded into two factors.
    double const t = static_cast<double>(step);
    factors<Value> f;
    f.first = static_cast<Value>(self.first_decay);
    f.first_new = static_cast<Value>(1.0 - self.first_decay);
    f.second = static_cast<Value>(self.second_decay);
    f.second_new = static_cast<Value>(1.0 - self.second_decay);
    f.size = static_cast<Value>(1.0 / std::sqrt(1.0 - std::pow(self.second_decay, t)));
    f.rate = static_cast<Value>(self.rate / (1.0 - std::pow(self.first_decay, t)));
    f.epsilon = static_cast<Value>(self.epsilon);
    detail::for_each_range(on, layout, [&](index_t first, index_t last, bool decays) {
      factors<Value> own = f;
      own.keep = decays ? static_cast<Value>(1.0 - self.rate * self.decay) : Value{1};
      run(values.data() + first, gradients.data() + first, state.first.data() + first, state.second.data() + first,
          last - first, own);
    });
  }

 private:
  template <class Value>
  struct factors {
    Value first{}, first_new{}, second{}, second_new{}, size{}, rate{}, epsilon{}, keep{};
  };
  template <class Value>
  static void run(Value* __restrict p, Value const* __restrict g, Value* __restrict m, Value* __restrict v, index_t n,
                  factors<Value> f) noexcept {
    // The square root sets errno in C: compilers vectorise this loop under -fno-math-errno.
    for (index_t i = 0; i < n; ++i) {
      Value const mean = f.first * m[i] + f.first_new * g[i];
      Value const square = f.second * v[i] + f.second_new * g[i] * g[i];
      m[i] = mean;
      v[i] = square;
      p[i] = f.keep * p[i] - f.rate * mean / (std::sqrt(square) * f.size + f.epsilon);
    }
  }
};
static_assert(optimizer_on<adamw, serial, float> && optimizer_on<adamw, serial, double>);

FAIRLEAD_NAMESPACE_END
