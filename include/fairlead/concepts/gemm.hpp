// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of a policy that multiplies matrices.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/core/matrix_view.hpp>

#include <concepts>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// Whether a factor enters a product as it lies in memory or transposed.
enum class transpose { no, yes };

/// @brief Computes `c = alpha * op(a) * op(b) + beta * c` on row-major matrices with row strides.
///
/// Why a policy and not a function: the fastest text differs from machine to machine, and a user may own a better one.
/// Required of a model `gemm`, a stateless value:
/// - `gemm.multiply(on, op_a, op_b, alpha, a, b, beta, c)`: op(a) is @shape{m x k}, op(b) @shape{k x n},
///   c @shape{m x n}; `op(x)` is x or its transpose. `c` overlaps neither factor. With `beta == 0` the old content of
///   `c` is not read (it may hold NaN). `k == 0` scales `c` by beta; `m == 0` or `n == 0` does nothing.
/// - On a host backend the product is computed by the calling thread alone and allocates nothing: callers cut large
///   work into pieces and call `multiply` inside `on.for_each`. On a stream-ordered backend it is queued.
/// - Equal inputs of equal shape give equal bits.
template <class Gemm, class Backend, class Value>
concept gemm_on =
    execution_backend<Backend> && std::copyable<Gemm> &&
    requires(Gemm const& gemm, Backend const& on, transpose op, Value scale, matrix_view<Value const> a,
             matrix_view<Value const> b, matrix_view<Value> c) {
      { gemm.multiply(on, op, op, scale, a, b, scale, c) } -> std::same_as<void>;
    };

/// @brief Opt-in promise: no bit of an element of the product depends on the number of rows or columns of `c`, that is
/// on how a caller cuts a product into pieces.
///
/// Vendor libraries choose kernels by shape and do not promise this.
template <class Gemm>
inline constexpr bool independent_of_shape = false;

namespace detail {
/// What every text checks before it starts.
template <class Value>
void check_product(transpose op_a, transpose op_b, matrix_view<Value const> const& a,
                   matrix_view<Value const> const& b, matrix_view<Value> const& c) {
  [[maybe_unused]] index_t const m = op_a == transpose::no ? a.rows() : a.cols();
  [[maybe_unused]] index_t const k = op_a == transpose::no ? a.cols() : a.rows();
  [[maybe_unused]] index_t const inner = op_b == transpose::no ? b.rows() : b.cols();
  [[maybe_unused]] index_t const n = op_b == transpose::no ? b.cols() : b.rows();
  FAIRLEAD_EXPECTS(m == c.rows() && n == c.cols() && k == inner,
                   "op(a) must be m x k, op(b) k x n and c m x n (m, k, k of b, n, rows and columns of c follow)", m, k,
                   inner, n, c.rows(), c.cols());
}
}  // namespace detail

FAIRLEAD_NAMESPACE_END
