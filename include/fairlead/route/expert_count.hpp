// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A number that is a field and a query at once.
#include <fairlead/core/ids.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The `experts` field of a policy.
///
/// A field cannot share its name with a member function, yet `top_k{.experts = 64}` and `router.experts()` are both
/// what a reader expects. A field that can be called is both.
struct expert_count {
  index_t value = 0;  ///< the number

  /// Zero experts: a policy must be given its number.
  constexpr expert_count() noexcept = default;
  /// @param count number of experts
  FAIRLEAD_HD constexpr expert_count(index_t count) noexcept : value(count) {}  // NOLINT(google-explicit-constructor)
  /// @returns the number
  [[nodiscard]] FAIRLEAD_HD constexpr index_t operator()() const noexcept { return value; }
  /// @returns the number
  [[nodiscard]] FAIRLEAD_HD constexpr operator index_t() const noexcept { return value; }  // NOLINT
};

FAIRLEAD_NAMESPACE_END
