// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Balanced assignment by an auction with falling increments, experts being places of equal kind.
#include <fairlead/assign/detail/bidding.hpp>
#include <fairlead/assign/detail/completion.hpp>
#include <fairlead/assign/detail/working.hpp>
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Let tokens bid for experts one by one; an expert keeps the highest bids, its price is the lowest one it keeps.
///
/// A token bids for its best expert by score - price, as much more than the price as the best is better than the second
/// best, plus an increment epsilon. Phases repeat the auction with smaller epsilon from the prices reached before. At the
/// end every token has an expert that is within epsilon of its best, so the value is within tokens x epsilon of the
/// optimum, and the bound says how near it really is. All bids are real numbers in double precision.
///
/// On scores that are multiples of `grid` (integers, fixed point) the last epsilon is grid / (tokens + 1), and the value is
/// the optimum. Reach for it as a baseline whose quality is a dial; `balanced_flow` is exact on any scores, and
/// `jacobi_auction` runs its bids in parallel.
/// @source{bertsekas1989, auction for the transportation problem; deviations in docs/algorithms/assign.md}
struct similar_object_auction {
  double relative_epsilon = 1e-4;  ///< last epsilon, in units of the mean spread of a row, if no other is set; > 0
  double final_epsilon = 0.0;      ///< last epsilon in units of scores; 0 = by `grid` or `relative_epsilon`
  double grid = 0.0;               ///< scores are multiples of it, and the result is to be optimal; 0 = no such promise
  double divisor = 4.0;            ///< epsilon is divided by this from phase to phase, > 1
  index_t bids_per_token = 1024;   ///< bids over all phases after which the rest is placed by repair, >= 1

  /// @brief Scratch of `solve`.
  /// @param tokens number of tokens
  /// @param experts number of experts
  /// @param fan_out experts a token
  /// @returns bytes
  [[nodiscard]] static constexpr std::size_t workspace_bytes(index_t tokens, index_t experts, index_t fan_out) noexcept {
    return detail::rounding::working_bytes(tokens, fan_out) + fairlead::workspace_bytes<double>(experts) +
           std::max(detail::rounding::bidding<float>::bytes(tokens, experts),
                    detail::rounding::completion<float>::bytes(tokens, experts, fan_out));
  }

  /// @brief Hold the auction.
  /// @param on backend, a model of `host_backend`
  /// @param problem one expert a token, equality capacities; pairs may be forbidden. Warm prices are not read
  /// @param[out] result owners and prices
  /// @param ws at least `workspace_bytes(tokens, experts, fan_out)` bytes
  /// @returns `ok`: all phases ended, the value is within tokens x the last epsilon of the optimum. `iteration_limit`: bids
  /// ran out, the assignment is complete all the same. `infeasible`, `unsupported`: as the concept says. `iterations` are
  /// bids, `scans` bids in units of tokens
  /// @throws contract_violation (level 1) on a shape mismatch, wrong fields or too small a workspace
  /// @complexity O(experts + log tokens) a bid, at most tokens x bids_per_token bids; typically some tens of bids a token.
  /// With forbidden pairs a maximum flow comes first. No allocation
  /// @determinism equal results at any number of threads: bids are serial
  template <host_backend Backend, class Score>
  assignment_report solve(Backend const& on, assignment_problem<Score> const& problem, assignment_result const& result,
                          workspace& ws) const {
    check_assignment(problem, result);
    FAIRLEAD_EXPECTS(relative_epsilon > 0.0 && final_epsilon >= 0.0 && grid >= 0.0 && divisor > 1.0 && bids_per_token >= 1,
                     "epsilons must not be negative, the divisor must be above 1, and there must be bids",
                     relative_epsilon, final_epsilon, grid, divisor, bids_per_token);
    workspace::scope const scope(ws);
    assignment_report report;
    if (problem.fan_out > 1 || !problem.equality()) {
      detail::rounding::end_without(report, status::unsupported, result);
      return report;
    }
    std::span<double> const prices = detail::rounding::take_prices(problem, false, ws);
    detail::rounding::row_spreads const spreads = detail::rounding::measure_spreads(problem);
    if (!detail::rounding::capacities_add_up(problem) || (spreads.hopeless && problem.fan_out == 1) ||
        (spreads.forbids && !feasible(on, problem, prices, result, ws))) {
      detail::rounding::hand_out(prices, result);
      detail::rounding::end_without(report, status::infeasible, result);
      return report;
    }
    if (problem.fan_out == 1) {
      workspace::scope const auction_scope(ws);
      detail::rounding::bidding<Score> auction(problem, ws);
      if (!hold(auction, problem, spreads, report)) { report.status = status::iteration_limit; }
      auction.hand_over(result.owner);
      auction.hand_over(prices);
    }
    detail::rounding::price_closed_experts(problem, prices, ws);
    return detail::rounding::complete_with_prices(on, problem, prices, result, report, ws);
  }

 private:
  /// All phases. @returns whether the bids sufficed
  template <class Score>
  [[nodiscard]] bool hold(detail::rounding::bidding<Score>& auction, assignment_problem<Score> const& problem,
                          detail::rounding::row_spreads const& spreads, assignment_report& report) const {
    auto const tokens = static_cast<double>(problem.valid_tokens());
    double last = final_epsilon > 0.0 ? final_epsilon : grid > 0.0 ? grid / (tokens + 1.0) : relative_epsilon * spreads.mean;
    // Below this a bid might not raise a price at all.
    double const smallest = 0x1p-44 * (spreads.magnitude + spreads.largest * static_cast<double>(problem.experts()));
    last = std::max({last, smallest, std::numeric_limits<double>::min()});
    index_t const most = problem.valid_tokens() * bids_per_token;
    index_t bids = most;
    bool ended = true;
    for (double epsilon = spreads.largest / divisor; ended && epsilon > last; epsilon /= divisor) {
      ended = auction.phase(epsilon, spreads.largest + epsilon, bids);
    }
    ended = ended && auction.phase(last, spreads.largest + last, bids);
    report.iterations = most - bids;
    report.scans = problem.valid_tokens() > 0 ? 1 + report.iterations / problem.valid_tokens() : 1;
    return ended;
  }

  /// With forbidden pairs prices would rise for ever where no assignment exists: ask a maximum flow first.
  template <host_backend Backend, class Score>
  [[nodiscard]] static bool feasible(Backend const& on, assignment_problem<Score> const& problem,
                                     std::span<double const> prices, assignment_result const& result, workspace& ws) {
    workspace::scope const scope(ws);
    detail::rounding::choose_best(on, problem, prices, result.owner, ws);
    return detail::rounding::completion<Score>(problem, prices, result.owner, ws).run();
  }
};
/// Never uses a forbidden pair.
template <>
inline constexpr bool solves_forbidden<similar_object_auction> = true;
/// Writes the prices at which the last phase ended.
template <>
inline constexpr bool has_prices<similar_object_auction> = true;
static_assert(assignment_solver_on<similar_object_auction, serial>);

FAIRLEAD_NAMESPACE_END
