// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What sending n copies to a server in a slot costs when its speed is then chosen best: convex in n.
#include <fairlead/concepts/energy_model.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/core/time_slot.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Drift plus penalty of a server with the square of the arrivals bounded away:
/// `h(n) = Q n + min over d of (w Z E(d) - (Q + V) d)`, 0 <= d <= cap and what can be served.
///
/// Energy budgets add a constant, which is left out. Convex in n. Where arrivals wait for the next slot, d does not depend on
/// n and h is a line: the problem is then that of `lyapunov_linear`.
/// @tparam Model a model of `energy_model`
/// @source{2512.06784, per-slot problem (reconstructed; service bounded by what is there is this library's reading)}
template <energy_model Model>
struct coupled_cost {
  slot_view const* view;          ///< the slot
  Model const* servers;           ///< what service costs
  std::span<double const> wanted{};  ///< best service without a bound by copies, or empty = calculated at each call. @shape{servers}

  /// @param server the server
  /// @param copies copies sent to it, >= 0
  /// @returns d: copies that are served
  [[nodiscard]] double service(index_t server, index_t copies) const {
    return std::min(wanted.empty() ? unbounded(server) : wanted[static_cast<std::size_t>(server)], view->servable(server, copies));
  }
  /// @param server the server
  /// @returns best service if there were copies without end
  [[nodiscard]] double unbounded(index_t server) const { return servers->best_service(server, reward(server), price(server)); }
  /// @param server the server
  /// @param copies copies sent to it, >= 0
  /// @returns h(copies)
  [[nodiscard]] double operator()(index_t server, index_t copies) const {
    double const d = service(server, copies);
    return backlog(server) * static_cast<double>(copies) - reward(server) * d + spent(server, d);
  }
  /// @param server the server
  /// @param from copies sent to it, >= 0
  /// @param to more copies
  /// @returns h(to) - h(from); the backlogs exactly where the service stays the same
  [[nodiscard]] double rise(index_t server, index_t from, index_t to) const {
    double const before = service(server, from);
    double const after = service(server, to);
    double const waiting = backlog(server) * static_cast<double>(to - from);
    if (before == after) { return waiting; }
    return waiting - reward(server) * (after - before) + (spent(server, after) - spent(server, before));
  }
  /// @param server the server
  /// @param copies copies sent to it, >= 0
  /// @returns h(copies + 1) - h(copies)
  [[nodiscard]] double marginal(index_t server, index_t copies) const { return rise(server, copies, copies + 1); }

 private:
  [[nodiscard]] double backlog(index_t server) const { return view->backlog[static_cast<std::size_t>(server)]; }
  [[nodiscard]] double reward(index_t server) const { return backlog(server) + view->weights.utility; }
  [[nodiscard]] double price(index_t server) const { return view->weights.energy * view->energy_debt[static_cast<std::size_t>(server)]; }
  // Free energy costs nothing, however much it is.
  [[nodiscard]] double spent(index_t server, double d) const {
    double const own = price(server);
    return own == 0.0 ? 0.0 : own * servers->energy(server, d);
  }
};

/// @brief The same with the square kept: `h(n) = min over d of ((Q + n - d)^2 / 2 - V d + w Z E(d))`.
///
/// Knows that a queue that grows in the slot is worth less: no herding, whatever V. The energy term stays linear in E.
/// @tparam Model a model of `energy_model`
/// @source{2512.06784, per-slot problem with the exact drift of the token queues (this library's variant)}
template <energy_model Model>
struct exact_drift_cost {
  slot_view const* view;  ///< the slot
  Model const* servers;   ///< what service costs

  /// @param server the server
  /// @param copies copies sent to it, >= 0
  /// @returns d: copies that are served
  [[nodiscard]] double service(index_t server, index_t copies) const {
    double const target = backlog(server) + static_cast<double>(copies) + view->weights.utility;
    return std::min(nearest_service(*servers, server, target, price(server)), view->servable(server, copies));
  }
  /// @param server the server
  /// @param copies copies sent to it, >= 0
  /// @returns h(copies)
  [[nodiscard]] double operator()(index_t server, index_t copies) const {
    double const d = service(server, copies);
    double const rest = backlog(server) + static_cast<double>(copies) - d;
    return 0.5 * rest * rest - view->weights.utility * d + spent(server, d);
  }
  /// @param server the server
  /// @param from copies sent to it, >= 0
  /// @param to more copies
  /// @returns h(to) - h(from)
  [[nodiscard]] double rise(index_t server, index_t from, index_t to) const {
    double const before = service(server, from);
    double const after = service(server, to);
    // The difference of the squares as a product: large backlogs cancel before they are squared.
    double const step = static_cast<double>(to - from) - (after - before);
    double const rest = backlog(server) + static_cast<double>(from) - before;
    return step * (rest + 0.5 * step) - view->weights.utility * (after - before) +
           (spent(server, after) - spent(server, before));
  }
  /// @param server the server
  /// @param copies copies sent to it, >= 0
  /// @returns h(copies + 1) - h(copies)
  [[nodiscard]] double marginal(index_t server, index_t copies) const { return rise(server, copies, copies + 1); }

 private:
  [[nodiscard]] double backlog(index_t server) const { return view->backlog[static_cast<std::size_t>(server)]; }
  [[nodiscard]] double price(index_t server) const { return view->weights.energy * view->energy_debt[static_cast<std::size_t>(server)]; }
  [[nodiscard]] double spent(index_t server, double d) const {
    double const own = price(server);
    return own == 0.0 ? 0.0 : own * servers->energy(server, d);
  }
};

/// @brief What a choice costs in a slot: `sum_j h_j(n_j) - V mu sum of the chosen scores`, with the best service.
/// @tparam Cost `coupled_cost` or `exact_drift_cost`
/// @param cost h
/// @param choice servers of each token. @shape{tokens x fan_out}
/// @param counts copies a server. @shape{servers}
/// @returns the objective, smaller is better
/// @throws contract_violation (level 1) on a shape mismatch
/// @complexity O(tokens x fan_out + servers), no allocation
template <class Cost>
[[nodiscard]] double slot_value(Cost const& cost, matrix_view<expert_id const> choice, std::span<index_t const> counts) {
  slot_view const& view = *cost.view;
  FAIRLEAD_EXPECTS(choice.rows() == view.tokens() && counts.size() == view.backlog.size(), "one row a token, one count a server",
                   choice.rows(), view.tokens(), counts.size(), view.backlog.size());
  double value = 0.0;
  for (std::size_t j = 0; j < counts.size(); ++j) { value += cost(static_cast<index_t>(j), counts[j]); }
  double mass = 0.0;
  for (index_t t = 0; t < choice.rows(); ++t) {
    for (index_t k = 0; k < choice.cols(); ++k) { mass += static_cast<double>(view.scores(t, to_index(choice(t, k)))); }
  }
  return value - view.weights.utility * view.weights.gate * mass;
}

FAIRLEAD_NAMESPACE_END
