// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How many tokens arrive in a slot: Poisson numbers that (seed, slot) name.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>
#include <fairlead/core/philox.hpp>

#include <cmath>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace workload {

/// @brief Describe independent Poisson arrivals, slot by slot.
///
/// Any slot is drawn alone, from one uniform number of 53 bits: strategies that are compared see the same arrivals, in
/// whatever order they ask. The law is inverted outwards from its mode: probabilities are taken from the number, largest
/// first, until it is used up. The probability of the mode is a saddle-point expansion without cancellation, so that large means
/// are as exact as small ones.
/// @source{kemp1991, Poisson random variate generation, search from the mode; loader2000, saddle-point expansion}
struct poisson_arrivals {
  double mean = 390.0;     ///< tokens a slot, 0 to 2^40
  std::uint64_t seed = 0;  ///< names the numbers

  /// The largest mean: beyond, a search from the mode would take millions of steps.
  static constexpr double max_mean = 0x1p40;

  /// @brief Draw the arrivals of a slot.
  /// @param slot number of the slot, below 2^40
  /// @returns tokens, >= 0
  /// @throws contract_violation (level 1) if the mean is negative, not finite or above `max_mean`
  /// @complexity O(1 + sqrt(mean)) expected, no allocation
  /// @determinism a function of (mean, seed, slot) for a given libm
  [[nodiscard]] index_t at(std::uint64_t slot) const {
    FAIRLEAD_EXPECTS(mean >= 0.0 && mean <= max_mean, "mean arrivals must be finite, not negative and at most 2^40", mean);
    auto const words = philox::draw(seed, (std::uint64_t{0x617272} << 40U) + slot, 0);
    std::uint64_t const bits = (static_cast<std::uint64_t>(words[0]) << 21U) | (words[1] >> 11U);
    double left = static_cast<double>(bits) * 0x1p-53;
    double const most = probability_of_mode();
    double const mode = std::floor(mean);
    if (left < most) { return static_cast<index_t>(mode); }
    left -= most;
    double above = most;
    double below = most;
    double high = mode;
    double low = mode;
    // What is left once both tails are this thin is the rounding of the sum.
    while (above > 1e-20 || below > 1e-20) {
      high += 1.0;
      above *= mean / high;
      if (left < above) { return static_cast<index_t>(high); }
      left -= above;
      below *= low / mean;  // 0 below 0
      if (low == 0.0) { continue; }
      low -= 1.0;
      if (left < below) { return static_cast<index_t>(low); }
      left -= below;
    }
    return static_cast<index_t>(mode);
  }

 private:
  [[nodiscard]] double probability_of_mode() const {
    double const mode = std::floor(mean);
    if (mode < 16.0) {
      double value = std::exp(-mean);
      for (double k = 1.0; k <= mode; k += 1.0) { value *= mean / k; }
      return value;
    }
    double const over = (mean - mode) / mode;
    double const inverse = 1.0 / mode;
    double const square = inverse * inverse;
    double const stirling = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    return std::exp(mode * (std::log1p(over) - over) - stirling) / std::sqrt(6.283185307179586476925286766559 * mode);
  }
};

}  // namespace workload
FAIRLEAD_NAMESPACE_END
