// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Balance without a loss: set each expert's bias to its price in the balanced assignment of the batch.
#include <fairlead/balance/price_average.hpp>
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/concepts/bias_controller.hpp>
#include <fairlead/core/contract.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief What `exact_dual_bias` carries between calls: sums of prices, the last prices, and how the solves went.
struct exact_dual_state {
  price_average average;       ///< sums of this rank since the last global batch
  std::vector<double> prices;  ///< what the next solve of this global batch starts from. @shape{experts}
  index_t warm = 0;            ///< whether `prices` hold something, 0 or 1; between global batches 0
  index_t solved = 0;          ///< micro-batches of this rank that gave prices so far
  index_t failed = 0;          ///< micro-batches of this rank that gave none so far: infeasible or unsupported
  /// How this rank's last solve ended.
  fairlead::status status = fairlead::status::ok;

  /// @brief Visit the arrays of the state.
  /// @param self the state
  /// @param f called with a span of each array
  template <class Self, class Function>
  static void each_array(Self& self, Function&& f) {
    price_average::each_array(self.average, f);
    f(std::span(self.prices));
    f(std::span(&self.warm, 1));
    f(std::span(&self.solved, 1));
    f(std::span(&self.failed, 1));
    f(std::span(&self.status, 1));
  }
};

/// @brief Solve the balanced assignment of each micro-batch, and route the next global batch by its prices; bias = -price.
///
/// With exact prices a token's best experts by score + bias are those of the best balanced assignment, up to ties, so
/// one solve balances scores that do not change. On changing scores what limits is how well prices of one batch fit the
/// next: more tokens a solve and some `decay` help. Every rank solves its own tokens; prices are averaged over
/// micro-batches and ranks, weighted by the tokens that took part. Solves start warm: from the bias, then from the last
/// micro-batch. A token with fewer candidates than choices (NaN, -inf and masked experts are none) takes no part. A
/// micro-batch that has no balanced assignment contributes nothing, and says so in the state. Works with plain selection.
/// @tparam Solver an assignment solver with prices (`assignment_solver_on`, `has_prices`), such as `balanced_flow`
/// @source{BASE, the dual of its assignment problem; prices as a routing bias as in quantile balancing}
template <class Solver>
struct exact_dual_bias {
  static_assert(has_prices<Solver>, "exact_dual_bias needs a solver that returns prices (has_prices<Solver>), such as balanced_flow");

  Solver solver{};     ///< what solves a micro-batch
  double decay = 0.0;  ///< share of the old bias that stays at each update, in [0, 1)

  using state_type = exact_dual_state;  ///< what is carried between calls
  /// @param experts number of experts, >= 1
  /// @returns empty sums, no prices
  /// @throws std::bad_alloc
  [[nodiscard]] state_type make_state(index_t experts) const {
    state_type state;
    state.average = price_average::make(experts);
    state.prices.assign(static_cast<std::size_t>(experts), 0.0);
    return state;
  }
  /// @param tokens number of tokens
  /// @param experts number of experts
  /// @param fan_out experts a token
  /// @returns scratch bytes of `accumulate`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens, index_t experts, index_t fan_out) const {
    return 2 * fairlead::workspace_bytes<double>(experts) + 2 * fairlead::workspace_bytes<index_t>(experts) +
           fairlead::workspace_bytes<expert_id>(tokens * fan_out) + fairlead::workspace_bytes<std::uint8_t>(tokens) +
           solver.workspace_bytes(tokens, experts, fan_out);
  }
  /// @brief Solve this micro-batch, and add its prices to the sums.
  /// @param on host backend
  /// @param scores selection scores before the bias; NaN and -inf are not to be chosen. @shape{tokens x experts}
  /// @param fan_out experts a token
  /// @param context masks; in other phases than training nothing happens
  /// @param bias what routed the micro-batch. @shape{experts}
  /// @param[in,out] state sums, prices and status of this rank
  /// @param ws at least `workspace_bytes(tokens, experts, fan_out)`
  /// @throws contract_violation (level 1) on wrong shapes
  /// @complexity that of a solve, no allocation
  /// @determinism that of the solver
  template <host_backend Backend>
    requires assignment_solver_on<Solver, Backend>
  void accumulate(Backend const& on, matrix_view<float const> scores, index_t fan_out, route_context const& context,
                  std::span<float const> bias, state_type& state, workspace& ws) const {
    index_t const experts = scores.cols();
    FAIRLEAD_EXPECTS(static_cast<index_t>(bias.size()) == experts && state.prices.size() == bias.size(),
                     "one bias and one price an expert", bias.size(), state.prices.size(), experts);
    if (context.phase != phase::train) { return; }
    workspace::scope const scope(ws);
    auto const takes_part = ws.take<std::uint8_t>(scores.rows());
    index_t const valid = detail::prices::mark_choosers(scores, fan_out, context, takes_part);
    if (valid == 0) { return; }
    auto const old = ws.take<double>(experts);
    auto const prices = ws.take<double>(experts);
    auto const lower = ws.take<index_t>(experts);
    auto const upper = ws.take<index_t>(experts);
    auto const owner = ws.take<expert_id>(scores.rows() * fan_out);
    for (std::size_t e = 0; e < bias.size(); ++e) { old[e] = -static_cast<double>(bias[e]); }
    if (state.warm == 0) { std::copy(old.begin(), old.end(), state.prices.begin()); }
    capacities(valid * fan_out, context, lower, upper);
    FAIRLEAD_EXPECTS(fan_out == 1 || solves_fan_out<Solver>, "the solver assigns one expert a token: take one with solves_fan_out, such as balanced_flow", fan_out);
    auto const report = solver.solve(
        on,
        assignment_problem<float>{.scores = scores, .fan_out = fan_out, .lower = lower, .upper = upper,
                                  .token_mask = valid < scores.rows() ? std::span<std::uint8_t const>(takes_part)
                                                                    : std::span<std::uint8_t const>{},
                                  .warm_prices = state.prices},
        assignment_result{{owner.data(), scores.rows(), fan_out}, prices}, ws);
    state.status = report.status;
    bool usable = report.status == status::ok || report.status == status::iteration_limit;
    for (double const price : prices) { usable = usable && std::isfinite(price); }
    if (!usable) {
      ++state.failed;
      return;
    }
    ++state.solved;
    detail::prices::join_prices(old, context.expert_mask, prices);
    std::copy(prices.begin(), prices.end(), state.prices.begin());
    state.warm = 1;
    state.average.add(prices, valid);
  }
  /// @brief Average over micro-batches and ranks, and set the bias.
  /// @param on host backend
  /// @param comm communicator
  /// @param counts copies per expert, not used: the scores say more. @shape{experts}
  /// @param[in,out] state sums and prices are forgotten afterwards
  /// @param[in,out] bias selection bias, mean 0 afterwards; unchanged if no solve gave prices. @shape{experts}
  /// @throws contract_violation (level 1) on wrong sizes or a decay outside [0, 1)
  /// @complexity O(experts), one reduction; no allocation
  /// @determinism the same bits on every rank
  /// @collective all ranks
  template <host_backend Backend, communicator Comm>
    requires has_all_reduce<Comm, double, Backend>
  void end_global_batch(Backend const& on, Comm& comm, [[maybe_unused]] std::span<index_t const> counts,
                        state_type& state, std::span<float> bias) const {
    state.average.move(on, comm, decay, bias);
    state.warm = 0;
    std::fill(state.prices.begin(), state.prices.end(), 0.0);
  }

 private:
  // Copies that do not divide by the experts: a solver with bounds decides who takes one more.
  static void capacities(index_t copies, route_context const& context, std::span<index_t> lower,
                         std::span<index_t> upper) {
    detail::prices::usable_capacity(copies, context.expert_mask, lower);
    std::copy(lower.begin(), lower.end(), upper.begin());
    if constexpr (solves_bounds<Solver>) {
      index_t const many =
          std::max<index_t>(detail::prices::usable_experts(context.expert_mask, static_cast<index_t>(lower.size())), 1);
      for (std::size_t e = 0; e < lower.size(); ++e) {
        bool const takes = detail::prices::usable(context.expert_mask, e);
        lower[e] = takes ? copies / many : 0;
        upper[e] = takes ? (copies + many - 1) / many : 0;
      }
    }
  }
};

FAIRLEAD_NAMESPACE_END
