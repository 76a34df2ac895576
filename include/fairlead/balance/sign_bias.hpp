// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Balance without a loss: move each expert's selection bias by a fixed step towards the mean load.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>

#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The rule b_e += step * sign(mean load - n_e).
///
/// Call it once per global batch, after the loads of all ranks and micro-batches are summed; never in evaluation or
/// recomputation. The comparison with the mean is exact in integers, so that all ranks agree.
/// @source{2408.15664, Auxiliary-loss-free load balancing strategy for mixture-of-experts, algorithm 1}
struct sign_bias {
  float step = 1e-3F;  ///< how far a bias moves, >= 0

  /// @brief Move the biases.
  /// @param counts copies per expert over the global batch. @shape{experts}
  /// @param[in,out] bias selection bias. @shape{experts}
  /// @throws contract_violation (level 1) on a shape mismatch or a negative step
  /// @complexity O(experts), no allocation
  /// @determinism exact
  void observe(std::span<index_t const> counts, std::span<float> bias) const {
    FAIRLEAD_EXPECTS(counts.size() == bias.size(), "one count a bias", counts.size(), bias.size());
    FAIRLEAD_EXPECTS(step >= 0.0F, "the step must not be negative", step);
    index_t sum = 0;
    for (index_t const count : counts) { sum += count; }
    auto const experts = static_cast<index_t>(counts.size());
    for (std::size_t e = 0; e < counts.size(); ++e) {
      index_t const scaled = counts[e] * experts;
      bias[e] += scaled < sum ? step : (scaled > sum ? -step : 0.0F);
    }
  }
};

FAIRLEAD_NAMESPACE_END
