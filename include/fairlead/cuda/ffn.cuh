// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Kernels between the matrix products of a feed-forward expert: activations, their derivatives, column sums.
#include <fairlead/cuda/error.cuh>
#include <fairlead/core/matrix_view.hpp>

FAIRLEAD_NAMESPACE_BEGIN
namespace kernels {

inline constexpr int ffn_threads = 256;  ///< threads of a block of the elementwise kernels
inline constexpr int ffn_blocks = 4;     ///< blocks a multiprocessor; the hint leaves registers for activations

/// @brief pre += bias, then hidden = f(pre), or f(gate) * up where a row of `pre` holds gates and linear units.
/// @tparam Streams 1 or 2: what a row of `pre` holds
/// @tparam Activation f
template <int Streams, class Activation, class Value>
__global__ void __launch_bounds__(ffn_threads, ffn_blocks)
    activate(matrix_view<Value> pre, Value const* bias, matrix_view<Value> hidden) {
  index_t const units = hidden.cols();
  for (index_t row = blockIdx.x; row < hidden.rows(); row += gridDim.x) {
    for (index_t unit = threadIdx.x; unit < units; unit += ffn_threads) {
      Value* const at = pre.row(row) + unit;
      Value a = at[0];
      if (bias != nullptr) {
        a += bias[unit];
        at[0] = a;
      }
      Value h = Activation::value(a);
      if constexpr (Streams == 2) {
        Value u = at[units];
        if (bias != nullptr) {
          u += bias[units + unit];
          at[units] = u;
        }
        h *= u;
      }
      hidden(row, unit) = h;
    }
  }
}

/// @brief Recompute the hidden units, and turn the gradients of the hidden units into those of the pre-activations.
/// @tparam Streams 1 or 2, as in `activate`
/// @tparam Activation f
template <int Streams, class Activation, class Value>
__global__ void __launch_bounds__(ffn_threads, ffn_blocks)
    differentiate(matrix_view<Value const> pre, matrix_view<Value> slope, matrix_view<Value> hidden) {
  // The gradient of the hidden units lies in the first columns of `slope` and is overwritten.
  index_t const units = hidden.cols();
  for (index_t row = blockIdx.x; row < hidden.rows(); row += gridDim.x) {
    for (index_t unit = threadIdx.x; unit < units; unit += ffn_threads) {
      auto const f = Activation::value_and_derivative(pre(row, unit));
      Value* const at = slope.row(row) + unit;
      Value const gradient = at[0];
      if constexpr (Streams == 1) {
        hidden(row, unit) = f.value;
        at[0] = gradient * f.derivative;
      } else {
        Value const u = pre(row, units + unit);
        hidden(row, unit) = f.value * u;
        at[0] = gradient * u * f.derivative;
        at[units] = gradient * f.value;
      }
    }
  }
}

/// @brief Every row of `to` becomes `row`.
template <class Value>
__global__ void __launch_bounds__(ffn_threads) fill_rows(Value const* row, matrix_view<Value> to) {
  for (index_t r = blockIdx.x; r < to.rows(); r += gridDim.x) {
    for (index_t col = threadIdx.x; col < to.cols(); col += ffn_threads) { to(r, col) = row[col]; }
  }
}

inline constexpr int sum_columns = 32;  ///< columns a block of `add_column_sums` takes
inline constexpr int sum_rows = 8;      ///< partial sums of a column

/// @brief sums[j] += sum over the rows of from(r, j): partial sums over every eighth row, added in order.
template <class Value>
__global__ void __launch_bounds__(sum_columns * sum_rows) add_column_sums(matrix_view<Value const> from, Value* sums) {
  __shared__ Value partial[sum_rows][sum_columns];
  index_t const col = static_cast<index_t>(blockIdx.x) * sum_columns + threadIdx.x;
  Value sum{0};
  if (col < from.cols()) {
    for (index_t row = threadIdx.y; row < from.rows(); row += sum_rows) { sum += from(row, col); }
  }
  partial[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && col < from.cols()) {
    Value all = partial[0][threadIdx.x];
#pragma unroll
    for (int i = 1; i < sum_rows; ++i) { all += partial[i][threadIdx.x]; }
    sums[col] += all;
  }
}

/// @brief Blocks for an elementwise kernel: a block a row, as long as there are not too many.
[[nodiscard]] inline unsigned ffn_grid(index_t rows) noexcept { return grid_size(rows, 1, 1 << 16); }

}  // namespace kernels
FAIRLEAD_NAMESPACE_END
