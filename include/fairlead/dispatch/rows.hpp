// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Move rows by index: gather them, combine them with weights, and the gradients of both.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/exchange_plan.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/dispatch/detail/row_kernels.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Operation: out[r] = in[index[r] / divisor], a zero row where index[r] is `no_row`.
///
/// With copy numbers as index and the fan-out as divisor it permutes tokens into dispatch order; with row numbers and
/// divisor 1 it regroups rows.
struct gather_rows {
  index_t divisor = 1;  ///< rows of `in` per index: 1, or the copies a token

  /// @brief Gather rows.
  /// @param on backend
  /// @param in source rows. @shape{any x width}
  /// @param index row (times divisor) for each row of out, or `no_row`. @shape{out.rows()}, memory of `on`
  /// @param[out] out @shape{rows x width}
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(rows x width), no allocation; parallel over blocks of rows
  template <execution_backend Backend, class Value>
  void operator()(Backend const& on, matrix_view<Value const> in, std::span<std::int32_t const> index,
                  matrix_view<Value> out) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(index.size()) == out.rows(), "one index a row", index.size(), out.rows());
    FAIRLEAD_EXPECTS(in.cols() == out.cols() || out.rows() == 0, "rows must be equally wide", in.cols(), out.cols());
    FAIRLEAD_EXPECTS(divisor >= 1, "the divisor must be positive", divisor);
    implementation<gather_rows, Backend>::run(on, divisor, in, index, out);
  }
};

/// @brief Operation: out[t] = sum over j of weights[t][j] * rows[index[t][j]], in the order j = 0, 1, ...
///
/// `no_row` contributes nothing, `own_row` contributes weights[t][j] * own[t]. Sums are fp32 (fp64 for double rows) and
/// never depend on the number of threads.
struct combine_rows {
  /// @brief Combine rows.
  /// @param on backend
  /// @param rows @shape{any x width}
  /// @param index rows of each token. @shape{tokens x fan_out}, memory of `on`
  /// @param weights @shape{tokens x fan_out}; an empty view stands for all ones
  /// @param own the tokens themselves, for `own_row`; if it is empty such copies contribute nothing. @shape{tokens x width}
  /// @param[out] out overwritten. @shape{tokens x width}
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(tokens x fan_out x width), no allocation; parallel over blocks of tokens
  template <execution_backend Backend, class Value>
  void operator()(Backend const& on, matrix_view<Value const> rows, matrix_view<std::int32_t const> index,
                  matrix_view<float const> weights, matrix_view<Value const> own, matrix_view<Value> out) const {
    FAIRLEAD_EXPECTS(index.rows() == out.rows(), "one row of indices a token", index.rows(), out.rows());
    FAIRLEAD_EXPECTS(weights.empty() || (weights.rows() == index.rows() && weights.cols() == index.cols()),
                     "one weight an index", weights.rows(), weights.cols());
    FAIRLEAD_EXPECTS(rows.rows() == 0 || rows.cols() == out.cols(), "rows must be equally wide", rows.cols(), out.cols());
    implementation<combine_rows, Backend>::run(on, rows, index, weights, own, out);
  }
};

/// @brief Operation: the gradient of `combine_rows`, in place.
///
/// For each copy with a row r: grad_weights[t][j] = dot(grad_out[t], rows[r]), then rows[r] = weights[t][j] * grad_out[t].
/// `own_row`: grad_weights[t][j] = dot(grad_out[t], own[t]); `no_row`: 0. Each row belongs to at most one copy.
struct combine_rows_backward {
  /// @brief Turn returned rows into gradients of returned rows.
  /// @param on backend
  /// @param grad_out @shape{tokens x width}
  /// @param index @shape{tokens x fan_out}
  /// @param weights @shape{tokens x fan_out}
  /// @param own as in `combine_rows`
  /// @param[in,out] rows what `combine_rows` read; then its gradient. Rows without a copy are left alone.
  /// @param[out] grad_weights @shape{tokens x fan_out}
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(tokens x fan_out x width), no allocation; parallel over blocks of tokens
  template <execution_backend Backend, class Value>
  void operator()(Backend const& on, matrix_view<Value const> grad_out, matrix_view<std::int32_t const> index,
                  matrix_view<float const> weights, matrix_view<Value const> own, matrix_view<Value> rows,
                  matrix_view<float> grad_weights) const {
    FAIRLEAD_EXPECTS(index.rows() == grad_out.rows() && grad_weights.rows() == grad_out.rows() &&
                         weights.rows() == grad_out.rows(),
                     "one row of indices and weights a token", index.rows(), weights.rows(), grad_weights.rows(), grad_out.rows());
    FAIRLEAD_EXPECTS(rows.rows() == 0 || rows.cols() == grad_out.cols(), "rows must be equally wide", rows.cols(), grad_out.cols());
    implementation<combine_rows_backward, Backend>::run(on, grad_out, index, weights, own, rows, grad_weights);
  }
};

/// @brief Operation: out[t] += sum over copies with `own_row` of weights[t][j] * grad_out[t], the gradient that returns
/// to a token which stood in for an expert's output.
struct add_own_rows {
  /// @brief Add.
  /// @param on backend
  /// @param grad_out @shape{tokens x width}
  /// @param index @shape{tokens x fan_out}
  /// @param weights @shape{tokens x fan_out}
  /// @param[in,out] out @shape{tokens x width}
  /// @complexity O(tokens x (fan_out + own rows x width)), no allocation
  template <execution_backend Backend, class Value>
  void operator()(Backend const& on, matrix_view<Value const> grad_out, matrix_view<std::int32_t const> index,
                  matrix_view<float const> weights, matrix_view<Value> out) const {
    implementation<add_own_rows, Backend>::run(on, grad_out, index, weights, out);
  }
};

/// @brief The host text of `gather_rows`.
template <host_backend Backend>
struct implementation<gather_rows, Backend> {
  /// @brief See `gather_rows`.
  template <class Value>
  static void run(Backend const& on, index_t divisor, matrix_view<Value const> in, std::span<std::int32_t const> index,
                  matrix_view<Value> out) {
    detail::for_blocks(on, out.rows(), detail::gather_body<Value>{divisor, in, index.data(), out});
  }
};

/// @brief The host text of `combine_rows`.
template <host_backend Backend>
struct implementation<combine_rows, Backend> {
  /// @brief See `combine_rows`.
  template <class Value>
  static void run(Backend const& on, matrix_view<Value const> rows, matrix_view<std::int32_t const> index,
                  matrix_view<float const> weights, matrix_view<Value const> own, matrix_view<Value> out) {
    detail::for_blocks(on, out.rows(), detail::combine_body<Value>{rows, index, weights, own, out});
  }
};

/// @brief The host text of `combine_rows_backward`.
template <host_backend Backend>
struct implementation<combine_rows_backward, Backend> {
  /// @brief See `combine_rows_backward`.
  template <class Value>
  static void run(Backend const& on, matrix_view<Value const> grad_out, matrix_view<std::int32_t const> index,
                  matrix_view<float const> weights, matrix_view<Value const> own, matrix_view<Value> rows,
                  matrix_view<float> grad_weights) {
    detail::for_blocks(on, grad_out.rows(),
                       detail::combine_backward_body<Value>{grad_out, index, weights, own, rows, grad_weights});
  }
};

/// @brief The host text of `add_own_rows`.
template <host_backend Backend>
struct implementation<add_own_rows, Backend> {
  /// @brief See `add_own_rows`.
  template <class Value>
  static void run(Backend const& on, matrix_view<Value const> grad_out, matrix_view<std::int32_t const> index,
                  matrix_view<float const> weights, matrix_view<Value> out) {
    detail::for_blocks(on, out.rows(), detail::add_own_body<Value>{grad_out, index, weights, out});
  }
};

FAIRLEAD_NAMESPACE_END
