// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief One matrix between tokens and logits.
#include <fairlead/concepts/gate.hpp>
#include <fairlead/concepts/gemm.hpp>
#include <fairlead/exec/gemm_reference.hpp>

#include <algorithm>
#include <cmath>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {
// Pieces of a gate's products: fixed sizes, so that results do not depend on the number of threads.
template <class Gemm, class Backend>
struct gate_rows {
  static constexpr index_t block = 256;
  Gemm gemm;
  Backend on;
  transpose op;
  float beta;
  matrix_view<float const> a, b;
  matrix_view<float> c;
  void operator()(index_t i) const {
    index_t const count = std::min(block, a.rows() - i * block);
    gemm.multiply(on, transpose::no, op, 1.0F, a.rows(i * block, count), b, beta, c.rows(i * block, count));
  }
};
template <class Gemm, class Backend>
struct gate_cols {
  static constexpr index_t block = 128;
  Gemm gemm;
  Backend on;
  matrix_view<float const> grad_logits, tokens;
  matrix_view<float> grad_weights;
  void operator()(index_t i) const {
    index_t const first = i * block;
    index_t const count = std::min(block, tokens.cols() - first);
    gemm.multiply(on, transpose::yes, transpose::no, 1.0F, grad_logits,
                  matrix_view<float const>(tokens.data() + first, tokens.rows(), count, tokens.stride()), 1.0F,
                  matrix_view<float>(grad_weights.data() + first, grad_weights.rows(), count, grad_weights.stride()));
  }
};
}  // namespace detail

/// @brief Compute logits = tokens * W^T with W @shape{experts x width}, the gate of nearly every published layer.
/// @tparam Gemm how products are computed (`gemm_on`)
/// @determinism equal bits at any number of threads
template <class Gemm = gemm::reference>
struct linear_gate {
  index_t width = 0;          ///< columns of a token
  index_t experts = 0;        ///< number of logits
  double deviation = 0.0;     ///< standard deviation of the initial weights; 0 = 1 / sqrt(width)
  Gemm gemm{};                ///< how products are computed

  /// @returns one block, "gate" @shape{experts x width}
  [[nodiscard]] fairlead::parameter_layout parameter_layout() const {
    FAIRLEAD_EXPECTS(width >= 1 && experts >= 1, "a gate needs a width and experts", width, experts);
    fairlead::parameter_layout layout;
    layout.add("gate", experts, width, deviation > 0.0 ? deviation : 1.0 / std::sqrt(static_cast<double>(width)));
    return layout;
  }
  /// @returns 0
  [[nodiscard]] std::size_t workspace_bytes(index_t) const noexcept { return 0; }

  /// @brief Compute the logits.
  /// @param on backend
  /// @param parameters @shape{experts * width}
  /// @param tokens @shape{tokens x width}
  /// @param[out] logits overwritten. @shape{tokens x experts}
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(tokens * experts * width), no allocation
  template <execution_backend Backend>
  void forward(Backend const& on, std::span<float const> parameters, matrix_view<float const> tokens,
               matrix_view<float> logits, workspace&) const {
    auto const weights = weights_of(parameters, tokens, logits);
    if constexpr (host_backend<Backend>) {
      detail::gate_rows<Gemm, Backend> const rows{gemm, on, transpose::yes, 0.0F, tokens, weights, logits};
      on.for_each((tokens.rows() + rows.block - 1) / rows.block, rows);
    } else {
      gemm.multiply(on, transpose::no, transpose::yes, 1.0F, tokens, weights, 0.0F, logits);
    }
  }
  /// @brief Add the gradients of weights and tokens.
  /// @param on backend
  /// @param parameters @shape{experts * width}
  /// @param tokens @shape{tokens x width}
  /// @param grad_logits @shape{tokens x experts}
  /// @param[in,out] grad_parameters added to. @shape{experts * width}
  /// @param[in,out] grad_tokens added to. @shape{tokens x width}
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(tokens * experts * width), no allocation
  template <execution_backend Backend>
  void backward(Backend const& on, std::span<float const> parameters, matrix_view<float const> tokens,
                matrix_view<float const> grad_logits, std::span<float> grad_parameters, matrix_view<float> grad_tokens,
                workspace&) const {
    auto const weights = weights_of(parameters, tokens, grad_logits);
    FAIRLEAD_EXPECTS(grad_parameters.size() == parameters.size(), "one gradient a parameter", grad_parameters.size());
    matrix_view<float> const grad_weights(grad_parameters.data(), experts, width);
    if constexpr (host_backend<Backend>) {
      detail::gate_cols<Gemm, Backend> const cols{gemm, on, grad_logits, tokens, grad_weights};
      on.for_each((width + cols.block - 1) / cols.block, cols);
      detail::gate_rows<Gemm, Backend> const rows{gemm, on, transpose::no, 1.0F, grad_logits, weights, grad_tokens};
      on.for_each((tokens.rows() + rows.block - 1) / rows.block, rows);
    } else {
      gemm.multiply(on, transpose::yes, transpose::no, 1.0F, grad_logits, tokens, 1.0F, grad_weights);
      gemm.multiply(on, transpose::no, transpose::no, 1.0F, grad_logits, weights, 1.0F, grad_tokens);
    }
  }

 private:
  [[nodiscard]] matrix_view<float const> weights_of(std::span<float const> parameters, matrix_view<float const> tokens,
                                                    matrix_view<float const> logits) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(parameters.size()) == experts * width, "one parameter for each expert and column", parameters.size(), experts, width);
    FAIRLEAD_EXPECTS(tokens.cols() == width && logits.cols() == experts && tokens.rows() == logits.rows(),
                     "tokens x width in, tokens x experts out", tokens.cols(), logits.cols(), tokens.rows(), logits.rows());
    return {parameters.data(), experts, width};
  }
};
static_assert(has_gate_shape<linear_gate<>>);

FAIRLEAD_NAMESPACE_END
