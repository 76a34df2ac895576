// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Closed forms of the queueing system: which arrival rates any router can carry, and the constant of the drift.
#include <fairlead/concepts/energy_model.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The most tokens a slot that some routing keeps stable: the largest l with `sum_j min(l, s_j) >= K l`.
///
/// A token uses K distinct servers, so that no server takes more than one copy of it. With the m servers that sustain least
/// saturated, l is (their sum) / (m - (J - K)); the least of these over m is the answer.
/// @tparam Model a model of `energy_model`
/// @param servers what they sustain
/// @param fan_out K, 1 to the number of servers
/// @param ws at least `workspace_bytes<double>(servers)` bytes
/// @returns tokens a slot
/// @throws contract_violation (level 1) if fan_out does not fit
/// @complexity O(servers log servers), no allocation
/// @source{2512.06784, stability region (derived; the paper gives none that could be read)}
template <energy_model Model>
[[nodiscard]] double stable_arrivals(Model const& servers, index_t fan_out, workspace& ws) {
  index_t const count = servers.servers();
  FAIRLEAD_EXPECTS(fan_out >= 1 && fan_out <= count, "a token needs fan_out distinct servers: fan_out must be between 1 and the number of servers", fan_out, count);
  workspace::scope const scope(ws);
  auto const sustained = ws.take<double>(count);
  for (index_t j = 0; j < count; ++j) { sustained[static_cast<std::size_t>(j)] = servers.sustained(j); }
  std::sort(sustained.begin(), sustained.end());
  double sum = 0.0;
  double least = std::numeric_limits<double>::infinity();
  for (index_t m = 1; m <= count; ++m) {
    sum += sustained[static_cast<std::size_t>(m - 1)];
    index_t const slope = m - (count - fan_out);
    if (slope >= 1) { least = std::min(least, sum / static_cast<double>(slope)); }
  }
  return least;
}

/// @brief The most tokens a slot that even shares of all servers keep stable: random choice, or a gate without favourites.
/// @tparam Model a model of `energy_model`
/// @param servers what they sustain
/// @param fan_out K, 1 to the number of servers
/// @returns tokens a slot: servers x least sustained / K
/// @throws contract_violation (level 1) if fan_out does not fit
/// @complexity O(servers), no allocation
template <energy_model Model>
[[nodiscard]] double evenly_stable_arrivals(Model const& servers, index_t fan_out) {
  index_t const count = servers.servers();
  FAIRLEAD_EXPECTS(fan_out >= 1 && fan_out <= count, "a token needs fan_out distinct servers: fan_out must be between 1 and the number of servers", fan_out, count);
  double least = servers.sustained(0);
  for (index_t j = 1; j < count; ++j) { least = std::min(least, servers.sustained(j)); }
  return least * static_cast<double>(count) / static_cast<double>(fan_out);
}

/// @brief The parts of the constant B in `drift - V utility <= B + ...`, for Poisson arrivals.
struct drift_bound {
  double arrivals = 0.0;  ///< half the second moment of what is sent, at most. @unit{copies^2}
  double service = 0.0;   ///< half the squared caps. @unit{copies^2}
  double energy = 0.0;    ///< half the squared distances from the budgets, at most, times w. @unit{copies^2}
  /// @returns B
  [[nodiscard]] constexpr double total() const noexcept { return arrivals + service + energy; }
};
/// @brief Bound the second-order terms of the drift of a slot.
///
/// Loose: simulations are near their limit at V far below B. Test trends, not the constant.
/// @tparam Model a model of `energy_model`
/// @param servers caps, budgets and energies
/// @param fan_out K, 1 to the number of servers
/// @param mean_arrivals tokens a slot, Poisson, >= 0
/// @param energy_weight w, >= 0
/// @returns the three parts of B
/// @throws contract_violation (level 1) if fan_out does not fit, or a number is negative or not finite
/// @complexity O(servers), no allocation
/// @source{neely2010, drift plus penalty}
template <energy_model Model>
[[nodiscard]] drift_bound drift_constant(Model const& servers, index_t fan_out, double mean_arrivals, double energy_weight = 1.0) {
  FAIRLEAD_EXPECTS(fan_out >= 1 && fan_out <= servers.servers(),
                   "a token needs fan_out distinct servers: fan_out must be between 1 and the number of servers", fan_out, servers.servers());
  FAIRLEAD_EXPECTS(mean_arrivals >= 0.0 && std::isfinite(mean_arrivals), "the rate of arrivals must be finite and not negative",
                   mean_arrivals);
  FAIRLEAD_EXPECTS(energy_weight >= 0.0 && std::isfinite(energy_weight), "the weight w must be finite and not negative", energy_weight);
  drift_bound bound;
  bound.arrivals = 0.5 * static_cast<double>(fan_out) * (mean_arrivals * mean_arrivals + mean_arrivals);
  for (index_t j = 0; j < servers.servers(); ++j) {
    double const cap = servers.cap(j);
    double const most = servers.energy(j, cap);
    double const distance = std::max(servers.budget(j), most - servers.budget(j));
    bound.service += 0.5 * cap * cap;
    bound.energy += 0.5 * energy_weight * distance * distance;
  }
  return bound;
}

FAIRLEAD_NAMESPACE_END
