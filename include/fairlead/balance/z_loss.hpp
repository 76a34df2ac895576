// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Keep router logits small.
#include <fairlead/balance/detail/row_loop.hpp>
#include <fairlead/balance/detail/row_terms.hpp>
#include <fairlead/concepts/balance_signal.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/exec/serial.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Add coefficient * mean over tokens of logsumexp(logits)^2.
///
/// It does not balance: it keeps logits in the range where fp32 and bf16 resolve them. Padding and masked experts do
/// not take part; NaN counts as -inf, and a row without a finite maximum adds nothing (beyond 1e19 the square of a
/// logit does not fit fp32). What a rank returns and adds is
/// its part of the mean over the valid tokens of all ranks.
/// @source{zoph2022, ST-MoE: designing stable and transferable sparse expert models, equation 5}
struct z_loss {
  double coefficient = 1e-3;  ///< weight of the loss

  /// @brief What the loss carries between calls.
  struct state_type {
    index_t batch_tokens = 0;  ///< valid tokens of this micro-batch over all ranks
  };
  /// @returns an empty state
  [[nodiscard]] state_type make_state(index_t /*experts*/) const noexcept { return {}; }
  /// @brief Take in the number of tokens of a micro-batch, before its `add_gradient`.
  /// @param global_counts copies per expert over all ranks (without effect)
  /// @param global_tokens valid tokens over all ranks
  /// @param[in,out] state state
  /// @complexity O(1)
  void accumulate([[maybe_unused]] std::span<index_t const> global_counts, index_t global_tokens,
                  state_type& state) const {
    FAIRLEAD_EXPECTS(global_tokens >= 0, "the number of tokens must not be negative", global_tokens);
    state.batch_tokens = global_tokens;
  }
  /// @brief Add scale times the derivative of this rank's part.
  /// @param on execution backend
  /// @param logits clean logits. @shape{tokens x experts}
  /// @param routing what the router wrote (its shape is checked)
  /// @param context masks
  /// @param state with this micro-batch taken in
  /// @param scale factor of the gradient (not of the value)
  /// @param[in,out] grad_logits gradient to add to. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens, experts)`
  /// @returns this rank's part of the loss, coefficient included
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(tokens x experts), no allocation
  /// @determinism the same bits at any number of threads
  template <execution_backend Backend>
  double add_gradient(Backend const& on, matrix_view<float const> logits, const_routing_view routing,
                      route_context const& context, state_type const& state, double scale,
                      matrix_view<float> grad_logits, workspace& ws) const {
    return implementation<z_loss, Backend>::add_gradient(*this, on, logits, routing, context, state, scale, grad_logits,
                                                         ws);
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
struct log_sum_row {
  matrix_view<float const> logits;
  matrix_view<float> grad;
  std::uint8_t const* allowed;
  float scale;
  double operator()(index_t token, float* scratch) const {
    return log_sum_term(logits.row(token), allowed, logits.cols(), scale, grad.row(token), scratch);
  }
};
}  // namespace detail

/// @brief The host text of `z_loss`.
template <host_backend Backend>
struct implementation<z_loss, Backend> {
  /// @brief See `z_loss::add_gradient`.
  static double add_gradient(z_loss const& loss, Backend const& on, matrix_view<float const> logits,
                             const_routing_view routing, route_context const& context, z_loss::state_type const& state,
                             double scale, matrix_view<float> grad_logits, workspace& ws) {
    detail::expect_loss_shapes(logits, routing, context, grad_logits);
    if (logits.rows() == 0 || state.batch_tokens == 0) { return 0.0; }
    double const weight = loss.coefficient / static_cast<double>(state.batch_tokens);
    std::uint8_t const* const allowed = context.expert_mask.empty() ? nullptr : context.expert_mask.data();
    return weight * detail::sum_over_rows(
                        on, logits.rows(), logits.cols(), context,
                        detail::log_sum_row{logits, grad_logits, allowed, static_cast<float>(scale * weight)}, ws);
  }
};
static_assert(balance_signal_on<z_loss, serial>);

FAIRLEAD_NAMESPACE_END
