// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Expert choice: each expert takes its best tokens, so loads are even and tokens get none to all experts.
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/detail/choice_columns.hpp>
#include <fairlead/route/detail/token_shares.hpp>
#include <fairlead/route/token_choice.hpp>

#include <cmath>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief An expert prefers tokens by their softmax share over the experts; that share is the weight (Flaxformer).
struct shares_over_experts {};
/// @brief An expert prefers tokens by logit; the weight is the softmax share over the tokens (mesh-TensorFlow).
struct shares_over_tokens {
  bool divide_by_choices = false;  ///< divide a token's weights by the number of experts that it goes to
};

/// @brief Let each expert take its best `capacity(tokens)` tokens.
///
/// Loads are even by construction, without a balance loss. A token gets as many experts as want it: `fan_out()` is the bound
/// `max_choices`; of more, those with the best keys keep the token, and `overflow` counts the rest. By default nothing
/// overflows up to 64 experts. Which tokens an expert takes depends on the whole batch, in evaluation too: the router
/// looks into the future of a sequence and cannot decode. Ties: lower token for an expert, lower expert for a token.
/// Deviations: padding is never chosen and counts in no softmax and no capacity (Flaxformer only weighs it down);
/// weights are not renormalised, as in both sources.
/// @tparam Shares `shares_over_experts` or `shares_over_tokens`
/// @source{zhou2022, expert choice; Flaxformer code, ExpertsChooseMaskedRouter; mesh-TensorFlow code, expert selection}
template <class Shares>
struct basic_expert_choice {
  expert_count experts;          ///< number of experts, 1 ... 65536
  double capacity_factor = 2.0;  ///< experts a token on average, > 0
  index_t min_capacity = 1;      ///< fewest tokens an expert takes, if there are as many; >= 0
  index_t max_choices = 0;       ///< most experts a token, 0 ... min(experts, 64); 0 = min(experts, 64)
  float scale = 1.0F;            ///< factor on all weights, finite
  Shares shares{};               ///< fields of the shares

  /// @returns most experts a token
  [[nodiscard]] constexpr index_t fan_out() const noexcept { return detail::choices_bound(max_choices, experts); }
  /// @brief Tokens that an expert takes.
  /// @param tokens tokens that are no padding
  /// @returns round(capacity_factor x tokens / experts), halves to even, at least min_capacity, at most `tokens`
  [[nodiscard]] index_t capacity(index_t tokens) const noexcept {
    double const even = capacity_factor * static_cast<double>(tokens) / static_cast<double>(experts());
    double const all = static_cast<double>(tokens);
    auto const rounded = static_cast<index_t>(std::nearbyint(std::min(even, all)));
    return std::min(std::max(rounded, min_capacity), tokens);
  }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const noexcept {
    return detail::column_bytes(tokens, experts) + detail::share_bytes(tokens, experts) +
           detail::route_workspace_bytes(tokens, experts);
  }
  /// @brief Choose tokens for each expert.
  /// @param on host backend
  /// @param logits @shape{tokens x experts}
  /// @param context masks
  /// @param[out] out @shape{tokens x fan_out}, slots by descending key, none in the rest
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity O(tokens x experts) expected time, no allocation; scratch of tokens x experts floats
  /// @determinism the same bits at any number of threads
  template <host_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    check(context, logits, out);
    if (logits.rows() == 0) { return; }
    workspace::scope const scope(ws);
    float const* const columns = detail::make_columns<over_experts>(on, logits, context, ws);
    detail::choose_by_columns<over_experts>(
        on, columns, experts(), take{capacity(valid_tokens(context, logits.rows()))}, scale, out, ws);
    if constexpr (!over_experts) {
      detail::weigh_by_token_shares(on, columns, logits, scale, shares.divide_by_choices, out, ws);
    }
  }
  /// @brief Derive the loss by the logits, given its derivative by the weights; the choice is held constant.
  /// @param on host backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x fan_out}
  /// @param[out] grad_logits overwritten; with shares over tokens, each token's logit moves the weights of all tokens of
  /// an expert. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity O(tokens x experts), no allocation
  template <host_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace& ws) const {
    check(context, logits, out);
    if constexpr (over_experts) {
      choice().backward(on, logits, context, out, grad_weights, grad_logits, ws);
    } else {
      FAIRLEAD_EXPECTS(grad_weights.rows() == logits.rows() && grad_weights.cols() == fan_out(),
                       "grad_weights must be tokens x fan_out", grad_weights.rows(), grad_weights.cols());
      FAIRLEAD_EXPECTS(grad_logits.rows() == logits.rows() && grad_logits.cols() == experts(),
                       "grad_logits must be tokens x experts", grad_logits.rows(), grad_logits.cols());
      if (logits.rows() == 0) { return; }
      workspace::scope const scope(ws);
      float const* const columns = detail::make_columns<false>(on, logits, context, ws);
      detail::token_share_gradient(on, columns, logits, scale, shares.divide_by_choices, out, grad_weights, grad_logits,
                                   ws);
    }
  }
  /// @brief Count the choices of experts that found no slot, because more than `fan_out()` experts wanted a token.
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @returns choices of experts less copies in `out`; 0 if max_choices = experts
  /// @complexity O(tokens x experts), no allocation
  [[nodiscard]] index_t overflow(matrix_view<float const> logits, route_context const& context,
                                 const_routing_view out) const {
    check(context, logits, out);
    index_t const places = capacity(valid_tokens(context, logits.rows()));
    index_t wanted = 0, kept = 0;
    for (index_t e = 0; e < experts(); ++e) {
      index_t candidates = 0;
      for (index_t t = 0; t < logits.rows(); ++t) {
        bool const valid = detail::is_valid(context, t);
        candidates += valid && is_candidate(detail::effective_logit(no_noise{}, context, t, e, experts(), logits(t, e)));
      }
      wanted += std::min(candidates, places);
    }
    for (index_t t = 0; t < out.tokens(); ++t) {
      for (index_t j = 0; j < out.fan_out(); ++j) { kept += out.experts(t, j) != expert_id::none ? 1 : 0; }
    }
    return wanted - kept;
  }

 private:
  static constexpr bool over_experts = std::is_same_v<Shares, shares_over_experts>;
  static_assert(over_experts || std::is_same_v<Shares, shares_over_tokens>,
                "shares are shares_over_experts or shares_over_tokens");
  struct take {
    index_t places;
    index_t operator()(float const*, index_t, index_t) const noexcept { return places; }
  };
  using choice_type = token_choice<softmax_score, plain_selection, not_renormalised>;
  [[nodiscard]] constexpr choice_type choice() const noexcept {
    return {.experts = experts, .k = fan_out(), .scale = scale, .selection = {}, .noise = {}};
  }
  [[nodiscard]] static index_t valid_tokens(route_context const& context, index_t tokens) noexcept {
    return context.token_mask.empty()
               ? tokens
               : tokens - std::count(context.token_mask.begin(), context.token_mask.end(), std::uint8_t{0});
  }
  void check(route_context const& context, matrix_view<float const> logits, const_routing_view out) const {
    FAIRLEAD_EXPECTS(max_choices >= 0 && max_choices <= experts(), "max_choices must be 0 ... experts", max_choices,
                     experts());
    FAIRLEAD_EXPECTS(capacity_factor > 0.0 && min_capacity >= 0,
                     "capacity_factor must be positive and min_capacity not negative", capacity_factor, min_capacity);
    FAIRLEAD_EXPECTS(logits.rows() <= 0xFFFFFFFF, "an expert chooses among fewer than 2^32 tokens", logits.rows());
    detail::check_route(context, experts(), fan_out(), scale, logits, out);
  }
};
/// @brief The experts of a token depend on the other tokens, in evaluation too.
template <class Shares>
inline constexpr bool batch_coupled<basic_expert_choice<Shares>> = true;

/// @brief Expert choice by softmax over the experts (Flaxformer).
using expert_choice = basic_expert_choice<shares_over_experts>;
/// @brief Expert choice weighed by softmax over the tokens (mesh-TensorFlow).
using expert_choice_over_tokens = basic_expert_choice<shares_over_tokens>;

static_assert(router_on<expert_choice, serial> && has_gradient_on<expert_choice_over_tokens, serial>);

FAIRLEAD_NAMESPACE_END
