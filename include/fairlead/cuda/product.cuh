// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Kernel of a matrix product in shared-memory tiles.
#include <fairlead/cuda/error.cuh>
#include <fairlead/core/matrix_view.hpp>

FAIRLEAD_NAMESPACE_BEGIN
namespace kernels {

inline constexpr int product_tile = 64;      ///< rows and columns of the tile of a block
inline constexpr int product_depth = 16;     ///< steps of k that are held in shared memory
inline constexpr int product_threads = 256;  ///< threads of a block, 4 x 4 elements each

/// @brief c = alpha * op(a) * op(b) + beta * c; beta == 0 does not read c.
///
/// A block holds a 64 x 64 tile of c in registers. An element is a sum over k in ascending order of fused
/// multiply-adds, whatever the shape of c.
/// @tparam TransposeA whether a enters transposed
/// @tparam TransposeB whether b enters transposed
template <bool TransposeA, bool TransposeB, class Value>
__global__ void __launch_bounds__(product_threads)
    product(index_t depth, Value alpha, matrix_view<Value const> a, matrix_view<Value const> b, Value beta,
            matrix_view<Value> c) {
  constexpr int tile = product_tile;
  constexpr int step = product_depth;
  constexpr int each = 4;
  // One column more than needed: transposed writes then hit different banks.
  __shared__ Value left[step][tile + 1];
  __shared__ Value right[step][tile + 1];
  int const thread = static_cast<int>(threadIdx.x);
  int const my_row = thread / (tile / each);
  int const my_col = thread % (tile / each);
  index_t const tiles_across = (c.cols() + tile - 1) / tile;
  index_t const tiles = (c.rows() + tile - 1) / tile * tiles_across;
  for (index_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    index_t const row = t / tiles_across * tile;
    index_t const col = t % tiles_across * tile;
    Value sum[each][each] = {};
    for (index_t p = 0; p < depth; p += step) {
      for (int i = thread; i < tile * step; i += product_threads) {
        // Neighbouring threads read neighbouring addresses, whichever way the factor is stored.
        int const r = TransposeA ? i % tile : i / step;
        int const q = TransposeA ? i / tile : i % step;
        bool const inside = row + r < c.rows() && p + q < depth;
        left[q][r] = !inside ? Value{0} : TransposeA ? a(p + q, row + r) : a(row + r, p + q);
      }
      for (int i = thread; i < tile * step; i += product_threads) {
        int const s = TransposeB ? i / step : i % tile;
        int const q = TransposeB ? i % step : i / tile;
        bool const inside = col + s < c.cols() && p + q < depth;
        right[q][s] = !inside ? Value{0} : TransposeB ? b(col + s, p + q) : b(p + q, col + s);
      }
      __syncthreads();
#pragma unroll
      for (int q = 0; q < step; ++q) {
        Value x[each];
        Value y[each];
#pragma unroll
        for (int i = 0; i < each; ++i) {
          x[i] = left[q][my_row + i * (tile / each)];
          y[i] = right[q][my_col + i * (tile / each)];
        }
#pragma unroll
        for (int i = 0; i < each; ++i) {
#pragma unroll
          for (int j = 0; j < each; ++j) { sum[i][j] += x[i] * y[j]; }
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < each; ++i) {
#pragma unroll
      for (int j = 0; j < each; ++j) {
        index_t const at = row + my_row + i * (tile / each);
        index_t const to = col + my_col + j * (tile / each);
        if (at < c.rows() && to < c.cols()) {
          Value const scaled = alpha * sum[i][j];
          c(at, to) = beta == Value{0} ? scaled : scaled + beta * c(at, to);
        }
      }
    }
  }
}

}  // namespace kernels
FAIRLEAD_NAMESPACE_END
