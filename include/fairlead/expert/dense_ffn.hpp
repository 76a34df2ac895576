// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The two-layer feed-forward expert.
#include <fairlead/concepts/expert.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/exec/gemm_reference.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/activation.hpp>
#include <fairlead/expert/detail/ffn_text.hpp>

#include <cmath>
#include <span>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Compute y = W2 f(W1 x + b1) + b2: the feed-forward block of the first transformers, as an expert.
///
/// A whole bank of such experts is one call. Rows are cut into pieces of some hundred rows of one group; a piece runs
/// its first product, the activation and its second product chunk by chunk while the chunk is in cache. The cutting
/// depends on the sizes of the groups only. Applied to all tokens as one group it is a shared expert.
/// @tparam Value element type, `float` or `double`
/// @tparam Activation f, an `activation_function`
/// @tparam Gemm the matrix products, a `gemm_on`
/// @source{fedus2021, Switch Transformers, section 2}
template <class Value = float, class Activation = gelu, class Gemm = gemm::reference>
struct dense_ffn {
  static_assert(activation_function<Activation, Value>, "fairlead: Activation must model fairlead::activation_function");
  using value_type = Value;  ///< element type

  index_t width = 0;   ///< columns of input and output
  index_t hidden = 0;  ///< hidden units
  bool bias = true;    ///< whether both layers add a bias

  /// @returns width
  [[nodiscard]] constexpr index_t input_width() const noexcept { return width; }
  /// @returns width
  [[nodiscard]] constexpr index_t output_width() const noexcept { return width; }
  /// @returns columns of what backward needs: the pre-activations
  [[nodiscard]] constexpr index_t kept_width() const noexcept { return hidden; }
  /// @returns the blocks of one expert: up [hidden x width], up_bias, down [width x hidden], down_bias
  [[nodiscard]] fairlead::parameter_layout parameter_layout() const {
    FAIRLEAD_EXPECTS(width > 0 && hidden > 0, "width and hidden must be positive", width, hidden);
    double const narrow = 1.0 / std::sqrt(static_cast<double>(width));
    double const wide = 1.0 / std::sqrt(static_cast<double>(hidden));
    fairlead::parameter_layout layout;
    layout.add("up", hidden, width, narrow);
    if (bias) { layout.add("up_bias", 1, hidden, 0.0, false); }
    layout.add("down", width, hidden, wide);
    if (bias) { layout.add("down_bias", 1, width, 0.0, false); }
    return layout;
  }
  /// @param rows most rows of a call, padding included
  /// @param concurrency of the backend
  /// @returns scratch bytes for forward and backward on a host backend
  [[nodiscard]] std::size_t workspace_bytes(index_t rows, index_t concurrency) const noexcept {
    return text().workspace_bytes(rows, concurrency);
  }

  /// @brief Compute the rows of every group with that group's parameters.
  /// @param on execution context
  /// @param parameters one pointer a group, to `parameter_layout().size()` values
  /// @param groups which rows belong to which expert; empty groups are legal
  /// @param in tokens @shape{rows x width}
  /// @param[out] kept for backward on the same backend: products of the first layer, on the host before the bias, on
  ///             a device after it @shape{rows x kept_width()}; or no columns if backward will not run
  /// @param[out] out outputs of rows in use @shape{rows x width}; other rows are not touched
  /// @param ws at least `workspace_bytes(rows, on.concurrency())` bytes
  /// @throws contract_violation (level 1) on shapes that do not fit
  /// @complexity O(rows x width x hidden), no allocation
  /// @determinism independent of threads; with a Gemm that is `independent_of_shape` no bit of a row depends on other
  ///              rows, with a BLAS the last bits may depend on the number of rows of the group
  template <execution_backend Backend>
  void forward(Backend const& on, std::span<Value const* const> parameters, row_groups groups,
               matrix_view<Value const> in, matrix_view<Value> kept, matrix_view<Value> out, workspace& ws) const {
    implementation<dense_ffn, Backend>::forward(*this, on, parameters, groups, in, kept, out, ws);
  }

  /// @brief Compute the gradient of the input and add the gradients of the parameters.
  /// @param on execution context
  /// @param parameters as in forward
  /// @param gradients one pointer a group, to `parameter_layout().size()` values that are added to
  /// @param groups as in forward
  /// @param in as in forward
  /// @param kept what forward kept
  /// @param grad_out gradient of the output @shape{rows x width}
  /// @param[out] grad_in gradient of the input, rows in use overwritten @shape{rows x width}
  /// @param ws at least `workspace_bytes(rows, on.concurrency())` bytes
  /// @throws contract_violation (level 1) on shapes that do not fit
  /// @complexity O(rows x width x hidden), no allocation
  /// @determinism sums over the rows of a group run in one order, whatever the number of threads
  template <execution_backend Backend>
  void backward(Backend const& on, std::span<Value const* const> parameters, std::span<Value* const> gradients,
                row_groups groups, matrix_view<Value const> in, matrix_view<Value const> kept,
                matrix_view<Value const> grad_out, matrix_view<Value> grad_in, workspace& ws) const {
    implementation<dense_ffn, Backend>::backward(*this, on, parameters, gradients, groups, in, kept, grad_out, grad_in,
                                               ws);
  }

 private:
  template <class, class>
  friend struct implementation;
  using text_type = detail::ffn_text<1, Value, Activation, Gemm>;
  [[nodiscard]] text_type text() const noexcept { return {width, hidden, bias}; }
};

/// @brief The text of `dense_ffn` for host memory.
template <class Value, class Activation, class Gemm, host_backend Backend>
struct implementation<dense_ffn<Value, Activation, Gemm>, Backend> {
  static_assert(gemm_on<Gemm, Backend, Value>, "fairlead: Gemm must model fairlead::gemm_on for this backend");
  using expert = dense_ffn<Value, Activation, Gemm>;  ///< the policy
  /// @copydoc dense_ffn::forward
  static void forward(expert const& self, Backend const& on, std::span<Value const* const> parameters,
                      row_groups groups, matrix_view<Value const> in, matrix_view<Value> kept, matrix_view<Value> out,
                      workspace& ws) {
    self.text().forward(on, parameters, groups, in, kept, out, ws);
  }
  /// @copydoc dense_ffn::backward
  static void backward(expert const& self, Backend const& on, std::span<Value const* const> parameters,
                       std::span<Value* const> gradients, row_groups groups, matrix_view<Value const> in,
                       matrix_view<Value const> kept, matrix_view<Value const> grad_out, matrix_view<Value> grad_in,
                       workspace& ws) {
    self.text().backward(on, parameters, gradients, groups, in, kept, grad_out, grad_in, ws);
  }
};
static_assert(trainable_on<dense_ffn<>, serial> && trainable_on<dense_ffn<double>, serial>);

FAIRLEAD_NAMESPACE_END
