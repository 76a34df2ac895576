// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Balance the second choices by the shares that remain when the first is taken out.
#include <fairlead/balance/detail/expert_sums.hpp>
#include <fairlead/balance/detail/row_terms.hpp>
#include <fairlead/concepts/balance_signal.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Add coefficient * E * sum_e f_e Q_e: f counts second choices, Q is the mean of softmax without the first choice.
///
/// The optional companion of the first-choice loss of two-expert gates; `coefficient` is half of the other's there. Even
/// second choices give `coefficient`. Counts are those of this rank's micro-batch, held constant, second choices that
/// the router dropped left out (the source counts them too). Tokens without a first choice take no part. A rank's part
/// weighs as much as it has valid tokens.
/// @source{mesh-TensorFlow, transformer/moe.py, moe_use_second_place_loss}
struct second_place_loss {
  double coefficient = 5e-3;  ///< value at even second choices

  /// What is carried between calls.
  using state_type = detail::expert_sums_state;
  /// @param experts number of experts, >= 1
  /// @returns an empty state
  /// @throws contract_violation (level 1) on a bad number
  [[nodiscard]] state_type make_state(index_t experts) const { return detail::make_expert_sums_state(experts); }
  /// @brief Take in the number of tokens of a micro-batch, before its `add_gradient`.
  /// @param global_counts copies per expert over all ranks (without effect)
  /// @param global_tokens valid tokens over all ranks
  /// @param[in,out] state state
  /// @complexity O(1)
  void accumulate([[maybe_unused]] std::span<index_t const> global_counts, index_t global_tokens,
                  state_type& state) const {
    detail::take_in_tokens(global_tokens, state);
  }
  /// @brief A new global batch begins.
  /// @param[in,out] state state
  void end_global_batch(state_type& state) const noexcept { state.batch_tokens = 0; }

  /// @brief Add scale times the derivative of this rank's part.
  /// @param on host backend
  /// @param logits clean logits in the first columns. @shape{tokens x at least experts}
  /// @param routing what the router wrote, before capacity. @shape{tokens x at least 2}
  /// @param context masks
  /// @param state with this micro-batch taken in
  /// @param scale factor of the gradient (not of the value)
  /// @param[in,out] grad_logits gradient to add to, of the shape of the logits
  /// @param ws at least `workspace_bytes(tokens, experts)`
  /// @returns this rank's part of the loss, coefficient included
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(tokens x experts), no allocation
  /// @determinism the same bits at any number of threads
  template <host_backend Backend>
  double add_gradient(Backend const& on, matrix_view<float const> logits, const_routing_view routing,
                      route_context const& context, state_type const& state, double scale,
                      matrix_view<float> grad_logits, workspace& ws) const {
    detail::expect_expert_columns(logits, routing, context, grad_logits, state.experts);
    FAIRLEAD_EXPECTS(routing.fan_out() >= 2, "a loss on second choices needs two experts a token", routing.fan_out());
    index_t const tokens = logits.rows();
    index_t const experts = state.experts;
    index_t const valid = detail::valid_tokens(context, tokens);
    if (valid == 0 || state.batch_tokens == 0) { return 0.0; }
    workspace::scope const give_back(ws);
    auto const factors = ws.take<float>(experts);
    std::fill(factors.begin(), factors.end(), 0.0F);
    for (index_t t = 0; t < tokens; ++t) {
      expert_id const second = routing.experts(t, 1);
      if (detail::is_valid_token(context, t) && second != expert_id::none) { factors[static_cast<std::size_t>(second)] += 1.0F; }
    }
    // coefficient E / (valid^2) is that of the mean; the part of this rank is valid / batch_tokens.
    double const factor = coefficient * static_cast<double>(detail::allowed_experts(context, experts)) /
                          (static_cast<double>(valid) * static_cast<double>(state.batch_tokens));
    for (float& value : factors) { value = static_cast<float>(static_cast<double>(value) * factor); }
    return detail::sum_over_rows(on, tokens, 2 * experts, context,
                                 rows{logits, routing, grad_logits, &context, factors.data(), experts, static_cast<float>(scale)}, ws);
  }
  /// @param tokens rows of a call, >= 0
  /// @param experts number of experts
  /// @returns bytes of scratch of `add_gradient`
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t experts) const noexcept {
    return fairlead::workspace_bytes<float>(experts) + detail::row_loop_bytes(tokens, 2 * experts);
  }

 private:
  struct rows {
    matrix_view<float const> logits;
    const_routing_view routing;
    matrix_view<float> grad;
    route_context const* context;
    float const* factors;
    index_t experts;
    float scale;
    double operator()(index_t token, float* scratch) const {
      if (routing.experts(token, 0) == expert_id::none) { return 0.0; }
      std::copy_n(logits.row(token), experts, scratch);
      scratch[to_index(routing.experts(token, 0))] = -std::numeric_limits<float>::infinity();
      std::uint8_t const* const allowed = context->expert_mask.empty() ? nullptr : context->expert_mask.data();
      return static_cast<double>(detail::softmax_term(scratch, allowed, experts, factors, scale, grad.row(token), scratch + experts));
    }
  };
};
static_assert(balance_signal_on<second_place_loss, serial>);

FAIRLEAD_NAMESPACE_END
