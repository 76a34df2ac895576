// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Token choice under a bias for each expert that follows the load (auxiliary-loss-free balancing).
#include <fairlead/concepts/bias_controller.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/frozen_bias.hpp>
#include <fairlead/route/token_choice.hpp>

#include <algorithm>
#include <span>
#include <type_traits>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The state of a biased router, host memory; save it with the parameters (`core/saved_state.hpp`).
/// @tparam ControllerState what the controller carries between global batches
template <class ControllerState = frozen_bias::state_type>
struct expert_bias {
  std::vector<float> values;     ///< added to the scores in selection, never to the weights. @shape{experts}
  ControllerState controller{};  ///< what the controller carries

  /// @brief Visit the arrays of the state.
  /// @param self the state
  /// @param f called with a span of each array
  template <class Self, class Function>
  static void each_array(Self& self, Function&& f) {
    f(std::span(self.values));
    ControllerState::each_array(self.controller, f);
  }
};

/// @brief Choose by score + bias, weigh by score alone; a controller moves the bias against the load.
///
/// The bias changes the choice only and gets no gradient. `observe` is called once per global batch; a controller that
/// reads scores (prices, quantiles) also sees those of each training micro-batch, as the selection does: after noise and
/// masks, before the bias.
/// @tparam Score how a logit becomes a score
/// @tparam Selection `plain_selection` or `group_limited<Rule>`; group rules see biased scores
/// @tparam Renormalisation how scores become weights
/// @tparam Noise what happens to logits in training
/// @tparam Controller what moves the bias (`bias_controller_on`); `frozen_bias` moves nothing, others are in `balance/`
/// @source{arXiv 2408.15664, selection by biased scores; DeepSeek-V3 gate}
template <class Score, class Selection, class Renormalisation = sum_over_chosen, class Noise = no_noise,
          class Controller = frozen_bias>
struct biased_token_choice {
  using score_type = Score;                      ///< how a logit becomes a score
  using selection_type = Selection;              ///< which experts may be chosen
  using renormalisation_type = Renormalisation;  ///< how scores become weights
  using noise_type = Noise;                      ///< what happens to logits in training
  using controller_type = Controller;            ///< what moves the bias
  using state_type = expert_bias<controller_state_t<Controller>>;  ///< bias and the controller's state

  expert_count experts;   ///< number of experts, 1 ... 65536
  index_t k = 1;          ///< experts a token, 1 ... min(experts, 64)
  float scale = 1.0F;     ///< factor on all weights, finite
  Selection selection{};  ///< fields of the selection
  Noise noise{};          ///< fields of the noise
  Controller controller{};  ///< fields of the controller

  /// @returns experts a token
  [[nodiscard]] FAIRLEAD_HD constexpr index_t fan_out() const noexcept { return k; }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route`, `route_and_learn` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const {
    std::size_t const routes = detail::route_workspace_bytes(tokens, experts);
    if constexpr (learns) {
      std::size_t const learning =
          fairlead::workspace_bytes<float>(tokens * experts) + controller.workspace_bytes(tokens, experts, k);
      return std::max(routes, learning);
    } else {
      return routes;
    }
  }
  /// @returns a bias of zeros, and the controller's state
  /// @throws std::bad_alloc
  [[nodiscard]] state_type make_state() const {
    return {std::vector<float>(static_cast<std::size_t>(experts()), 0.0F), controller.make_state(experts())};
  }
  /// @brief Let the controller move the bias; once per global batch, never in evaluation or recomputation.
  /// @param on execution backend
  /// @param comm communicator
  /// @param counts copies per expert over all ranks and micro-batches, padding excluded, equal on every rank. @shape{experts}
  /// @param[in,out] state the bias, equal on every rank before and after
  /// @throws contract_violation (level 1) on wrong sizes or fields of the controller
  /// @collective all ranks, if the controller communicates
  template <execution_backend Backend, communicator Comm>
  void observe(Backend const& on, Comm& comm, std::span<index_t const> counts, state_type& state) const {
    static_assert(bias_controller_on<Controller, Backend, Comm>,
                  "the controller does not work with this backend and communicator: those that read scores need a host "
                  "backend and all_reduce of doubles");
    FAIRLEAD_EXPECTS(static_cast<index_t>(counts.size()) == experts() &&
                         static_cast<index_t>(state.values.size()) == experts(),
                     "one count and one bias an expert", counts.size(), state.values.size(), experts());
    controller.end_global_batch(on, comm, counts, state.controller, std::span<float>(state.values));
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
             state_type const& state, routing_view out, workspace& ws) const {
    static_assert(host_backend<Backend> || !learns,
                  "a controller that reads scores works on host backends: on a device take one that reads counts "
                  "(sign_bias, pid_bias), or frozen_bias with a bias learned on the host");
    check(context, logits, state, out);
    implementation<biased_token_choice, Backend>::route(*this, on, logits, context, state, out, ws);
  }
  /// @brief Route as `route` does, bit for bit, and show the scores to the controller; once a training micro-batch.
  /// @param on host backend
  /// @param logits @shape{tokens x experts}
  /// @param context phase, seed, step, masks; in other phases than training nothing is learned
  /// @param[in,out] state the bias is only read, the controller's state changes
  /// @param[out] out @shape{tokens x k}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity that of `route` and of the controller; no allocation
  template <host_backend Backend>
    requires reads_scores_on<Controller, Backend>
  void route_and_learn(Backend const& on, matrix_view<float const> logits, route_context const& context,
                       state_type& state, routing_view out, workspace& ws) const {
    static_assert(!Selection::limits_groups,
                  "a controller that reads scores aims at the balance of plain selection: take plain_selection, or a "
                  "controller that reads counts (sign_bias, pid_bias)");
    route(on, logits, context, state, out, ws);
    if (context.phase != phase::train) { return; }
    workspace::scope const scope(ws);
    matrix_view<float const> seen = logits;
    if (!std::is_same_v<Score, raw_score> || detail::changes_logits<Noise>(context)) {
      matrix_view<float> const scores(ws.take<float>(logits.rows() * experts()).data(), logits.rows(), experts());
      on.for_each(logits.rows(), detail::score_rows<biased_token_choice>{*this, logits, context, scores});
      seen = scores;
    }
    controller.accumulate(on, seen, k, context, std::span<float const>(state.values), state.controller, ws);
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
                state_type const& state, const_routing_view out, matrix_view<float const> grad_weights,
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
  // What reads scores on the serial backend reads them on every host backend.
  static constexpr bool learns = reads_scores_on<Controller, serial>;

  void check(route_context const& context, matrix_view<float const> logits, state_type const& state,
             const_routing_view out) const {
    detail::check_route(context, experts(), k, scale, logits, out);
    FAIRLEAD_EXPECTS(static_cast<index_t>(state.values.size()) == experts(), "the state must come from make_state()",
                     state.values.size(), experts());
    selection.check(experts(), k);
    noise.check();
  }
};

/// @brief A token of a biased router never sees its batch-mates: the bias is fixed while it routes.
template <class Score, class Selection, class Renormalisation, class Noise, class Controller>
inline constexpr bool causal<biased_token_choice<Score, Selection, Renormalisation, Noise, Controller>> = true;

namespace detail {
template <class Score, class Selection, class Renormalisation, class Old, class Controller, class Noise>
struct replace_noise<biased_token_choice<Score, Selection, Renormalisation, Old, Controller>, Noise> {
  using type = biased_token_choice<Score, Selection, Renormalisation, Noise, Controller>;
};
template <class Router, class Controller>
struct replace_controller;
template <class Score, class Selection, class Renormalisation, class Noise, class Old, class Controller>
struct replace_controller<biased_token_choice<Score, Selection, Renormalisation, Noise, Old>, Controller> {
  using type = biased_token_choice<Score, Selection, Renormalisation, Noise, Controller>;
};
}  // namespace detail

/// @brief The same router with another bias controller:
/// `with_controller<sigmoid_bias_top_k, sign_bias>{.experts = 64, .k = 8, .controller = {.step = 1e-3F}}`.
/// @tparam Router a `biased_token_choice`
/// @tparam Controller what moves the bias
template <class Router, class Controller>
using with_controller = typename detail::replace_controller<Router, Controller>::type;

/// @brief Host text of `biased_token_choice`.
template <class Score, class Selection, class Renormalisation, class Noise, class Controller,
          host_backend Backend>
struct implementation<biased_token_choice<Score, Selection, Renormalisation, Noise, Controller>, Backend> {
  using policy = biased_token_choice<Score, Selection, Renormalisation, Noise, Controller>;  ///< the router
  /// See `biased_token_choice::route`.
  static void route(policy const& router, Backend const& on, matrix_view<float const> logits,
                    route_context const& context, typename policy::state_type const& state, routing_view out,
                    workspace& ws) {
    detail::for_each_part(on, logits.rows(), router.experts(), ws,
                          detail::route_part<policy>{router, logits, context, state.values.data(), out, nullptr, 0});
  }
  /// See `biased_token_choice::backward`.
  static void backward(policy const& router, Backend const& on, matrix_view<float const> logits,
                       route_context const& context, typename policy::state_type const&, const_routing_view out,
                       matrix_view<float const> grad_weights, matrix_view<float> grad_logits, workspace& ws) {
    detail::for_each_part(
        on, logits.rows(), router.experts(), ws,
        detail::gradient_part<policy>{router, logits, context, out, grad_weights, grad_logits, nullptr, 0});
  }
};

/// @brief S5, DeepSeek-V3 without groups: choose by sigmoid + bias, weigh by sigmoid over the chosen sum. The bias is frozen:
/// `with_controller<sigmoid_bias_top_k, sign_bias>` moves it.
/// @source{routing orders S5, arXiv 2408.15664}
using sigmoid_bias_top_k = biased_token_choice<sigmoid_score, plain_selection>;
/// @brief S6, DeepSeek-V3: as S5 inside the groups with the best sums of two biased scores.
/// @source{routing orders S6, DeepSeek-V3 inference code}
using sigmoid_bias_group_top_k = biased_token_choice<sigmoid_score, group_limited<group_top_two_sum>>;

static_assert(router_on<sigmoid_bias_top_k, serial> && has_gradient_on<sigmoid_bias_top_k, serial>);

FAIRLEAD_NAMESPACE_END
