// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A score that ignores the logit: routers without a gate.
#include <fairlead/core/config.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Every expert that may be chosen has score 1: with `sum_over_chosen` the k experts of a token share its weight
/// equally, and no gradient reaches the logits.
/// @source{StableMoE code, HashLayer: no gate}
struct unit_score {
  /// Whether a score depends on the whole row.
  static constexpr bool over_row = false;
  /// @returns 1
  [[nodiscard]] FAIRLEAD_HD static float value(float) noexcept { return 1.0F; }
  /// @returns d score / d logit, 0
  [[nodiscard]] FAIRLEAD_HD static float derivative(float) noexcept { return 0.0F; }
};

FAIRLEAD_NAMESPACE_END
