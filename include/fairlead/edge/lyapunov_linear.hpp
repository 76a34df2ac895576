// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Send each token to the servers with the best gate score less backlog.
#include <fairlead/edge/cubic_energy.hpp>
#include <fairlead/edge/keyed_router.hpp>

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
struct lyapunov_linear : keyed_router<lyapunov_linear, token_keys> {
  /// @param view scores and backlogs
  /// @returns `V mu g - Q`
  template <energy_model Model>
  [[nodiscard]] auto keys(slot_view const& view, Model const&, std::span<double>) const {
    return [&view, scale = view.weights.utility * view.weights.gate, backlog = view.backlog.data()](index_t t, index_t j) {
      return scale * static_cast<double>(view.scores(t, j)) - backlog[j];
    };
  }
};
static_assert(slot_router<lyapunov_linear, cubic_energy, ties_by_id>);

FAIRLEAD_NAMESPACE_END
