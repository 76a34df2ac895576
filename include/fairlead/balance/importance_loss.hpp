// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Punish uneven importance: the squared coefficient of variation of the experts' summed shares or weights.
#include <fairlead/balance/detail/expert_sums.hpp>
#include <fairlead/balance/detail/row_terms.hpp>
#include <fairlead/concepts/balance_signal.hpp>
#include <fairlead/concepts/router.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cstddef>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Add coefficient * CV^2 of sum_t softmax(clean logits)_te over the experts: 0 at even importance.
///
/// CV^2 = variance / (mean^2 + 1e-10), population variance. Masked experts and padding take no part; a row without a
/// finite maximum adds nothing. The sums are over this rank's micro-batch (they are no counts, and are not exchanged);
/// a rank's part weighs as much as it has valid tokens.
/// @source{V-MoE, appendix A.2, importance loss}
struct importance_loss {
  double coefficient = 1e-2;  ///< weight of the loss

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
  /// @param routing what the router wrote (its shape is checked)
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
    index_t const tokens = logits.rows();
    index_t const experts = state.experts;
    if (tokens == 0 || state.batch_tokens == 0) { return 0.0; }
    workspace::scope const give_back(ws);
    auto const sums = ws.take<double>(experts);
    auto const slopes = ws.take<double>(experts);
    detail::sum_experts(on, tokens, experts, context, shares{logits, &context, experts}, sums, ws);
    double const part = coefficient * static_cast<double>(detail::valid_tokens(context, tokens)) /
                        static_cast<double>(state.batch_tokens);
    double const loss = part * detail::squared_variation(sums, context, slopes);
    auto const factors = ws.take<float>(experts);
    // The softmax does not see what is common to all factors: without it they keep their digits.
    double const common = *std::min_element(slopes.begin(), slopes.end());
    for (std::size_t e = 0; e < slopes.size(); ++e) { factors[e] = static_cast<float>(part * (slopes[e] - common)); }
    detail::for_valid_rows(on, tokens, experts, context,
                           gradients{logits, grad_logits, &context, factors.data(), experts, static_cast<float>(scale)}, ws);
    return loss;
  }
  /// @param tokens rows of a call, >= 0
  /// @param experts number of experts
  /// @returns bytes of scratch of `add_gradient`
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t experts) const noexcept {
    return detail::expert_sums_bytes(tokens, experts, experts) + fairlead::workspace_bytes<float>(experts);
  }

 private:
  [[nodiscard]] static std::uint8_t const* mask_of(route_context const& context) noexcept {
    return context.expert_mask.empty() ? nullptr : context.expert_mask.data();
  }
  struct shares {
    matrix_view<float const> logits;
    route_context const* context;
    index_t experts;
    void operator()(index_t token, double* sums, float* scratch) const {
      float const top = detail::usable_logits(logits.row(token), mask_of(*context), experts, scratch);
      if (!detail::is_finite_top(top)) { return; }
      for (index_t e = 0; e < experts; ++e) { scratch[e] = detail::exponential(scratch[e] - top); }
      double const whole = static_cast<double>(detail::sum_row(scratch, scratch, experts).plain);
      for (index_t e = 0; e < experts; ++e) { sums[e] += static_cast<double>(scratch[e]) / whole; }
    }
  };
  struct gradients {
    matrix_view<float const> logits;
    matrix_view<float> grad;
    route_context const* context;
    float const* factors;
    index_t experts;
    float scale;
    void operator()(index_t token, double*, float* scratch) const {
      (void)detail::softmax_term(logits.row(token), mask_of(*context), experts, factors, scale, grad.row(token), scratch);
    }
  };
};
static_assert(balance_signal_on<importance_loss, serial>);

/// @brief Add coefficient * CV^2 of the summed weights that a router gives its experts: 0 at even importance.
///
/// The weights are made again from the logits by the router, and the gradient goes through them by the router's own
/// `backward`; the choice is constant. Name the router of the layer. Sums and parts as in `importance_loss`.
/// @tparam Router a router without state, with gradient
/// @source{Shazeer 2017, equations 6 and 7; tensor2tensor code}
template <class Router>
struct weight_importance_loss {
  Router router{};            ///< the layer's router
  double coefficient = 1e-2;  ///< weight of the loss

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
  /// @param logits what the router saw. @shape{tokens x logit_columns(router)}
  /// @param routing what the router wrote (its shape is checked)
  /// @param context what the router saw
  /// @param state with this micro-batch taken in
  /// @param scale factor of the gradient (not of the value)
  /// @param[in,out] grad_logits gradient to add to, of the shape of the logits
  /// @param ws at least `workspace_bytes(tokens, experts)`
  /// @returns this rank's part of the loss, coefficient included
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity that of the router, forward and backward; no allocation
  /// @determinism the same bits at any number of threads
  template <host_backend Backend>
  double add_gradient(Backend const& on, matrix_view<float const> logits, const_routing_view routing,
                      route_context const& context, state_type const& state, double scale,
                      matrix_view<float> grad_logits, workspace& ws) const {
    detail::expect_expert_columns(logits, routing, context, grad_logits, state.experts);
    FAIRLEAD_EXPECTS(router.experts() == state.experts && logit_columns(router) == logits.cols(),
                     "name the router that the layer uses", router.experts(), logits.cols());
    index_t const tokens = logits.rows();
    index_t const fan_out = router.fan_out();
    if (tokens == 0 || state.batch_tokens == 0) { return 0.0; }
    workspace::scope const give_back(ws);
    auto const sums = ws.take<double>(state.experts);
    auto const slopes = ws.take<double>(state.experts);
    matrix_view<expert_id> const ids(ws.take<expert_id>(tokens * fan_out).data(), tokens, fan_out);
    matrix_view<float> const weights(ws.take<float>(tokens * fan_out).data(), tokens, fan_out);
    matrix_view<float> const grad_weights(ws.take<float>(tokens * fan_out).data(), tokens, fan_out);
    matrix_view<float> const grad(ws.take<float>(tokens * logits.cols()).data(), tokens, logits.cols());
    router.route(on, logits, context, {ids, weights}, ws);
    on.wait();
    std::fill(sums.begin(), sums.end(), 0.0);
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t j = 0; j < fan_out; ++j) {
        if (ids(t, j) != expert_id::none) { sums[static_cast<std::size_t>(ids(t, j))] += static_cast<double>(weights(t, j)); }
      }
    }
    double const part = coefficient * static_cast<double>(detail::valid_tokens(context, tokens)) /
                        static_cast<double>(state.batch_tokens);
    double const loss = part * detail::squared_variation(sums, context, slopes);
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t j = 0; j < fan_out; ++j) {
        bool const none = ids(t, j) == expert_id::none;
        grad_weights(t, j) = none ? 0.0F : static_cast<float>(scale * part * slopes[static_cast<std::size_t>(ids(t, j))]);
      }
    }
    router.backward(on, logits, context, const_routing_view{ids, weights}, matrix_view<float const>(grad_weights), grad, ws);
    on.wait();
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t c = 0; c < logits.cols(); ++c) { grad_logits(t, c) += grad(t, c); }
    }
    return loss;
  }
  /// @param tokens rows of a call, >= 0
  /// @param experts number of experts
  /// @returns bytes of scratch of `add_gradient`
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t experts) const {
    index_t const copies = tokens * router.fan_out();
    return 2 * fairlead::workspace_bytes<double>(experts) + fairlead::workspace_bytes<expert_id>(copies) +
           2 * fairlead::workspace_bytes<float>(copies) +
           fairlead::workspace_bytes<float>(tokens * logit_columns(router)) + router.workspace_bytes(tokens);
  }
};

FAIRLEAD_NAMESPACE_END
