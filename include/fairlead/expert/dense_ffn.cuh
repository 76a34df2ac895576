// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of the feed-forward expert.
#include <fairlead/exec/gemm_reference.cuh>
#include <fairlead/expert/detail/ffn_device.cuh>
#include <fairlead/expert/dense_ffn.hpp>

#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The text of `dense_ffn` for CUDA: a few products and kernels a group, all queued, nothing synchronised.
/// @determinism equal bits for equal groups and equal workspace sizes
template <class Value, class Activation, class Gemm, cuda_backend Backend>
struct implementation<dense_ffn<Value, Activation, Gemm>, Backend> {
  static_assert(gemm_on<Gemm, Backend, Value>,
                "fairlead: Gemm must model fairlead::gemm_on for this backend: gemm::reference or gemm::cublas");
  using expert = dense_ffn<Value, Activation, Gemm>;  ///< the policy
  /// @copydoc dense_ffn::forward
  static void forward(expert const& self, Backend const& on, std::span<Value const* const> parameters,
                      row_groups groups, matrix_view<Value const> in, matrix_view<Value> kept, matrix_view<Value> out,
                      workspace& ws) {
    detail::ffn_device<1, Value, Activation, Gemm>{self.text()}.forward(on, parameters, groups, in, kept, out, ws);
  }
  /// @copydoc dense_ffn::backward
  static void backward(expert const& self, Backend const& on, std::span<Value const* const> parameters,
                       std::span<Value* const> gradients, row_groups groups, matrix_view<Value const> in,
                       matrix_view<Value const> kept, matrix_view<Value const> grad_out, matrix_view<Value> grad_in,
                       workspace& ws) {
    detail::ffn_device<1, Value, Activation, Gemm>{self.text()}.backward(on, parameters, gradients, groups, in, kept,
                                                                         grad_out, grad_in, ws);
  }
};

FAIRLEAD_NAMESPACE_END
