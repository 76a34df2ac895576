// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Balance without a loss: a proportional-integral-derivative controller on each expert's relative load error.
#include <fairlead/comm/alone.hpp>
#include <fairlead/concepts/bias_controller.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief What `pid_bias` carries between global batches.
struct pid_state {
  std::vector<double> integral;    ///< sum of errors, within the limit. @shape{experts}
  std::vector<double> error;       ///< error of the last global batch. @shape{experts}
  std::vector<double> derivative;  ///< smoothed difference of errors. @shape{experts}
  std::vector<double> output;      ///< what the controller has put into the bias so far. @shape{experts}
  index_t updates = 0;             ///< global batches with load so far

  /// @brief Visit the arrays of the state.
  /// @param self the state
  /// @param f called with a span of each array
  template <class Self, class Function>
  static void each_array(Self& self, Function&& f) {
    f(std::span(self.integral));
    f(std::span(self.error));
    f(std::span(self.derivative));
    f(std::span(self.output));
    f(std::span(&self.updates, 1));
  }
};

/// @brief bias = proportional e + integral sum(e) + derivative smoothed(e - last e), with e = (mean load - n) / mean load.
///
/// Steps follow the size of the error, so it moves fast while loads are far off and comes to rest when they are even,
/// where `sign_bias` keeps stepping. The integral alone holds the bias at rest. Against wind-up of an expert that cannot
/// be helped the integral stays within `limit` of zero, and errors count as at most 1 in size (an expert with many
/// times its share weighs no more than an empty one), and a smoothed derivative keeps noise of small batches out.
/// Loads answer a bias at once, without inertia: the integral does the work, and large gains on the error or its
/// difference only make it swing. A bias that was set from outside stays as an offset. Reads counts only: works with every router and on devices.
///
/// This is a design of this library and in no paper: the defaults suit sigmoid scores (spread about 0.1 ... 1); for raw
/// logits multiply the gains and the limit by the spread of the logits.
/// @source{textbook discrete-time control, applied to the counts of 2408.15664}
struct pid_bias {
  double proportional = 0.005; ///< gain on the error, >= 0
  double integral = 0.02;      ///< gain on the sum of errors, >= 0
  double derivative = 0.0;     ///< gain on the smoothed difference of errors, >= 0
  double smoothing = 0.5;      ///< share of the old smoothed difference that stays, in [0, 1)
  double limit = 1.0;          ///< largest size of integral x sum(e), > 0

  using state_type = pid_state;  ///< what is carried between global batches
  /// @param experts number of experts, >= 1
  /// @returns zeros
  /// @throws contract_violation (level 1) without experts; std::bad_alloc
  [[nodiscard]] state_type make_state(index_t experts) const {
    FAIRLEAD_EXPECTS(experts >= 1, "a bias controller needs experts", experts);
    std::vector<double> const zeros(static_cast<std::size_t>(experts), 0.0);
    return {zeros, zeros, zeros, zeros, 0};
  }
  /// @returns 0
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t, index_t, index_t) const noexcept { return 0; }
  /// @brief Move the biases by what the controller's output changed.
  /// @param on any backend, not used
  /// @param comm any communicator, not used
  /// @param counts copies per expert over the global batch, equal on every rank; none at all move nothing. @shape{experts}
  /// @param[in,out] state integrals and errors
  /// @param[in,out] bias selection bias. @shape{experts}
  /// @throws contract_violation (level 1) on a shape mismatch or bad fields
  /// @complexity O(experts), no allocation
  /// @determinism equal counts and state give equal bits, so that all ranks agree
  template <execution_backend Backend, communicator Comm>
  void end_global_batch([[maybe_unused]] Backend const& on, [[maybe_unused]] Comm& comm,
                        std::span<index_t const> counts, state_type& state, std::span<float> bias) const {
    FAIRLEAD_EXPECTS(counts.size() == bias.size() && state.output.size() == bias.size(), "one count and one state a bias",
                     counts.size(), state.output.size(), bias.size());
    FAIRLEAD_EXPECTS(proportional >= 0.0 && integral >= 0.0 && derivative >= 0.0, "gains must not be negative",
                     proportional, integral, derivative);
    FAIRLEAD_EXPECTS(smoothing >= 0.0 && smoothing < 1.0 && limit > 0.0, "smoothing must be in [0, 1), limit above 0",
                     smoothing, limit);
    index_t total = 0;
    for (index_t const count : counts) { total += count; }
    if (total == 0) { return; }
    auto const experts = static_cast<index_t>(counts.size());
    for (std::size_t e = 0; e < counts.size(); ++e) {
      double const lacks = static_cast<double>(total - counts[e] * experts) / static_cast<double>(total);
      double const error = std::clamp(lacks, -1.0, 1.0);
      double& sum = state.integral[e];
      sum += error;
      if (integral > 0.0) { sum = std::clamp(sum, -limit / integral, limit / integral); }
      double const change = state.updates > 0 ? error - state.error[e] : 0.0;
      state.derivative[e] = smoothing * state.derivative[e] + (1.0 - smoothing) * change;
      state.error[e] = error;
      double const output = proportional * error + integral * sum + derivative * state.derivative[e];
      bias[e] += static_cast<float>(output - state.output[e]);
      state.output[e] = output;
    }
    ++state.updates;
  }
};

static_assert(bias_controller_on<pid_bias, serial, alone>);

FAIRLEAD_NAMESPACE_END
