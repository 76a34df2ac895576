// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Exact coordinate steps on the dual of an assignment problem: all prices at once, or one after the other.
#include <fairlead/flow/quantile_step.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// The middle of the interval [found.at, found.before] cut to [low, high]; where it has no middle, the old price, moved
/// in if it lies outside.
[[nodiscard]] constexpr double settle_price(ranked_keys found, double low, double high, double old) noexcept {
  double const first = std::max(found.at, low);
  double const last = std::min(found.before, high);
  if (!(first < -no_key) || !(last > no_key)) { return old; }
  if (first > no_key && last < -no_key) { return first + 0.5 * (last - first); }
  return std::min(std::max(old, first), last);
}

/// The price that minimises the dual over one coordinate. Reorders `offers`.
[[nodiscard]] inline double coordinate_price(std::span<double> offers, index_t lower, index_t upper, double old) {
  ranked_keys const most = select_ranked(offers, upper);
  if (lower == upper) { return settle_price(most, no_key, -no_key, old); }
  if (most.before > 0.0) { return settle_price(most, 0.0, -no_key, old); }
  ranked_keys const least = select_ranked(offers, lower);
  return least.at < 0.0 ? settle_price(least, no_key, 0.0, old) : 0.0;
}

template <class Score>
struct breakpoint_column : price_columns<Score> {
  index_t const* lower = nullptr;
  index_t const* upper = nullptr;
  double damping = 1.0;
  double* next_prices = nullptr;
  void operator()(index_t column) const {
    index_t const e = this->first_expert + column;
    auto const tokens = static_cast<std::size_t>(this->scores.rows());
    double const old = this->prices[e];
    double const target = coordinate_price(this->columns.subspan(static_cast<std::size_t>(column) * tokens, tokens),
                                           lower[e], upper[e], old);
    next_prices[e] = damping == 1.0 ? target : old + damping * (target - old);
  }
};

/// Gathers the column of one expert and, on the second call, mends the cuts that its new price moved.
template <class Score>
struct one_column_run : price_columns<Score> {
  double old_price = 0.0;
  bool mend = false;
  void operator()(index_t run) const {
    token_runs const runs{this->scores.rows()};
    index_t const experts = this->scores.cols();
    index_t const e = this->first_expert;
    double* const top = this->best.data() + run * (this->fan_out + 1);
    for (index_t t = runs.first(run); t < runs.first(run + 1); ++t) {
      Score const* const row = this->scores.row(t);
      row_cut& cut = this->cuts[static_cast<std::size_t>(t)];
      double const score = this->valid(t) ? assignable(row[e]) : no_key;
      if (!mend) {
        double const alternative = score - this->prices[e] >= cut.held ? cut.next : cut.held;
        this->columns[static_cast<std::size_t>(t)] = score > no_key ? score - alternative : no_key;
      } else if (score > no_key && (score - old_price >= cut.next || score - this->prices[e] >= cut.next)) {
        cut = cut_row(row, this->prices, experts, this->fan_out, top);
      }
    }
  }
};

}  // namespace detail

/// @brief Step all prices at once, each to the middle of the interval that minimises the dual over its coordinate.
///
/// The alternative of a token to expert e is its fan_out-th best key among the *other* experts. With the values of
/// `score - alternative` over the tokens, every price between the (upper + 1)-th and the upper-th largest minimises the
/// dual; with lower < upper the price of an expert that is not full must not be positive, and that of one above its
/// lower capacity not negative. An interval without end keeps the old price, or moves it to its finite end.
/// Undamped steps oscillate: use 0.5 ... 0.7.
/// @tparam Backend a model of `host_backend`
/// @param on backend
/// @param problem what to assign; its warm prices are not read
/// @param damping share of the way to go, in (0, 1]
/// @param prices finite prices to start from. @shape{experts}
/// @param[out] next new prices, finite; must not overlap `prices`. @shape{experts}
/// @param ws at least `quantile_step_bytes(tokens, experts, fan_out)` bytes
/// @throws contract_violation (level 1) on a shape mismatch, a damping outside (0, 1], or too small a workspace
/// @complexity O(tokens x experts) on average, two reads of the scores; no allocation
/// @determinism equal bits at any number of threads
template <host_backend Backend, class Score>
void breakpoint_step(Backend const& on, assignment_problem<Score> const& problem, double damping,
                     std::span<double const> prices, std::span<double> next, workspace& ws) {
  detail::check_quantile_step(problem.scores, problem.fan_out, problem.upper.size(), problem.token_mask, prices, next);
  FAIRLEAD_EXPECTS(damping > 0.0 && damping <= 1.0, "damping must be in (0, 1]", damping);
  FAIRLEAD_EXPECTS(problem.lower.size() == problem.upper.size(), "one lower and one upper capacity an expert",
                   problem.lower.size(), problem.upper.size());
  workspace::scope const scope(ws);
  detail::breakpoint_column<Score> select;
  select.lower = problem.lower.data();
  select.upper = problem.upper.data();
  select.damping = damping;
  select.next_prices = next.data();
  detail::step_prices<true>(
      on, detail::take_price_columns(problem.scores, problem.fan_out, problem.token_mask, prices, ws), select);
}

/// @brief Step the prices one after the other, each from the newest prices of the others (Gauss-Seidel).
///
/// No step raises the dual, so no damping is needed. From optimal prices it moves into the interior of the optimal set,
/// where prices alone choose as the assignment does, ties aside. Costs more than `breakpoint_step` a sweep: it walks the
/// scores by columns, and rereads the rows of tokens whose best experts a price touches.
/// @tparam Backend a model of `host_backend`
/// @param on backend
/// @param problem what to assign; its warm prices are not read
/// @param[in,out] prices finite prices. @shape{experts}
/// @param ws at least `quantile_step_bytes(tokens, experts, fan_out)` bytes
/// @returns the largest move of a price; 0 = no coordinate can be improved
/// @throws contract_violation (level 1) on a shape mismatch or too small a workspace
/// @complexity O(tokens x experts x (fan_out + 1)) on typical scores, O(tokens x experts^2) at worst; no allocation
/// @determinism equal bits at any number of threads
template <host_backend Backend, class Score>
double breakpoint_sweep(Backend const& on, assignment_problem<Score> const& problem, std::span<double> prices,
                        workspace& ws) {
  detail::check_quantile_step(problem.scores, problem.fan_out, problem.upper.size(), problem.token_mask, prices,
                              prices);
  FAIRLEAD_EXPECTS(problem.lower.size() == problem.upper.size(), "one lower and one upper capacity an expert",
                   problem.lower.size(), problem.upper.size());
  workspace::scope const scope(ws);
  detail::one_column_run<Score> column;
  static_cast<detail::price_columns<Score>&>(column) =
      detail::take_price_columns(problem.scores, problem.fan_out, problem.token_mask, std::span<double const>(prices), ws);
  index_t const tokens = problem.tokens();
  index_t const runs = token_runs{tokens}.count();
  on.for_each(runs, detail::cut_run<Score>{column});
  double largest = 0.0;
  for (index_t e = 0; e < problem.experts(); ++e) {
    auto const i = static_cast<std::size_t>(e);
    column.first_expert = e;
    column.mend = false;
    on.for_each(runs, column);
    column.old_price = prices[i];
    prices[i] = detail::coordinate_price(column.columns.first(static_cast<std::size_t>(tokens)), problem.lower[i],
                                         problem.upper[i], prices[i]);
    double const moved = prices[i] > column.old_price ? prices[i] - column.old_price : column.old_price - prices[i];
    if (moved == 0.0) { continue; }
    largest = std::max(largest, moved);
    column.mend = true;
    on.for_each(runs, column);
  }
  return largest;
}

FAIRLEAD_NAMESPACE_END
