// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The random numbers of one expert of one token.
#include <fairlead/core/numeric.hpp>
#include <fairlead/route/noise.hpp>

#include <array>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// A standard normal number from the words of four experts; the odd one of a pair is the sine of the same angle.
[[nodiscard]] FAIRLEAD_HD inline float normal_of(std::array<std::uint32_t, 4> const& words, unsigned position) noexcept {
  unsigned const pair = position & 2U;
  return numeric::normal(words[pair], words[pair + 1] - (position & 1U) * 0x40000000U);
}
/// Experts whose numbers are made together.
inline constexpr index_t normal_chunk = 64;
/// The standard normal numbers of experts [first, first + count) of a token; `first` is a multiple of 4.
inline void normal_numbers(route_context const& context, index_t row, index_t experts, index_t first, index_t count,
                           float* numbers) noexcept {
  // Words first: the loop over them has no branch and no call.
  std::uint32_t radius[normal_chunk];
  std::uint32_t angle[normal_chunk];
  for (index_t e = 0; e < count; e += 4) {
    auto const words = routing_words(context, row, (first + e) / 4, experts);
    for (unsigned i = 0; i < 4; ++i) {
      radius[e + i] = words[i & 2U];
      angle[e + i] = words[(i & 2U) + 1] - (i & 1U) * 0x40000000U;
    }
  }
  for (index_t e = 0; e < count; ++e) { numbers[e] = numeric::normal(radius[e], angle[e]); }
}
/// A standard Gumbel number, -log(-log u), from one word.
[[nodiscard]] FAIRLEAD_HD inline float gumbel_of(std::uint32_t word) noexcept {
  float const u = philox::to_uniform(word);
  float const waited = -numeric::log1p(u - 1.0F);  // exponential, in (2^-24, 17)
  return -numeric::log1p(waited - 1.0F);
}
/// Whether an expert may be chosen at all.
[[nodiscard]] FAIRLEAD_HD inline bool allows(route_context const& context, index_t expert) noexcept {
  return context.expert_mask.empty() || context.expert_mask[static_cast<std::size_t>(expert)] != 0;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
