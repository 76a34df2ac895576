// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The family of routers in which each token chooses its k best experts.
#include <fairlead/concepts/router.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/route/detail/route_rows.hpp>
#include <fairlead/route/expert_count.hpp>
#include <fairlead/route/noise.hpp>
#include <fairlead/route/score.hpp>
#include <fairlead/route/selection.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Choose the k best experts of each token: score, selection and renormalisation are part of the type.
///
/// Orders that look alike give different weights or gradients, so each is a type of its own; `route/top_k.hpp` names
/// those in use. Selection compares logits, where scores grow with them: saturated scores then make no ties. A group
/// rule that adds compares scores. Weights come from the logits of the chosen experts after noise and masks: a masked
/// expert has no share in a softmax. +inf counts as the largest finite number in weights; NaN and -inf are never chosen.
/// @tparam Score `raw_score`, `softmax_score`, `sigmoid_score`, `sqrt_softplus_score`
/// @tparam Selection `plain_selection` or `group_limited<Rule>`
/// @tparam Renormalisation `not_renormalised`, `sum_over_chosen`, `softmax_over_chosen`
/// @tparam Noise `no_noise`, `multiplicative_jitter`, `fixed_noise`
template <class Score, class Selection, class Renormalisation, class Noise = no_noise>
struct token_choice {
  using score_type = Score;                      ///< how a logit becomes a score
  using selection_type = Selection;              ///< which experts may be chosen
  using renormalisation_type = Renormalisation;  ///< how scores become weights
  using noise_type = Noise;                      ///< what happens to logits in training

  expert_count experts;   ///< number of experts, 1 ... 65536
  index_t k = 1;          ///< experts a token, 1 ... min(experts, 64)
  float scale = 1.0F;     ///< factor on all weights, finite
  Selection selection{};  ///< fields of the selection
  Noise noise{};          ///< fields of the noise

  /// @returns experts a token
  [[nodiscard]] FAIRLEAD_HD constexpr index_t fan_out() const noexcept { return k; }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const noexcept {
    return detail::route_workspace_bytes(tokens, experts);
  }
  /// @brief Choose experts and weights.
  /// @param on execution backend
  /// @param logits @shape{tokens x experts}
  /// @param context phase, seed, step, masks
  /// @param[out] out @shape{tokens x k}, slots by descending key
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity O(tokens x experts x k); no allocation
  /// @determinism ids and weights are the same bits for every host backend and number of threads
  template <execution_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    check(context, logits, out);
    implementation<token_choice, Backend>::route(*this, on, logits, context, out, ws);
  }
  /// @brief Derive the loss by the logits, given its derivative by the weights; the choice is held constant.
  /// @param on execution backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x k}
  /// @param[out] grad_logits overwritten; zero rows for tokens without experts. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity O(tokens x experts); no allocation
  template <execution_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace& ws) const {
    check(context, logits, out);
    FAIRLEAD_EXPECTS(grad_weights.rows() == logits.rows() && grad_weights.cols() == k,
                     "grad_weights must be tokens x k", grad_weights.rows(), grad_weights.cols());
    FAIRLEAD_EXPECTS(grad_logits.rows() == logits.rows() && grad_logits.cols() == experts(),
                     "grad_logits must be tokens x experts", grad_logits.rows(), grad_logits.cols());
    implementation<token_choice, Backend>::backward(*this, on, logits, context, out, grad_weights, grad_logits, ws);
  }

 private:
  void check(route_context const& context, matrix_view<float const> logits, const_routing_view out) const {
    detail::check_route(context, experts(), k, scale, logits, out);
    selection.check(experts(), k);
    noise.check();
  }
};

/// @brief A token of a token-choice router never sees its batch-mates.
template <class Score, class Selection, class Renormalisation, class Noise>
inline constexpr bool causal<token_choice<Score, Selection, Renormalisation, Noise>> = true;

namespace detail {
template <class Router, class Noise>
struct replace_noise;
template <class Score, class Selection, class Renormalisation, class Old, class Noise>
struct replace_noise<token_choice<Score, Selection, Renormalisation, Old>, Noise> {
  using type = token_choice<Score, Selection, Renormalisation, Noise>;
};
}  // namespace detail

/// @brief The same router with another noise policy: `with_noise<top_k, fixed_noise>{.experts = 64, .k = 2}`.
/// @tparam Router a `token_choice` or `biased_token_choice`
/// @tparam Noise the noise policy
template <class Router, class Noise>
using with_noise = typename detail::replace_noise<Router, Noise>::type;

/// @brief Host text of `token_choice`.
template <class Score, class Selection, class Renormalisation, class Noise, host_backend Backend>
struct implementation<token_choice<Score, Selection, Renormalisation, Noise>, Backend> {
  using policy = token_choice<Score, Selection, Renormalisation, Noise>;  ///< the router
  /// See `token_choice::route`.
  static void route(policy const& router, Backend const& on, matrix_view<float const> logits,
                    route_context const& context, routing_view out, workspace& ws) {
    detail::for_each_part(on, logits.rows(), router.experts(), ws,
                          detail::route_part<policy>{router, logits, context, nullptr, out, nullptr, 0});
  }
  /// See `token_choice::backward`.
  static void backward(policy const& router, Backend const& on, matrix_view<float const> logits,
                       route_context const& context, const_routing_view out, matrix_view<float const> grad_weights,
                       matrix_view<float> grad_logits, workspace& ws) {
    detail::for_each_part(
        on, logits.rows(), router.experts(), ws,
        detail::gradient_part<policy>{router, logits, context, out, grad_weights, grad_logits, nullptr, 0});
  }
};

FAIRLEAD_NAMESPACE_END
