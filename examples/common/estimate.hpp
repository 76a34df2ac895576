// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A mean over seeds with its confidence interval.
#include <array>
#include <cmath>
#include <vector>

namespace examples {

/// @brief A mean over seeds, and half the width of its 95 % confidence interval by Student's t; 0 for one seed.
struct estimate {
  double mean = 0.0;  ///< mean
  double half = 0.0;  ///< mean - half ... mean + half

  /// @param values one a seed
  /// @returns their estimate
  static estimate of(std::vector<double> const& values) {
    static constexpr std::array<double, 9> quantile{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262};
    estimate made;
    auto const count = static_cast<double>(values.size());
    for (double const v : values) { made.mean += v / count; }
    if (values.size() < 2) { return made; }
    double squares = 0.0;
    for (double const v : values) { squares += (v - made.mean) * (v - made.mean); }
    double const freedom = count - 1.0;
    // Beyond the table, the first terms of the quantile's expansion around that of the normal law: right to three digits.
    double const t = values.size() - 2 < quantile.size() ? quantile[values.size() - 2] : 1.95996 + (2.3723 + 2.8225 / freedom) / freedom;
    made.half = t * std::sqrt(squares / freedom / count);
    return made;
  }
};

}  // namespace examples
