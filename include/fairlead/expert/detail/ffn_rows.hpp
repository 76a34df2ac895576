// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The elementwise parts of feed-forward experts, row by row.
#include <fairlead/concepts/activation.hpp>
#include <fairlead/core/matrix_view.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// @brief Loops over contiguous columns that compilers vectorise.
/// @tparam Streams 1: h = f(a); 2: h = f(a) * u
template <index_t Streams, class Value, class Activation>
struct ffn_rows {
  static void fill_rows(matrix_view<Value> y, Value const* row) noexcept {
    for (index_t r = 0; r < y.rows(); ++r) { std::copy_n(row, y.cols(), y.row(r)); }
  }
  static void clear(matrix_view<Value> y) noexcept {
    for (index_t r = 0; r < y.rows(); ++r) { std::fill_n(y.row(r), y.cols(), Value{0}); }
  }
  static void add_rows(matrix_view<Value const> from, Value* __restrict sum) noexcept {
    for (index_t r = 0; r < from.rows(); ++r) {
      Value const* const row = from.row(r);
      for (index_t j = 0; j < from.cols(); ++j) { sum[j] += row[j]; }
    }
  }

  /// Compute the hidden units from products without bias.
  /// @param bias of stream s at bias + s * bias_step; may be null
  static void activate(matrix_view<Value const> const (&pre)[Streams], Value const* bias, index_t bias_step,
                       matrix_view<Value> h) noexcept {
    for (index_t r = 0; r < h.rows(); ++r) {
      if constexpr (Streams == 1) {
        if (bias == nullptr) {
          activate_row<false>(pre[0].row(r), nullptr, h.row(r), h.cols());
        } else {
          activate_row<true>(pre[0].row(r), bias, h.row(r), h.cols());
        }
      } else {
        if (bias == nullptr) {
          gate_row<false>(pre[0].row(r), pre[1].row(r), nullptr, nullptr, h.row(r), h.cols());
        } else {
          gate_row<true>(pre[0].row(r), pre[1].row(r), bias, bias + bias_step, h.row(r), h.cols());
        }
      }
    }
  }

  /// Recompute the hidden units and turn their gradients into those of the pre-activations.
  /// @param bias of stream s at bias + s * bias_step; may be null
  /// @param bias_gradient likewise, added to; null if `bias` is
  static void differentiate(matrix_view<Value const> const (&pre)[Streams], Value const* bias,
                            matrix_view<Value const> dh, matrix_view<Value> h,
                            matrix_view<Value> const (&slope)[Streams], Value* bias_gradient, index_t bias_step) noexcept {
    for (index_t r = 0; r < h.rows(); ++r) {
      if constexpr (Streams == 1) {
        if (bias == nullptr) {
          differentiate_row<false>(pre[0].row(r), nullptr, dh.row(r), h.row(r), slope[0].row(r), nullptr, h.cols());
        } else {
          differentiate_row<true>(pre[0].row(r), bias, dh.row(r), h.row(r), slope[0].row(r), bias_gradient, h.cols());
        }
      } else {
        if (bias == nullptr) {
          differentiate_row<false>(pre[0].row(r), pre[1].row(r), nullptr, nullptr, dh.row(r), h.row(r), slope[0].row(r),
                                   slope[1].row(r), h.cols());
        } else {
          differentiate_row<true>(pre[0].row(r), pre[1].row(r), bias, bias + bias_step, dh.row(r), h.row(r),
                                  slope[0].row(r), slope[1].row(r), h.cols());
          for (index_t s = 0; s < Streams; ++s) { add_row(slope[s].row(r), bias_gradient + s * bias_step, h.cols()); }
        }
      }
    }
  }

 private:
  static void add_row(Value const* __restrict from, Value* __restrict to, index_t columns) noexcept {
    for (index_t j = 0; j < columns; ++j) { to[j] += from[j]; }
  }
  template <bool Bias>
  [[nodiscard]] static Value shifted(Value const* row, [[maybe_unused]] Value const* bias, index_t j) noexcept {
    if constexpr (Bias) {
      return row[j] + bias[j];
    } else {
      return row[j];
    }
  }
  template <bool Bias>
  static void activate_row(Value const* __restrict a, Value const* __restrict bias, Value* __restrict h,
                           index_t columns) noexcept {
    for (index_t j = 0; j < columns; ++j) { h[j] = Activation::value(shifted<Bias>(a, bias, j)); }
  }
  template <bool Bias>
  static void gate_row(Value const* __restrict a, Value const* __restrict u, Value const* __restrict a_bias,
                       Value const* __restrict u_bias, Value* __restrict h, index_t columns) noexcept {
    for (index_t j = 0; j < columns; ++j) {
      h[j] = Activation::value(shifted<Bias>(a, a_bias, j)) * shifted<Bias>(u, u_bias, j);
    }
  }
  template <bool Bias>
  static void differentiate_row(Value const* __restrict a, Value const* __restrict bias, Value const* __restrict dh,
                                Value* __restrict h, Value* __restrict da, Value* __restrict sum, index_t columns) noexcept {
    for (index_t j = 0; j < columns; ++j) {
      activation_result<Value> const f = Activation::value_and_derivative(shifted<Bias>(a, bias, j));
      h[j] = f.value;
      da[j] = dh[j] * f.derivative;
      if constexpr (Bias) { sum[j] += dh[j] * f.derivative; }
    }
  }
  template <bool Bias>
  static void differentiate_row(Value const* __restrict a, Value const* __restrict u, Value const* __restrict a_bias,
                                Value const* __restrict u_bias, Value const* __restrict dh, Value* __restrict h,
                                Value* __restrict da, Value* __restrict du, index_t columns) noexcept {
    for (index_t j = 0; j < columns; ++j) {
      activation_result<Value> const f = Activation::value_and_derivative(shifted<Bias>(a, a_bias, j));
      Value const up = shifted<Bias>(u, u_bias, j);
      h[j] = f.value * up;
      da[j] = dh[j] * up * f.derivative;
      du[j] = dh[j] * f.value;
    }
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
