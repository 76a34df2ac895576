// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Skewed popularities of experts, as shares and as whole numbers of copies.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>
#include <fairlead/core/philox.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace workload {

/// @brief Give the i-th most popular expert a share proportional to 1 / (i + 1)^exponent.
/// @param experts number of experts, >= 0
/// @param exponent 0 = uniform; 1 = the classic law; must be finite and not negative
/// @returns the shares, descending, with sum 1. @shape{experts}
/// @throws contract_violation (level 1) on a bad argument; std::bad_alloc
/// @complexity O(experts), allocates the result
/// @source{zipf1949, Human behavior and the principle of least effort, frequency law}
[[nodiscard]] inline std::vector<double> zipf_shares(index_t experts, double exponent) {
  FAIRLEAD_EXPECTS(experts >= 0, "the number of experts must not be negative", experts);
  FAIRLEAD_EXPECTS(exponent >= 0.0 && std::isfinite(exponent), "the exponent must be finite and not negative", exponent);
  std::vector<double> shares(static_cast<std::size_t>(experts));
  double sum = 0.0;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    shares[i] = std::pow(static_cast<double>(i + 1), -exponent);
    sum += shares[i];
  }
  for (double& share : shares) { share /= sum; }
  return shares;
}

/// @brief Turn shares into whole numbers with a given sum (largest remainders; ties to the lower index).
/// @param shares relative weights, finite, >= 0, not all zero unless `total` is 0
/// @param total what the numbers add up to, >= 0
/// @returns the numbers; each differs from total * share / sum of the shares by less than 1
/// @throws contract_violation (level 1: total; level 2: weights); std::bad_alloc
/// @complexity O(n log n), allocates
/// @determinism equal for equal shares
[[nodiscard]] inline std::vector<index_t> apportion(std::span<double const> shares, index_t total) {
  FAIRLEAD_EXPECTS(total >= 0, "the total must not be negative", total);
  double const sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  FAIRLEAD_EXPECTS_2(std::all_of(shares.begin(), shares.end(), [](double share) { return share >= 0.0; }),
                     "shares must not be negative", shares.size());
  FAIRLEAD_EXPECTS(total == 0 || (sum > 0.0 && std::isfinite(sum)), "shares must have a positive, finite sum", sum);
  std::vector<index_t> counts(shares.size(), 0);
  if (total == 0) { return counts; }
  std::vector<double> rests(shares.size());
  index_t given = 0;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    double const exact = static_cast<double>(total) * (shares[i] / sum);
    counts[i] = static_cast<index_t>(exact);
    rests[i] = exact - static_cast<double>(counts[i]);
    given += counts[i];
  }
  std::vector<std::size_t> order(shares.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&rests](std::size_t a, std::size_t b) {
    return rests[a] != rests[b] ? rests[a] > rests[b] : a < b;
  });
  // Rounding can push the floors one past the total: then the smallest remainders give back.
  for (std::size_t i = 0; given < total; i = (i + 1) % order.size()) { ++counts[order[i]], ++given; }
  for (std::size_t i = order.size(); given > total; i = (i == 1 ? order.size() : i - 1)) {
    if (counts[order[i - 1]] > 0) { --counts[order[i - 1]], --given; }
  }
  return counts;
}

/// @brief Spread copies over experts by the Zipf law.
/// @param experts number of experts, >= 0 (>= 1 if there are copies)
/// @param copies number of copies, >= 0
/// @param exponent 0 = uniform
/// @returns copies per expert, descending, with sum `copies`. @shape{experts}
/// @throws contract_violation (level 1) on a bad argument; std::bad_alloc
/// @complexity O(experts log experts), allocates
[[nodiscard]] inline std::vector<index_t> zipf_counts(index_t experts, index_t copies, double exponent) {
  return apportion(zipf_shares(experts, exponent), copies);
}

/// @brief Shuffle 0 ... n - 1 (Fisher-Yates with counter-based random numbers).
/// @param n number of elements, 0 <= n < 2^31
/// @param seed names the permutation
/// @returns the permutation
/// @throws contract_violation (level 1) on a bad n; std::bad_alloc
/// @complexity O(n), allocates the result
/// @determinism exact: equal on every rank
[[nodiscard]] inline std::vector<std::int32_t> shuffled_ids(index_t n, std::uint64_t seed) {
  FAIRLEAD_EXPECTS(n >= 0 && n <= INT32_MAX, "the number of ids must be in [0, 2^31)", n);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  for (std::size_t left = ids.size(); left > 1; --left) {
    std::uint32_t const word = philox::draw(seed, 0x73687566, left)[0];
    std::swap(ids[left - 1], ids[philox::below(word, static_cast<std::uint32_t>(left))]);
  }
  return ids;
}

}  // namespace workload
FAIRLEAD_NAMESPACE_END
