// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Random changes of what a gate reads, in training: multiplicative jitter, dropout.
#include <fairlead/concepts/gate.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/core/numeric.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/exec/serial.hpp>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Multiply each element by a uniform number in [1 - epsilon, 1 + epsilon].
/// @source{Switch Transformers code, input jitter; Megatron-core, moe_input_jitter_eps}
struct input_jitter {
  float epsilon = 1e-2F;  ///< half width, in [0, 1)
  /// @throws contract_violation (level 1) on bad fields
  void check() const { FAIRLEAD_EXPECTS(epsilon >= 0.0F && epsilon < 1.0F, "epsilon must be in [0, 1)", epsilon); }
  /// @param uniform a number in (0, 1)
  /// @returns the factor of an element
  [[nodiscard]] FAIRLEAD_HD float factor(float uniform) const noexcept {
    return numeric::fused(epsilon, numeric::fused(2.0F, uniform, -1.0F), 1.0F);
  }
};
/// @brief Zero each element with probability `rate` and divide the others by 1 - rate.
/// @source{mesh-TensorFlow, switch policy "input_dropout"}
struct input_dropout {
  float rate = 0.1F;  ///< share of elements that become zero, in [0, 1)
  /// @throws contract_violation (level 1) on bad fields
  void check() const { FAIRLEAD_EXPECTS(rate >= 0.0F && rate < 1.0F, "the rate must be in [0, 1)", rate); }
  /// @param uniform a number in (0, 1)
  /// @returns the factor of an element
  [[nodiscard]] FAIRLEAD_HD float factor(float uniform) const noexcept {
    return uniform < rate ? 0.0F : numeric::quotient(1.0F, numeric::sum(1.0F, -rate));
  }
};

/// @brief Let a gate read noisy tokens in training and recomputation, and clean ones in evaluation.
///
/// Experts still get the clean tokens. Factors are named by (seed, step, global token, column), so that recomputation
/// and the backward pass see the same noise; the gradient of a token passes through its factor.
/// @tparam Gate the gate, on host memory
/// @tparam Noise `input_jitter` or `input_dropout`
template <class Gate, class Noise = input_jitter>
struct noisy_input {
  Gate gate{};    ///< the gate
  Noise noise{};  ///< what happens to its input

  /// @returns the gate's parameters
  [[nodiscard]] fairlead::parameter_layout parameter_layout() const { return gate.parameter_layout(); }
  /// @param tokens number of tokens
  /// @returns two copies of the tokens, and what the gate needs
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens) const {
    return 2 * fairlead::workspace_bytes<float>(tokens * gate.width) + gate.workspace_bytes(tokens);
  }
  /// @brief Compute the logits.
  /// @param on host backend
  /// @param parameters the gate's parameters
  /// @param tokens @shape{tokens x width}
  /// @param context phase, seed, step, number of the first token
  /// @param[out] logits overwritten
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on bad fields or a shape mismatch
  /// @complexity O(tokens x width) besides the gate, no allocation
  template <host_backend Backend>
  void forward(Backend const& on, std::span<float const> parameters, matrix_view<float const> tokens,
               route_context const& context, matrix_view<float> logits, workspace& ws) const {
    workspace::scope const scope(ws);
    gate.forward(on, parameters, seen(on, tokens, context, ws), logits, ws);
  }
  /// @brief Add the gradients of weights and tokens.
  /// @param on host backend
  /// @param parameters the gate's parameters
  /// @param tokens @shape{tokens x width}
  /// @param context what `forward` saw
  /// @param grad_logits the derivative by the logits
  /// @param[in,out] grad_parameters added to
  /// @param[in,out] grad_tokens added to. @shape{tokens x width}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on bad fields or a shape mismatch
  template <host_backend Backend>
  void backward(Backend const& on, std::span<float const> parameters, matrix_view<float const> tokens,
                route_context const& context, matrix_view<float const> grad_logits, std::span<float> grad_parameters,
                matrix_view<float> grad_tokens, workspace& ws) const {
    if (context.phase == phase::evaluate) {
      gate.backward(on, parameters, tokens, grad_logits, grad_parameters, grad_tokens, ws);
      return;
    }
    workspace::scope const scope(ws);
    matrix_view<float const> const noisy = seen(on, tokens, context, ws);
    matrix_view<float> const grad(ws.take<float>(tokens.rows() * tokens.cols()).data(), tokens.rows(), tokens.cols());
    on.for_each(tokens.rows(), zero_row{grad});
    gate.backward(on, parameters, noisy, grad_logits, grad_parameters, grad, ws);
    on.for_each(tokens.rows(), scale_row<true>{noise, context, grad, grad_tokens});
  }

 private:
  struct zero_row {
    matrix_view<float> out;
    void operator()(index_t t) const { std::fill_n(out.row(t), out.cols(), 0.0F); }
  };
  template <bool Adds>
  struct scale_row {
    Noise noise;
    route_context context;
    matrix_view<float const> in;
    matrix_view<float> out;
    void operator()(index_t t) const {
      constexpr std::uint64_t purpose = 0x494E505554ULL << 24U;  // keeps apart from other uses of (seed, step)
      index_t const width = in.cols();
      auto const first = static_cast<std::uint64_t>(context.first_token + t) * static_cast<std::uint64_t>((width + 3) / 4);
      for (index_t c = 0; c < width; c += 4) {
        auto const words = philox::draw(context.seed, context.step ^ purpose, first + static_cast<std::uint64_t>(c / 4));
        for (unsigned i = 0; i < 4 && c + i < width; ++i) {
          float const value = in(t, c + i) * noise.factor(philox::to_uniform(words[i]));
          out(t, c + i) = Adds ? out(t, c + i) + value : value;
        }
      }
    }
  };
  template <class Backend>
  [[nodiscard]] matrix_view<float const> seen(Backend const& on, matrix_view<float const> tokens,
                                              route_context const& context, workspace& ws) const {
    noise.check();
    FAIRLEAD_EXPECTS(tokens.cols() == gate.width, "tokens must be as wide as the gate", tokens.cols(), gate.width);
    if (context.phase == phase::evaluate) { return tokens; }
    matrix_view<float> const noisy(ws.take<float>(tokens.rows() * tokens.cols()).data(), tokens.rows(), tokens.cols());
    on.for_each(tokens.rows(), scale_row<false>{noise, context, tokens, noisy});
    return noisy;
  }
};

FAIRLEAD_NAMESPACE_END
