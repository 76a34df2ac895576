// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Slot routers for comparison that count what the slot's earlier tokens chose: shortest queue, shortest delay.
#include <fairlead/edge/cubic_energy.hpp>
#include <fairlead/edge/keyed_router.hpp>

#include <cstddef>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Join the shortest queue, one token after the other: the K least of Q + copies already sent in this slot.
///
/// Throughput-optimal with a common service rule, and blind to the gate.
/// @complexity O(tokens x servers x fan_out), no allocation
/// @source{winston1977, optimality of the shortest line discipline}
struct join_shortest_queue : keyed_router<join_shortest_queue, running_keys> {
  /// @param view backlogs
  /// @returns -(Q + sent) of a server
  template <energy_model Model>
  [[nodiscard]] auto keys(slot_view const& view, Model const&, std::span<double>) const {
    return [&view](index_t server, index_t sent) {
      return -(view.backlog[static_cast<std::size_t>(server)] + static_cast<double>(sent));
    };
  }
};
static_assert(slot_router<join_shortest_queue, cubic_energy, ties_by_id>);

/// @brief The shortest expected delay, one token after the other: the K least of (Q + copies already sent + 1) / rate.
///
/// The rate is what the server can sustain within its energy budget.
/// @complexity O(tokens x servers x fan_out), no allocation
/// @source{banawan1992, shortest expected delay routing}
struct shortest_delay : keyed_router<shortest_delay, running_keys> {
  /// @param view backlogs
  /// @param servers what they sustain
  /// @param rates where that goes
  /// @returns less the delay of one copy more at a server
  template <energy_model Model>
  [[nodiscard]] auto keys(slot_view const& view, Model const& servers, std::span<double> rates) const {
    for (std::size_t j = 0; j < rates.size(); ++j) { rates[j] = servers.sustained(static_cast<index_t>(j)); }
    return [&view, rates](index_t server, index_t sent) {
      auto const j = static_cast<std::size_t>(server);
      return -(view.backlog[j] + static_cast<double>(sent) + 1.0) / rates[j];
    };
  }
};
static_assert(slot_router<shortest_delay, cubic_energy, ties_by_id>);

FAIRLEAD_NAMESPACE_END
