// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Seeded hidden states: rows of standard normal numbers.
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace workload {

/// @brief Describe rows of independent standard normal numbers, each row named by its global number.
///
/// Ranks that share a seed and set `first_row` to the number of rows before theirs hold the parts of one matrix,
/// whatever the number of ranks.
struct token_rows {
  index_t rows = 0;        ///< number of rows, >= 0
  index_t width = 0;       ///< number of columns, >= 0
  std::uint64_t seed = 0;  ///< names the numbers
  index_t first_row = 0;   ///< global number of row 0, >= 0

  /// @brief Draw the rows.
  /// @returns the matrix @shape{rows x width}
  /// @throws contract_violation (level 1) on a negative size; std::bad_alloc
  /// @complexity O(rows x width) time, allocates the result
  /// @determinism a function of (seed, global row, column) for a given libm
  [[nodiscard]] matrix<float> make() const {
    FAIRLEAD_EXPECTS(rows >= 0 && width >= 0 && first_row >= 0, "sizes must not be negative", rows, width, first_row);
    matrix<float> result(rows, width);
    for (index_t row = 0; row < rows; ++row) {
      for (index_t col = 0; col < width; ++col) {
        // Row and column stay apart, so that a row does not change with the width of the matrix.
        auto const stream = (std::uint64_t{0x746F6B} << 40U) + static_cast<std::uint64_t>(first_row + row);
        result(row, col) = static_cast<float>(philox::normal(seed, stream, static_cast<std::uint64_t>(col)));
      }
    }
    return result;
  }
};

}  // namespace workload
FAIRLEAD_NAMESPACE_END
