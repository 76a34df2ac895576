// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Two matrices between tokens and logits: one for the experts, one for the size of their noise.
#include <fairlead/route/linear_gate.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Compute [tokens * W^T, tokens * V^T]: the logits of `noisy_top_k`.
///
/// Both matrices start at zero, as in the source: experts are then chosen by noise alone until the gate has learned
/// something.
/// @tparam Gemm how products are computed (`gemm_on`)
/// @determinism equal bits at any number of threads
/// @source{Shazeer 2017, section 2.1 and appendix A}
template <class Gemm = gemm::reference>
struct noisy_linear_gate {
  index_t width = 0;             ///< columns of a token
  index_t experts = 0;           ///< number of experts; the logits have twice as many columns
  double deviation = 0.0;        ///< standard deviation of the initial weights of the experts
  double noise_deviation = 0.0;  ///< standard deviation of the initial weights of the noise
  Gemm gemm{};                   ///< how products are computed

  /// @returns blocks "gate" and "noise", each @shape{experts x width}
  [[nodiscard]] fairlead::parameter_layout parameter_layout() const {
    FAIRLEAD_EXPECTS(width >= 1 && experts >= 1, "a gate needs a width and experts", width, experts);
    fairlead::parameter_layout layout;
    layout.add("gate", experts, width, deviation);
    layout.add("noise", experts, width, noise_deviation);
    return layout;
  }
  /// @returns 0
  [[nodiscard]] std::size_t workspace_bytes(index_t) const noexcept { return 0; }
  /// @brief Compute the logits.
  /// @param on backend
  /// @param parameters @shape{2 experts * width}
  /// @param tokens @shape{tokens x width}
  /// @param[out] logits overwritten. @shape{tokens x 2 experts}
  /// @param ws not used
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(tokens * experts * width), no allocation
  template <execution_backend Backend>
  void forward(Backend const& on, std::span<float const> parameters, matrix_view<float const> tokens,
               matrix_view<float> logits, workspace& ws) const {
    both().forward(on, parameters, tokens, logits, ws);
  }
  /// @brief Add the gradients of weights and tokens.
  /// @param on backend
  /// @param parameters @shape{2 experts * width}
  /// @param tokens @shape{tokens x width}
  /// @param grad_logits @shape{tokens x 2 experts}
  /// @param[in,out] grad_parameters added to. @shape{2 experts * width}
  /// @param[in,out] grad_tokens added to. @shape{tokens x width}
  /// @param ws not used
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(tokens * experts * width), no allocation
  template <execution_backend Backend>
  void backward(Backend const& on, std::span<float const> parameters, matrix_view<float const> tokens,
                matrix_view<float const> grad_logits, std::span<float> grad_parameters, matrix_view<float> grad_tokens,
                workspace& ws) const {
    both().backward(on, parameters, tokens, grad_logits, grad_parameters, grad_tokens, ws);
  }

 private:
  // The two matrices lie one below the other: one product serves both.
  [[nodiscard]] linear_gate<Gemm> both() const { return {.width = width, .experts = 2 * experts, .gemm = gemm}; }
};
static_assert(has_gate_shape<noisy_linear_gate<>>);

FAIRLEAD_NAMESPACE_END
