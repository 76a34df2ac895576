// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief One quantile step of expert prices: the price at which just as many tokens would pay as an expert has places.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/flow/token_runs.hpp>
#include <fairlead/flow/detail/row_cut.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Scratch of `quantile_step` and `breakpoint_step`.
/// @param tokens number of tokens, >= 0
/// @param experts number of experts, >= 0
/// @param fan_out experts a token, 0 ... experts
/// @returns bytes; they grow by 18 numbers a token, whatever the number of threads
/// @complexity O(1)
[[nodiscard]] constexpr std::size_t quantile_step_bytes(index_t tokens, index_t experts, index_t fan_out) noexcept {
  index_t const columns = std::min(experts, detail::columns_at_once);
  return workspace_bytes<detail::row_cut>(tokens) + workspace_bytes<double>(columns * tokens) +
         workspace_bytes<double>(token_runs{tokens}.count() * (fan_out + 1));
}

namespace detail {

/// What each expert is worth to each token beyond the alternative, a few columns at a time.
template <class Score>
struct price_columns {
  matrix_view<Score const> scores;
  std::span<std::uint8_t const> mask;
  double const* prices = nullptr;
  index_t fan_out = 0;
  std::span<row_cut> cuts;
  std::span<double> best;     // fan_out + 1 keys a run
  std::span<double> columns;  // columns_at_once x tokens
  index_t first_expert = 0;

  [[nodiscard]] bool valid(index_t token) const noexcept {
    return mask.empty() || mask[static_cast<std::size_t>(token)] != 0;
  }
};

template <class Score>
struct cut_run : price_columns<Score> {
  void operator()(index_t run) const {
    token_runs const runs{this->scores.rows()};
    double* const top = this->best.data() + run * (this->fan_out + 1);
    for (index_t t = runs.first(run); t < runs.first(run + 1); ++t) {
      this->cuts[static_cast<std::size_t>(t)] =
          this->valid(t) ? cut_row(this->scores.row(t), this->prices, this->scores.cols(), this->fan_out, top)
                         : row_cut{};
    }
  }
};

/// Gathers what is left of a score after the alternative: -inf for a pair that may not be used.
/// Exact: the alternative of a token is its fan_out-th best among the *other* experts; else its (fan_out + 1)-th best.
template <class Score, bool Exact>
struct gather_run : price_columns<Score> {
  void operator()(index_t run) const {
    index_t const tokens = this->scores.rows();
    index_t const first = this->first_expert;
    index_t const end = std::min(this->scores.cols(), first + columns_at_once);
    token_runs const runs{tokens};
    for (index_t t = runs.first(run); t < runs.first(run + 1); ++t) {
      Score const* const row = this->scores.row(t);
      row_cut const cut = this->cuts[static_cast<std::size_t>(t)];
      bool const counts = this->valid(t);
      for (index_t e = first; e < end; ++e) {
        double const score = assignable(row[e]);
        double const alternative = !Exact || score - this->prices[e] >= cut.held ? cut.next : cut.held;
        this->columns[static_cast<std::size_t>((e - first) * tokens + t)] =
            counts && score > no_key ? score - alternative : no_key;
      }
    }
  }
};

template <class Score>
struct single_cut_column : price_columns<Score> {
  index_t const* capacity = nullptr;
  double* next = nullptr;
  void operator()(index_t column) const {
    index_t const e = this->first_expert + column;
    auto const tokens = static_cast<std::size_t>(this->scores.rows());
    ranked_keys const found =
        select_ranked(this->columns.subspan(static_cast<std::size_t>(column) * tokens, tokens), capacity[e]);
    double const old = this->prices[e];
    if (found.at > no_key) {
      next[e] = found.at < -no_key ? found.at : old;  // tokens without alternative pay any price: nothing to learn
    } else {
      next[e] = found.before > no_key ? std::min(old, found.before) : old;
    }
  }
};

template <class Score>
[[nodiscard]] price_columns<Score> take_price_columns(matrix_view<Score const> scores, index_t fan_out,
                                                      std::span<std::uint8_t const> mask,
                                                      std::span<double const> prices, workspace& ws) {
  index_t const tokens = scores.rows();
  price_columns<Score> shared;
  shared.scores = scores;
  shared.mask = mask;
  shared.prices = prices.data();
  shared.fan_out = fan_out;
  shared.cuts = ws.take<row_cut>(tokens);
  shared.columns = ws.take<double>(std::min(scores.cols(), columns_at_once) * tokens);
  shared.best = ws.take<double>(token_runs{tokens}.count() * (fan_out + 1));
  return shared;
}

/// Cut all rows, then gather and select a few columns at a time.
template <bool Exact, class Backend, class Score, class Select>
void step_prices(Backend const& on, price_columns<Score> shared, Select select) {
  index_t const runs = token_runs{shared.scores.rows()}.count();
  on.for_each(runs, cut_run<Score>{shared});
  for (index_t e = 0; e < shared.scores.cols(); e += columns_at_once) {
    shared.first_expert = e;
    on.for_each(runs, gather_run<Score, Exact>{shared});
    static_cast<price_columns<Score>&>(select) = shared;
    on.for_each(std::min(columns_at_once, shared.scores.cols() - e), select);
  }
}

template <class Score>
void check_quantile_step(matrix_view<Score const> scores, index_t fan_out, std::size_t capacities,
                         std::span<std::uint8_t const> mask, std::span<double const> prices,
                         std::span<double> next) {
  FAIRLEAD_EXPECTS(fan_out >= 0 && fan_out <= scores.cols(), "fan_out must be 0 ... experts", fan_out, scores.cols());
  FAIRLEAD_EXPECTS(static_cast<index_t>(capacities) == scores.cols() &&
                       static_cast<index_t>(prices.size()) == scores.cols() &&
                       static_cast<index_t>(next.size()) == scores.cols(),
                   "one capacity, price and next price an expert", capacities, prices.size(), next.size(),
                   scores.cols());
  FAIRLEAD_EXPECTS(mask.empty() || static_cast<index_t>(mask.size()) == scores.rows(),
                   "the mask must have one byte a token or be empty", mask.size(), scores.rows());
}

}  // namespace detail

/// @brief Take one quantile step: each expert's new price is the (capacity + 1)-th largest of what its tokens would pay.
///
/// With keys `score - price`, `alpha` of a token is its (fan_out + 1)-th best key; the new price of an expert is the
/// (capacity + 1)-th largest over the tokens of `score - alpha`. All experts step from the old prices. Prices are not
/// centred: a caller that averages over batches and ranks subtracts the mean afterwards (`subtract_mean`).
///
/// It is the step that training frameworks ship, and the cheapest warm start; it is not the exact coordinate step
/// (`breakpoint_step` is) and may stall off the optimum. Edges: capacity >= valid tokens leaves no (capacity + 1)-th
/// value: the old price stays unless it is above the capacity-th, then it becomes that; capacity 0 gives the largest;
/// fan_out = experts or 0 leaves no choice: prices stay. Forbidden pairs (-inf, NaN) and masked tokens do not count; a
/// token with at most fan_out usable experts would pay anything.
/// @tparam Backend a model of `host_backend`
/// @tparam Score `float` or `bfloat16`
/// @param on backend
/// @param scores worth of (token, expert) before any price. @shape{tokens x experts}
/// @param fan_out experts a token, 0 ... experts
/// @param capacity copies each expert should take, >= 0. @shape{experts}
/// @param token_mask zero = padding; empty = all valid. @shape{tokens or 0}
/// @param prices finite prices to start from. @shape{experts}
/// @param[out] next new prices, finite; must not overlap `prices`. @shape{experts}
/// @param ws at least `quantile_step_bytes(tokens, experts, fan_out)` bytes
/// @throws contract_violation (level 1) on a shape mismatch or too small a workspace
/// @complexity O(tokens x experts) on average, two reads of the scores; no allocation
/// @determinism equal bits at any number of threads: only comparisons, and one subtraction a key
/// @source{Megatron-core, quantile balancing, router.py}
template <host_backend Backend, class Score>
void quantile_step(Backend const& on, matrix_view<Score const> scores, index_t fan_out,
                   std::span<index_t const> capacity, std::span<std::uint8_t const> token_mask,
                   std::span<double const> prices, std::span<double> next, workspace& ws) {
  detail::check_quantile_step(scores, fan_out, capacity.size(), token_mask, prices, next);
  if (fan_out == 0 || fan_out == scores.cols()) {
    std::copy(prices.begin(), prices.end(), next.begin());
    return;
  }
  workspace::scope const scope(ws);
  detail::single_cut_column<Score> select;
  select.capacity = capacity.data();
  select.next = next.data();
  detail::step_prices<false>(on, detail::take_price_columns(scores, fan_out, token_mask, prices, ws), select);
}

/// @brief Shift prices so that they sum to about zero: for equality capacities a common shift changes no choice.
/// @param[in,out] prices finite prices. @shape{experts}
/// @complexity O(experts), no allocation
/// @determinism sums in order of the experts
constexpr void subtract_mean(std::span<double> prices) noexcept {
  if (prices.empty()) { return; }
  double sum = 0.0;
  for (double const price : prices) { sum += price; }
  double const mean = sum / static_cast<double>(prices.size());
  for (double& price : prices) { price -= mean; }
}

FAIRLEAD_NAMESPACE_END
