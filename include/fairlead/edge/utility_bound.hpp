// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The most utility that any strategy reaches in the long run, with all arrivals known: what controllers are measured by.
#include <fairlead/concepts/energy_model.hpp>
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/core/time_slot.hpp>
#include <fairlead/edge/detail/select_servers.hpp>
#include <fairlead/flow/convex_choice.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief What `utility_bound` says, all per slot: `bound` on the utility, and `value`, the utility of whole copies that keep
/// to the same limits. The best lies between; the two differ by less than what one copy of each server is worth.
struct utility_bound_report : report {
  double copies = 0.0;     ///< copies served: all of them
  double gate_mass = 0.0;  ///< sum of the scores that the whole copies choose; some sum where mu is 0
  /// @returns how far the bound may lie above the best, 0 if infeasible; +inf if only fractions of copies fit
  [[nodiscard]] constexpr double gap() const noexcept { return bound > value ? bound - value : 0.0; }
};

/// @brief An upper bound on the average utility of a slot, by linear programming over all slots at once.
///
/// Given all tokens of T slots, maximise (copies served + mu x chosen scores) / T, where each token is shared over K
/// distinct servers, in fractions at will, and server j takes at most `sustained(j) T` copies. Order and slots of
/// arrival are ignored. All copies are served then, so that it is an assignment with capacities. Its prices make the bound, with the
/// capacities as they are: any fraction counts.
///
/// It bounds every strategy that ends without backlog and energy debt, whatever it knows, since energy is convex: who keeps
/// to a budget on average serves at most `sustained(j)` a slot on average. So it bounds the long-run average of
/// whatever keeps queues and budgets stable. In a finite time a strategy may spend more energy than its budget, and
/// then exceed it; by how much at most is `utility_allowance`.
/// @source{neely2010, optimal stationary policy; the prices and the correction on paths: own}
struct utility_bound {
  convex_choice solver{};  ///< who solves the assignment

  /// @param tokens tokens of all slots, within the limits of `convex_choice`
  /// @param servers number of servers
  /// @param fan_out K
  /// @returns scratch bytes of `solve`
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t servers, index_t fan_out) const {
    return solver.workspace_bytes(tokens, servers, fan_out) + fairlead::workspace_bytes<expert_id>(tokens * fan_out) +
           fairlead::workspace_bytes<index_t>(servers) * 2 + fairlead::workspace_bytes<double>(servers) * 2;
  }

  /// @brief Bound the utility.
  /// @tparam Backend a model of `host_backend`
  /// @tparam Model a model of `energy_model`
  /// @param on backend
  /// @param scores gate scores of all tokens that are let in, finite. @shape{tokens x servers}
  /// @param slots T, >= 1
  /// @param servers what they sustain
  /// @param fan_out K, 1 to the number of servers
  /// @param weights of which mu counts
  /// @param ws at least `workspace_bytes(tokens, servers, fan_out)`
  /// @param[out] prices what one copy more of a server is worth to the whole, >= 0; empty = not wanted. @shape{servers or 0}
  /// @returns `ok`; `infeasible`: not even fractions of these tokens can be sustained, which are more than `stable_arrivals` a
  ///          slot (bound and value -inf, prices 0). `value` is -inf if the bound holds, but whole copies do not fit
  /// @throws contract_violation (level 1) on shapes, fan_out, slots or a negative mu; (level 2) on scores that are not finite
  /// @complexity that of `convex_choice`; no allocation
  /// @determinism equal bits for every host backend and number of threads
  template <host_backend Backend, energy_model Model>
  utility_bound_report solve(Backend const& on, matrix_view<float const> scores, index_t slots, Model const& servers,
                             index_t fan_out, slot_weights const& weights, workspace& ws, std::span<double> prices = {}) const {
    index_t const tokens = scores.rows();
    index_t const count = servers.servers();
    FAIRLEAD_EXPECTS(slots >= 1, "there must be a slot", slots);
    FAIRLEAD_EXPECTS(tokens == 0 || scores.cols() == count, "one score a server", scores.cols(), count);
    FAIRLEAD_EXPECTS(fan_out >= 1 && fan_out <= count,
                     "a token needs fan_out distinct servers: fan_out must be between 1 and the number of servers", fan_out, count);
    FAIRLEAD_EXPECTS(prices.empty() || static_cast<index_t>(prices.size()) == count, "prices must be one a server or none",
                     prices.size(), count);
    FAIRLEAD_EXPECTS_2(detail::finite_scores(scores), "gate scores must be finite");
    utility_bound_report result;
    std::fill(prices.begin(), prices.end(), 0.0);
    if (tokens == 0) { return result; }

    workspace::scope const scope(ws);
    auto const capacity = ws.take<double>(count);
    auto const price = ws.take<double>(count);
    auto const whole = ws.take<index_t>(count);
    auto const counts = ws.take<index_t>(count);
    matrix_view<expert_id> const choices(ws.take<expert_id>(tokens * fan_out).data(), tokens, fan_out);
    auto const time = static_cast<double>(slots);
    double room = 0.0;
    for (index_t j = 0; j < count; ++j) {
      // No server takes a token twice.
      capacity[at(j)] = std::min(servers.sustained(j) * time, static_cast<double>(tokens));
      whole[at(j)] = static_cast<index_t>(std::floor(capacity[at(j)]));
      room += capacity[at(j)];
    }
    auto const copies = static_cast<double>(tokens * fan_out);
    if (room < copies) { return fail(result); }

    convex_choice_problem const problem{.scores = scores, .fan_out = fan_out, .scale = weights.gate};
    convex_choice_result const answer{.choices = choices, .counts = counts, .prices = price};
    convex_choice_report solved = solver.solve(on, problem, closed_when_full{whole.data()}, answer, ws);
    bool const fits = solved.status != status::infeasible && choices(0, 0) != expert_id::none;
    if (solved.status == status::infeasible) {
      for (index_t j = 0; j < count; ++j) { whole[at(j)] = static_cast<index_t>(std::ceil(capacity[at(j)])); }
      solved = solver.solve(on, problem, closed_when_full{whole.data()}, answer, ws);
    }
    if (solved.status == status::infeasible) { return fail(result); }  // scores of NaN, which level 2 refuses
    // What these prices prove for the capacities as they are.
    double bound = copies - solved.bound;
    for (index_t j = 0; j < count; ++j) {
      price[at(j)] = std::max(price[at(j)], 0.0);
      bound += (capacity[at(j)] - static_cast<double>(whole[at(j)])) * price[at(j)];
    }
    std::copy_n(price.begin(), prices.size(), prices.begin());
    double mass = 0.0;
    for (index_t t = 0; t < tokens && fits; ++t) {
      for (index_t k = 0; k < fan_out; ++k) { mass += static_cast<double>(scores(t, to_index(choices(t, k)))); }
    }
    result.iterations = solved.iterations;
    result.bound = bound / time;
    result.copies = copies / time;
    result.gate_mass = fits ? mass / time : 0.0;
    result.value = fits ? result.copies + weights.gate * result.gate_mass : -std::numeric_limits<double>::infinity();
    return result;
  }

 private:
  struct closed_when_full {
    index_t const* capacity;
    double operator()(index_t server, index_t copies) const {
      return copies < capacity[server] ? 0.0 : std::numeric_limits<double>::infinity();
    }
    double total(index_t, index_t) const { return 0.0; }
  };
  [[nodiscard]] static std::size_t at(index_t j) noexcept { return static_cast<std::size_t>(j); }
  [[nodiscard]] static utility_bound_report fail(utility_bound_report report) noexcept {
    report.status = status::infeasible;
    report.value = report.bound = -std::numeric_limits<double>::infinity();
    return report;
  }
};

/// @brief By how much a given path may exceed the bound of `utility_bound`, per slot: for what waits and what energy is owed
/// at its end.
///
/// On any path from empty queues, average energy <= budget + Z(T) / T. So server j has served at most T d_j copies, d_j the service
/// that costs this much; it was sent Q_j(T) more. Copies beyond its capacity are worth at most its price p_j each, and
/// copies that wait are not served: sum_j (p_j T (d_j - sustained_j) + (p_j - 1) Q_j(T)) / T. It falls like
/// (Z + Q) / T. Negative where the backlog costs more than it may have brought.
/// @tparam Model a model of `energy_model`
/// @param servers the servers of the path and of the bound
/// @param slots T, >= 1
/// @param prices what `utility_bound::solve` wrote. @shape{servers}
/// @param backlog Q at the end. @shape{servers}
/// @param energy_debt Z at the end. @unit{J} @shape{servers}
/// @returns what to add to the bound, in utility a slot
/// @throws contract_violation (level 1) on shapes or slots
/// @complexity O(servers), no allocation
template <energy_model Model>
[[nodiscard]] double utility_allowance(Model const& servers, index_t slots, std::span<double const> prices,
                                       std::span<double const> backlog, std::span<double const> energy_debt) {
  auto const count = static_cast<std::size_t>(servers.servers());
  FAIRLEAD_EXPECTS(slots >= 1, "there must be a slot", slots);
  FAIRLEAD_EXPECTS(prices.size() == count && backlog.size() == count && energy_debt.size() == count,
                   "one price, one backlog and one energy debt a server", prices.size(), backlog.size(), energy_debt.size(), count);
  auto const time = static_cast<double>(slots);
  double sum = 0.0;
  for (std::size_t j = 0; j < count; ++j) {
    auto const server = static_cast<index_t>(j);
    double const most = servers.budget(server) + energy_debt[j] / time;
    double low = servers.sustained(server);
    double high = servers.cap(server);
    if (servers.energy(server, high) > most) {
      for (int step = 0; step < 60; ++step) {
        double const middle = 0.5 * (low + high);
        (servers.energy(server, middle) > most ? high : low) = middle;
      }
    }
    sum += prices[j] * time * (high - servers.sustained(server)) + (prices[j] - 1.0) * backlog[j];
  }
  return sum / time;
}

FAIRLEAD_NAMESPACE_END
