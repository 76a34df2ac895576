// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Balance without a loss: set each expert's bias to the quantile of scores at which its load would be even.
#include <fairlead/balance/price_average.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/concepts/bias_controller.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/flow/quantile_step.hpp>

#include <cstddef>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief One quantile step of the prices for each micro-batch, averaged over the global batch; bias = -price.
///
/// Each training micro-batch steps from the bias that routed it (`quantile_step`); `end_global_batch` averages the steps
/// over micro-batches and ranks, weighted by valid tokens, mixes with the old bias and subtracts the mean. There is no
/// gain to tune, and a few global batches suffice; identical rows, which no prices can split, and the step's own stalls
/// leave a floor. Where the copies do not divide by the experts, the first experts aim at one more. Padding and masked
/// experts do not count; a micro-batch without valid tokens contributes nothing.
///
/// Deviations from the source: any number of tokens and padding are allowed, micro-batches weigh by tokens (the same
/// when they are equally long), `decay` starts with a running mean. Works with plain selection.
/// @source{Megatron-core, quantile balancing: router.py, qb_dual_update}
struct quantile_bias {
  double decay = 0.0;  ///< share of the old bias that stays at each update, in [0, 1)

  using state_type = price_average;  ///< what is carried between calls
  /// @param experts number of experts, >= 1
  /// @returns empty sums
  /// @throws std::bad_alloc
  [[nodiscard]] state_type make_state(index_t experts) const { return price_average::make(experts); }
  /// @param tokens number of tokens
  /// @param experts number of experts
  /// @param fan_out experts a token
  /// @returns scratch bytes of `accumulate`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens, index_t experts, index_t fan_out) const noexcept {
    return 2 * fairlead::workspace_bytes<double>(experts) + fairlead::workspace_bytes<index_t>(experts) +
           quantile_step_bytes(tokens, experts, fan_out);
  }
  /// @brief Step from the bias that routed this micro-batch, and add the result to the sums.
  /// @param on host backend
  /// @param scores selection scores before the bias; NaN and -inf are not to be chosen. @shape{tokens x experts}
  /// @param fan_out experts a token
  /// @param context masks; in other phases than training nothing happens
  /// @param bias what routed the micro-batch. @shape{experts}
  /// @param[in,out] state sums of this rank
  /// @param ws at least `workspace_bytes(tokens, experts, fan_out)`
  /// @throws contract_violation (level 1) on wrong shapes
  /// @complexity O(tokens x experts), no allocation
  /// @determinism equal bits at any number of threads
  template <host_backend Backend>
  void accumulate(Backend const& on, matrix_view<float const> scores, index_t fan_out, route_context const& context,
                  std::span<float const> bias, state_type& state, workspace& ws) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(bias.size()) == scores.cols(), "one bias an expert", bias.size(), scores.cols());
    index_t const experts = scores.cols();
    index_t const valid = detail::prices::valid_tokens(context.token_mask, scores.rows());
    if (context.phase != phase::train || valid == 0) { return; }
    workspace::scope const scope(ws);
    auto const old = ws.take<double>(experts);
    auto const next = ws.take<double>(experts);
    auto const capacity = ws.take<index_t>(experts);
    for (std::size_t e = 0; e < bias.size(); ++e) { old[e] = -static_cast<double>(bias[e]); }
    detail::prices::usable_capacity(valid * fan_out, context.expert_mask, capacity);
    quantile_step(on, scores, fan_out, std::span<index_t const>(capacity), context.token_mask,
                  std::span<double const>(old), next, ws);
    detail::prices::join_prices(old, context.expert_mask, next);
    state.add(next, valid);
  }
  /// @brief Average over micro-batches and ranks, and set the bias.
  /// @param on host backend
  /// @param comm communicator
  /// @param counts copies per expert, not used: the scores say more. @shape{experts}
  /// @param[in,out] state sums, forgotten afterwards
  /// @param[in,out] bias selection bias, mean 0 afterwards; unchanged if nothing was accumulated. @shape{experts}
  /// @throws contract_violation (level 1) on wrong sizes or a decay outside [0, 1)
  /// @complexity O(experts), one reduction; no allocation
  /// @determinism the same bits on every rank
  /// @collective all ranks
  template <host_backend Backend, communicator Comm>
    requires has_all_reduce<Comm, double, Backend>
  void end_global_batch(Backend const& on, Comm& comm, [[maybe_unused]] std::span<index_t const> counts,
                        state_type& state, std::span<float> bias) const {
    state.move(on, comm, decay, bias);
  }
};

static_assert(bias_controller_on<quantile_bias, serial, alone> && reads_scores_on<quantile_bias, serial>);

FAIRLEAD_NAMESPACE_END
