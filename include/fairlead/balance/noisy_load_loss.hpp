// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Punish uneven expected loads of routers with noise: each copy counts by its probability of being chosen.
#include <fairlead/balance/detail/best_of_row.hpp>
#include <fairlead/balance/detail/expert_sums.hpp>
#include <fairlead/concepts/balance_signal.hpp>
#include <fairlead/concepts/noisy_logits.hpp>
#include <fairlead/core/order.hpp>
#include <fairlead/exec/serial.hpp>

#include <cmath>
#include <cstddef>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief An expert must beat the best of the others' k: the (k+1)-th noisy logit if it is among the k best, else the k-th.
/// @source{Shazeer 2017, appendix A; tensor2tensor code, _prob_in_top_k}
struct threshold_of_others {
  /// @param among_best whether the expert is among the k best
  /// @returns whether it has to beat the (k+1)-th
  [[nodiscard]] static constexpr bool beats_next(bool among_best) noexcept { return among_best; }
};
/// @brief An expert must reach the k-th noisy logit, also if it is among the k best.
/// @source{V-MoE code, load_auxiliary_loss}
struct threshold_of_last {
  /// @returns false: the k-th
  [[nodiscard]] static constexpr bool beats_next(bool) noexcept { return false; }
};

/// @brief Add coefficient * CV^2 of the expected loads sum_t P(e is chosen if its noise were drawn again).
///
/// P = Phi((clean_e - threshold) / deviation_e) with the threshold taken from the noisy logits. The gradient reaches the
/// clean logits, the threshold's expert, and what makes the deviation. Without noise (evaluation, deviation 0) or with
/// k = experts the loss is that of the copies in the routing, without gradient. An infinite logit counts as 0 or 1.
/// The sums are over this rank's micro-batch; a rank's part weighs as much as it has valid tokens.
/// Deviation: Tutel compares softmax shares with thresholds of logits; here both are logits.
/// @tparam Source who knows the noise (`noisy_logits_source`): `noisy_top_k`, `fixed_noise_logits`
/// @tparam Threshold `threshold_of_others` or `threshold_of_last`
/// @source{Shazeer 2017, appendix A; V-MoE, appendix A.2}
template <noisy_logits_source Source, class Threshold = threshold_of_others>
struct noisy_load_loss {
  Source source{};            ///< the layer's router, or its noise
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
  /// @param logits what the router saw. @shape{tokens x source.logit_columns()}
  /// @param routing what the router wrote, before capacity. @shape{tokens x fan_out}
  /// @param context what the router saw
  /// @param state with this micro-batch taken in
  /// @param scale factor of the gradient (not of the value)
  /// @param[in,out] grad_logits gradient to add to, of the shape of the logits
  /// @param ws at least `workspace_bytes(tokens, experts)`
  /// @returns this rank's part of the loss, coefficient included
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(tokens x experts x k) at most, no allocation
  /// @determinism the same bits at any number of threads
  template <host_backend Backend>
  double add_gradient(Backend const& on, matrix_view<float const> logits, const_routing_view routing,
                      route_context const& context, state_type const& state, double scale,
                      matrix_view<float> grad_logits, workspace& ws) const {
    detail::expect_expert_columns(logits, routing, context, grad_logits, state.experts);
    index_t const tokens = logits.rows();
    index_t const experts = state.experts;
    FAIRLEAD_EXPECTS(source.experts() == experts && source.logit_columns() == logits.cols(),
                     "name the noise of the router that the layer uses", source.experts(), logits.cols());
    detail::expect_few_choices(routing.fan_out());
    if (tokens == 0 || routing.fan_out() == 0 || state.batch_tokens == 0) { return 0.0; }
    workspace::scope const give_back(ws);
    auto const sums = ws.take<double>(experts);
    auto const slopes = ws.take<double>(experts);
    rows const all{&source, logits, routing, grad_logits, &context, nullptr, experts};
    detail::sum_experts(on, tokens, 4 * experts, context, all, sums, ws);
    double const part = coefficient * static_cast<double>(detail::valid_tokens(context, tokens)) /
                        static_cast<double>(state.batch_tokens);
    double const loss = part * detail::squared_variation(sums, context, slopes);
    for (double& slope : slopes) { slope *= scale * part; }
    rows down = all;
    down.slopes = slopes.data();
    detail::for_valid_rows(on, tokens, 4 * experts, context, down, ws);
    return loss;
  }
  /// @param tokens rows of a call, >= 0
  /// @param experts number of experts
  /// @returns bytes of scratch of `add_gradient`
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t experts) const noexcept {
    return detail::expert_sums_bytes(tokens, experts, 4 * experts);
  }

 private:
  // One row: adds probabilities to `sums`, or, given `slopes`, their gradients to grad_logits.
  struct rows {
    Source const* source;
    matrix_view<float const> logits;
    const_routing_view routing;
    matrix_view<float> grad_logits;
    route_context const* context;
    double const* slopes;
    index_t experts;

    void operator()(index_t token, double* sums, float* scratch) const {
      float* const noisy = scratch;
      float* const deviation = scratch + experts;
      float const* const row = logits.row(token);
      index_t const fan_out = routing.fan_out();
      if (!source->noisy_logits(*context, token, row, noisy, deviation) || fan_out >= experts) {
        for (index_t j = 0; j < fan_out && sums != nullptr; ++j) {
          if (routing.experts(token, j) != expert_id::none) { sums[to_index(routing.experts(token, j))] += 1.0; }
        }
        return;
      }
      // The k-th and the next, by the order of selection; none: nothing to beat.
      std::int32_t best[detail::most_best_of_row];
      detail::best_of_row(noisy, nullptr, experts, fan_out + 1, best);
      index_t const last = best[fan_out - 1], next = best[fan_out];
      float* const grad_noisy = scratch + 2 * experts;
      float* const grad_deviation = scratch + 3 * experts;
      if (slopes != nullptr) { std::fill_n(grad_noisy, 2 * experts, 0.0F); }
      for (index_t e = 0; e < experts; ++e) {
        if (!is_candidate(noisy[e])) { continue; }
        bool const among = last < 0 || e == last || before(noisy, e, last);
        index_t const rival = Threshold::beats_next(among) ? next : last;
        double const clean = static_cast<double>(row[e]);
        double const width = static_cast<double>(deviation[e]);
        double const gap = rival < 0 ? 0.0 : clean - static_cast<double>(noisy[rival]);
        bool const smooth = rival >= 0 && std::isfinite(gap) && std::isfinite(width) && width > 0.0;
        double const z = smooth ? gap / width : 0.0;
        if (slopes == nullptr) {
          sums[e] += smooth ? 0.5 * std::erfc(-z * 0.70710678118654752440) : (among ? 1.0 : 0.0);
        } else if (smooth) {
          double const slope = slopes[e] * 0.39894228040143267794 * std::exp(-0.5 * z * z) / width;
          grad_logits(token, e) += static_cast<float>(slope);
          grad_noisy[rival] -= static_cast<float>(slope);
          grad_deviation[e] -= static_cast<float>(slope * z);
        }
      }
      if (slopes != nullptr) {
        source->noisy_logits_backward(*context, token, row, grad_noisy, grad_deviation, grad_logits.row(token));
      }
    }
    [[nodiscard]] static bool before(float const* keys, index_t a, index_t b) noexcept {
      return comes_before(keys[a], static_cast<std::int32_t>(a), keys[b], static_cast<std::int32_t>(b));
    }
  };
};

FAIRLEAD_NAMESPACE_END
