// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The dual function of an assignment problem: what any prices prove about the best value.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/flow/token_runs.hpp>

#include <algorithm>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Scratch of `dual_bound`.
/// @param tokens number of tokens, >= 0
/// @param fan_out experts a token, >= 0
/// @returns bytes
/// @complexity O(1)
[[nodiscard]] constexpr std::size_t dual_bound_bytes(index_t tokens, index_t fan_out) noexcept {
  index_t const runs = token_runs{tokens}.count();
  return workspace_bytes<double>(runs) + workspace_bytes<double>(runs * fan_out);
}

namespace detail {
/// Sums the best keys of the rows of one run; a row with too few usable experts counts those that it has.
template <class Score>
struct dual_run {
  assignment_problem<Score> const* problem;
  double const* prices;
  std::span<double> sums;
  std::span<double> best;  // fan_out keys a run
  void operator()(index_t run) const {
    token_runs const runs{problem->tokens()};
    index_t const experts = problem->experts();
    index_t const fan_out = problem->fan_out;
    double* const top = best.data() + run * fan_out;
    constexpr double none = -std::numeric_limits<double>::infinity();
    double sum = 0.0;
    for (index_t t = runs.first(run); t < runs.first(run + 1); ++t) {
      if (fan_out == 0 || (!problem->token_mask.empty() && problem->token_mask[static_cast<std::size_t>(t)] == 0)) {
        continue;
      }
      Score const* const row = problem->scores.row(t);
      std::fill_n(top, fan_out, none);
      for (index_t e = 0; e < experts; ++e) {
        double const key = assignable(row[e]) - prices[e];
        if (!(key > top[fan_out - 1])) { continue; }
        index_t place = fan_out - 1;
        for (; place > 0 && top[place - 1] < key; --place) { top[place] = top[place - 1]; }
        top[place] = key;
      }
      for (index_t j = 0; j < fan_out && top[j] > none; ++j) { sum += top[j]; }
    }
    sums[static_cast<std::size_t>(run)] = sum;
  }
};
}  // namespace detail

/// @brief Evaluate the dual function: an upper bound on the value of every assignment, for any finite prices.
///
/// `sum over tokens of the fan_out best score - price, plus sum over experts of upper * max(price, 0) + lower *
/// min(price, 0)`, where upper capacities beyond the number of valid tokens count as that number. With equality capacities the second sum is `capacity * price`, and a common shift of the prices
/// changes nothing as long as the capacities sum to valid tokens x fan_out.
/// @tparam Backend a model of `host_backend`
/// @param on backend
/// @param problem what to assign; its warm prices are not read
/// @param prices finite prices. @shape{experts}
/// @param ws at least `dual_bound_bytes(tokens, fan_out)` bytes
/// @returns the bound
/// @throws contract_violation (level 1) on a shape mismatch or too small a workspace
/// @complexity O(tokens x experts) on typical scores, one read of the scores; no allocation
/// @determinism sums in a fixed order: equal bits at any number of threads
template <host_backend Backend, class Score>
[[nodiscard]] double dual_bound(Backend const& on, assignment_problem<Score> const& problem,
                                std::span<double const> prices, workspace& ws) {
  FAIRLEAD_EXPECTS(static_cast<index_t>(prices.size()) == problem.experts() && problem.lower.size() == prices.size() &&
                       problem.upper.size() == prices.size(),
                   "one price and one pair of capacities an expert", prices.size(), problem.experts());
  workspace::scope const scope(ws);
  index_t const runs = token_runs{problem.tokens()}.count();
  detail::dual_run<Score> const rows{&problem, prices.data(), ws.take<double>(runs),
                                     ws.take<double>(runs * problem.fan_out)};
  on.for_each(runs, rows);
  double bound = 0.0;
  for (double const sum : rows.sums) { bound += sum; }
  index_t const tokens = problem.valid_tokens();
  for (std::size_t e = 0; e < prices.size(); ++e) {
    // No expert takes more copies than there are tokens.
    double const copies = static_cast<double>(prices[e] > 0.0 ? std::min(problem.upper[e], tokens) : problem.lower[e]);
    bound += copies == 0.0 ? 0.0 : copies * prices[e];
  }
  return bound;
}

FAIRLEAD_NAMESPACE_END
