// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Energy that grows with the cube of the speed: processors whose frequency can be chosen.
#include <fairlead/concepts/energy_model.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/core/time_slot.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief A server at frequency f takes kappa f^3 tau joules in a slot of tau seconds and serves f tau / c copies.
///
/// So d copies cost a d^3 with a = kappa c^3 / tau^2, and both closed forms below follow. Running slower for the whole slot
/// is cheaper than racing and idling. The energy formula is reconstructed: the paper's own was not readable.
/// @source{2512.06784, system model (reconstructed)}
class cubic_energy {
 public:
  /// No server.
  cubic_energy() = default;
  /// @brief Prepare the coefficients of some servers.
  /// @param servers their limits
  /// @param slot_s length of a slot, > 0. @unit{s}
  /// @throws contract_violation (level 1) if a limit is not positive and finite; std::bad_alloc
  /// @complexity O(servers), allocates
  explicit cubic_energy(std::span<server_limits const> servers, double slot_s = 1.0) {
    FAIRLEAD_EXPECTS(slot_s > 0.0 && std::isfinite(slot_s), "a slot takes a positive time", slot_s);
    coefficients_.reserve(servers.size());
    for (std::size_t j = 0; j < servers.size(); ++j) {
      server_limits const& s = servers[j];
      FAIRLEAD_EXPECTS(positive(s.energy_budget_j),
                       "a server needs a positive energy budget, else no service can be sustained: leave the server out", j,
                       s.energy_budget_j);
      FAIRLEAD_EXPECTS(positive(s.energy_cap_j), "a server needs a positive energy cap of a slot", j, s.energy_cap_j);
      FAIRLEAD_EXPECTS(positive(s.max_frequency_hz), "the highest frequency of a server must be positive", j, s.max_frequency_hz);
      FAIRLEAD_EXPECTS(positive(s.cycles_per_copy), "the cycles that a copy takes must be positive", j, s.cycles_per_copy);
      FAIRLEAD_EXPECTS(positive(s.capacitance), "the capacitance must be positive; energy that nobody counts is `unmetered`", j,
                       s.capacitance);
      double const joules = s.capacitance * s.cycles_per_copy * s.cycles_per_copy * s.cycles_per_copy / (slot_s * slot_s);
      double const fastest = s.max_frequency_hz * slot_s / s.cycles_per_copy;
      FAIRLEAD_EXPECTS(positive(joules) && positive(fastest), "the energy of a copy leaves the range of numbers: check the units", j,
                       joules, fastest);
      double const cap = std::min(fastest, std::cbrt(s.energy_cap_j / joules));
      coefficients_.push_back({joules, cap, s.energy_budget_j, std::min(cap, std::cbrt(s.energy_budget_j / joules))});
    }
  }

  /// @returns number of servers
  [[nodiscard]] index_t servers() const noexcept { return static_cast<index_t>(coefficients_.size()); }
  /// @param server the server
  /// @returns a: the energy of the first copy. @unit{J / copies^3}
  [[nodiscard]] double coefficient(index_t server) const noexcept { return at(server).joules; }
  /// @param server the server
  /// @param copies copies served in a slot, >= 0
  /// @returns energy. @unit{J}
  [[nodiscard]] double energy(index_t server, double copies) const noexcept {
    return at(server).joules * copies * copies * copies;
  }
  /// @param server the server
  /// @returns most copies of a slot: highest frequency and energy cap
  [[nodiscard]] double cap(index_t server) const noexcept { return at(server).cap; }
  /// @param server the server
  /// @returns average energy of a slot. @unit{J}
  [[nodiscard]] double budget(index_t server) const noexcept { return at(server).budget; }
  /// @param server the server
  /// @returns copies of a slot that cost the budget, at most the cap
  [[nodiscard]] double sustained(index_t server) const noexcept { return at(server).sustained; }
  /// @brief The copies that make `price a d^3 - reward d` least: sqrt(reward / (3 price a)), at most the cap.
  /// @param server the server
  /// @param reward what a copy is worth; nothing is served for a negative one
  /// @param price what a joule costs, >= 0
  /// @returns copies; the cap if energy is free
  [[nodiscard]] double best_service(index_t server, double reward, double price) const noexcept {
    coefficients const& own = at(server);
    double const cost = 3.0 * price * own.joules;
    if (!(cost > 0.0)) { return own.cap; }
    return std::min(std::sqrt(std::max(reward, 0.0) / cost), own.cap);
  }
  /// @brief The copies that make `price a d^3 + (d - target)^2 / 2` least.
  /// @param server the server
  /// @param target copies that free energy would serve
  /// @param price what a joule costs, >= 0
  /// @returns copies, 0 to the cap
  [[nodiscard]] double nearest_service(index_t server, double target, double price) const noexcept {
    coefficients const& own = at(server);
    double const wanted = std::max(target, 0.0);
    double const q = 3.0 * price * own.joules;
    // (-1 + sqrt(1 + 4 q t)) / (2 q), in the form that neither cancels nor divides by zero.
    return std::min(2.0 * wanted / (1.0 + std::sqrt(1.0 + 4.0 * q * wanted)), own.cap);
  }

 private:
  struct coefficients {
    double joules = 0.0;
    double cap = 0.0;
    double budget = 0.0;
    double sustained = 0.0;
  };
  [[nodiscard]] static bool positive(double value) noexcept { return value > 0.0 && std::isfinite(value); }
  [[nodiscard]] coefficients const& at(index_t server) const noexcept { return coefficients_[static_cast<std::size_t>(server)]; }

  std::vector<coefficients> coefficients_;
};
static_assert(has_nearest_service<cubic_energy>);

FAIRLEAD_NAMESPACE_END
