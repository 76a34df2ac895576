// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Which rows of a matrix belong to which local expert.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>

#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Group the rows of a matrix, one group a local slot, each contiguous; host memory.
///
/// Group g holds rows [offsets[g], offsets[g] + counts[g]). Rows between the end of a group and the next offset are
/// alignment padding: they hold zeros, and experts may compute them or skip them.
struct row_groups {
  std::span<index_t const> offsets;  ///< first row of each group, and the end. @shape{groups + 1}
  std::span<index_t const> counts;   ///< rows in use of each group. @shape{groups}

  /// @returns number of groups
  [[nodiscard]] index_t size() const noexcept { return static_cast<index_t>(counts.size()); }
  /// @param group group number
  /// @returns its first row
  [[nodiscard]] index_t first(index_t group) const noexcept { return offsets[static_cast<std::size_t>(group)]; }
  /// @param group group number
  /// @returns its rows in use
  [[nodiscard]] index_t count(index_t group) const noexcept { return counts[static_cast<std::size_t>(group)]; }
  /// @returns rows of the whole matrix, padding included
  [[nodiscard]] index_t rows() const noexcept { return offsets.empty() ? 0 : offsets.back(); }
  /// @returns rows in use of all groups
  [[nodiscard]] index_t used() const noexcept {
    index_t sum = 0;
    for (index_t const count : counts) { sum += count; }
    return sum;
  }
};

FAIRLEAD_NAMESPACE_END
