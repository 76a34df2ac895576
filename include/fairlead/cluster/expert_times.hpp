// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What one row and one expert cost on a machine, for experts of two layers.
#include <fairlead/core/config.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Sizes of a two-layer expert and rates of a machine; gives the times that copies of experts are weighed with.
/// @source{FasterMoE, performance model of dynamic shadowing (code: fmoe/fastermoe/shadow_policy.py)}
struct expert_times {
  double net_bytes_per_s = 0.0;    ///< network bandwidth of a rank, > 0. @unit{B/s}
  double flops_per_s = 0.0;        ///< rate of matrix products, > 0. @unit{1/s}
  double hidden_ratio = 0.0;       ///< hidden width over row width
  double width = 0.0;              ///< row width in elements
  double bytes_per_element = 0.0;  ///< bytes of an element. @unit{B}

  /// @returns time to send one row. @unit{s}
  [[nodiscard]] constexpr double row_s() const noexcept { return width * bytes_per_element / net_bytes_per_s; }
  /// @returns time to compute one row forward. @unit{s}
  [[nodiscard]] constexpr double compute_s() const noexcept { return 4.0 * hidden_ratio * width * width / flops_per_s; }
  /// @returns bytes of the weights of an expert. @unit{B}
  [[nodiscard]] constexpr double weight_bytes() const noexcept {
    return 2.0 * hidden_ratio * width * width * bytes_per_element;
  }
  /// @returns time to broadcast an expert, as published. @unit{s}
  [[nodiscard]] constexpr double broadcast_s() const noexcept { return weight_bytes() / net_bytes_per_s; }
  /// @returns time of a shadow in the revised form of the code: weights and gradients, and a factor 4 whose reason the
  ///          code does not give. @unit{s}
  [[nodiscard]] constexpr double revised_broadcast_s() const noexcept {
    return 2.0 * weight_bytes() / net_bytes_per_s * 4.0;
  }
};

FAIRLEAD_NAMESPACE_END
