// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Draw experts with the probabilities of the softmax, and weigh them by their clean logits.
#include <fairlead/route/detail/normal_words.hpp>
#include <fairlead/route/top_k.hpp>

#include <cmath>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Choose the first `certain` experts by logit and draw the others, in training; choose all by logit in evaluation.
///
/// A draw takes the largest of logit / temperature + Gumbel number: expert e with the probability
/// softmax(logits / temperature)_e among those not yet taken, all slots together without replacement. The noise is in the
/// choice only: weights and gradients are those of the clean logits. Random numbers are named by (seed, step, global
/// token, expert). With `certain = 0` and one expert this is the sampling policy of Switch in mesh-TensorFlow and
/// DeepSpeed's RSample (temperature 1); with `certain = 1` and two experts DeepSpeed's second expert.
/// Deviation: DeepSpeed draws the second expert in evaluation too; here evaluation draws nothing.
/// @tparam Score how a logit becomes a score
/// @tparam Renormalisation how scores become weights
/// @source{mesh-TensorFlow, switch policy "sample"; DeepSpeed, sharded_moe top1gating and top2gating}
template <class Score, class Renormalisation>
struct sampled_choice {
  /// The router that chooses in evaluation and makes all gradients.
  using choice_type = token_choice<Score, plain_selection, Renormalisation>;

  expert_count experts;       ///< number of experts, 1 ... 65536
  index_t k = 1;              ///< experts a token, 1 ... min(experts, 64)
  float scale = 1.0F;         ///< factor on all weights, finite
  index_t certain = 0;        ///< leading slots that take the best logits without a draw, 0 ... k
  float temperature = 1.0F;   ///< > 0 and finite; near 0 the draw is the best logit, large ones are uniform

  /// @returns experts a token
  [[nodiscard]] FAIRLEAD_HD constexpr index_t fan_out() const noexcept { return k; }
  /// @returns the router that chooses without a draw
  [[nodiscard]] constexpr choice_type choice() const noexcept {
    return {.experts = experts, .k = k, .scale = scale, .selection = {}, .noise = {}};
  }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const noexcept {
    return detail::route_workspace_bytes(tokens, experts);
  }
  /// @brief Choose experts and weights.
  /// @param on execution backend
  /// @param logits @shape{tokens x experts}
  /// @param context phase, seed, step, masks
  /// @param[out] out @shape{tokens x k}; drawn slots by descending key
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity O(tokens x experts x k); no allocation
  /// @determinism ids and weights are the same bits for every host backend and number of threads
  template <execution_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    FAIRLEAD_EXPECTS(certain >= 0 && certain <= k, "certain must be 0 ... k", certain, k);
    FAIRLEAD_EXPECTS(temperature > 0.0F && temperature < std::numeric_limits<float>::infinity(),
                     "the temperature must be positive and finite", temperature);
    if (context.phase == phase::evaluate || certain == k) {
      choice().route(on, logits, context, out, ws);
      return;
    }
    detail::check_route(context, experts(), k, scale, logits, out);
    implementation<sampled_choice, Backend>::draw(*this, on, logits, context, out, ws);
  }
  /// @brief Derive the loss by the logits, given its derivative by the weights; the choice is held constant.
  /// @param on execution backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x k}
  /// @param[out] grad_logits overwritten. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  template <execution_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace& ws) const {
    choice().backward(on, logits, context, out, grad_weights, grad_logits, ws);
  }
};

/// @brief A token of this router never sees its batch-mates.
template <class Score, class Renormalisation>
inline constexpr bool causal<sampled_choice<Score, Renormalisation>> = true;

namespace detail {
/// Draws experts for the rows of one part.
template <class Score, class Renormalisation>
struct draw_part {
  sampled_choice<Score, Renormalisation> choice;
  matrix_view<float const> logits;
  route_context context;
  routing_view out;
  float* scratch;
  index_t rows_per_part;

  void operator()(index_t part) const {
    using rules = weighting<Score, Renormalisation>;
    index_t const experts = choice.experts();
    index_t const k = choice.k;
    index_t const last = std::min((part + 1) * rows_per_part, logits.rows());
    float* const clean = scratch + part * route_scratch(experts);
    float* const keys = clean + route_stride(experts);
    float best[max_fan_out];
    float chosen[max_fan_out];
    std::int32_t ids[max_fan_out];
    for (index_t t = part * rows_per_part; t < last; ++t) {
      std::fill_n(ids, k, -1);
      effective_row(no_noise{}, context, t, experts, logits.row(t), clean);
      if (is_valid(context, t)) {
        if (choice.certain > 0) { select_row(clean, experts, choice.certain, 1, best, ids); }
        perturb(t, clean, keys);
        for (index_t j = 0; j < choice.certain; ++j) {
          if (ids[j] >= 0) { keys[ids[j]] = minus_infinity; }
        }
        select_row(keys, experts, k - choice.certain, 1, best, ids + choice.certain);
      }
      for (index_t j = 0; j < k; ++j) { chosen[j] = ids[j] < 0 ? minus_infinity : clean[ids[j]]; }
      softmax_row soft;
      if constexpr (rules::needs_row) { soft = softmax_of(clean, experts); }
      rules::template weights<1>(chosen, k, choice.scale, &soft, out.weights.row(t));
      for (index_t j = 0; j < k; ++j) { out.experts(t, j) = static_cast<expert_id>(ids[j]); }
    }
  }

 private:
  void perturb(index_t row, float const* clean, float* keys) const noexcept {
    index_t const experts = choice.experts();
    for (index_t e = 0; e < experts; e += 4) {
      auto const words = routing_words(context, row, e / 4, experts);
      for (unsigned i = 0; i < 4 && e + i < experts; ++i) {
        float const logit = clean[e + i];
        // A quotient may leave fp32; a candidate stays one.
        float const scaled = numeric::quotient(clean_logit(logit), choice.temperature);
        float const key = numeric::sum(scaled > -largest_float ? scaled : -largest_float, gumbel_of(words[i]));
        keys[e + i] = is_candidate(logit) ? key : minus_infinity;
      }
    }
  }
};
}  // namespace detail

/// @brief Host text of what `sampled_choice` does in training.
template <class Score, class Renormalisation, host_backend Backend>
struct implementation<sampled_choice<Score, Renormalisation>, Backend> {
  /// Draws experts.
  static void draw(sampled_choice<Score, Renormalisation> const& router, Backend const& on,
                   matrix_view<float const> logits, route_context const& context, routing_view out, workspace& ws) {
    detail::for_each_part(on, logits.rows(), router.experts(), ws,
                          detail::draw_part<Score, Renormalisation>{router, logits, context, out, nullptr, 0});
  }
};

/// @brief Draw experts and weigh them by their share of the softmax over all (Switch "sample", DeepSpeed RSample).
using sampled_top_k = sampled_choice<softmax_score, not_renormalised>;

/// @brief DeepSpeed's top-2 gate: the best expert and one drawn from the others, weights not renormalised.
///
/// DeepSpeed renormalises after its capacity dropped copies: use the overflow action `drop_and_renormalise`, with
/// `choice_major_order` and `deepspeed_capacity`.
/// @param experts number of experts
/// @param scale factor on all weights
/// @returns the router
/// @source{DeepSpeed, sharded_moe top2gating}
[[nodiscard]] constexpr sampled_top_k sampled_second(index_t experts, float scale = 1.0F) {
  return {.experts = experts, .k = 2, .scale = scale, .certain = 1};
}
static_assert(router_on<sampled_top_k, serial> && has_gradient_on<sampled_top_k, serial>);

FAIRLEAD_NAMESPACE_END
