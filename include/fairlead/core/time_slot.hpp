// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Time slots over servers with queues: limits of a server, weights of the goals, and what is known in a slot.
#include <fairlead/core/matrix_view.hpp>

#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief What one server can do: the defaults are a 3 GHz processor with the parameters reported for the paper.
/// @source{2512.06784, parameters as two summaries report them; the text itself was not readable}
struct server_limits {
  double energy_cap_j = 9.0;         ///< most energy of a slot, > 0. @unit{J}
  double energy_budget_j = 5.0;      ///< long-run average energy of a slot, > 0. @unit{J}
  double max_frequency_hz = 3e9;     ///< highest frequency, > 0. @unit{Hz}
  double cycles_per_copy = 1e7;      ///< cycles that a copy takes, > 0
  double capacitance = 2e-27;        ///< kappa: power is kappa f^3, > 0. @unit{W s^3}
};

/// @brief How much the goals of a controller count against each other.
///
/// Backlogs are in copies and energies in joules, so that `energy` converts one square into the other; the numbers matter
/// as much as the rule. The paper's values are not known: these are this library's choice.
struct slot_weights {
  double utility = 100.0;  ///< V: utility against stable queues, >= 0. @unit{copies}
  double gate = 1.0;       ///< mu: gate scores against copies served, >= 0
  double energy = 1.0;     ///< w: virtual energy queues against token queues, >= 0. @unit{copies^2 / J^2}
};

/// @brief What a router and a speed rule know in a slot: scores and the state at its beginning, nothing of the future.
///
/// Server j runs expert j.
struct slot_view {
  matrix_view<float const> scores;          ///< gate scores of the arrivals, finite, usually in [0, 1]. @shape{tokens x servers}
  std::span<double const> backlog;          ///< Q, copies that wait, fractional service subtracted. @shape{servers}
  std::span<double const> energy_debt;      ///< Z, virtual energy queues. @unit{J} @shape{servers}
  slot_weights weights{};                   ///< how much the goals count
  index_t fan_out = 1;                      ///< K, servers a token, distinct
  bool serves_arrivals = true;              ///< whether a copy may be served in the slot of its arrival
  std::uint64_t slot = 0;                   ///< number of the slot
  std::uint64_t first_token = 0;            ///< number of row 0, counted over all slots
  std::uint64_t seed = 0;                   ///< seed of random choices

  /// @returns tokens that arrived
  [[nodiscard]] constexpr index_t tokens() const noexcept { return scores.rows(); }
  /// @returns number of servers
  [[nodiscard]] constexpr index_t servers() const noexcept { return static_cast<index_t>(backlog.size()); }
  /// @param server the server
  /// @param copies copies sent to it in this slot
  /// @returns copies that it may serve in this slot
  [[nodiscard]] constexpr double servable(index_t server, index_t copies) const noexcept {
    double const waiting = backlog[static_cast<std::size_t>(server)];
    return serves_arrivals ? waiting + static_cast<double>(copies) : waiting;
  }
};

FAIRLEAD_NAMESPACE_END
