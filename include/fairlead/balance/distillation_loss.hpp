// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Teach a light router to choose as the backbone does.
#include <fairlead/balance/detail/row_loop.hpp>
#include <fairlead/balance/detail/row_terms.hpp>
#include <fairlead/concepts/balance_signal.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/core/order.hpp>
#include <fairlead/core/stage.hpp>
#include <fairlead/exec/serial.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Add coefficient * mean over tokens of -log softmax(light scores)[best expert of the backbone].
///
/// Logits are 2 x experts wide, as `distilled_gate` makes them: the backbone's scores, then the light ones. The target is
/// the arg-max of the backbone scores - also where the first stage assigns otherwise (a balanced assignment): the
/// light router learns the affinity. The gradient reaches the light half alone. From `switch_step` on the loss is nothing.
///
/// Masked experts and padding do not take part; NaN counts as -inf, and a row without a best expert, or whose best expert
/// has a light score of -inf, adds nothing. What a rank returns and adds is its part of the mean over the valid tokens of
/// all ranks: the published formula is a sum beside a task loss that is a sum; the weighing is the same.
/// @source{StableMoE, equations 9 and 11: coefficient 1; its published command line: 0.3}
struct distillation_loss {
  double coefficient = 1.0;                ///< weight of the loss: 1 in the paper, 0.3 in the published command
  std::uint64_t switch_step = never_step;  ///< `route_context::step` from which there is no loss

  /// @brief What the loss carries between calls.
  struct state_type {
    index_t experts = 0;       ///< number of experts
    index_t batch_tokens = 0;  ///< valid tokens of this micro-batch over all ranks
  };
  /// @param experts number of experts, >= 1
  /// @returns no tokens
  /// @throws contract_violation (level 1) without experts
  [[nodiscard]] state_type make_state(index_t experts) const {
    FAIRLEAD_EXPECTS(experts >= 1, "a distillation needs experts", experts);
    return {experts, 0};
  }
  /// @brief Take in the number of tokens of a micro-batch, before its `add_gradient`.
  /// @param global_counts copies per expert over all ranks (without effect)
  /// @param global_tokens valid tokens over all ranks
  /// @param[in,out] state state
  void accumulate([[maybe_unused]] std::span<index_t const> global_counts, index_t global_tokens, state_type& state) const {
    FAIRLEAD_EXPECTS(global_tokens >= 0, "the number of tokens must not be negative", global_tokens);
    state.batch_tokens = global_tokens;
  }
  /// @brief Add scale times the derivative of this rank's part.
  /// @param on execution backend
  /// @param logits backbone scores, then light scores. @shape{tokens x 2 experts}
  /// @param routing what the router wrote (its shape is checked)
  /// @param context masks and step
  /// @param state with this micro-batch taken in
  /// @param scale factor of the gradient (not of the value)
  /// @param[in,out] grad_logits gradient to add to, in the light half. @shape{tokens x 2 experts}
  /// @param ws at least `workspace_bytes(tokens, experts)`
  /// @returns this rank's part of the loss, coefficient included
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(tokens x experts), no allocation
  /// @determinism the same bits at any number of threads
  template <execution_backend Backend>
  double add_gradient(Backend const& on, matrix_view<float const> logits, const_routing_view routing,
                      route_context const& context, state_type const& state, double scale,
                      matrix_view<float> grad_logits, workspace& ws) const {
    return implementation<distillation_loss, Backend>::add_gradient(*this, on, logits, routing, context, state, scale, grad_logits, ws);
  }
  /// @brief A new global batch begins.
  /// @param[in,out] state state
  void end_global_batch(state_type& state) const noexcept { state.batch_tokens = 0; }
  /// @param tokens rows of a call, >= 0
  /// @param experts number of experts
  /// @returns bytes of scratch of `add_gradient`
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t experts) const noexcept {
    return detail::row_loop_bytes(tokens, experts);
  }
};

namespace detail {
struct distillation_row {
  matrix_view<float const> logits;
  matrix_view<float> grad;
  std::uint8_t const* allowed;
  index_t experts;
  float scale;
  double operator()(index_t token, float* scratch) const {
    float const* const backbone = logits.row(token);
    float const* const light = backbone + experts;
    index_t target = -1;
    for (index_t e = 0; e < experts; ++e) {
      if ((allowed != nullptr && allowed[e] == 0) || !is_candidate(backbone[e])) { continue; }
      if (target < 0 || backbone[e] > backbone[target]) { target = e; }
    }
    if (target < 0 || !is_candidate(light[target])) { return 0.0; }
    float const top = usable_logits(light, allowed, experts, scratch);
    if (!is_finite_top(top)) { return 0.0; }
    for (index_t e = 0; e < experts; ++e) { scratch[e] = exponential(scratch[e] - top); }
    float const sum = sum_row(scratch, scratch, experts).plain;
    float* const to = grad.row(token) + experts;
    for (index_t e = 0; e < experts; ++e) { to[e] += scale * (scratch[e] / sum); }
    to[target] -= scale;
    return static_cast<double>(std::log(sum)) + static_cast<double>(top - light[target]);
  }
};
}  // namespace detail

/// @brief The host text of `distillation_loss`.
template <host_backend Backend>
struct implementation<distillation_loss, Backend> {
  /// @brief See `distillation_loss::add_gradient`.
  static double add_gradient(distillation_loss const& loss, Backend const& on, matrix_view<float const> logits,
                             const_routing_view routing, route_context const& context, distillation_loss::state_type const& state,
                             double scale, matrix_view<float> grad_logits, workspace& ws) {
    detail::expect_column_shapes(logits, routing, context, grad_logits, state.experts, 2 * state.experts);
    FAIRLEAD_EXPECTS(logits.cols() == 2 * state.experts, "distillation needs backbone and light scores: a gate such as distilled_gate", logits.cols(), state.experts);
    if (logits.rows() == 0 || state.batch_tokens == 0 || is_second_stage(context.step, loss.switch_step)) { return 0.0; }
    double const weight = loss.coefficient / static_cast<double>(state.batch_tokens);
    std::uint8_t const* const allowed = context.expert_mask.empty() ? nullptr : context.expert_mask.data();
    return weight * detail::sum_over_rows(on, logits.rows(), state.experts, context,
                                          detail::distillation_row{logits, grad_logits, allowed, state.experts, static_cast<float>(scale * weight)}, ws);
  }
};
static_assert(balance_signal_on<distillation_loss, serial>);

FAIRLEAD_NAMESPACE_END
