// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Slot routers for comparison that count what the slot's earlier tokens chose: shortest queue, shortest delay.
#include <fairlead/edge/cubic_energy.hpp>
#include <fairlead/edge/detail/select_servers.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {
/// Token after token: `key(server, copies so far)`.
template <tie_break Ties, class Key>
void route_one_by_one(slot_view const& view, Ties const& ties, Key const& key, matrix_view<expert_id> choice,
                      std::span<index_t> counts, workspace& ws) {
  auto const best = ws.take<double>(view.fan_out);
  std::fill(counts.begin(), counts.end(), index_t{0});
  for (index_t t = 0; t < view.tokens(); ++t) {
    select_servers(view, t, ties, [&](index_t j) { return key(j, counts[static_cast<std::size_t>(j)]); }, best, choice.row(t));
    add_counts(choice.row(t), view.fan_out, counts);
  }
}
}  // namespace detail

/// @brief Join the shortest queue, one token after the other: the K least of Q + copies already sent in this slot.
///
/// Throughput-optimal with a common service rule, and blind to the gate.
/// @complexity O(tokens x servers x fan_out), no allocation
/// @source{winston1977, optimality of the shortest line discipline}
struct join_shortest_queue {
  /// @param fan_out servers a token
  /// @returns scratch bytes of `route`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t, index_t, index_t fan_out) const noexcept {
    return fairlead::workspace_bytes<double>(fan_out);
  }
  /// See `lyapunov_linear::route`.
  template <energy_model Model, tie_break Ties>
  void route(slot_view const& view, Model const& servers, Ties const& ties, matrix_view<expert_id> choice,
             std::span<index_t> counts, workspace& ws) const {
    detail::check_slot(view, servers.servers(), choice, counts);
    workspace::scope const scope(ws);
    detail::route_one_by_one(
        view, ties, [&](index_t j, index_t sent) { return -(view.backlog[static_cast<std::size_t>(j)] + static_cast<double>(sent)); },
        choice, counts, ws);
  }
};
static_assert(slot_router<join_shortest_queue, cubic_energy, ties_by_id>);

/// @brief The shortest expected delay, one token after the other: the K least of (Q + copies already sent + 1) / rate.
///
/// The rate is what the server can sustain within its energy budget.
/// @complexity O(tokens x servers x fan_out), no allocation
/// @source{banawan1992, shortest expected delay routing}
struct shortest_delay {
  /// @param servers number of servers
  /// @param fan_out servers a token
  /// @returns scratch bytes of `route`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t, index_t servers, index_t fan_out) const noexcept {
    return fairlead::workspace_bytes<double>(servers) + fairlead::workspace_bytes<double>(fan_out);
  }
  /// See `lyapunov_linear::route`.
  template <energy_model Model, tie_break Ties>
  void route(slot_view const& view, Model const& servers, Ties const& ties, matrix_view<expert_id> choice,
             std::span<index_t> counts, workspace& ws) const {
    detail::check_slot(view, servers.servers(), choice, counts);
    workspace::scope const scope(ws);
    auto const rates = ws.take<double>(view.servers());
    for (index_t j = 0; j < view.servers(); ++j) { rates[static_cast<std::size_t>(j)] = servers.sustained(j); }
    detail::route_one_by_one(
        view, ties,
        [&](index_t j, index_t sent) {
          auto const server = static_cast<std::size_t>(j);
          return -(view.backlog[server] + static_cast<double>(sent) + 1.0) / rates[server];
        },
        choice, counts, ws);
  }
};
static_assert(slot_router<shortest_delay, cubic_energy, ties_by_id>);

FAIRLEAD_NAMESPACE_END
