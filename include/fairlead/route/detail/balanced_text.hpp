// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The host text of balanced routers: who takes part, the solve, and weights for what it returned.
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/route/detail/route_rows.hpp>
#include <fairlead/route/detail/select.hpp>
#include <fairlead/route/token_choice.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Whether an expert may be chosen by anybody.
[[nodiscard]] inline bool may_be_chosen(route_context const& context, index_t expert) noexcept {
  return context.expert_mask.empty() || context.expert_mask[static_cast<std::size_t>(expert)] != 0;
}

/// Marks the tokens that have k candidates: they share the experts. Stops at the k-th, so that finite rows cost O(k).
struct mark_participants {
  static constexpr index_t rows = 1024;
  matrix_view<float const> logits;
  route_context context;
  index_t k;
  std::uint8_t* takes_part;

  void operator()(index_t block) const noexcept {
    index_t const last = std::min((block + 1) * rows, logits.rows());
    for (index_t t = block * rows; t < last; ++t) {
      index_t found = 0;
      float const* const row = logits.row(t);
      for (index_t e = 0; e < logits.cols() && found < k; ++e) {
        found += may_be_chosen(context, e) && is_candidate(row[e]) ? 1 : 0;
      }
      takes_part[t] = found == k && is_valid(context, t) ? 1 : 0;
    }
  }
};

/// Chooses greedily for the tokens that are not kept, and weighs the experts of every token.
template <class Score, class Renormalisation>
struct finish_part {
  index_t experts;
  index_t k;
  float scale;
  matrix_view<float const> logits;
  route_context context;
  std::uint8_t const* kept;  // tokens whose experts stand in `out` already; null = all
  routing_view out;
  float* scratch;
  index_t rows_per_part;

  void operator()(index_t part) const {
    using rules = weighting<Score, Renormalisation>;
    index_t const last = std::min((part + 1) * rows_per_part, logits.rows());
    float* const effective = scratch + part * route_scratch(experts);
    float* const keys = effective + route_stride(experts);
    float chosen[max_fan_out];
    std::int32_t ids[max_fan_out];
    for (index_t t = part * rows_per_part; t < last; ++t) {
      if (kept != nullptr && kept[t] == 0) {
        choose(t, keys, chosen, ids);
        for (index_t j = 0; j < k; ++j) { out.experts(t, j) = static_cast<expert_id>(ids[j]); }
      }
      for (index_t j = 0; j < k; ++j) {
        expert_id const id = out.experts(t, j);
        chosen[j] = id == expert_id::none ? minus_infinity : logits(t, to_index(id));
      }
      softmax_row soft;
      if constexpr (rules::needs_row) {
        effective_row(no_noise{}, context, t, experts, logits.row(t), effective);
        soft = softmax_of(effective, experts);
      }
      rules::template weights<1>(chosen, k, scale, &soft, out.weights.row(t));
    }
  }

 private:
  void choose(index_t token, float* keys, float* best, std::int32_t* ids) const noexcept {
    bool const valid = is_valid(context, token);
    for (index_t e = 0; e < experts; ++e) {
      keys[e] = valid && may_be_chosen(context, e) ? logits(token, e) : minus_infinity;
    }
    select_row(keys, experts, k, 1, best, ids);
  }
};

/// Chooses the best logits minus prices of every token, then weighs by the logits alone.
template <class Score, class Renormalisation, class Router, class Backend>
void choose_by_price(Router const& router, Backend const& on, matrix_view<float const> logits,
                     route_context const& context, std::span<double const> prices, routing_view out, workspace& ws) {
  using choice = token_choice<raw_score, plain_selection, not_renormalised>;
  workspace::scope const scope(ws);
  index_t const experts = router.experts();
  auto const bias = ws.take<float>(experts);
  // Beyond 1e30 the lowest finite logit could leave the range of fp32 and be no candidate any more.
  for (std::size_t e = 0; e < bias.size(); ++e) { bias[e] = -static_cast<float>(std::clamp(prices[e], -1e30, 1e30)); }
  choice const by_key{.experts = router.experts, .k = router.k, .selection = {}, .noise = {}};
  for_each_part(on, logits.rows(), experts, ws, route_part<choice>{by_key, logits, context, bias.data(), out, nullptr, 0});
  for_each_part(on, logits.rows(), experts, ws,
                finish_part<Score, Renormalisation>{experts, router.k, router.scale, logits, context, nullptr, out,
                                                    nullptr, 0});
}

/// Even capacities of the allowed experts, zero for the others.
inline void share_evenly(route_context const& context, index_t copies, bool solver_chooses, std::span<index_t> lower,
                         std::span<index_t> upper) {
  auto const experts = static_cast<index_t>(lower.size());
  index_t allowed = 0;
  for (index_t e = 0; e < experts; ++e) { allowed += may_be_chosen(context, e) ? 1 : 0; }
  index_t const share = allowed > 0 ? copies / allowed : 0;
  index_t left = allowed > 0 ? copies % allowed : 0;
  bool const uneven = left > 0;
  for (index_t e = 0; e < experts; ++e) {
    auto const at = static_cast<std::size_t>(e);
    lower[at] = upper[at] = 0;
    if (!may_be_chosen(context, e)) { continue; }
    if (solver_chooses) {
      lower[at] = share;
      upper[at] = share + (uneven ? 1 : 0);
    } else {
      lower[at] = upper[at] = share + (left > 0 ? 1 : 0);
      left -= left > 0 ? 1 : 0;
    }
  }
}

/// Adds the prices of one solve to what waits for `observe`: centred over the allowed experts; a masked expert keeps the
/// price it had.
template <class State>
void keep_prices(route_context const& context, std::span<double const> prices, index_t tokens, State& state) {
  double mean = 0.0, allowed = 0.0;
  for (std::size_t e = 0; e < prices.size(); ++e) {
    if (!may_be_chosen(context, static_cast<index_t>(e))) { continue; }
    mean += prices[e];
    allowed += 1.0;
  }
  mean = allowed > 0.0 ? mean / allowed : 0.0;
  auto const weight = static_cast<double>(tokens);
  for (std::size_t e = 0; e < prices.size(); ++e) {
    bool const may = may_be_chosen(context, static_cast<index_t>(e));
    state.pending[e] += weight * (may ? prices[e] - mean : state.warm[e]);
  }
  state.pending[prices.size()] += weight;
}

/// Turns the sums over all ranks into prices, and starts new sums.
template <class State>
void publish_prices(double keep, State& state) {
  std::size_t const experts = state.warm.size();
  double const tokens = state.pending[experts];
  if (tokens > 0.0) {
    double mean = 0.0;
    for (std::size_t e = 0; e < experts; ++e) {
      state.warm[e] = state.pending[e] / tokens;
      mean += state.warm[e] / static_cast<double>(experts);
    }
    double const old = state.batches == 0 ? 0.0 : keep;
    for (std::size_t e = 0; e < experts; ++e) {
      state.warm[e] -= mean;
      state.frozen[e] = old * state.frozen[e] + (1.0 - old) * state.warm[e];
    }
    ++state.batches;
  }
  state.fallbacks += static_cast<std::int64_t>(state.pending[experts + 1]);
  state.unproved += static_cast<std::int64_t>(state.pending[experts + 2]);
  std::fill(state.pending.begin(), state.pending.end(), 0.0);
}

/// Balanced routing of one micro-batch.
template <class Score, class Renormalisation, class Router, class Backend, class State>
void assign_evenly(Router const& router, Backend const& on, matrix_view<float const> logits,
                   route_context const& context, State const& state, routing_view out, State* learner, workspace& ws) {
  using solver_type = std::remove_cvref_t<decltype(router.solver)>;
  workspace::scope const scope(ws);
  index_t const tokens = logits.rows(), experts = router.experts(), k = router.k;
  auto const takes_part = ws.take<std::uint8_t>(tokens);
  auto const lower = ws.take<index_t>(experts), upper = ws.take<index_t>(experts);
  auto const prices = ws.take<double>(experts);
  mark_participants const mark{logits, context, k, takes_part.data()};
  on.for_each((tokens + mark.rows - 1) / mark.rows, mark);
  index_t participants = 0;
  for (std::uint8_t const one : takes_part) { participants += one; }

  bool solved = false;
  if (participants > 0) {
    share_evenly(context, participants * k, router.remainder == std::remove_cvref_t<decltype(router.remainder)>::solver_chooses, lower, upper);
    assignment_problem<float> problem{.scores = logits, .fan_out = k, .lower = lower, .upper = upper,
                                      .token_mask = participants < tokens ? std::span<std::uint8_t const>(takes_part)
                                                                          : std::span<std::uint8_t const>{}};
    if (warm_startable<solver_type> && state.batches > 0) { problem.warm_prices = state.warm; }
    assignment_result const result{out.experts, has_prices<solver_type> ? prices : std::span<double>{}};
    assignment_report const said = router.solver.solve(on, problem, result, ws);
    solved = said.status == status::ok || said.status == status::iteration_limit;
    if (learner != nullptr) {
      learner->last_status = said.status;
      auto const at = static_cast<std::size_t>(experts);
      learner->pending[at + 1] += solved ? 0.0 : 1.0;
      learner->pending[at + 2] += said.status == status::iteration_limit ? 1.0 : 0.0;
      if (solved && has_prices<solver_type>) { keep_prices(context, prices, participants, *learner); }
    }
  }
  if (!solved) { std::fill(takes_part.begin(), takes_part.end(), std::uint8_t{0}); }
  for_each_part(on, tokens, experts, ws,
                finish_part<Score, Renormalisation>{experts, k, router.scale, logits, context, takes_part.data(),
                                                    out, nullptr, 0});
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
