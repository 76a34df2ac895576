// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Lower the scores of over-full experts, raise those of under-full ones.
#include <fairlead/balance/detail/row_loop.hpp>
#include <fairlead/balance/detail/row_terms.hpp>
#include <fairlead/concepts/balance_signal.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/core/stage.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Add coefficient * sum_i ((n_i - nbar) / nbar) * sum over the tokens of i of sigmoid(score of i), over the tokens.
///
/// n_i are the copies of expert i over all ranks in this micro-batch, as routed, before capacity, held constant; nbar is
/// their mean. Even loads give 0, and the value has either sign. A token pulls on the score of its own expert alone. Where
/// the router reads several scores an expert (`two_stage`), the first `experts` columns count. From `switch_step` on the
/// loss is nothing.
///
/// The published formula is a sum over tokens; the code adds it to a cross-entropy that is a sum too and divides all by
/// the tokens. Here values and gradients are parts of the mean over the valid tokens of all ranks, as of every signal: that
/// is the same weighing against a task loss that is a mean. Against a task loss that is a sum, pass the number of
/// tokens of all ranks as the layer's `signal_scale`.
///
/// Deviations: the code repeats the arg-max for this loss; here the routing is read as it is. Masked experts have
/// no part in the mean load.
/// @source{StableMoE, equation 4}
struct over_under_loss {
  double coefficient = 0.3;                ///< weight of the loss (alpha)
  std::uint64_t switch_step = never_step;  ///< `route_context::step` from which there is no loss

  /// @brief What the loss carries between calls.
  struct state_type {
    std::vector<index_t> counts;  ///< copies per expert of this micro-batch over all ranks. @shape{experts}
    index_t batch_tokens = 0;     ///< valid tokens of this micro-batch over all ranks
  };
  /// @param experts number of experts, >= 1
  /// @returns zero counts
  /// @throws contract_violation (level 1) without experts; std::bad_alloc
  [[nodiscard]] state_type make_state(index_t experts) const {
    FAIRLEAD_EXPECTS(experts >= 1, "a balance loss needs experts", experts);
    return {std::vector<index_t>(static_cast<std::size_t>(experts), 0), 0};
  }
  /// @brief Take in the loads of a micro-batch, before its `add_gradient`.
  /// @param global_counts copies per expert over all ranks, before capacity. @shape{experts}
  /// @param global_tokens valid tokens over all ranks
  /// @param[in,out] state counts
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(experts), no allocation
  void accumulate(std::span<index_t const> global_counts, index_t global_tokens, state_type& state) const {
    FAIRLEAD_EXPECTS(global_counts.size() == state.counts.size(), "one count an expert", global_counts.size(), state.counts.size());
    FAIRLEAD_EXPECTS(global_tokens >= 0, "the number of tokens must not be negative", global_tokens);
    std::copy(global_counts.begin(), global_counts.end(), state.counts.begin());
    state.batch_tokens = global_tokens;
  }
  /// @brief Add scale times the derivative of this rank's part.
  /// @param on execution backend
  /// @param logits the scores are the first `experts` columns. @shape{tokens x at least experts}
  /// @param routing what the router wrote, before capacity. @shape{tokens x fan_out}
  /// @param context masks and step
  /// @param state counts, with this micro-batch taken in
  /// @param scale factor of the gradient (not of the value)
  /// @param[in,out] grad_logits gradient to add to, in the columns of the assigned experts. As wide as the logits
  /// @param ws at least `workspace_bytes(tokens, experts)`
  /// @returns this rank's part of the loss, coefficient included
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(tokens x fan_out + experts), no allocation
  /// @determinism the same bits at any number of threads
  template <execution_backend Backend>
  double add_gradient(Backend const& on, matrix_view<float const> logits, const_routing_view routing,
                      route_context const& context, state_type const& state, double scale,
                      matrix_view<float> grad_logits, workspace& ws) const {
    return implementation<over_under_loss, Backend>::add_gradient(*this, on, logits, routing, context, state, scale, grad_logits, ws);
  }
  /// @brief Forget the counts.
  /// @param[in,out] state counts
  void end_global_batch(state_type& state) const noexcept {
    std::fill(state.counts.begin(), state.counts.end(), index_t{0});
    state.batch_tokens = 0;
  }
  /// @param tokens rows of a call, >= 0
  /// @param experts number of experts
  /// @returns bytes of scratch of `add_gradient`
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t experts) const noexcept {
    return fairlead::workspace_bytes<float>(experts) + detail::row_loop_bytes(tokens, 1);
  }
};

namespace detail {
struct over_under_row {
  matrix_view<float const> logits;
  const_routing_view routing;
  float const* factors;
  matrix_view<float> grad;
  float scale;
  double operator()(index_t token, float*) const {
    double sum = 0.0;
    for (index_t j = 0; j < routing.fan_out(); ++j) {
      expert_id const expert = routing.experts(token, j);
      if (expert == expert_id::none) { continue; }
      index_t const e = to_index(expert);
      float const s = logistic(logits(token, e));
      sum += static_cast<double>(factors[e]) * static_cast<double>(s);
      grad(token, e) += scale * factors[e] * s * (1.0F - s);
    }
    return sum;
  }
};
}  // namespace detail

/// @brief The host text of `over_under_loss`.
template <host_backend Backend>
struct implementation<over_under_loss, Backend> {
  /// @brief See `over_under_loss::add_gradient`.
  static double add_gradient(over_under_loss const& loss, Backend const& on, matrix_view<float const> logits,
                             const_routing_view routing, route_context const& context, over_under_loss::state_type const& state,
                             double scale, matrix_view<float> grad_logits, workspace& ws) {
    auto const experts = static_cast<index_t>(state.counts.size());
    detail::expect_column_shapes(logits, routing, context, grad_logits, experts, experts);
    index_t copies = 0;
    for (index_t const count : state.counts) { copies += count; }
    index_t const allowed = detail::allowed_experts(context, experts);
    if (logits.rows() == 0 || state.batch_tokens == 0 || copies == 0 || allowed == 0 || is_second_stage(context.step, loss.switch_step)) { return 0.0; }
    workspace::scope const give_back(ws);
    auto const factors = ws.take<float>(experts);
    double const mean = static_cast<double>(copies) / static_cast<double>(allowed);
    double const weight = loss.coefficient / static_cast<double>(state.batch_tokens);
    for (std::size_t e = 0; e < factors.size(); ++e) {
      factors[e] = static_cast<float>(weight * (static_cast<double>(state.counts[e]) - mean) / mean);
    }
    return detail::sum_over_rows(on, logits.rows(), 1, context,
                                 detail::over_under_row{logits, routing, factors.data(), grad_logits, static_cast<float>(scale)}, ws);
  }
};
static_assert(balance_signal_on<over_under_loss, serial>);

FAIRLEAD_NAMESPACE_END
