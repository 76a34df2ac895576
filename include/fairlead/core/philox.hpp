// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Counter-based random numbers: the same (seed, counter) gives the same bits on every rank, thread and device.
#include <fairlead/core/ids.hpp>

#include <array>
#include <cmath>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Philox4x32-10: a bijection from a 128-bit counter to 128 random bits under a 64-bit key.
///
/// There is no state to carry: a draw is named by its counter, so that any element of a sequence is computed alone.
/// @source{salmon2011, Parallel random numbers: as easy as 1, 2, 3, section 3.3}
struct philox {
  /// @brief Compute one block.
  /// @param counter four counter words
  /// @param key two key words
  /// @returns four random words
  /// @complexity O(1)
  /// @determinism exact integer arithmetic: equal on host and device
  [[nodiscard]] FAIRLEAD_HD static constexpr std::array<std::uint32_t, 4> block(std::array<std::uint32_t, 4> counter,
                                                                               std::array<std::uint32_t, 2> key) noexcept {
    std::uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    std::uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; ++round) {
      std::uint64_t const p0 = std::uint64_t{0xD2511F53U} * c0;
      std::uint64_t const p1 = std::uint64_t{0xCD9E8D57U} * c2;
      c0 = static_cast<std::uint32_t>(p1 >> 32U) ^ c1 ^ k0;
      c1 = static_cast<std::uint32_t>(p1);
      c2 = static_cast<std::uint32_t>(p0 >> 32U) ^ c3 ^ k1;
      c3 = static_cast<std::uint32_t>(p0);
      k0 += 0x9E3779B9U;
      k1 += 0xBB67AE85U;
    }
    return {c0, c1, c2, c3};
  }

  /// @brief Draw the four words that a (seed, stream, index) names.
  /// @param seed what the user sets
  /// @param stream separates uses of one seed (step, layer, purpose)
  /// @param index element of the sequence
  /// @returns four random words
  [[nodiscard]] FAIRLEAD_HD static constexpr std::array<std::uint32_t, 4> draw(std::uint64_t seed, std::uint64_t stream,
                                                                              std::uint64_t index) noexcept {
    return block({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32U),
                  static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32U)},
                 {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32U)});
  }

  /// @brief Map a random word to the open interval (0, 1).
  /// @param word random bits
  /// @returns (word's upper 23 bits + 1/2) / 2^23, exact in fp32: never 0, never 1
  [[nodiscard]] FAIRLEAD_HD static constexpr float to_uniform(std::uint32_t word) noexcept {
    return (static_cast<float>(word >> 9U) + 0.5F) * 0x1p-23F;
  }

  /// @brief Draw from the uniform distribution over (0, 1).
  /// @param seed what the user sets
  /// @param stream separates uses of one seed
  /// @param index element of the sequence
  /// @returns a number in (0, 1)
  [[nodiscard]] FAIRLEAD_HD static constexpr float uniform(std::uint64_t seed, std::uint64_t stream,
                                                           std::uint64_t index) noexcept {
    return to_uniform(draw(seed, stream, index)[0]);
  }

  /// @brief Draw from the standard normal distribution (Box-Muller in double precision).
  /// @param seed what the user sets
  /// @param stream separates uses of one seed
  /// @param index element of the sequence
  /// @returns a number with mean 0 and variance 1
  /// @determinism equal for equal libm; host and device may differ in the last bit
  [[nodiscard]] FAIRLEAD_HD static double normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) noexcept {
    auto const words = draw(seed, stream, index);
    double const u = (static_cast<double>(words[0]) + 0.5) * 0x1p-32;
    double const v = (static_cast<double>(words[1]) + 0.5) * 0x1p-32;
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586476925286766559 * v);
  }

  /// @brief Draw an integer below a bound without bias worth mentioning (multiply-shift, bias < bound / 2^32).
  /// @param word random bits
  /// @param bound > 0
  /// @returns an integer in [0, bound)
  [[nodiscard]] FAIRLEAD_HD static constexpr std::uint32_t below(std::uint32_t word, std::uint32_t bound) noexcept {
    return static_cast<std::uint32_t>((std::uint64_t{word} * bound) >> 32U);
  }
};

FAIRLEAD_NAMESPACE_END
