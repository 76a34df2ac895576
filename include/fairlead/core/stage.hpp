// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Training in two stages: the step that separates them.
#include <fairlead/core/config.hpp>

#include <cstdint>
#include <limits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The `switch_step` of parts that stay in their first stage.
inline constexpr std::uint64_t never_step = std::numeric_limits<std::uint64_t>::max();

/// @brief Whether the second stage has begun. A function of the step alone, so that it survives a resumed training.
/// @param step `route_context::step`
/// @param switch_step first step of the second stage
/// @returns whether step >= switch_step; never for `never_step`
[[nodiscard]] constexpr bool is_second_stage(std::uint64_t step, std::uint64_t switch_step) noexcept {
  return switch_step != never_step && step >= switch_step;
}

FAIRLEAD_NAMESPACE_END
