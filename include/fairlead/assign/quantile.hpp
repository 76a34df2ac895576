// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A few quantile (dual coordinate) steps of the prices, rounded to a complete assignment.
#include <fairlead/assign/detail/completion.hpp>
#include <fairlead/assign/detail/working.hpp>
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/flow/breakpoint_step.hpp>
#include <fairlead/flow/quantile_step.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief How `quantile_sweep` steps its prices.
enum class quantile_rule {
  all_at_once,  ///< exact breakpoints, every expert from the old prices, damped (Jacobi)
  in_turn,      ///< exact breakpoints, every expert from the newest prices, undamped (Gauss-Seidel): fewer sweeps, dearer
  single_cut    ///< the step of training frameworks: one alternative a token, undamped, prices centred; a parity rule
};

/// @brief Step prices a few times, give each token its best experts by score - price, and move the surplus.
///
/// Sweeps end early when no price moves. Generic scores are nearly balanced after a few sweeps; identical rows are not,
/// whatever the prices: the repair splits them. The bound is the dual function at the prices. `single_cut` knows no lower
/// capacities: it aims at the upper ones.
/// @source{Megatron-core, quantile balancing (single_cut); the exact steps are own}
struct quantile_sweep {
  index_t sweeps = 8;                               ///< most sweeps, >= 0
  double damping = 0.5;                             ///< share of the way that `all_at_once` goes, in (0, 1]
  quantile_rule rule = quantile_rule::all_at_once;  ///< the step

  /// @brief Scratch of `solve`.
  /// @param tokens number of tokens
  /// @param experts number of experts
  /// @param fan_out experts a token
  /// @returns bytes
  [[nodiscard]] static constexpr std::size_t workspace_bytes(index_t tokens, index_t experts, index_t fan_out) noexcept {
    return detail::rounding::working_bytes(tokens, fan_out) + 2 * fairlead::workspace_bytes<double>(experts) +
           std::max(quantile_step_bytes(tokens, experts, fan_out),
                    detail::rounding::completion<float>::bytes(tokens, experts, fan_out));
  }

  /// @brief Sweep, choose, repair.
  /// @param on backend, a model of `host_backend`
  /// @param problem what to assign; its warm prices are where the sweeps start
  /// @param[out] result owners and prices
  /// @param ws at least `workspace_bytes(tokens, experts, fan_out)` bytes
  /// @returns `ok` with a complete assignment; `iterations` are sweeps, `augmentations` copies moved by the repair
  /// @throws contract_violation (level 1) on a shape mismatch, wrong fields or too small a workspace
  /// @complexity O(sweeps x tokens x experts) on average (`in_turn`: see `breakpoint_sweep`) and the repair of
  /// `greedy_repair`; no allocation
  /// @determinism equal results at any number of threads
  template <host_backend Backend, class Score>
  assignment_report solve(Backend const& on, assignment_problem<Score> const& problem, assignment_result const& result,
                          workspace& ws) const {
    check_assignment(problem, result);
    FAIRLEAD_EXPECTS(sweeps >= 0 && damping > 0.0 && damping <= 1.0, "sweeps >= 0 and damping in (0, 1]", sweeps,
                     damping);
    workspace::scope const scope(ws);
    std::span<double> const prices = detail::rounding::take_prices(problem, true, ws);
    std::span<double> const next = ws.take<double>(problem.experts());
    assignment_report report;
    for (bool moved = true; moved && report.iterations < sweeps; ++report.iterations) {
      moved = sweep(on, problem, prices, next, ws);
      report.scans += rule == quantile_rule::in_turn ? 1 : 2;
    }
    detail::rounding::price_closed_experts(problem, prices, ws);
    return detail::rounding::assign_by_prices(on, problem, prices, result, report, ws);
  }

 private:
  /// @returns whether a price moved
  template <host_backend Backend, class Score>
  [[nodiscard]] bool sweep(Backend const& on, assignment_problem<Score> const& problem, std::span<double> prices,
                           std::span<double> next, workspace& ws) const {
    if (rule == quantile_rule::in_turn) { return breakpoint_sweep(on, problem, prices, ws) > 0.0; }
    if (rule == quantile_rule::all_at_once) {
      breakpoint_step(on, problem, damping, prices, next, ws);
    } else {
      quantile_step(on, problem.scores, problem.fan_out, problem.upper, problem.token_mask, prices, next, ws);
      if (problem.equality()) { subtract_mean(next); }
    }
    bool const moved = !std::equal(prices.begin(), prices.end(), next.begin());
    std::copy(next.begin(), next.end(), prices.begin());
    return moved;
  }
};
/// Takes any fan-out.
template <>
inline constexpr bool solves_fan_out<quantile_sweep> = true;
/// Lower and upper capacities may differ.
template <>
inline constexpr bool solves_bounds<quantile_sweep> = true;
/// Never uses a forbidden pair.
template <>
inline constexpr bool solves_forbidden<quantile_sweep> = true;
/// Good prices leave little to sweep and to repair.
template <>
inline constexpr bool warm_startable<quantile_sweep> = true;
/// Writes the prices that it chose by.
template <>
inline constexpr bool has_prices<quantile_sweep> = true;
static_assert(assignment_solver_on<quantile_sweep, serial>);

FAIRLEAD_NAMESPACE_END
