// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The order of experts by load per replica, without rounding.
#include <fairlead/core/ids.hpp>

#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// (load per replica descending, expert ascending). Products of two 63-bit numbers decide, so that near-ties are no ties.
struct larger_share_first {
  std::span<index_t const> load;
  std::span<index_t const> replicas;  // >= 1 of the experts that are compared

  [[nodiscard]] bool operator()(std::int32_t a, std::int32_t b) const noexcept {
    __extension__ using wide = unsigned __int128;
    auto const i = static_cast<std::size_t>(a);
    auto const j = static_cast<std::size_t>(b);
    wide const left = static_cast<wide>(load[i]) * static_cast<wide>(replicas[j]);
    wide const right = static_cast<wide>(load[j]) * static_cast<wide>(replicas[i]);
    return left != right ? left > right : a < b;
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
