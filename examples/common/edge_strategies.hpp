// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The servers and the routing strategies that the edge examples compare.
#include <fairlead/core/time_slot.hpp>
#include <fairlead/edge/frozen_routers.hpp>
#include <fairlead/edge/lyapunov_exact.hpp>
#include <fairlead/edge/lyapunov_linear.hpp>
#include <fairlead/edge/sequential_routers.hpp>
#include <fairlead/workload/zipf.hpp>

#include <cstdint>
#include <vector>

namespace examples {

/// @brief Energies of the weakest and of the strongest server; the others lie on a line between. @unit{J}
struct edge_energies {
  double least_cap = 3.0;       ///< cap of a slot, weakest
  double most_cap = 15.0;       ///< cap of a slot, strongest
  double least_budget = 1.5;    ///< average budget, weakest
  double most_budget = 9.5;     ///< average budget, strongest
};

/// @brief The parameters reported for the paper: caps of 3 to 15 J and budgets of 1.5 to 9.5 J, linear over the servers.
///
/// Which server has which expert is shuffled: else the expert that the gate likes might sit on a strong server by
/// construction.
/// @param servers how many, >= 1
/// @param seed of the shuffle
/// @param range energies, those of the paper by default
/// @returns their limits
inline std::vector<fairlead::server_limits> edge_servers(fairlead::index_t servers, std::uint64_t seed, edge_energies const& range = {}) {
  std::vector<fairlead::server_limits> all(static_cast<std::size_t>(servers));
  auto const order = fairlead::workload::shuffled_ids(servers, seed);
  for (fairlead::index_t i = 0; i < servers; ++i) {
    double const part = servers == 1 ? 0.0 : static_cast<double>(i) / static_cast<double>(servers - 1);
    all[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = {
        .energy_cap_j = range.least_cap + (range.most_cap - range.least_cap) * part,
        .energy_budget_j = range.least_budget + (range.most_budget - range.least_budget) * part};
  }
  return all;
}

/// @brief Call `f(name, router)` for every strategy: the paper's baselines A to D, classical policies, and the controller's rules.
/// @param f called with a name without spaces and a model of `slot_router`
template <class Function>
void each_strategy(Function&& f) {
  f("random", fairlead::random_servers{});            // A
  f("top_k", fairlead::score_first{});                // B
  f("queue_first", fairlead::queue_first{});          // C
  f("energy_first", fairlead::energy_first{});        // D
  f("shortest_queue", fairlead::join_shortest_queue{});
  f("shortest_delay", fairlead::shortest_delay{});
  f("max_weight", fairlead::max_weight{});
  f("linear", fairlead::lyapunov_linear{});
  f("convex", fairlead::lyapunov_convex{});
  f("exact_drift", fairlead::exact_drift{});
}

}  // namespace examples
