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

  /// Add the bias to the pre-activations, in place because backward needs the sums, and compute the hidden units.
  /// @param bias of stream s at bias + s * bias_step; may be null
  static void activate(matrix_view<Value> const (&pre)[Streams], Value const* bias, index_t bias_step,
                       matrix_view<Value> h) noexcept {
    for (index_t r = 0; r < h.rows(); ++r) {
      if constexpr (Streams == 1) {
        if (bias == nullptr) {
          activate_row(pre[0].row(r), h.row(r), h.cols());
        } else {
          activate_row(pre[0].row(r), bias, h.row(r), h.cols());
        }
      } else {
        if (bias != nullptr) {
          for (index_t s = 0; s < Streams; ++s) { add_row(bias + s * bias_step, pre[s].row(r), h.cols()); }
        }
        gate_row(pre[0].row(r), pre[1].row(r), h.row(r), h.cols());
      }
    }
  }

  /// Recompute the hidden units and turn their gradients into those of the pre-activations.
  /// @param bias_gradient of stream s at bias_gradient + s * bias_step, added to; may be null
  static void differentiate(matrix_view<Value const> const (&pre)[Streams], matrix_view<Value const> dh,
                            matrix_view<Value> h, matrix_view<Value> const (&slope)[Streams], Value* bias_gradient,
                            index_t bias_step) noexcept {
    for (index_t r = 0; r < h.rows(); ++r) {
      if constexpr (Streams == 1) {
        differentiate_row(pre[0].row(r), dh.row(r), h.row(r), slope[0].row(r), h.cols());
      } else {
        differentiate_row(pre[0].row(r), pre[1].row(r), dh.row(r), h.row(r), slope[0].row(r), slope[1].row(r),
                          h.cols());
      }
      for (index_t s = 0; bias_gradient != nullptr && s < Streams; ++s) {
        add_row(slope[s].row(r), bias_gradient + s * bias_step, h.cols());
      }
    }
  }

 private:
  static void add_row(Value const* __restrict from, Value* __restrict to, index_t columns) noexcept {
    for (index_t j = 0; j < columns; ++j) { to[j] += from[j]; }
  }
  static void activate_row(Value const* __restrict a, Value* __restrict h, index_t columns) noexcept {
    for (index_t j = 0; j < columns; ++j) { h[j] = Activation::value(a[j]); }
  }
  static void activate_row(Value* __restrict a, Value const* __restrict bias, Value* __restrict h,
                           index_t columns) noexcept {
    for (index_t j = 0; j < columns; ++j) {
      Value const x = a[j] + bias[j];
      a[j] = x;
      h[j] = Activation::value(x);
    }
  }
  static void gate_row(Value const* __restrict a, Value const* __restrict u, Value* __restrict h,
                       index_t columns) noexcept {
    for (index_t j = 0; j < columns; ++j) { h[j] = Activation::value(a[j]) * u[j]; }
  }
  static void differentiate_row(Value const* __restrict a, Value const* __restrict dh, Value* __restrict h,
                                Value* __restrict da, index_t columns) noexcept {
    for (index_t j = 0; j < columns; ++j) {
      activation_result<Value> const f = Activation::value_and_derivative(a[j]);
      h[j] = f.value;
      da[j] = dh[j] * f.derivative;
    }
  }
  static void differentiate_row(Value const* __restrict a, Value const* __restrict u, Value const* __restrict dh,
                                Value* __restrict h, Value* __restrict da, Value* __restrict du,
                                index_t columns) noexcept {
    for (index_t j = 0; j < columns; ++j) {
      activation_result<Value> const f = Activation::value_and_derivative(a[j]);
      h[j] = f.value * u[j];
      da[j] = dh[j] * u[j] * f.derivative;
      du[j] = dh[j] * f.value;
    }
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
