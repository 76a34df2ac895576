// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Send each token to the servers with the best gate score less backlog.
#include <fairlead/edge/cubic_energy.hpp>
#include <fairlead/edge/detail/select_servers.hpp>

#include <cstddef>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The K largest of `V mu g - Q`: drift plus penalty when service does not depend on this slot's arrivals.
///
/// The cheapest rule. The backlog is frozen inside a slot: where `V mu` is far below the differences of backlogs, all tokens of
/// a slot go to the same K shortest queues and backlogs swing. Then take `lyapunov_convex` or `exact_drift`. With V = 0 it is
/// least-loaded routing, with large V the gate's own choice.
/// @complexity O(tokens x servers x fan_out), no allocation
/// @determinism exact: equal keys by the tie policy
/// @source{2512.06784, routing per slot (reconstructed: the text was not readable, the form follows from the theory)}
struct lyapunov_linear {
  /// @param fan_out servers a token
  /// @returns scratch bytes of `route`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t, index_t, index_t fan_out) const noexcept {
    return fairlead::workspace_bytes<double>(fan_out);
  }
  /// @brief Choose servers.
  /// @param view scores and state
  /// @param servers the energy model, not looked at
  /// @param ties who wins with equal keys
  /// @param[out] choice @shape{tokens x fan_out}, best first
  /// @param[out] counts copies a server. @shape{servers}
  /// @param ws at least `workspace_bytes(tokens, servers, fan_out)`
  /// @throws contract_violation (level 1) on wrong shapes, fan_out or weights; (level 2) on scores that are not finite
  template <energy_model Model, tie_break Ties>
  void route(slot_view const& view, Model const& servers, Ties const& ties, matrix_view<expert_id> choice,
             std::span<index_t> counts, workspace& ws) const {
    detail::check_slot(view, servers.servers(), choice, counts);
    double const scale = view.weights.utility * view.weights.gate;
    double const* const backlog = view.backlog.data();
    detail::route_by_keys(view, ties,
                          [&](index_t t, index_t j) { return scale * static_cast<double>(view.scores(t, j)) - backlog[j]; },
                          choice, counts, ws);
  }
};
static_assert(slot_router<lyapunov_linear, cubic_energy, ties_by_id>);

FAIRLEAD_NAMESPACE_END
