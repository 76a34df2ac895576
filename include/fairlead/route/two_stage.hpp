// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Route by the hidden state first, later by a frozen light router.
#include <fairlead/concepts/router.hpp>
#include <fairlead/core/stage.hpp>
#include <fairlead/route/detail/weights.hpp>
#include <fairlead/route/top_k.hpp>

#include <algorithm>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Which scores route an evaluation.
enum class stage_evaluation {
  by_stage,  ///< those that route training at this step (the paper)
  distilled  ///< those of the light router from the first step on (the published code)
};

namespace detail {
/// The weight of a chosen expert: sigmoid of its backbone score, +inf as the largest number.
[[nodiscard]] inline float backbone_weight(float score) noexcept { return numeric::sigmoid(clean_logit(score)); }

/// Run a row function over blocks of rows: a thread's worth of work, whatever the number of threads.
template <class RowFunction>
struct stage_rows {
  static constexpr index_t size = 64;
  RowFunction f;
  index_t rows;
  void operator()(index_t block) const {
    index_t const last = std::min((block + 1) * size, rows);
    for (index_t t = block * size; t < last; ++t) { f(t); }
  }
};
template <host_backend Backend, class RowFunction>
void for_each_staged_row(Backend const& on, index_t rows, RowFunction f) {
  using block = stage_rows<RowFunction>;
  on.for_each((rows + block::size - 1) / block::size, block{f, rows});
}

struct backbone_weights {
  matrix_view<float const> backbone;
  routing_view out;
  void operator()(index_t t) const {
    expert_id const e = out.experts(t, 0);
    out.weights(t, 0) = e == expert_id::none ? 0.0F : backbone_weight(backbone(t, to_index(e)));
  }
};
/// Weigh the best light scores; where the backbone forbids one, take the best of the others.
struct light_weights {
  matrix_view<float const> backbone, light;
  route_context context;
  routing_view out;
  void operator()(index_t t) const {
    index_t best = to_index(out.experts(t, 0));
    if (best >= 0 && !is_candidate(backbone(t, best))) { best = allowed_by_both(t); }
    out.experts(t, 0) = static_cast<expert_id>(best);
    out.weights(t, 0) = best < 0 ? 0.0F : backbone_weight(backbone(t, best));
  }
  [[nodiscard]] index_t allowed_by_both(index_t t) const {
    index_t best = -1;
    for (index_t e = 0; e < light.cols(); ++e) {
      bool const allowed = context.expert_mask.empty() || context.expert_mask[static_cast<std::size_t>(e)] != 0;
      if (!allowed || !is_candidate(light(t, e)) || !is_candidate(backbone(t, e))) { continue; }
      if (best < 0 || light(t, e) > light(t, best)) { best = e; }  // equal scores: the lower id stays
    }
    return best;
  }
};
struct backbone_weight_gradient {
  matrix_view<float const> backbone;
  const_routing_view routed;
  matrix_view<float const> grad_weights;
  matrix_view<float> grad_logits;
  void operator()(index_t t) const {
    std::fill_n(grad_logits.row(t), grad_logits.cols(), 0.0F);
    expert_id const e = routed.experts(t, 0);
    if (e == expert_id::none) { return; }
    float const s = backbone_weight(backbone(t, to_index(e)));
    grad_logits(t, to_index(e)) = grad_weights(t, 0) * s * (1.0F - s);
  }
};
/// A concept, because nvcc takes `router_state_t` of a router without state in a requires clause for an error.
template <class State, class Router>
concept state_of = has_state<Router> && std::same_as<State, router_state_t<Router>>;
}  // namespace detail

/// @brief Send each token to one expert: by its backbone scores before `switch_step`, by its light scores from then on.
///
/// It reads 2 x experts logits, as `distilled_gate` makes them: the backbone's, then the light router's. The weight is
/// the sigmoid of the backbone score of the chosen expert in both stages, so that the backbone's centroids go on
/// learning; the light scores get no gradient from weights. The stage follows from `context.step` and `switch_step`
/// alone: whoever restores the step resumes in the right stage. The layer's default contexts count training passes;
/// with several micro-batches an update give contexts whose step counts updates, or count `switch_step` in passes.
///
/// In the first stage `First` chooses on the backbone scores: arg-max by default, or a balanced assignment. Its weights
/// are replaced. If it has state, so has this router, and learns as it does. The light stage shows it no scores; a
/// controller that reads counts (`sign_bias`) goes on moving its bias, without effect on the routing.
///
/// Deviations: the published code re-computes the arg-max for its balance loss; here `over_under_loss` reads what was
/// routed. An expert whose backbone score is NaN or -inf is never chosen, in the light stage either; else the choice there
/// does not depend on the backbone.
/// @tparam First router of the first stage, one expert a token (`router_on`)
/// @determinism ids of the second stage depend on the light scores alone, where backbone scores are numbers
/// @source{StableMoE, sections 3.2 and 3.3}
template <class First = top_k_sigmoid>
struct two_stage {
  First first{};                                            ///< first stage; names the number of experts
  std::uint64_t switch_step = never_step;                   ///< first step of the second stage
  stage_evaluation evaluation = stage_evaluation::by_stage; ///< what routes an evaluation

  /// @returns experts
  [[nodiscard]] index_t experts() const { return static_cast<index_t>(first.experts()); }
  /// @returns 1
  [[nodiscard]] constexpr index_t fan_out() const noexcept { return 1; }
  /// @returns columns of the logits: backbone scores, then light scores
  [[nodiscard]] index_t logit_columns() const { return 2 * experts(); }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens) const {
    return std::max<std::size_t>(first.workspace_bytes(tokens), arg_max().workspace_bytes(tokens));
  }
  /// @param context phase and step
  /// @returns whether the light scores choose
  [[nodiscard]] constexpr bool routes_by_light(route_context const& context) const noexcept {
    return is_second_stage(context.step, switch_step) ||
           (evaluation == stage_evaluation::distilled && context.phase == phase::evaluate);
  }

  /// @brief Choose experts and weights.
  /// @param on host backend
  /// @param logits @shape{tokens x 2 experts}
  /// @param context phase, step, masks
  /// @param[out] out @shape{tokens x 1}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes
  /// @complexity that of `First`, then O(tokens x experts); no allocation of its own
  template <host_backend Backend>
    requires has_route<First, Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    check(logits, context, out);
    if (routes_by_light(context)) { return route_by_light(on, logits, context, out, ws); }
    first.route(on, half(logits, 0), context, out, ws);
    weigh(on, logits, out);
  }
  /// @brief Choose experts and weights under the state of `First`.
  /// @param on host backend
  /// @param logits @shape{tokens x 2 experts}
  /// @param context phase, step, masks
  /// @param state state of `First`
  /// @param[out] out @shape{tokens x 1}
  /// @param ws at least `workspace_bytes(tokens)`
  template <host_backend Backend, class State>
    requires has_stateful_route<First, Backend> && detail::state_of<State, First>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, State const& state,
             routing_view out, workspace& ws) const {
    check(logits, context, out);
    if (routes_by_light(context)) { return route_by_light(on, logits, context, out, ws); }
    first.route(on, half(logits, 0), context, state, out, ws);
    weigh(on, logits, out);
  }
  /// @brief As `route`, and let `First` learn while it chooses.
  /// @param on host backend
  /// @param logits @shape{tokens x 2 experts}
  /// @param context phase, step, masks
  /// @param[in,out] state state of `First`
  /// @param[out] out @shape{tokens x 1}
  /// @param ws at least `workspace_bytes(tokens)`
  template <host_backend Backend, class State>
    requires has_learning_route<First, Backend> && detail::state_of<State, First>
  void route_and_learn(Backend const& on, matrix_view<float const> logits, route_context const& context, State& state,
                       routing_view out, workspace& ws) const {
    check(logits, context, out);
    if (routes_by_light(context)) { return route_by_light(on, logits, context, out, ws); }
    first.route_and_learn(on, half(logits, 0), context, state, out, ws);
    weigh(on, logits, out);
  }
  /// @brief Derive the loss by the logits through the weights; the choice is held constant.
  /// @param on host backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x 1}
  /// @param[out] grad_logits overwritten; the light half is 0. @shape{tokens x 2 experts}
  /// @complexity O(tokens x experts), no allocation
  template <host_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace&) const {
    check(logits, context, out);
    FAIRLEAD_EXPECTS(grad_weights.rows() == logits.rows() && grad_weights.cols() == 1, "grad_weights must be tokens x 1",
                     grad_weights.rows(), grad_weights.cols());
    FAIRLEAD_EXPECTS(grad_logits.rows() == logits.rows() && grad_logits.cols() == logits.cols(),
                     "grad_logits must be tokens x 2 experts", grad_logits.rows(), grad_logits.cols());
    detail::for_each_staged_row(on, logits.rows(), detail::backbone_weight_gradient{half(logits, 0), out, grad_weights, grad_logits});
  }
  /// @brief As `backward` without state: the state moves choices, not weights.
  /// @param on host backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param state state of `First` (without effect)
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x 1}
  /// @param[out] grad_logits overwritten. @shape{tokens x 2 experts}
  /// @param ws scratch (none is used)
  template <host_backend Backend, class State>
    requires has_state<First> && detail::state_of<State, First>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                [[maybe_unused]] State const& state, const_routing_view out, matrix_view<float const> grad_weights,
                matrix_view<float> grad_logits, workspace& ws) const {
    backward(on, logits, context, out, grad_weights, grad_logits, ws);
  }

  /// @returns the state of `First`
  [[nodiscard]] auto make_state() const
    requires has_state<First>
  {
    return first.make_state();
  }
  /// @brief Let `First` observe the loads of a global batch.
  /// @param counts copies per expert. @shape{experts}
  /// @param[in,out] next state of `First`
  template <class State>
    requires has_observe<First> && detail::state_of<State, First>
  void observe(std::span<index_t const> counts, State& next) const {
    first.observe(counts, next);
  }
  /// @brief Let `First` observe the loads of a global batch, all ranks together.
  /// @param on backend
  /// @param comm communicator
  /// @param counts copies per expert. @shape{experts}
  /// @param[in,out] next state of `First`
  template <class Backend, class Comm, class State>
    requires has_collective_observe<First, Backend, Comm> && detail::state_of<State, First>
  void observe(Backend const& on, Comm& comm, std::span<index_t const> counts, State& next) const {
    first.observe(on, comm, counts, next);
  }

 private:
  [[nodiscard]] matrix_view<float const> half(matrix_view<float const> logits, index_t which) const {
    return {logits.data() == nullptr ? nullptr : logits.data() + which * experts(), logits.rows(), experts(), logits.stride()};
  }
  [[nodiscard]] top_k_sigmoid arg_max() const { return {.experts = experts(), .selection = {}, .noise = {}}; }
  template <class Backend>
  void route_by_light(Backend const& on, matrix_view<float const> logits, route_context const& context,
                      routing_view out, workspace& ws) const {
    arg_max().route(on, half(logits, 1), context, out, ws);
    detail::for_each_staged_row(on, logits.rows(), detail::light_weights{half(logits, 0), half(logits, 1), context, out});
  }
  template <class Backend>
  void weigh(Backend const& on, matrix_view<float const> logits, routing_view out) const {
    detail::for_each_staged_row(on, logits.rows(), detail::backbone_weights{half(logits, 0), out});
  }
  void check(matrix_view<float const> logits, [[maybe_unused]] route_context const& context, const_routing_view out) const {
    FAIRLEAD_EXPECTS(experts() >= 1 && static_cast<index_t>(first.fan_out()) == 1,
                     "two stages need experts and a first stage that chooses one a token", experts(), first.fan_out());
    FAIRLEAD_EXPECTS(logits.cols() == 2 * experts() && out.tokens() == logits.rows() && out.fan_out() == 1,
                     "logits must be tokens x 2 experts, routing tokens x 1", logits.cols(), experts(), logits.rows(), out.tokens());
    FAIRLEAD_EXPECTS(context.token_mask.empty() || static_cast<index_t>(context.token_mask.size()) == logits.rows(),
                     "a token mask has one byte a token", context.token_mask.size(), logits.rows());
    FAIRLEAD_EXPECTS(context.expert_mask.empty() || static_cast<index_t>(context.expert_mask.size()) == experts(),
                     "an expert mask has one byte an expert", context.expert_mask.size(), experts());
  }
};

/// @brief In evaluation a token sees its batch-mates if it does in the first stage; light scores never make it.
template <class First>
inline constexpr bool causal<two_stage<First>> = causal<First>;
/// @brief As the first stage.
template <class First>
inline constexpr bool batch_coupled<two_stage<First>> = batch_coupled<First>;
static_assert(router_on<two_stage<>, serial> && has_gradient_on<two_stage<>, serial> && causal<two_stage<>>);

FAIRLEAD_NAMESPACE_END
