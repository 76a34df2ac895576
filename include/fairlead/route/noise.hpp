// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Random changes of the logits in training: none, multiplicative jitter, Gaussian noise.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/numeric.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/core/routing.hpp>

#include <array>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The random words of experts 4 q ... 4 q + 3 of one token.
///
/// Named by (seed, step, global token, expert) alone: equal on every rank, thread and device, and in recomputation.
/// @param context seed, step and number of the first token
/// @param row row of the batch
/// @param quad experts / 4
/// @param experts number of experts
/// @returns one word an expert
/// @determinism exact
[[nodiscard]] FAIRLEAD_HD inline std::array<std::uint32_t, 4> routing_words(route_context const& context, index_t row,
                                                                            index_t quad, index_t experts) noexcept {
  constexpr std::uint64_t purpose = 0x524F555445ULL << 24U;  // keeps apart from other uses of (seed, step)
  auto const token = static_cast<std::uint64_t>(context.first_token + row);
  auto const quads = static_cast<std::uint64_t>((experts + 3) / 4);
  return philox::draw(context.seed, context.step ^ purpose, token * quads + static_cast<std::uint64_t>(quad));
}

/// @brief Leave the logits as they are.
struct no_noise {
  /// Whether anything happens in training.
  static constexpr bool active = false;
  /// @throws contract_violation (level 1) on bad fields
  void check() const noexcept {}
};

/// @brief Multiply each logit by a uniform number in [1 - epsilon, 1 + epsilon] (Switch jitter, on the logits).
///
/// Switch jitters the input of the gate; on the logits the effect on the choice is of the same size and no copy of the
/// tokens is needed. `noisy_input` (`route/input_noise.hpp`) jitters the input.
/// @source{Switch Transformers code, input jitter}
struct multiplicative_jitter {
  float epsilon = 1e-2F;  ///< half width, in [0, 1)

  /// Whether anything happens in training.
  static constexpr bool active = true;
  /// @throws contract_violation (level 1) on bad fields
  void check() const { FAIRLEAD_EXPECTS(epsilon >= 0.0F && epsilon < 1.0F, "epsilon must be in [0, 1)", epsilon); }
  /// @param words what `routing_words` returned
  /// @param position expert % 4
  /// @returns d noisy / d logit
  [[nodiscard]] FAIRLEAD_HD float derivative(std::array<std::uint32_t, 4> const& words, unsigned position,
                                             index_t) const noexcept {
    return numeric::fused(epsilon, numeric::fused(2.0F, philox::to_uniform(words[position]), -1.0F), 1.0F);
  }
  /// @param logit the logit
  /// @param words what `routing_words` returned
  /// @param position expert % 4
  /// @param experts number of experts
  /// @returns the noisy logit
  [[nodiscard]] FAIRLEAD_HD float apply(float logit, std::array<std::uint32_t, 4> const& words, unsigned position,
                                        index_t experts) const noexcept {
    return numeric::product(logit, derivative(words, position, experts));
  }
};

/// @brief Add normal noise of fixed deviation to each logit.
/// @source{V-MoE code, noisy router with deviation 1 / experts}
struct fixed_noise {
  float deviation = -1.0F;  ///< standard deviation; negative = 1 / experts

  /// Whether anything happens in training.
  static constexpr bool active = true;
  /// @throws contract_violation (level 1) on bad fields
  void check() const { FAIRLEAD_EXPECTS(deviation == deviation, "deviation must be a number", deviation); }
  /// @returns d noisy / d logit
  [[nodiscard]] FAIRLEAD_HD float derivative(std::array<std::uint32_t, 4> const&, unsigned, index_t) const noexcept {
    return 1.0F;
  }
  /// @param logit the logit
  /// @param words what `routing_words` returned
  /// @param position expert % 4
  /// @param experts number of experts
  /// @returns the noisy logit
  [[nodiscard]] FAIRLEAD_HD float apply(float logit, std::array<std::uint32_t, 4> const& words, unsigned position,
                                        index_t experts) const noexcept {
    unsigned const pair = position & 2U;
    // The odd one of a pair is the sine of the same angle.
    float const number = numeric::normal(words[pair], words[pair + 1] - (position & 1U) * 0x40000000U);
    float const width = deviation < 0.0F ? numeric::quotient(1.0F, static_cast<float>(experts)) : deviation;
    return numeric::fused(width, number, logit);
  }
};

FAIRLEAD_NAMESPACE_END
