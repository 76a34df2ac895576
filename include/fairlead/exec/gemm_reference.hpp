// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Multiply matrices without any library.
#include <fairlead/concepts/gemm.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/exec/detail/gemm_tile.hpp>

#include <algorithm>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN
namespace gemm {

/// @brief Products of any arithmetic type in portable C++, blocked for caches and vector registers.
///
/// For programs without a BLAS, for tests, and wherever bits must not depend on how work is cut: an element of the
/// product is a sum over k in one fixed order, whatever the number of rows and columns. A tuned BLAS is usually
/// faster. The device text is in `exec/gemm_reference.cuh`.
struct reference {
  /// @brief Compute `c = alpha * op(a) * op(b) + beta * c`.
  /// @tparam Backend execution backend
  /// @tparam Value element type
  /// @param on execution context; on a host backend the product is computed by the calling thread
  /// @param op_a whether `a` is transposed
  /// @param op_b whether `b` is transposed
  /// @param alpha factor of the product
  /// @param a left factor @shape{m x k after op_a}
  /// @param b right factor @shape{k x n after op_b}
  /// @param beta factor of the old content; 0 = not read
  /// @param[in,out] c result @shape{m x n}, overlaps neither factor
  /// @throws contract_violation (level 1) if shapes disagree
  /// @complexity O(m n k) time; at most 128 KiB of stack, no allocation
  /// @determinism an element depends on its row of op(a), its column of op(b), alpha, beta and its old value only
  template <execution_backend Backend, class Value>
  void multiply(Backend const& on, transpose op_a, transpose op_b, std::type_identity_t<Value> alpha,
                matrix_view<std::type_identity_t<Value> const> a, matrix_view<std::type_identity_t<Value> const> b,
                std::type_identity_t<Value> beta, matrix_view<Value> c) const {
    implementation<reference, Backend>::multiply(on, op_a, op_b, alpha, a, b, beta, c);
  }
};

}  // namespace gemm

template <>
inline constexpr bool independent_of_shape<gemm::reference> = true;

/// @brief The text of `gemm::reference` for host memory.
template <host_backend Backend>
struct implementation<gemm::reference, Backend> {
  /// @copydoc gemm::reference::multiply
  template <class Value>
  static void multiply(Backend const&, transpose op_a, transpose op_b, Value alpha, matrix_view<Value const> a,
                       matrix_view<Value const> b, Value beta, matrix_view<Value> c) {
    using tile = detail::gemm_tile<Value>;
    detail::check_product(op_a, op_b, a, b, c);
    index_t const m = c.rows(), n = c.cols(), k = op_a == transpose::no ? a.cols() : a.rows();
    if (c.empty()) { return; }
    // a(i, p) lies at a.data() + i * row_step + p * inner_step, whichever way it is stored.
    index_t const row_step = op_a == transpose::no ? a.stride() : 1;
    index_t const inner_step = op_a == transpose::no ? 1 : a.stride();
    if (k == 0) {
      for (index_t i = 0; i < m; ++i) { tile::scale(c.row(i), n, beta); }
      return;
    }
    alignas(buffer_alignment) Value panel[tile::depth * tile::panel_cols];
    // Depth outside, in fixed steps from 0: this alone decides the order of an element's sum.
    for (index_t p = 0; p < k; p += tile::depth) {
      index_t const depth = std::min(tile::depth, k - p);
      Value const keep = p == 0 ? beta : Value{1};
      for (index_t j = 0; j < n; j += tile::panel_cols) {
        index_t const cols = std::min(tile::panel_cols, n - j);
        tile::pack(op_b, b, p, depth, j, cols, panel);
        for (index_t i = 0; i < m; i += tile::rows) {
          index_t const rows = std::min(tile::rows, m - i);
          Value const* const left = a.data() + i * row_step + p * inner_step;
          for (index_t s = 0; s < cols; s += tile::cols) {
            tile::multiply(left, rows, row_step, inner_step, panel + s * depth, depth, alpha, keep,
                           c.row(i) + j + s, c.stride(), std::min(tile::cols, cols - s));
          }
        }
      }
    }
  }
};

FAIRLEAD_NAMESPACE_END
