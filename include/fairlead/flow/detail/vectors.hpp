// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How the tables of the exact solver are padded for whole vectors.
#include <fairlead/core/vectors.hpp>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Rows of all tables of the solver are padded to a multiple of this many elements, for vectors of every width.
inline constexpr int flow_padding = 16;

[[nodiscard]] constexpr int padded(int n) noexcept { return (n + flow_padding - 1) / flow_padding * flow_padding; }

}  // namespace detail
FAIRLEAD_NAMESPACE_END
