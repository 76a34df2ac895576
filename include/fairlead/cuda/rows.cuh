// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Kernels that move rows by index: gather, weighted combine, and their gradients, 16 bytes an access.
#include <fairlead/cuda/error.cuh>
#include <fairlead/core/exchange_plan.hpp>
#include <fairlead/core/matrix_view.hpp>

#include <algorithm>
#include <cstdint>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN
namespace kernels {

inline constexpr int warp_threads = 32;       ///< lanes of a warp
inline constexpr int row_block_threads = 256;  ///< threads of a block of the row kernels
inline constexpr unsigned all_lanes = 0xFFFFFFFFU;  ///< mask of a full warp

/// @brief The type that sums of `Value` are kept in.
template <class Value>
using sum_of = std::conditional_t<std::is_same_v<Value, double>, double, float>;

/// @brief Some neighbouring values that one instruction loads or stores.
template <class Value, int Count>
struct alignas(sizeof(Value) * Count) pack {
  Value value[Count];  ///< the values
};
/// Values in 16 bytes, the widest access.
template <class Value>
inline constexpr int widest = 16 / static_cast<int>(sizeof(Value));

/// @brief Whether all rows of a matrix can be accessed 16 bytes at a time.
template <class Value>
[[nodiscard]] bool is_wide(matrix_view<Value> rows) noexcept {
  return reinterpret_cast<std::uintptr_t>(rows.data()) % 16 == 0 &&
         (rows.rows() <= 1 || static_cast<std::size_t>(rows.stride()) * sizeof(Value) % 16 == 0) &&
         static_cast<std::size_t>(rows.cols()) * sizeof(Value) % 16 == 0;
}

/// Warps of the grid, and the number of this one.
__device__ inline index_t warp_count() { return static_cast<index_t>(gridDim.x) * (row_block_threads / warp_threads); }
__device__ inline index_t warp_number() {
  return static_cast<index_t>(blockIdx.x) * (row_block_threads / warp_threads) + threadIdx.x / warp_threads;
}

/// @brief out[r] = in[index[r] / divisor], zero where index[r] is negative. A warp copies 32 x `unroll` packs of a row.
template <int Count, class Value>
__global__ void __launch_bounds__(row_block_threads)
    gather(matrix_view<Value const> in, std::int32_t const* index, std::int32_t divisor, matrix_view<Value> out) {
  using pack_t = pack<Value, Count>;
  constexpr int unroll = 4;
  index_t const packs = out.cols() / Count;
  index_t const segments = (packs + warp_threads * unroll - 1) / (warp_threads * unroll);
  int const lane = static_cast<int>(threadIdx.x) % warp_threads;
  for (index_t item = warp_number(); item < out.rows() * segments; item += warp_count()) {
    index_t const row = item / segments;
    index_t const first = (item - row * segments) * warp_threads * unroll + lane;
    std::int32_t const source = __shfl_sync(all_lanes, lane == 0 ? index[row] : no_row, 0);
    auto const* const from = reinterpret_cast<pack_t const*>(in.row(source >= 0 ? source / divisor : 0));
    auto* const to = reinterpret_cast<pack_t*>(out.row(row));
    pack_t held[unroll] = {};
    if (source >= 0) {
#pragma unroll
      for (int u = 0; u < unroll; ++u) {
        if (first + u * warp_threads < packs) { held[u] = from[first + u * warp_threads]; }
      }
    }
#pragma unroll
    for (int u = 0; u < unroll; ++u) {
      if (first + u * warp_threads < packs) { to[first + u * warp_threads] = held[u]; }
    }
  }
}

/// @brief out[t] = sum over j of weights[t][j] * row(index[t][j]); terms in slot order, sums in fp32 (fp64 for double).
template <int Count, class Value>
__global__ void __launch_bounds__(row_block_threads)
    combine(matrix_view<Value const> rows, matrix_view<std::int32_t const> index, matrix_view<float const> weights,
            matrix_view<Value const> own, matrix_view<Value> out) {
  using pack_t = pack<Value, Count>;
  using sum_t = sum_of<Value>;
  constexpr int unroll = Count >= 8 ? 2 : 4;
  index_t const packs = out.cols() / Count;
  index_t const segments = (packs + warp_threads * unroll - 1) / (warp_threads * unroll);
  int const lane = static_cast<int>(threadIdx.x) % warp_threads;
  bool const weighted = !weights.empty();
  for (index_t item = warp_number(); item < out.rows() * segments; item += warp_count()) {
    index_t const token = item / segments;
    index_t const first = (item - token * segments) * warp_threads * unroll + lane;
    sum_t sum[unroll][Count] = {};
    for (index_t begin = 0; begin < index.cols(); begin += warp_threads) {
      // A lane a slot fetches row number and weight, so that the loads of the rows do not wait for them one by one.
      std::int32_t mine = no_row;
      float my_weight = 1.0F;
      if (begin + lane < index.cols()) {
        mine = index(token, begin + lane);
        if (weighted) { my_weight = weights(token, begin + lane); }
      }
      int const slots = static_cast<int>(index.cols() - begin < warp_threads ? index.cols() - begin : warp_threads);
      for (int j = 0; j < slots; ++j) {
        std::int32_t const row = __shfl_sync(all_lanes, mine, j);
        sum_t const weight = static_cast<sum_t>(__shfl_sync(all_lanes, my_weight, j));
        // Without `own`, a copy that kept its own row contributes nothing, as on the host.
        if (row == no_row || (row == own_row && own.data() == nullptr)) { continue; }
        auto const* const from = reinterpret_cast<pack_t const*>(row == own_row ? own.row(token) : rows.row(row));
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
          if (first + u * warp_threads < packs) {
            pack_t const piece = from[first + u * warp_threads];
#pragma unroll
            for (int c = 0; c < Count; ++c) { sum[u][c] += weight * static_cast<sum_t>(piece.value[c]); }
          }
        }
      }
    }
    auto* const to = reinterpret_cast<pack_t*>(out.row(token));
#pragma unroll
    for (int u = 0; u < unroll; ++u) {
      if (first + u * warp_threads < packs) {
        pack_t piece;
#pragma unroll
        for (int c = 0; c < Count; ++c) { piece.value[c] = static_cast<Value>(sum[u][c]); }
        to[first + u * warp_threads] = piece;
      }
    }
  }
}

/// @brief grad_weights[t][j] = dot(grad_out[t], row(index[t][j])), then that row = weights[t][j] * grad_out[t].
/// A warp takes one copy; the dot product is a fixed tree.
template <int Count, class Value>
__global__ void __launch_bounds__(row_block_threads)
    combine_backward(matrix_view<Value const> grad_out, matrix_view<std::int32_t const> index,
                     matrix_view<float const> weights, matrix_view<Value const> own, matrix_view<Value> rows,
                     matrix_view<float> grad_weights) {
  using pack_t = pack<Value, Count>;
  using sum_t = sum_of<Value>;
  index_t const packs = grad_out.cols() / Count;
  int const lane = static_cast<int>(threadIdx.x) % warp_threads;
  for (index_t item = warp_number(); item < index.rows() * index.cols(); item += warp_count()) {
    index_t const token = item / index.cols();
    index_t const slot = item - token * index.cols();
    std::int32_t const row = __shfl_sync(all_lanes, lane == 0 ? index(token, slot) : no_row, 0);
    sum_t dot{0};
    if (row != no_row) {
      auto const weight = static_cast<sum_t>(weights(token, slot));
      auto const* const grad = reinterpret_cast<pack_t const*>(grad_out.row(token));
      auto const* const value = reinterpret_cast<pack_t const*>(row == own_row ? own.row(token) : rows.row(row));
      auto* const to = reinterpret_cast<pack_t*>(row == own_row ? nullptr : rows.row(row));
      for (index_t i = lane; i < packs; i += warp_threads) {
        pack_t const g = grad[i];
        pack_t const v = value[i];
        pack_t scaled;
#pragma unroll
        for (int c = 0; c < Count; ++c) {
          dot += static_cast<sum_t>(g.value[c]) * static_cast<sum_t>(v.value[c]);
          scaled.value[c] = static_cast<Value>(weight * static_cast<sum_t>(g.value[c]));
        }
        if (to != nullptr) { to[i] = scaled; }
      }
#pragma unroll
      for (int distance = warp_threads / 2; distance > 0; distance /= 2) {
        dot += __shfl_xor_sync(all_lanes, dot, distance);
      }
    }
    if (lane == 0) { grad_weights(token, slot) = static_cast<float>(dot); }
  }
}

/// @brief out[t] += (sum of the weights of `own_row` copies of t) * grad_out[t].
template <int Count, class Value>
__global__ void __launch_bounds__(row_block_threads)
    add_own(matrix_view<Value const> grad_out, matrix_view<std::int32_t const> index, matrix_view<float const> weights,
            matrix_view<Value> out) {
  using pack_t = pack<Value, Count>;
  using sum_t = sum_of<Value>;
  index_t const packs = out.cols() / Count;
  int const lane = static_cast<int>(threadIdx.x) % warp_threads;
  for (index_t token = warp_number(); token < index.rows(); token += warp_count()) {
    sum_t weight{0};
    for (index_t j = 0; j < index.cols(); ++j) {
      if (index(token, j) == own_row) { weight += static_cast<sum_t>(weights(token, j)); }
    }
    if (weight == sum_t{0}) { continue; }
    auto const* const grad = reinterpret_cast<pack_t const*>(grad_out.row(token));
    auto* const to = reinterpret_cast<pack_t*>(out.row(token));
    for (index_t i = lane; i < packs; i += warp_threads) {
      pack_t const g = grad[i];
      pack_t sum = to[i];
#pragma unroll
      for (int c = 0; c < Count; ++c) {
        sum.value[c] =
            static_cast<Value>(static_cast<sum_t>(sum.value[c]) + weight * static_cast<sum_t>(g.value[c]));
      }
      to[i] = sum;
    }
  }
}

/// @brief Blocks for a kernel that gives a warp to each of `items`.
[[nodiscard]] inline unsigned warp_grid(index_t items) noexcept {
  return grid_size(items, row_block_threads / warp_threads);
}
/// @brief Items of a kernel that cuts rows into segments of 32 x `unroll` packs.
[[nodiscard]] constexpr index_t segment_items(index_t rows, index_t cols, int count, int unroll) noexcept {
  return rows * ((cols / count + warp_threads * unroll - 1) / (warp_threads * unroll));
}

}  // namespace kernels
FAIRLEAD_NAMESPACE_END
