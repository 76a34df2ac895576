// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Soft (entropic) prices, rounded to a complete assignment.
#include <fairlead/assign/detail/completion.hpp>
#include <fairlead/assign/detail/working.hpp>
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/flow/sinkhorn.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Iterate Sinkhorn prices at a falling temperature, give each token its best experts by score - price, and move
/// the surplus.
///
/// Fast and nearly right: temperatures above 0 blur the prices, and rows that tie are split by the repair alone. The bound
/// is the dual function at the prices, so the report says how near. Capacities must be equalities, since the iteration
/// aims at masses and not at limits. With `fan_out` above 1 it spreads each token's mass as if one expert could take
/// more than one of its copies; the rounding does not.
/// @source{sinkhorn1967, in the log domain; deviations in docs/algorithms/assign.md}
struct sinkhorn_rounding {
  /// Passes, temperatures and tolerance.
  sinkhorn_iteration iteration = sinkhorn_iteration::annealed();

  /// @brief Scratch of `solve`.
  /// @param tokens number of tokens
  /// @param experts number of experts
  /// @param fan_out experts a token
  /// @returns bytes
  [[nodiscard]] static constexpr std::size_t workspace_bytes(index_t tokens, index_t experts, index_t fan_out) noexcept {
    return detail::rounding::working_bytes(tokens, fan_out) + fairlead::workspace_bytes<double>(experts) +
           fairlead::workspace_bytes<std::uint8_t>(experts) + sinkhorn_iteration::workspace_bytes(tokens, experts) +
           detail::rounding::completion<float>::bytes(tokens, experts, fan_out);
  }

  /// @brief Iterate, choose, repair.
  /// @param on backend, a model of `host_backend`
  /// @param problem what to assign; its warm prices are where the iteration starts
  /// @param[out] result owners and prices
  /// @param ws at least `workspace_bytes(tokens, experts, fan_out)` bytes
  /// @returns `ok` with a complete assignment; `iterations` are passes, `augmentations` copies moved by the repair
  /// @throws contract_violation (level 1) on a shape mismatch, wrong fields or too small a workspace
  /// @complexity O(passes x tokens x experts) with one exponential a pair and pass, and the repair of `greedy_repair`; no
  /// allocation
  /// @determinism equal results at any number of threads
  template <host_backend Backend, class Score>
  assignment_report solve(Backend const& on, assignment_problem<Score> const& problem, assignment_result const& result,
                          workspace& ws) const {
    check_assignment(problem, result);
    workspace::scope const scope(ws);
    assignment_report report;
    if (!problem.equality()) {
      detail::rounding::end_without(report, status::unsupported, result);
      return report;
    }
    std::span<double> const prices = detail::rounding::take_prices(problem, true, ws);
    std::span<std::uint8_t> const open = ws.take<std::uint8_t>(problem.experts());
    for (std::size_t e = 0; e < open.size(); ++e) { open[e] = problem.upper[e] > 0 ? 1 : 0; }
    sinkhorn_report const spread = iteration.prices(
        on, sinkhorn_problem<Score>{problem.scores, problem.upper, problem.token_mask, open}, prices, ws);
    report.iterations = spread.iterations;
    report.scans = spread.iterations + (iteration.in_units_of_range ? 1 : 0);
    subtract_smallest(prices, open);
    detail::rounding::price_closed_experts(problem, prices, ws);
    return detail::rounding::assign_by_prices(on, problem, prices, result, report, ws);
  }

 private:
  /// The common shift is free; without it prices would drift over warm starts.
  static void subtract_smallest(std::span<double> prices, std::span<std::uint8_t const> open) noexcept {
    double smallest = std::numeric_limits<double>::infinity();
    for (std::size_t e = 0; e < prices.size(); ++e) {
      if (open[e] != 0) { smallest = std::min(smallest, prices[e]); }
    }
    for (std::size_t e = 0; e < prices.size(); ++e) {
      if (open[e] != 0) { prices[e] -= smallest; }
    }
  }
};
/// Takes any fan-out.
template <>
inline constexpr bool solves_fan_out<sinkhorn_rounding> = true;
/// Never uses a forbidden pair.
template <>
inline constexpr bool solves_forbidden<sinkhorn_rounding> = true;
/// Good prices leave little to iterate and to repair.
template <>
inline constexpr bool warm_startable<sinkhorn_rounding> = true;
/// Writes the prices that it chose by.
template <>
inline constexpr bool has_prices<sinkhorn_rounding> = true;
static_assert(assignment_solver_on<sinkhorn_rounding, serial>);

FAIRLEAD_NAMESPACE_END
