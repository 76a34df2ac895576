// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Greedy assignments that start from each token's best experts: without capacities, and with surplus moved.
#include <fairlead/assign/detail/completion.hpp>
#include <fairlead/assign/detail/working.hpp>
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/exec/serial.hpp>

#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Give each token its best experts and ignore all capacities: what a router does, and how BASE evaluates.
///
/// The upper end of every comparison: no assignment is worth more. `ok` says that every token was served, `infeasible`
/// that a token has fewer than fan_out usable experts; capacities are neither kept nor checked against each other. Warm
/// prices are not read (routing by frozen prices is a router's business).
/// @source{StableMoE, greedy assignment of its code; BASE, evaluation}
struct greedy_argmax {
  /// @brief Scratch of `solve`.
  /// @param tokens number of tokens
  /// @param experts number of experts
  /// @param fan_out experts a token
  /// @returns bytes
  [[nodiscard]] static constexpr std::size_t workspace_bytes(index_t tokens, index_t experts, index_t fan_out) noexcept {
    return detail::rounding::working_bytes(tokens, fan_out) + fairlead::workspace_bytes<double>(experts);
  }

  /// @brief Choose.
  /// @param on backend, a model of `host_backend`
  /// @param problem scores, fan-out and mask
  /// @param[out] result owners; prices become 0 if they are asked for
  /// @param ws at least `workspace_bytes(tokens, experts, fan_out)` bytes
  /// @returns status and value; the bound is the value
  /// @throws contract_violation (level 1) on a shape mismatch or too small a workspace
  /// @complexity O(tokens x experts) on typical scores, no allocation
  /// @determinism equal results at any number of threads
  template <host_backend Backend, class Score>
  assignment_report solve(Backend const& on, assignment_problem<Score> const& problem, assignment_result const& result,
                          workspace& ws) const {
    check_assignment(problem, result);
    workspace::scope const scope(ws);
    std::span<double const> const zeros = detail::rounding::take_prices(problem, false, ws);
    detail::rounding::hand_out(zeros, result);
    assignment_report report;
    report.scans = 1;
    detail::rounding::choose_best(on, problem, zeros, result.owner, ws);
    for (index_t t = 0; t < problem.tokens() && problem.fan_out > 0; ++t) {
      // Too few usable experts leave the last place empty.
      if (detail::rounding::token_counts(problem, t) && result.owner(t, problem.fan_out - 1) == expert_id::none) {
        detail::rounding::end_without(report, status::infeasible, result);
        return report;
      }
    }
    report.value = detail::rounding::settle(on, problem, zeros, result.owner, ws);
    report.bound = report.value;
    return report;
  }
};
/// Takes any fan-out.
template <>
inline constexpr bool solves_fan_out<greedy_argmax> = true;
/// Ignores capacities of any kind.
template <>
inline constexpr bool solves_bounds<greedy_argmax> = true;
/// Never chooses a forbidden pair.
template <>
inline constexpr bool solves_forbidden<greedy_argmax> = true;
/// Aims at no balance at all.
template <>
inline constexpr bool keeps_capacity<greedy_argmax> = false;
static_assert(assignment_solver_on<greedy_argmax, serial>);

/// @brief Start from each token's best experts by score - warm price, then move surplus copies to experts with room, the
/// smallest loss first.
///
/// Good prices (of an earlier batch, of `sinkhorn` or `quantile_sweep`) leave little surplus and make it nearly exact;
/// without prices it pays for every crowded expert. Copies that have no expert to go to are placed along chains of
/// moves, so `ok` is a complete assignment that keeps all capacities, and `infeasible` means that none exists.
/// @source{StableMoE, greedy assignment of its code as the start; moves and chains are own}
struct greedy_repair {
  /// @brief Scratch of `solve`.
  /// @param tokens number of tokens
  /// @param experts number of experts
  /// @param fan_out experts a token
  /// @returns bytes
  [[nodiscard]] static constexpr std::size_t workspace_bytes(index_t tokens, index_t experts, index_t fan_out) noexcept {
    return detail::rounding::working_bytes(tokens, fan_out) + fairlead::workspace_bytes<double>(experts) +
           detail::rounding::completion<float>::bytes(tokens, experts, fan_out);
  }

  /// @brief Choose, then repair.
  /// @param on backend, a model of `host_backend`
  /// @param problem what to assign; its warm prices decide the start
  /// @param[out] result owners; prices are the warm ones, or zeros, with experts of capacity 0 priced out
  /// @param ws at least `workspace_bytes(tokens, experts, fan_out)` bytes
  /// @returns status, value, the bound that the prices prove, and the copies moved
  /// @throws contract_violation (level 1) on a shape mismatch or too small a workspace
  /// @complexity O(tokens x experts + moved x (log tokens + experts)) on typical scores; surplus copies are looked at again
  /// when the expert they would go to fills up, at most once an expert; each chain costs O(tokens x experts); no
  /// allocation
  /// @determinism equal results at any number of threads
  template <host_backend Backend, class Score>
  assignment_report solve(Backend const& on, assignment_problem<Score> const& problem, assignment_result const& result,
                          workspace& ws) const {
    check_assignment(problem, result);
    workspace::scope const scope(ws);
    std::span<double> const prices = detail::rounding::take_prices(problem, true, ws);
    assignment_report report;
    detail::rounding::price_closed_experts(problem, prices, ws);
    return detail::rounding::assign_by_prices(on, problem, prices, result, report, ws);
  }
};
/// Takes any fan-out.
template <>
inline constexpr bool solves_fan_out<greedy_repair> = true;
/// Lower and upper capacities may differ.
template <>
inline constexpr bool solves_bounds<greedy_repair> = true;
/// Never uses a forbidden pair.
template <>
inline constexpr bool solves_forbidden<greedy_repair> = true;
/// The better the prices, the fewer the moves.
template <>
inline constexpr bool warm_startable<greedy_repair> = true;
/// Its prices are those that it was given.
template <>
inline constexpr bool has_prices<greedy_repair> = true;
static_assert(assignment_solver_on<greedy_repair, serial>);

FAIRLEAD_NAMESPACE_END
