// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Balance without a loss: move each expert's selection bias by a fixed step towards the mean load.
#include <fairlead/comm/alone.hpp>
#include <fairlead/concepts/bias_controller.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/exec/serial.hpp>

#include <cstddef>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The rule b_e += step * sign(mean load - n_e).
///
/// Reads counts only, so it works with every router and on devices. It needs about spread / step global batches to
/// settle, and then goes on stepping to and fro: a large step leaves a floor of imbalance.
/// @source{2408.15664, Auxiliary-loss-free load balancing strategy for mixture-of-experts, algorithm 1}
struct sign_bias {
  float step = 1e-3F;  ///< how far a bias moves, >= 0

  /// Nothing is carried between global batches besides the bias.
  struct state_type {
    /// @brief Visit no array.
    template <class Self, class Function>
    static void each_array(Self&, Function&&) noexcept {}
  };
  /// @returns an empty state
  [[nodiscard]] constexpr state_type make_state(index_t) const noexcept { return {}; }
  /// @returns 0
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t, index_t, index_t) const noexcept { return 0; }
  /// @brief Move the biases: up below the mean load, down above it, not at all at the mean.
  /// @param on any backend, not used
  /// @param comm any communicator, not used
  /// @param counts copies per expert over the global batch, equal on every rank. @shape{experts}
  /// @param state not used
  /// @param[in,out] bias selection bias. @shape{experts}
  /// @throws contract_violation (level 1) on a shape mismatch, or a step that is negative or NaN
  /// @complexity O(experts), no allocation
  /// @determinism exact: integers are compared, so that all ranks agree
  template <execution_backend Backend, communicator Comm>
  void end_global_batch([[maybe_unused]] Backend const& on, [[maybe_unused]] Comm& comm,
                        std::span<index_t const> counts, [[maybe_unused]] state_type& state,
                        std::span<float> bias) const {
    FAIRLEAD_EXPECTS(counts.size() == bias.size(), "one count a bias", counts.size(), bias.size());
    FAIRLEAD_EXPECTS(step >= 0.0F, "the step must not be negative", step);
    index_t total = 0;
    for (index_t const count : counts) { total += count; }
    auto const experts = static_cast<index_t>(counts.size());
    for (std::size_t e = 0; e < counts.size(); ++e) {
      index_t const lacks = total - counts[e] * experts;
      bias[e] += lacks > 0 ? step : lacks < 0 ? -step : 0.0F;
    }
  }
};

static_assert(bias_controller_on<sign_bias, serial, alone>);

FAIRLEAD_NAMESPACE_END
