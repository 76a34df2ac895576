// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The host text of the token-choice routers: what each part of the rows does.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/route/detail/select_lanes.hpp>
#include <fairlead/route/noise.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Rows are cut into at most this many parts, whatever the backend, so that scratch has a known size.
inline constexpr index_t route_parts = 64;
/// Row stride of scratch.
[[nodiscard]] constexpr index_t route_stride(index_t experts) noexcept { return (experts + 15) / 16 * 16; }
/// Scratch of one part in floats: logits after noise and masks, and keys, of `route_lanes` rows.
[[nodiscard]] constexpr index_t route_scratch(index_t experts) noexcept {
  return 2 * route_lanes * route_stride(experts);
}
/// Scratch of a call.
[[nodiscard]] constexpr std::size_t route_workspace_bytes(index_t tokens, index_t experts) noexcept {
  index_t const parts = std::min(route_parts, (tokens + route_lanes - 1) / route_lanes);
  return workspace_bytes<float>(parts * route_scratch(experts));
}

/// The logit that the router sees: noise in training and recomputation, -inf for a masked expert.
template <class Noise>
[[nodiscard]] FAIRLEAD_HD inline float effective_logit(Noise const& noise, route_context const& context, index_t row,
                                                       index_t expert, index_t experts, float logit) noexcept {
  if (!context.expert_mask.empty() && context.expert_mask[static_cast<std::size_t>(expert)] == 0) {
    return minus_infinity;
  }
  if constexpr (Noise::active) {
    if (context.phase != phase::evaluate) {
      return noise.apply(logit, routing_words(context, row, expert / 4, experts), static_cast<unsigned>(expert % 4),
                         experts);
    }
  }
  return logit;
}
/// Derivative of `effective_logit` where it is not -inf.
template <class Noise>
[[nodiscard]] FAIRLEAD_HD inline float effective_slope(Noise const& noise, route_context const& context, index_t row,
                                                       index_t expert, index_t experts) noexcept {
  if constexpr (Noise::active) {
    if (context.phase != phase::evaluate) {
      return noise.derivative(routing_words(context, row, expert / 4, experts), static_cast<unsigned>(expert % 4),
                              experts);
    }
  }
  return 1.0F;
}
/// Whether `effective_logit` differs from the logit anywhere.
template <class Noise>
[[nodiscard]] bool changes_logits(route_context const& context) noexcept {
  return !context.expert_mask.empty() || (Noise::active && context.phase != phase::evaluate);
}
/// Whether a token is to be routed.
[[nodiscard]] FAIRLEAD_HD inline bool is_valid(route_context const& context, index_t row) noexcept {
  return context.token_mask.empty() || context.token_mask[static_cast<std::size_t>(row)] != 0;
}

/// `effective_logit` of a whole row; a block of random words serves four experts.
template <class Noise>
void effective_row(Noise const& noise, route_context const& context, index_t row, index_t experts, float const* logits,
                   float* out) noexcept {
  bool noisy = false;
  if constexpr (Noise::active) {
    noisy = context.phase != phase::evaluate;
    for (index_t e = 0; noisy && e < experts; e += 4) {
      auto const words = routing_words(context, row, e / 4, experts);
      for (unsigned i = 0; i < 4 && e + i < experts; ++i) { out[e + i] = noise.apply(logits[e + i], words, i, experts); }
    }
  }
  if (!noisy) { std::copy_n(logits, experts, out); }
  if (!context.expert_mask.empty()) {
    for (index_t e = 0; e < experts; ++e) {
      out[e] = context.expert_mask[static_cast<std::size_t>(e)] != 0 ? out[e] : minus_infinity;
    }
  }
}

/// Scores of a row as keys; no candidate stays no candidate. `unit`: softmax scores are divided by their sum.
template <class Score>
FAIRLEAD_HD void score_row(float const* logits, index_t experts, bool unit, float* scores) noexcept {
  if constexpr (Score::over_row) {
    softmax_row const row = softmax_of(logits, experts);
    float const total = unit ? row.sum : 1.0F;
    for (index_t e = 0; e < experts; ++e) {
      float const value = numeric::quotient(numeric::exp(clean_logit(logits[e]) - row.largest), total);
      scores[e] = is_candidate(logits[e]) ? value : minus_infinity;
    }
  } else {
    for (index_t e = 0; e < experts; ++e) {
      float const value = Score::value(clean_logit(logits[e]));
      scores[e] = is_candidate(logits[e]) ? value : minus_infinity;
    }
  }
}

/// Selection scores of a row before any bias, for those who learn from them.
template <class Choice>
struct score_rows {
  Choice choice;
  matrix_view<float const> logits;
  route_context context;
  matrix_view<float> scores;

  void operator()(index_t row) const noexcept {
    float* const to = scores.row(row);
    effective_row(choice.noise, context, row, choice.experts(), logits.row(row), to);
    score_row<typename Choice::score_type>(to, choice.experts(), true, to);
  }
};

/// Selection keys of a row from its effective logits.
/// @tparam Choice names `score_type`, holds `selection`, `experts`, `k`
template <class Choice>
FAIRLEAD_HD void key_row(Choice const& choice, float const* logits, float const* bias, float* keys) noexcept {
  using selection = typename Choice::selection_type;
  index_t const experts = choice.experts();
  if (bias != nullptr) {
    score_row<typename Choice::score_type>(logits, experts, true, keys);
    for (index_t e = 0; e < experts; ++e) { keys[e] = numeric::sum(keys[e], bias[e]); }
  }
  if constexpr (selection::limits_groups) {
    float const* group_keys = keys;
    if (bias == nullptr) {
      if constexpr (selection::monotone) {
        group_keys = logits;
      } else {
        score_row<typename Choice::score_type>(logits, experts, false, keys);
      }
    }
    std::uint64_t const kept = choice.selection.keep(group_keys, experts, choice.k);
    index_t const size = experts / choice.selection.groups;
    for (index_t g = 0; g < choice.selection.groups; ++g) {
      bool const keeps = ((kept >> static_cast<unsigned>(g)) & 1U) != 0;
      for (index_t e = g * size; e < (g + 1) * size; ++e) {
        keys[e] = keeps ? (bias == nullptr ? logits[e] : keys[e]) : minus_infinity;
      }
    }
  }
}

/// Routes the rows of one part.
template <class Choice>
struct route_part {
  using score = typename Choice::score_type;
  using weights = weighting<score, typename Choice::renormalisation_type>;
  static constexpr bool limits_groups = Choice::selection_type::limits_groups;
  static constexpr int plain_groups = 4;

  Choice choice;
  matrix_view<float const> logits;
  route_context context;
  float const* bias;
  routing_view out;
  float* scratch;
  index_t rows_per_part;

  void operator()(index_t part) const {
    index_t const first = part * rows_per_part;
    index_t const last = std::min(first + rows_per_part, logits.rows());
    bool const changes = changes_logits<typename Choice::noise_type>(context);
    bool const makes_keys = bias != nullptr || limits_groups;
    index_t const stride = route_stride(choice.experts());
    float* const effective = scratch + part * route_scratch(choice.experts());
    float* const keys = effective + route_lanes * stride;
    // Rows that need scratch go by one block of lanes; others by four, so that the width is dispatched less often.
    index_t const step = changes || makes_keys ? route_lanes : plain_groups * route_lanes;
    std::array<float const*, plain_groups * route_lanes> logit_rows;
    std::array<float const*, plain_groups * route_lanes> key_rows;
    std::array<chosen_block, plain_groups> chosen;
    for (index_t row = first; row < last; row += step) {
      index_t const count = std::min(step, last - row);
      index_t const blocks = (count + route_lanes - 1) / route_lanes;
      for (index_t i = 0; i < blocks * route_lanes; ++i) {
        auto const at = static_cast<std::size_t>(i);
        if (i >= count) {  // lanes without a row repeat the last one
          logit_rows[at] = logit_rows[at - 1];
          key_rows[at] = key_rows[at - 1];
          continue;
        }
        logit_rows[at] = logits.row(row + i);
        if (changes) {
          effective_row(choice.noise, context, row + i, choice.experts(), logit_rows[at], effective + i * stride);
          logit_rows[at] = effective + i * stride;
        }
        key_rows[at] = logit_rows[at];
        if (makes_keys) {
          key_row(choice, logit_rows[at], bias, keys + i * stride);
          key_rows[at] = keys + i * stride;
        }
      }
      select_blocks(key_rows.data(), blocks, choice.experts(), choice.k, chosen.data());
      for (index_t b = 0; b < blocks; ++b) {
        finish(row + b * route_lanes, std::min<index_t>(route_lanes, count - b * route_lanes),
               logit_rows.data() + b * route_lanes, chosen[static_cast<std::size_t>(b)], makes_keys);
      }
    }
  }

 private:
  void finish(index_t row, index_t count, float const* const* rows, chosen_block& chosen, bool keys_differ) const {
    index_t const k = choice.k;
    if (!context.token_mask.empty()) {
      for (index_t i = 0; i < count; ++i) {
        if (is_valid(context, row + i)) { continue; }
        for (index_t j = 0; j < k; ++j) {
          chosen.ids[j * route_lanes + i] = -1;
          chosen.keys[j * route_lanes + i] = minus_infinity;
        }
      }
    }
    if (keys_differ) {
      for (index_t j = 0; j < k; ++j) {
        for (index_t i = 0; i < route_lanes; ++i) {
          std::int32_t const id = chosen.ids[j * route_lanes + i];
          chosen.keys[j * route_lanes + i] = id < 0 ? minus_infinity : rows[i][id];
        }
      }
    }
    std::array<softmax_row, route_lanes> soft;
    if constexpr (weights::needs_row) {
      for (index_t i = 0; i < count; ++i) { soft[static_cast<std::size_t>(i)] = softmax_of(rows[i], choice.experts()); }
    }
    float weight[max_fan_out * route_lanes];
    weights::template weights<route_lanes>(chosen.keys, k, choice.scale, soft.data(), weight);
    for (index_t i = 0; i < count; ++i) {
      expert_id* const ids = out.experts.row(row + i);
      float* const to = out.weights.row(row + i);
      for (index_t j = 0; j < k; ++j) {
        ids[j] = static_cast<expert_id>(chosen.ids[j * route_lanes + i]);
        to[j] = weight[j * route_lanes + i];
      }
    }
  }
};

/// Gradient of one row, given its chosen experts: overwrites `grad_logits`. `scratch` holds `experts` floats.
template <class Score, class Renormalisation, class Noise>
void gradient_row(Noise const& noise, route_context const& context, index_t row, index_t experts, float const* logits,
                  expert_id const* ids, float const* grad_weights, index_t fan_out, float scale, float* scratch,
                  float* grad_logits) noexcept {
  using weights = weighting<Score, Renormalisation>;
  std::fill_n(grad_logits, experts, 0.0F);
  float chosen[max_fan_out];
  float weight[max_fan_out];
  float grad_chosen[max_fan_out];
  bool any = false;
  for (index_t j = 0; j < fan_out; ++j) {
    bool const none = ids[j] == expert_id::none;
    any = any || !none;
    index_t const e = none ? 0 : to_index(ids[j]);
    chosen[j] = none ? minus_infinity : effective_logit(noise, context, row, e, experts, logits[e]);
  }
  if (!any) { return; }
  softmax_row soft;
  float const* effective = logits;
  if constexpr (weights::needs_row) {
    if (changes_logits<Noise>(context)) {
      effective_row(noise, context, row, experts, logits, scratch);
      effective = scratch;
    }
    soft = softmax_of(effective, experts);
  }
  float const factor = weights::gradient(chosen, grad_weights, fan_out, scale, soft, weight, grad_chosen);
  if constexpr (weights::needs_row) {
    for (index_t e = 0; e < experts; ++e) {
      grad_logits[e] = -factor * numeric::quotient(numeric::exp(clean_logit(effective[e]) - soft.largest), soft.sum);
    }
  }
  for (index_t j = 0; j < fan_out; ++j) {
    if (ids[j] != expert_id::none) { grad_logits[to_index(ids[j])] += grad_chosen[j]; }
  }
  if constexpr (Noise::active) {
    if (context.phase == phase::evaluate) { return; }
    for (index_t e = 0; e < experts; ++e) {
      if (grad_logits[e] != 0.0F) { grad_logits[e] *= effective_slope(noise, context, row, e, experts); }
    }
  }
}

/// Gradients of the rows of one part.
template <class Choice>
struct gradient_part {
  Choice choice;
  matrix_view<float const> logits;
  route_context context;
  const_routing_view out;
  matrix_view<float const> grad_weights;
  matrix_view<float> grad_logits;
  float* scratch;
  index_t rows_per_part;

  void operator()(index_t part) const {
    index_t const last = std::min((part + 1) * rows_per_part, logits.rows());
    float* const mine = scratch + part * route_scratch(choice.experts());
    for (index_t row = part * rows_per_part; row < last; ++row) {
      gradient_row<typename Choice::score_type, typename Choice::renormalisation_type>(
          choice.noise, context, row, choice.experts(), logits.row(row), out.experts.row(row), grad_weights.row(row),
          choice.k, choice.scale, mine, grad_logits.row(row));
    }
  }
};

/// Cuts `tokens` rows into parts of whole lane blocks and calls `make(scratch, rows_per_part)(part)` for each.
template <class Backend, class Part>
void for_each_part(Backend const& on, index_t tokens, index_t experts, workspace& ws, Part part) {
  workspace::scope const scope(ws);
  index_t const blocks = (tokens + route_lanes - 1) / route_lanes;
  index_t const parts = std::min(route_parts, blocks);
  if (parts == 0) { return; }
  index_t const blocks_per_part = (blocks + parts - 1) / parts;
  part.scratch = ws.take<float>(parts * route_scratch(experts)).data();
  part.rows_per_part = blocks_per_part * route_lanes;
  on.for_each((blocks + blocks_per_part - 1) / blocks_per_part, part);
}

/// Preconditions common to all routers.
inline void check_route(route_context const& context, index_t experts, index_t fan_out, float scale,
                        matrix_view<float const> logits, const_routing_view out) {
  index_t const tokens = logits.rows();
  FAIRLEAD_EXPECTS(experts >= 1 && experts <= max_experts, "set the router's experts to 1 ... 65536", experts);
  FAIRLEAD_EXPECTS(fan_out >= 1 && fan_out <= experts && fan_out <= max_fan_out,
                   "set the router's k to 1 ... min(experts, 64)", fan_out, experts);
  FAIRLEAD_EXPECTS(std::isfinite(scale), "the router's scale must be finite", scale);
  FAIRLEAD_EXPECTS(logits.cols() == experts, "logits must have one column an expert", logits.cols(), experts);
  FAIRLEAD_EXPECTS(out.tokens() == tokens && out.fan_out() == fan_out, "the routing must be tokens x fan_out",
                   out.tokens(), out.fan_out(), tokens, fan_out);
  FAIRLEAD_EXPECTS(out.weights.rows() == tokens && out.weights.cols() == fan_out,
                   "the routing's weights must be tokens x fan_out, as its experts", out.weights.rows(),
                   out.weights.cols(), tokens, fan_out);
  FAIRLEAD_EXPECTS(context.token_mask.empty() || static_cast<index_t>(context.token_mask.size()) == tokens,
                   "token_mask must be empty or one byte a token", context.token_mask.size(), tokens);
  FAIRLEAD_EXPECTS(context.expert_mask.empty() || static_cast<index_t>(context.expert_mask.size()) == experts,
                   "expert_mask must be empty or one byte an expert", context.expert_mask.size(), experts);
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
