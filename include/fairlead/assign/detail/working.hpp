// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What all heuristic solvers share: best choices under prices, row order, value, and how a solve ends.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/flow/dual_bound.hpp>
#include <fairlead/flow/token_runs.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
/// Of the solvers that choose by prices and repair.
namespace detail::rounding {

inline constexpr double unusable = -std::numeric_limits<double>::infinity();

template <class Score>
[[nodiscard]] constexpr bool token_counts(assignment_problem<Score> const& problem, index_t token) noexcept {
  return problem.token_mask.empty() || problem.token_mask[static_cast<std::size_t>(token)] != 0;
}

/// Whether the first `slots` places of a row hold the expert.
[[nodiscard]] constexpr bool holds(expert_id const* row, index_t slots, index_t expert) noexcept {
  for (index_t j = 0; j < slots; ++j) {
    if (to_index(row[j]) == expert) { return true; }
  }
  return false;
}

constexpr void clear_owner(matrix_view<expert_id> owner) noexcept {
  for (index_t t = 0; t < owner.rows(); ++t) { std::fill_n(owner.row(t), owner.cols(), expert_id::none); }
}

/// Whether the capacities add up: the part of feasibility that needs no look at the scores.
template <class Score>
[[nodiscard]] constexpr bool capacities_add_up(assignment_problem<Score> const& problem) noexcept {
  index_t const tokens = problem.valid_tokens();
  index_t least = 0;
  index_t most = 0;
  for (std::size_t e = 0; e < problem.lower.size(); ++e) {
    if (problem.lower[e] > tokens) { return false; }  // also keeps the sums from overflowing
    least += problem.lower[e];
    most += std::min(problem.upper[e], tokens);
  }
  return least <= tokens * problem.fan_out && tokens * problem.fan_out <= most;
}

/// Gives each token of a run its best experts by score - price, ties to the lower id; none where too few are usable.
template <class Score>
struct choose_run {
  assignment_problem<Score> const* problem;
  double const* prices;
  matrix_view<expert_id> owner;
  std::span<double> keys;  // fan_out numbers a run
  void operator()(index_t run) const {
    token_runs const runs{problem->tokens()};
    index_t const experts = problem->experts();
    index_t const fan_out = problem->fan_out;
    double* const best = keys.data() + run * fan_out;
    for (index_t t = runs.first(run); t < runs.first(run + 1); ++t) {
      expert_id* const row = owner.row(t);
      std::fill_n(row, fan_out, expert_id::none);
      if (fan_out == 0 || !token_counts(*problem, t)) { continue; }
      Score const* const scores = problem->scores.row(t);
      std::fill_n(best, fan_out, unusable);
      for (index_t e = 0; e < experts; ++e) {
        double const key = assignable(scores[e]) - prices[e];
        if (!(key > best[fan_out - 1])) { continue; }
        index_t place = fan_out - 1;
        for (; place > 0 && best[place - 1] < key; --place) {
          best[place] = best[place - 1];
          row[place] = row[place - 1];
        }
        best[place] = key;
        row[place] = static_cast<expert_id>(e);
      }
    }
  }
};

/// Orders the experts of each token of a run by descending score - price, then ascending id, and sums their scores.
template <class Score>
struct settle_run {
  assignment_problem<Score> const* problem;
  double const* prices;
  matrix_view<expert_id> owner;
  std::span<double> sums;
  void operator()(index_t run) const {
    token_runs const runs{problem->tokens()};
    double sum = 0.0;
    for (index_t t = runs.first(run); t < runs.first(run + 1); ++t) {
      expert_id* const row = owner.row(t);
      Score const* const scores = problem->scores.row(t);
      auto const key = [&](expert_id e) { return assignable(scores[to_index(e)]) - prices[to_index(e)]; };
      for (index_t j = 0; j < owner.cols() && row[j] != expert_id::none; ++j) {
        expert_id const mine = row[j];
        sum += assignable(scores[to_index(mine)]);
        index_t place = j;
        for (; place > 0 && (key(row[place - 1]) < key(mine) || (key(row[place - 1]) == key(mine) && row[place - 1] > mine));
             --place) {
          row[place] = row[place - 1];
        }
        row[place] = mine;
      }
    }
    sums[static_cast<std::size_t>(run)] = sum;
  }
};

[[nodiscard]] constexpr std::size_t working_bytes(index_t tokens, index_t fan_out) noexcept {
  // The functions below run one after the other: the largest, or what a row of keys takes.
  return dual_bound_bytes(tokens, fan_out) + workspace_bytes<double>(fan_out);
}

template <host_backend Backend, class Score>
void choose_best(Backend const& on, assignment_problem<Score> const& problem, std::span<double const> prices,
                 matrix_view<expert_id> owner, workspace& ws) {
  workspace::scope const scope(ws);
  index_t const runs = token_runs{problem.tokens()}.count();
  on.for_each(runs, choose_run<Score>{&problem, prices.data(), owner, ws.take<double>(runs * problem.fan_out)});
}

/// Orders all rows and sums the value: per run, then in run order.
template <host_backend Backend, class Score>
[[nodiscard]] double settle(Backend const& on, assignment_problem<Score> const& problem,
                            std::span<double const> prices, matrix_view<expert_id> owner, workspace& ws) {
  workspace::scope const scope(ws);
  index_t const runs = token_runs{problem.tokens()}.count();
  settle_run<Score> const rows{&problem, prices.data(), owner, ws.take<double>(runs)};
  on.for_each(runs, rows);
  double value = 0.0;
  for (double const sum : rows.sums) { value += sum; }
  return value;
}

/// No assignment: owners are none.
inline void end_without(assignment_report& report, fairlead::status status, assignment_result const& result) {
  clear_owner(result.owner);
  report.status = status;
  report.value = 0.0;
  report.bound = 0.0;
}

/// A complete assignment of a solver that has prices: rows in order, value, bound, and the prices handed out.
template <host_backend Backend, class Score>
void end_with_prices(Backend const& on, assignment_problem<Score> const& problem, std::span<double const> prices,
                     assignment_result const& result, assignment_report& report, workspace& ws) {
  report.value = settle(on, problem, prices, result.owner, ws);
  report.bound = dual_bound(on, problem, prices, ws);
  report.scans += 1;
}

inline void hand_out(std::span<double const> prices, assignment_result const& result) {
  if (!result.prices.empty()) { std::copy(prices.begin(), prices.end(), result.prices.begin()); }
}

/// Warm prices, or zeros.
template <class Score>
[[nodiscard]] std::span<double> take_prices(assignment_problem<Score> const& problem, bool warm, workspace& ws) {
  std::span<double> const prices = ws.take<double>(problem.experts());
  if (warm && !problem.warm_prices.empty()) {
    std::copy(problem.warm_prices.begin(), problem.warm_prices.end(), prices.begin());
  } else {
    std::fill(prices.begin(), prices.end(), 0.0);
  }
  return prices;
}

/// Experts without a place get a price at which no token wants them, so that prices alone say so and the bound does not
/// count on them. Prices stay finite.
template <class Score>
void price_closed_experts(assignment_problem<Score> const& problem, std::span<double> prices, workspace& ws) {
  bool any = false;
  for (index_t const most : problem.upper) { any = any || most == 0; }
  if (!any) { return; }
  workspace::scope const scope(ws);
  index_t const experts = problem.experts();
  index_t const fan_out = problem.fan_out;
  std::span<double> const best = ws.take<double>(fan_out);
  for (std::size_t e = 0; e < prices.size(); ++e) {
    if (problem.upper[e] == 0) { prices[e] = 0.0; }
  }
  if (fan_out == 0) { return; }
  for (index_t t = 0; t < problem.tokens(); ++t) {
    if (!token_counts(problem, t)) { continue; }
    Score const* const row = problem.scores.row(t);
    std::fill(best.begin(), best.end(), unusable);
    for (index_t e = 0; e < experts; ++e) {
      if (problem.upper[static_cast<std::size_t>(e)] == 0) { continue; }
      double const key = assignable(row[e]) - prices[static_cast<std::size_t>(e)];
      if (!(key > best.back())) { continue; }
      std::size_t place = best.size() - 1;
      for (; place > 0 && best[place - 1] < key; --place) { best[place] = best[place - 1]; }
      best[place] = key;
    }
    if (!(best.back() > unusable)) { continue; }
    for (index_t e = 0; e < experts; ++e) {
      if (problem.upper[static_cast<std::size_t>(e)] != 0) { continue; }
      double const needed = assignable(row[e]) - best.back();
      prices[static_cast<std::size_t>(e)] = std::max(prices[static_cast<std::size_t>(e)], needed);
    }
  }
}

}  // namespace detail::rounding
FAIRLEAD_NAMESPACE_END
