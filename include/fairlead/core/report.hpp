// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How an algorithm ended: failure is data, not an exception.
#include <fairlead/core/ids.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The ways a solver, planner or scheduler can end.
enum class status {
  ok,               ///< done as documented; optimal where the component promises that
  infeasible,       ///< no solution exists; outputs as the component documents
  iteration_limit,  ///< stopped at its stated cap; outputs are valid but not proven best
  no_improvement,   ///< no move helped; outputs are valid
  lost_expert,      ///< an expert has no replica left
  unsupported       ///< the problem needs a capability that the component does not state; nothing was done
};

/// @brief What an algorithm says about its result.
struct [[nodiscard]] report {
  fairlead::status status = fairlead::status::ok;  ///< how it ended
  index_t iterations = 0;                          ///< steps taken, in the component's own unit
  double value = 0.0;                              ///< objective reached
  double bound = 0.0;                              ///< certified bound on the objective; equals `value` when optimal
  /// @returns whether it ended well
  [[nodiscard]] explicit constexpr operator bool() const noexcept { return status == fairlead::status::ok; }
};

FAIRLEAD_NAMESPACE_END
