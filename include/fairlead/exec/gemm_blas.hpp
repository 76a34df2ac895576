// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Multiply matrices with the CBLAS library that the program links.
#include <fairlead/concepts/gemm.hpp>
#include <fairlead/core/implementation.hpp>

#include <cblas.h>

#include <algorithm>
#include <limits>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN
namespace gemm {

/// @brief Products of `float` and `double` by `cblas_sgemm` and `cblas_dgemm` (OpenBLAS, BLIS, MKL, ...).
///
/// The library's own threads are not touched: nothing here sets them. Components of fairlead call this from several
/// threads at once, each on a piece, so set the library to one thread (`OPENBLAS_NUM_THREADS=1`) for speed and for
/// equal bits from run to run. Bits of a product may depend on its shape: the library chooses kernels by it.
struct blas {
  /// @brief Compute `c = alpha * op(a) * op(b) + beta * c`.
  /// @tparam Backend execution backend of host memory
  /// @tparam Value `float` or `double`
  /// @param on execution context; the product is computed by the calling thread
  /// @param op_a whether `a` is transposed
  /// @param op_b whether `b` is transposed
  /// @param alpha factor of the product
  /// @param a left factor @shape{m x k after op_a}
  /// @param b right factor @shape{k x n after op_b}
  /// @param beta factor of the old content; 0 = not read
  /// @param[in,out] c result @shape{m x n}, overlaps neither factor
  /// @throws contract_violation (level 1) if shapes disagree or a size or stride does not fit the library's `int`
  /// @complexity O(m n k); memory is the library's
  /// @determinism equal bits for equal shapes if the library runs one thread
  template <execution_backend Backend, class Value>
  void multiply(Backend const& on, transpose op_a, transpose op_b, std::type_identity_t<Value> alpha,
                matrix_view<std::type_identity_t<Value> const> a, matrix_view<std::type_identity_t<Value> const> b,
                std::type_identity_t<Value> beta, matrix_view<Value> c) const {
    implementation<blas, Backend>::multiply(on, op_a, op_b, alpha, a, b, beta, c);
  }
};

}  // namespace gemm

/// @brief The text of `gemm::blas` for host memory.
template <host_backend Backend>
struct implementation<gemm::blas, Backend> {
  /// @copydoc gemm::blas::multiply
  template <class Value>
  static void multiply(Backend const&, transpose op_a, transpose op_b, Value alpha, matrix_view<Value const> a,
                       matrix_view<Value const> b, Value beta, matrix_view<Value> c) {
    static_assert(std::is_same_v<Value, float> || std::is_same_v<Value, double>,
                  "fairlead: gemm::blas multiplies float or double; use gemm::reference for other types");
    detail::check_product(op_a, op_b, a, b, c);
    if (c.empty()) { return; }
    // An empty view may have a null pointer or stride 0; the library wants a leading dimension of at least 1.
    index_t const k = op_a == transpose::no ? a.cols() : a.rows();
    FAIRLEAD_EXPECTS(std::max({c.rows(), c.cols(), k, a.stride(), b.stride(), c.stride()}) <=
                         index_t{std::numeric_limits<int>::max()},
                     "CBLAS takes sizes as int: cut the product into smaller pieces", c.rows(), c.cols(), k);
    CBLAS_TRANSPOSE const ta = op_a == transpose::no ? CblasNoTrans : CblasTrans;
    CBLAS_TRANSPOSE const tb = op_b == transpose::no ? CblasNoTrans : CblasTrans;
    int const m = static_cast<int>(c.rows()), n = static_cast<int>(c.cols()), inner = static_cast<int>(k);
    int const lda = leading(a.stride()), ldb = leading(b.stride()), ldc = leading(c.stride());
    if constexpr (std::is_same_v<Value, float>) {
      cblas_sgemm(CblasRowMajor, ta, tb, m, n, inner, alpha, a.data(), lda, b.data(), ldb, beta, c.data(), ldc);
    } else {
      cblas_dgemm(CblasRowMajor, ta, tb, m, n, inner, alpha, a.data(), lda, b.data(), ldb, beta, c.data(), ldc);
    }
  }

 private:
  static int leading(index_t stride) noexcept { return static_cast<int>(std::max<index_t>(stride, 1)); }
};

FAIRLEAD_NAMESPACE_END
