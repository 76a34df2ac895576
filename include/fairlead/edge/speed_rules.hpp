// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How many copies each server serves in a slot: the closed forms of the controller, and fixed rules for comparison.
#include <fairlead/concepts/speed_rule.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/edge/cubic_energy.hpp>

#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The service that makes `w Z E(d) - (Q + V) d` least; the cap while a server owes no energy.
/// @complexity O(servers), no allocation
/// @source{2512.06784, frequency per slot (reconstructed)}
struct closed_form_speed {
  /// @brief Choose the service of each server.
  /// @param view the slot
  /// @param servers the energy model
  /// @param[out] service copies. @shape{servers}
  template <energy_model Model>
  void speeds(slot_view const& view, Model const& servers, std::span<index_t const>, std::span<double> service) const {
    for (std::size_t j = 0; j < service.size(); ++j) {
      service[j] = servers.best_service(static_cast<index_t>(j), view.backlog[j] + view.weights.utility,
                                        view.weights.energy * view.energy_debt[j]);
    }
  }
};
static_assert(speed_rule<closed_form_speed, cubic_energy>);

/// @brief The service that makes `w Z E(d) + (Q + A - d)^2 / 2 - V d` least: what `exact_drift` counts with.
/// @complexity O(servers), no allocation
/// @source{2512.06784, frequency per slot with the squared backlog kept (this library's variant)}
struct exact_drift_speed {
  /// @brief Choose the service of each server.
  /// @param view the slot
  /// @param servers the energy model
  /// @param counts copies sent. @shape{servers}
  /// @param[out] service copies. @shape{servers}
  template <energy_model Model>
  void speeds(slot_view const& view, Model const& servers, std::span<index_t const> counts, std::span<double> service) const {
    for (std::size_t j = 0; j < service.size(); ++j) {
      double const target = view.backlog[j] + static_cast<double>(counts[j]) + view.weights.utility;
      service[j] = nearest_service(servers, static_cast<index_t>(j), target, view.weights.energy * view.energy_debt[j]);
    }
  }
};
static_assert(speed_rule<exact_drift_speed, cubic_energy>);

/// @brief A fixed share of what the highest frequency and the energy cap allow, whatever the budget.
struct fixed_speed {
  double share = 1.0;  ///< of the cap, 0 to 1

  /// @brief Choose the service of each server.
  /// @param servers the energy model
  /// @param[out] service copies. @shape{servers}
  /// @throws contract_violation (level 1) if the share is not in [0, 1]
  template <energy_model Model>
  void speeds(slot_view const&, Model const& servers, std::span<index_t const>, std::span<double> service) const {
    FAIRLEAD_EXPECTS(share >= 0.0 && share <= 1.0, "a fixed speed is a share of the cap, 0 to 1", share);
    for (std::size_t j = 0; j < service.size(); ++j) { service[j] = share * servers.cap(static_cast<index_t>(j)); }
  }
};
static_assert(speed_rule<fixed_speed, cubic_energy>);

/// @brief The speed whose energy is the average budget: no slot is above it, and what a slot leaves is lost.
struct average_budget_speed {
  /// @brief Choose the service of each server.
  /// @param servers the energy model
  /// @param[out] service copies. @shape{servers}
  template <energy_model Model>
  void speeds(slot_view const&, Model const& servers, std::span<index_t const>, std::span<double> service) const {
    for (std::size_t j = 0; j < service.size(); ++j) { service[j] = servers.sustained(static_cast<index_t>(j)); }
  }
};
static_assert(speed_rule<average_budget_speed, cubic_energy>);

FAIRLEAD_NAMESPACE_END
