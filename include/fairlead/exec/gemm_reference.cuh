// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of `gemm::reference`: a product in shared-memory tiles, without any library.
#include <fairlead/cuda/memory.cuh>
#include <fairlead/cuda/product.cuh>
#include <fairlead/exec/gemm_reference.hpp>

#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The text of `gemm::reference` for CUDA.
///
/// Plain fp32 or fp64 arithmetic on the CUDA cores: for tests, for machines without cuBLAS, and where bits must not
/// depend on how work is cut. For speed take `gemm::cublas`.
template <cuda_backend Backend>
struct implementation<gemm::reference, Backend> {
  /// @copydoc gemm::reference::multiply
  template <class Value>
  static void multiply(Backend const& on, transpose op_a, transpose op_b, Value alpha, matrix_view<Value const> a,
                       matrix_view<Value const> b, Value beta, matrix_view<Value> c) {
    static_assert(std::is_floating_point_v<Value>, "fairlead: gemm::reference multiplies floating-point types");
    detail::check_product(op_a, op_b, a, b, c);
    if (c.empty()) { return; }
    index_t const depth = op_a == transpose::no ? a.cols() : a.rows();
    constexpr int tile = kernels::product_tile;
    unsigned const grid =
        kernels::grid_size((c.rows() + tile - 1) / tile * ((c.cols() + tile - 1) / tile), 1);
    auto const launch = [&](auto transpose_a, auto transpose_b) {
      kernels::product<transpose_a.value, transpose_b.value>
          <<<grid, kernels::product_threads, 0, on.native()>>>(depth, alpha, a, b, beta, c);
    };
    if (op_a == transpose::no) {
      op_b == transpose::no ? launch(std::false_type{}, std::false_type{}) : launch(std::false_type{}, std::true_type{});
    } else {
      op_b == transpose::no ? launch(std::true_type{}, std::false_type{}) : launch(std::true_type{}, std::true_type{});
    }
    kernels::check_launch("gemm::reference");
  }
};

FAIRLEAD_NAMESPACE_END
