// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of the row operations.
#include <fairlead/cuda/memory.cuh>
#include <fairlead/cuda/rows.cuh>
#include <fairlead/dispatch/rows.hpp>

#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The device text of `gather_rows`: a warp moves up to 2 KiB of a row at a time.
template <cuda_backend Backend>
struct implementation<gather_rows, Backend> {
  /// @brief See `gather_rows`.
  template <class Value>
  static void run(Backend const& on, index_t divisor, matrix_view<Value const> in, std::span<std::int32_t const> index,
                  matrix_view<Value> out) {
    if (out.empty()) { return; }
    constexpr int wide = kernels::widest<Value>;
    bool const is_wide = kernels::is_wide(in) && kernels::is_wide(out);
    unsigned const grid = kernels::warp_grid(kernels::segment_items(out.rows(), out.cols(), is_wide ? wide : 1, 4));
    auto const step = static_cast<std::int32_t>(divisor);
    if (is_wide) {
      kernels::gather<wide><<<grid, kernels::row_block_threads, 0, on.native()>>>(in, index.data(), step, out);
    } else {
      kernels::gather<1><<<grid, kernels::row_block_threads, 0, on.native()>>>(in, index.data(), step, out);
    }
    kernels::check_launch("gather_rows");
  }
};

/// @brief The device text of `combine_rows`.
template <cuda_backend Backend>
struct implementation<combine_rows, Backend> {
  /// @brief See `combine_rows`.
  template <class Value>
  static void run(Backend const& on, matrix_view<Value const> rows, matrix_view<std::int32_t const> index,
                  matrix_view<float const> weights, matrix_view<Value const> own, matrix_view<Value> out) {
    if (out.empty()) { return; }
    constexpr int wide = kernels::widest<Value>;
    bool const is_wide = kernels::is_wide(rows) && kernels::is_wide(out) && (own.empty() || kernels::is_wide(own));
    unsigned const grid =
        kernels::warp_grid(kernels::segment_items(out.rows(), out.cols(), is_wide ? wide : 1, is_wide && wide >= 8 ? 2 : 4));
    if (is_wide) {
      kernels::combine<wide><<<grid, kernels::row_block_threads, 0, on.native()>>>(rows, index, weights, own, out);
    } else {
      kernels::combine<1><<<grid, kernels::row_block_threads, 0, on.native()>>>(rows, index, weights, own, out);
    }
    kernels::check_launch("combine_rows");
  }
};

/// @brief The device text of `combine_rows_backward`: a warp a copy.
template <cuda_backend Backend>
struct implementation<combine_rows_backward, Backend> {
  /// @brief See `combine_rows_backward`.
  template <class Value>
  static void run(Backend const& on, matrix_view<Value const> grad_out, matrix_view<std::int32_t const> index,
                  matrix_view<float const> weights, matrix_view<Value const> own, matrix_view<Value> rows,
                  matrix_view<float> grad_weights) {
    if (index.empty()) { return; }
    constexpr int wide = kernels::widest<Value>;
    bool const is_wide = kernels::is_wide(grad_out) && kernels::is_wide(rows) && (own.empty() || kernels::is_wide(own));
    unsigned const grid = kernels::warp_grid(index.rows() * index.cols());
    if (is_wide) {
      kernels::combine_backward<wide>
          <<<grid, kernels::row_block_threads, 0, on.native()>>>(grad_out, index, weights, own, rows, grad_weights);
    } else {
      kernels::combine_backward<1>
          <<<grid, kernels::row_block_threads, 0, on.native()>>>(grad_out, index, weights, own, rows, grad_weights);
    }
    kernels::check_launch("combine_rows_backward");
  }
};

/// @brief The device text of `add_own_rows`: a warp a token.
template <cuda_backend Backend>
struct implementation<add_own_rows, Backend> {
  /// @brief See `add_own_rows`.
  template <class Value>
  static void run(Backend const& on, matrix_view<Value const> grad_out, matrix_view<std::int32_t const> index,
                  matrix_view<float const> weights, matrix_view<Value> out) {
    if (out.empty() || index.empty()) { return; }
    constexpr int wide = kernels::widest<Value>;
    unsigned const grid = kernels::warp_grid(index.rows());
    if (kernels::is_wide(grad_out) && kernels::is_wide(out)) {
      kernels::add_own<wide><<<grid, kernels::row_block_threads, 0, on.native()>>>(grad_out, index, weights, out);
    } else {
      kernels::add_own<1><<<grid, kernels::row_block_threads, 0, on.native()>>>(grad_out, index, weights, out);
    }
    kernels::check_launch("add_own_rows");
  }
};

FAIRLEAD_NAMESPACE_END
