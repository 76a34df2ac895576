// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How uneven loads are, and what capacity and padding cost.
#include <fairlead/core/load.hpp>
#include <fairlead/core/row_groups.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
/// Pure functions over loads; each defines what no load at all means.
namespace metrics {

/// @brief The sum of some loads.
/// @tparam Count integer or floating type
/// @param loads any loads
/// @returns their sum, 0 if there are none; exact for integers up to 2^53
/// @complexity O(n), no allocation
template <class Count>
[[nodiscard]] double total(std::span<Count const> loads) noexcept {
  double sum = 0.0;
  for (Count const load : loads) { sum += static_cast<double>(load); }
  return sum;
}

/// @brief Largest load over mean load: how much longer the busiest takes than an even split would.
/// @param loads loads, >= 0
/// @returns max / mean in [1, n]; 1 if there is no load
/// @complexity O(n), no allocation
template <class Count>
[[nodiscard]] double imbalance(std::span<Count const> loads) noexcept {
  double const sum = total(loads);
  if (!(sum > 0.0)) { return 1.0; }
  Count const largest = *std::max_element(loads.begin(), loads.end());
  return static_cast<double>(largest) * static_cast<double>(loads.size()) / sum;
}

/// @brief MaxVio: how far the largest load is above the mean, in units of the mean.
/// @param loads loads, >= 0
/// @returns max / mean - 1; 0 if there is no load
/// @complexity O(n), no allocation
/// @source{2408.15664, Auxiliary-loss-free load balancing strategy for mixture-of-experts, MaxVio}
template <class Count>
[[nodiscard]] double max_violation(std::span<Count const> loads) noexcept {
  return imbalance(loads) - 1.0;
}

/// @brief Standard deviation (of the population) over mean.
/// @param loads loads, >= 0
/// @returns the coefficient of variation in [0, sqrt(n - 1)]; 0 if there is no load
/// @complexity O(n), no allocation
template <class Count>
[[nodiscard]] double coefficient_of_variation(std::span<Count const> loads) noexcept {
  double const sum = total(loads);
  if (!(sum > 0.0)) { return 0.0; }
  double const mean = sum / static_cast<double>(loads.size());
  double squares = 0.0;
  for (Count const load : loads) {
    double const off = static_cast<double>(load) - mean;
    squares += off * off;
  }
  return std::sqrt(squares / static_cast<double>(loads.size())) / mean;
}

/// @brief Entropy of the load shares over that of an even split.
/// @param loads loads, >= 0
/// @returns a number in [0, 1]: 1 = even, 0 = all on one; 1 if there is no load or only one place for it
/// @complexity O(n), no allocation
template <class Count>
[[nodiscard]] double normalised_entropy(std::span<Count const> loads) noexcept {
  double const sum = total(loads);
  if (!(sum > 0.0) || loads.size() < 2) { return 1.0; }
  double entropy = 0.0;
  for (Count const load : loads) {
    double const share = static_cast<double>(load) / sum;
    if (share > 0.0) { entropy -= share * std::log(share); }
  }
  return std::clamp(entropy / std::log(static_cast<double>(loads.size())), 0.0, 1.0);
}

/// @brief Share of the routed copies that lost their place.
/// @param routed copies before capacity, >= 0
/// @param kept copies after capacity, 0 <= kept <= routed
/// @returns (routed - kept) / routed; 0 if nothing was routed
/// @throws contract_violation (level 1) if kept is not in [0, routed]
/// @complexity O(1)
[[nodiscard]] inline double drop_rate(index_t routed, index_t kept) {
  FAIRLEAD_EXPECTS(kept >= 0 && kept <= routed, "kept copies must be in [0, routed]", kept, routed);
  return routed == 0 ? 0.0 : static_cast<double>(routed - kept) / static_cast<double>(routed);
}

/// @brief Share of copies that a fixed number of places per (source rank, expert) drops.
/// @param load copies before capacity. @shape{ranks x experts}
/// @param places copies that an expert takes from each rank, >= 0
/// @returns dropped / routed; 0 if there is no load
/// @throws contract_violation (level 1) on negative places
/// @complexity O(ranks x experts), no allocation
[[nodiscard]] inline double drop_rate(load_view load, index_t places) {
  FAIRLEAD_EXPECTS(places >= 0, "places must not be negative", places);
  index_t routed = 0;
  index_t kept = 0;
  for (index_t rank = 0; rank < load.rows(); ++rank) {
    for (index_t expert = 0; expert < load.cols(); ++expert) {
      routed += load(rank, expert);
      kept += std::min<index_t>(load(rank, expert), places);
    }
  }
  return drop_rate(routed, kept);
}

/// @brief Share of a buffer's rows that hold no token.
/// @param groups rows of a dispatched buffer
/// @returns (rows - rows in use) / rows; 0 if there are no rows
/// @complexity O(groups), no allocation
[[nodiscard]] inline double padding_waste(row_groups const& groups) noexcept {
  index_t const rows = groups.rows();
  return rows == 0 ? 0.0 : static_cast<double>(rows - groups.used()) / static_cast<double>(rows);
}

/// @brief Share of rows that padding every group to the same number of rows would waste.
/// @param loads rows in use of each group, >= 0
/// @param places rows of each group, at least the largest load
/// @returns wasted / all rows; 0 if there are no rows
/// @throws contract_violation (level 1) if a group does not fit
/// @complexity O(n), no allocation
template <class Count>
[[nodiscard]] double padding_waste(std::span<Count const> loads, index_t places) {
  FAIRLEAD_EXPECTS(loads.empty() || static_cast<index_t>(*std::max_element(loads.begin(), loads.end())) <= places,
                   "every load must fit its places", places);
  double const rows = static_cast<double>(places) * static_cast<double>(loads.size());
  return rows > 0.0 ? (rows - total(loads)) / rows : 0.0;
}

/// @brief `imbalance` of the copies per expert, summed over the source ranks.
/// @param load copies. @shape{ranks x experts}
/// @returns max / mean over experts; 1 if there is no load
/// @complexity O(ranks x experts), no allocation
[[nodiscard]] inline double imbalance(load_view load) noexcept {
  index_t largest = 0;
  index_t sum = 0;
  for (index_t expert = 0; expert < load.cols(); ++expert) {
    index_t copies = 0;
    for (index_t rank = 0; rank < load.rows(); ++rank) { copies += load(rank, expert); }
    largest = std::max(largest, copies);
    sum += copies;
  }
  return sum == 0 ? 1.0 : static_cast<double>(largest) * static_cast<double>(load.cols()) / static_cast<double>(sum);
}

}  // namespace metrics
FAIRLEAD_NAMESPACE_END
