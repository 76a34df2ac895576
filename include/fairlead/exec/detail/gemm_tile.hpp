// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The register tile of the reference matrix product.
#include <fairlead/concepts/gemm.hpp>
#include <fairlead/core/vectors.hpp>

#include <algorithm>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// nvcc's host front end knows no GCC pragma.
#if defined(__GNUC__) && !defined(__CUDACC__)
#  define FAIRLEAD_DETAIL_UNROLL _Pragma("GCC unroll 12")
#else
#  define FAIRLEAD_DETAIL_UNROLL
#endif

/// @brief A `rows x cols` tile of a product, held in registers while it is summed over the depth.
///
/// The vector type is spelled out because compilers do not reliably keep a two-dimensional array of accumulators in
/// registers. Short tiles run the same code on repeated rows and zero columns, so that no bit depends on the edge.
template <class Value>
struct gemm_tile {
  static_assert(std::is_floating_point_v<Value>, "fairlead: gemm::reference multiplies floating-point types");

  static constexpr index_t lanes = std::max<index_t>(vector_bytes / static_cast<index_t>(sizeof(Value)), 1);
  static constexpr index_t rows = vector_bytes == 64 ? 12 : 6;  ///< 2 rows of accumulators each, and operands
  static constexpr index_t cols = 2 * lanes;                    ///< columns of the tile
  static constexpr index_t depth = 256;                         ///< steps of k before the tile is written back
  static constexpr index_t panel_cols =                         ///< columns that are packed together: 96 KiB
      std::max<index_t>(98304 / (depth * static_cast<index_t>(sizeof(Value))) / cols, 1) * cols;

  /// One register; it may alias the elements it is loaded from.
  typedef Value vector [[gnu::vector_size(static_cast<std::size_t>(lanes) * sizeof(Value)), gnu::may_alias]];

  /// Multiply a row of the result by beta; beta 0 does not read it.
  static void scale(Value* c, index_t n, Value beta) noexcept {
    for (index_t j = 0; j < n; ++j) { c[j] = beta == Value{0} ? Value{0} : beta * c[j]; }
  }

  /// Copy op(b)(first_depth + p, first_col + j) to out[tile of j][p][j in tile], missing columns zero.
  static void pack(transpose op_b, matrix_view<Value const> b, index_t first_depth, index_t depth_now,
                   index_t first_col, index_t cols_now, Value* __restrict out) noexcept {
    for (index_t s = 0; s < cols_now; s += cols, out += cols * depth_now) {
      index_t const width = std::min(cols, cols_now - s);
      if (op_b == transpose::no) {
        for (index_t p = 0; p < depth_now; ++p) {
          Value const* const from = b.row(first_depth + p) + first_col + s;
          Value* const to = out + p * cols;
          if (width == cols) {
            for (index_t j = 0; j < cols; ++j) { to[j] = from[j]; }
          } else {
            for (index_t j = 0; j < cols; ++j) { to[j] = j < width ? from[j] : Value{0}; }
          }
        }
      } else {
        for (index_t j = 0; j < cols; ++j) {
          if (j < width) {
            Value const* const from = b.row(first_col + s + j) + first_depth;
            for (index_t p = 0; p < depth_now; ++p) { out[p * cols + j] = from[p]; }
          } else {
            for (index_t p = 0; p < depth_now; ++p) { out[p * cols + j] = Value{0}; }
          }
        }
      }
    }
  }

  /// Sum over the depth and write c = alpha * sum + keep * c on rows_now x cols_now elements.
  [[gnu::noinline]] static void multiply(Value const* left, index_t rows_now, index_t row_step, index_t inner_step,
                                         Value const* __restrict panel, index_t depth_now, Value alpha, Value keep,
                                         Value* c, index_t c_stride, index_t cols_now) noexcept {
    Value const* from[rows];
    for (index_t i = 0; i < rows; ++i) { from[i] = left + std::min(i, rows_now - 1) * row_step; }
    vector low[rows] = {}, high[rows] = {};
    vector const* b = reinterpret_cast<vector const*>(panel);
    for (index_t p = 0; p < depth_now; ++p, b += 2) {
      vector const b0 = b[0], b1 = b[1];
FAIRLEAD_DETAIL_UNROLL
      for (index_t i = 0; i < rows; ++i) {
        Value const x = from[i][p * inner_step];
        low[i] += x * b0;
        high[i] += x * b1;
      }
    }
    alignas(64) Value sums[cols];
FAIRLEAD_DETAIL_UNROLL
    for (index_t i = 0; i < rows; ++i) {
      if (i < rows_now) {
        *reinterpret_cast<vector*>(sums) = low[i];
        *reinterpret_cast<vector*>(sums + lanes) = high[i];
        Value* const to = c + i * c_stride;
        if (keep == Value{0}) {
          for (index_t j = 0; j < cols_now; ++j) { to[j] = alpha * sums[j]; }
        } else {
          for (index_t j = 0; j < cols_now; ++j) { to[j] = alpha * sums[j] + keep * to[j]; }
        }
      }
    }
  }
};

#undef FAIRLEAD_DETAIL_UNROLL

}  // namespace detail
FAIRLEAD_NAMESPACE_END
