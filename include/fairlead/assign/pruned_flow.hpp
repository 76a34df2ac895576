// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Exact balanced assignment that starts from each token's few best experts.
#include <fairlead/assign/detail/balanced_flow_text.hpp>
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/exec/serial.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Solve over the `kept` best experts of each token, then prove that nothing left out matters, or add it.
///
/// Column generation: the pruned problem is solved exactly, another pass over all scores compares every pair that was
/// left out with its token's choice at the new prices, and pairs near the choice are added until the certificate holds.
/// A pruned problem without a solution (all tokens keep the same few experts) only adds pairs. Reach for it when earlier
/// prices are not at hand and the first choices are spread already; `balanced_flow` starts from the prices of samples,
/// which is faster on crowded problems.
/// @complexity O(tokens x experts) a pass; no allocation
/// @determinism equal bits for every host backend and number of threads
/// @source{edmonds1972, shortest paths; column generation with a certificate in the passes of `balanced_flow`: own}
struct pruned_flow {
  int kept = 16;  ///< experts a token keeps beside its choices in the first pass, 1 ... 255

  /// @param tokens number of tokens, < 2^25, for fan_out > 1 < 2^22
  /// @param experts number of experts
  /// @param fan_out experts a token
  /// @returns scratch bytes of `solve`, the same as for `balanced_flow`
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t experts, index_t fan_out) const {
    return detail::transport_solve<float, serial, detail::capacity_demand<float>>::bytes(tokens, experts, fan_out);
  }
  /// @brief Assign.
  /// @param on host backend
  /// @param problem scores, capacities, mask, warm prices
  /// @param[out] result owners, and prices if wanted
  /// @param ws at least `workspace_bytes(tokens, experts, fan_out)`
  /// @returns as `balanced_flow::solve`
  /// @throws contract_violation (level 1) on shapes, capacities, `kept`, or too many tokens
  template <host_backend Backend, class Score>
  assignment_report solve(Backend const& on, assignment_problem<Score> const& problem, assignment_result const& result,
                          workspace& ws) const {
    check_assignment(problem, result);
    detail::check_flow_size(problem.tokens(), problem.experts(), problem.fan_out);
    FAIRLEAD_EXPECTS(kept >= 1 && kept <= 255, "kept must be 1 ... 255", kept);
    detail::flow_tuning const limits{.dense_scores = 0, .kept = kept};
    return detail::solve_balanced(limits, on, problem, result, ws);
  }
};

/// @brief `ok` is optimal.
template <>
inline constexpr bool exact_solver<pruned_flow> = true;
/// @brief Any number of choices.
template <>
inline constexpr bool solves_fan_out<pruned_flow> = true;
/// @brief Lower and upper capacities.
template <>
inline constexpr bool solves_bounds<pruned_flow> = true;
/// @brief Forbidden pairs.
template <>
inline constexpr bool solves_forbidden<pruned_flow> = true;
/// @brief Earlier prices shorten the solve.
template <>
inline constexpr bool warm_startable<pruned_flow> = true;
/// @brief Prices prove the bound.
template <>
inline constexpr bool has_prices<pruned_flow> = true;

static_assert(assignment_solver_on<pruned_flow, serial> && assignment_solver_on<pruned_flow, serial, bfloat16>);

FAIRLEAD_NAMESPACE_END
