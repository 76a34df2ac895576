// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Go on a few micro-batches along the straight line through past loads.
#include <fairlead/core/load.hpp>
#include <fairlead/place/detail/counting.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Predict the totals of a coming micro-batch by a least-squares line through the samples of each expert.
///
/// For loads with a trend and a plan that is old when it is used. On loads that only fluctuate it is worse than the mean:
/// with n samples a prediction one step ahead has (4 n + 2) / (n (n - 1)) of a sample's variance, their mean 1 / n.
/// This library's choice: papers plan from the last load, a window or a moving average.
struct linear_trend {
  index_t ahead = 1;  ///< micro-batches behind the last sample, >= 0

  /// @brief Predict.
  /// @param load what is known; one sample, or none, is taken as it is
  /// @param[out] totals copies an expert of that micro-batch, rounded to the nearest, not below 0. @shape{experts}
  /// @throws contract_violation (level 1) on a shape mismatch or a negative `ahead`
  /// @complexity O(samples x experts), no allocation
  /// @determinism exact integers: equal on every rank
  void predict(load_estimate const& load, std::span<index_t> totals) const {
    FAIRLEAD_EXPECTS(totals.size() == load.totals.size(), "one total an expert", totals.size(), load.totals.size());
    FAIRLEAD_EXPECTS(ahead >= 0, "a prediction does not go back", ahead);
    index_t const n = load.samples.rows();
    if (n == 0) {
      std::copy(load.totals.begin(), load.totals.end(), totals.begin());
      return;
    }
    FAIRLEAD_EXPECTS(load.samples.cols() == static_cast<index_t>(totals.size()), "one column an expert", load.samples.cols(), totals.size());
    using detail::replica_counts::wide;
    for (index_t e = 0; e < load.samples.cols(); ++e) {
      wide sum = 0;
      wide moment = 0;  // around the middle of the samples, times two
      for (index_t i = 0; i < n; ++i) {
        sum += load.samples(i, e);
        moment += static_cast<wide>(2 * i - (n - 1)) * load.samples(i, e);
      }
      // mean + slope x distance from the middle, over one denominator
      wide const above = n == 1 ? sum : sum * (n * n - 1) + 3 * moment * (n - 1 + 2 * ahead);
      wide const below = n == 1 ? 1 : static_cast<wide>(n) * (n * n - 1);
      totals[static_cast<std::size_t>(e)] = above <= 0 ? 0 : static_cast<index_t>((2 * above + below) / (2 * below));
    }
  }
};

FAIRLEAD_NAMESPACE_END
