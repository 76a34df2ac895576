// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Token choice under a bias for each expert that follows the load (auxiliary-loss-free balancing).
#include <fairlead/route/token_choice.hpp>

#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The state of a biased router: one fp32 number an expert, host memory; save it with the parameters.
struct expert_bias {
  std::vector<float> values;  ///< added to the scores in selection, never to the weights. @shape{experts}
};

/// @brief Choose by score + bias, weigh by score alone; the bias moves by a fixed rate against the load.
///
/// The bias changes the choice only and gets no gradient. `observe` is called once per global batch.
/// @tparam Score how a logit becomes a score
/// @tparam Selection `plain_selection` or `group_limited<Rule>`; group rules see biased scores
/// @tparam Renormalisation how scores become weights
/// @tparam Noise what happens to logits in training
/// @source{arXiv 2408.15664, sign rule; DeepSeek-V3 gate}
template <class Score, class Selection, class Renormalisation = sum_over_chosen, class Noise = no_noise>
struct biased_token_choice {
  using score_type = Score;                      ///< how a logit becomes a score
  using selection_type = Selection;              ///< which experts may be chosen
  using renormalisation_type = Renormalisation;  ///< how scores become weights
  using noise_type = Noise;                      ///< what happens to logits in training

  expert_count experts;   ///< number of experts, 1 ... 65536
  index_t k = 1;          ///< experts a token, 1 ... min(experts, 64)
  float scale = 1.0F;     ///< factor on all weights, finite
  float rate = 1e-3F;     ///< step of the bias at each observed load, >= 0
  Selection selection{};  ///< fields of the selection
  Noise noise{};          ///< fields of the noise

  /// @returns experts a token
  [[nodiscard]] FAIRLEAD_HD constexpr index_t fan_out() const noexcept { return k; }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const noexcept {
    return detail::route_workspace_bytes(tokens, experts);
  }
  /// @returns a bias of zeros
  /// @throws std::bad_alloc
  [[nodiscard]] expert_bias make_state() const {
    return {std::vector<float>(static_cast<std::size_t>(experts()), 0.0F)};
  }
  /// @brief Move the bias: up by `rate` for experts below the mean load, down above, not at all at the mean.
  /// @param counts copies per expert over all ranks, padding excluded. @shape{experts}
  /// @param[in,out] state the bias
  /// @throws contract_violation (level 1) on wrong sizes or a rate that is negative or NaN
  /// @complexity O(experts), no allocation
  /// @determinism exact: integers are compared
  void observe(std::span<index_t const> counts, expert_bias& state) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(counts.size()) == experts() &&
                         static_cast<index_t>(state.values.size()) == experts(),
                     "one count and one bias an expert", counts.size(), state.values.size(), experts());
    FAIRLEAD_EXPECTS(rate >= 0.0F, "the rate must not be negative", rate);
    index_t total = 0;
    for (index_t const count : counts) { total += count; }
    for (std::size_t e = 0; e < counts.size(); ++e) {
      index_t const lacks = total - counts[e] * experts();
      state.values[e] += lacks > 0 ? rate : lacks < 0 ? -rate : 0.0F;
    }
  }
  /// @brief Choose experts and weights.
  /// @param on execution backend
  /// @param logits @shape{tokens x experts}
  /// @param context phase, seed, step, masks
  /// @param state the bias, only read
  /// @param[out] out @shape{tokens x k}, slots by descending biased score
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity O(tokens x experts x k); no allocation
  /// @determinism ids and weights are the same bits for every host backend and number of threads
  template <execution_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context,
             expert_bias const& state, routing_view out, workspace& ws) const {
    check(context, logits, state, out);
    implementation<biased_token_choice, Backend>::route(*this, on, logits, context, state, out, ws);
  }
  /// @brief Derive the loss by the logits, given its derivative by the weights; choice and bias are held constant.
  /// @param on execution backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param state what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x k}
  /// @param[out] grad_logits overwritten. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity O(tokens x experts); no allocation
  template <execution_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                expert_bias const& state, const_routing_view out, matrix_view<float const> grad_weights,
                matrix_view<float> grad_logits, workspace& ws) const {
    check(context, logits, state, out);
    FAIRLEAD_EXPECTS(grad_weights.rows() == logits.rows() && grad_weights.cols() == k,
                     "grad_weights must be tokens x k", grad_weights.rows(), grad_weights.cols());
    FAIRLEAD_EXPECTS(grad_logits.rows() == logits.rows() && grad_logits.cols() == experts(),
                     "grad_logits must be tokens x experts", grad_logits.rows(), grad_logits.cols());
    implementation<biased_token_choice, Backend>::backward(*this, on, logits, context, state, out, grad_weights,
                                                           grad_logits, ws);
  }

 private:
  void check(route_context const& context, matrix_view<float const> logits, expert_bias const& state,
             const_routing_view out) const {
    detail::check_route(context, experts(), k, scale, logits, out);
    FAIRLEAD_EXPECTS(static_cast<index_t>(state.values.size()) == experts(), "the state must come from make_state()",
                     state.values.size(), experts());
    selection.check(experts(), k);
    noise.check();
  }
};

/// @brief A token of a biased router never sees its batch-mates: the bias is fixed while it routes.
template <class Score, class Selection, class Renormalisation, class Noise>
inline constexpr bool causal<biased_token_choice<Score, Selection, Renormalisation, Noise>> = true;

namespace detail {
template <class Score, class Selection, class Renormalisation, class Old, class Noise>
struct replace_noise<biased_token_choice<Score, Selection, Renormalisation, Old>, Noise> {
  using type = biased_token_choice<Score, Selection, Renormalisation, Noise>;
};
}  // namespace detail

/// @brief Host text of `biased_token_choice`.
template <class Score, class Selection, class Renormalisation, class Noise, host_backend Backend>
struct implementation<biased_token_choice<Score, Selection, Renormalisation, Noise>, Backend> {
  using policy = biased_token_choice<Score, Selection, Renormalisation, Noise>;  ///< the router
  /// See `biased_token_choice::route`.
  static void route(policy const& router, Backend const& on, matrix_view<float const> logits,
                    route_context const& context, expert_bias const& state, routing_view out, workspace& ws) {
    detail::for_each_part(on, logits.rows(), router.experts(), ws,
                          detail::route_part<policy>{router, logits, context, state.values.data(), out, nullptr, 0});
  }
  /// See `biased_token_choice::backward`.
  static void backward(policy const& router, Backend const& on, matrix_view<float const> logits,
                       route_context const& context, expert_bias const&, const_routing_view out,
                       matrix_view<float const> grad_weights, matrix_view<float> grad_logits, workspace& ws) {
    detail::for_each_part(
        on, logits.rows(), router.experts(), ws,
        detail::gradient_part<policy>{router, logits, context, out, grad_weights, grad_logits, nullptr, 0});
  }
};

/// @brief S5, DeepSeek-V3 without groups: choose by sigmoid + bias, weigh by sigmoid over the chosen sum.
/// @source{routing orders S5, arXiv 2408.15664}
using sigmoid_bias_top_k = biased_token_choice<sigmoid_score, plain_selection>;
/// @brief S6, DeepSeek-V3: as S5 inside the groups with the best sums of two biased scores.
/// @source{routing orders S6, DeepSeek-V3 inference code}
using sigmoid_bias_group_top_k = biased_token_choice<sigmoid_score, group_limited<group_top_two_sum>>;

FAIRLEAD_NAMESPACE_END
