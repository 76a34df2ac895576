// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Exact balanced assignment of tokens to experts, with prices and a certificate.
#include <fairlead/assign/detail/balanced_flow_text.hpp>
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/exec/serial.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Solve balanced assignment exactly: the highest sum of scores under capacities, for any scores.
///
/// The problem has one price an expert and contracts to a graph of experts, whose arc (u, v) is the least loss of moving
/// one copy from u to v. Prices come from samples that grow fourfold (or from `warm_prices`); one pass over the scores
/// then keeps what is near each token's choice; shortest-path trees, many paths a tree, move the surplus. If prices
/// moved against each other by no more than what the pass kept, the result is optimal; else another pass follows. Ties,
/// identical rows and quantised scores are split by flow, not by prices. See docs/algorithms/assign.md.
///
/// Scores are widened, never rounded: the result is the optimum of the given numbers, up to the rounding of fp64 sums.
/// Prices are normalised so that the least is 0 for equality capacities; with bounds they are absolute (positive only at
/// a full upper bound, negative only at a lower one).
/// @complexity O(tokens x experts) for few passes, and a number of searches of O(experts^2) that grows with the copies
///             that the first prices misplace, about tokens / sqrt(tokens / experts); see docs/benchmarks.md for times.
///             No allocation
/// @determinism equal bits for every host backend and number of threads
/// @source{edmonds1972, successive shortest paths with potentials; the contraction to experts, prices from samples, passes by
///         window with their certificate and many paths a search: own}
struct balanced_flow {
  /// Sweeps that move each price to the middle of the range in which the assignment stays optimal; 0 = leave them at the
  /// border, where tokens that moved last are indifferent. Prices that serve as a routing bias want the middle.
  int centre_sweeps = 2;
  /// Problems of up to this many scores (padded) are solved over all pairs at once. Decides about time only.
  index_t dense_scores = index_t{1} << 16;
  /// The same for samples.
  index_t sample_scores = index_t{1} << 18;

  /// @param tokens number of tokens, < 2^25, for fan_out > 1 < 2^22
  /// @param experts number of experts
  /// @param fan_out experts a token
  /// @returns scratch bytes of `solve`: for the worst case up to 1.7 kB a token for fan_out 1 and 16 kB beyond, or what
  ///          the last resort needs, about the size of the scores, if that is more. A usual solve touches a small part of
  ///          it: memory fresh from the system then costs address space only
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t experts, index_t fan_out) const {
    return detail::transport_solve<float, serial, detail::capacity_demand<float>>::bytes(tokens, experts, fan_out);
  }
  /// @brief Assign.
  /// @param on host backend
  /// @param problem scores, capacities, mask, warm prices
  /// @param[out] result owners, and prices if wanted
  /// @param ws at least `workspace_bytes(tokens, experts, fan_out)`
  /// @returns `ok`: optimal; `infeasible`: no assignment exists (owners none, prices 0, bound -inf); `iteration_limit`:
  ///          rounding kept it from an end, not known to happen (owners none). `iterations` counts searches, `scans`
  ///          passes over all scores
  /// @throws contract_violation (level 1) on shapes, capacities, or too many tokens
  template <host_backend Backend, class Score>
  assignment_report solve(Backend const& on, assignment_problem<Score> const& problem, assignment_result const& result,
                          workspace& ws) const {
    check_assignment(problem, result);
    detail::check_flow_size(problem.tokens(), problem.experts(), problem.fan_out);
    FAIRLEAD_EXPECTS(centre_sweeps >= 0 && dense_scores >= 0 && sample_scores >= 0, "limits must not be negative",
                     centre_sweeps, dense_scores, sample_scores);
    detail::flow_tuning const limits = tuning();
    return detail::solve_balanced(limits, on, problem, result, ws);
  }

 private:
  [[nodiscard]] detail::flow_tuning tuning() const { return {dense_scores, sample_scores, 0, centre_sweeps}; }
};

/// @brief `ok` is optimal.
template <>
inline constexpr bool exact_solver<balanced_flow> = true;
/// @brief Any number of choices.
template <>
inline constexpr bool solves_fan_out<balanced_flow> = true;
/// @brief Lower and upper capacities.
template <>
inline constexpr bool solves_bounds<balanced_flow> = true;
/// @brief Forbidden pairs.
template <>
inline constexpr bool solves_forbidden<balanced_flow> = true;
/// @brief Earlier prices shorten the solve.
template <>
inline constexpr bool warm_startable<balanced_flow> = true;
/// @brief Prices prove the bound.
template <>
inline constexpr bool has_prices<balanced_flow> = true;

static_assert(assignment_solver_on<balanced_flow, serial> && assignment_solver_on<balanced_flow, serial, bfloat16>);

FAIRLEAD_NAMESPACE_END
