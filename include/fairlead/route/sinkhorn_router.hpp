// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Sinkhorn routing: nearly even loads in training by entropic prices, plain top-k in evaluation.
#include <fairlead/exec/serial.hpp>
#include <fairlead/flow/sinkhorn.hpp>
#include <fairlead/route/detail/weigh_ids.hpp>
#include <fairlead/route/token_choice.hpp>

#include <cmath>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Megatron's iteration, kept for parity: alternate row and column factors of exp(logits) until they settle.
///
/// d0 = 1 / (T (row sum + 1e-8)), d1 = 1 / (E (column sum + 1e-8)); stop when the mean change of d1 is at most `tolerance`,
/// which is absolute. Deviations: rows are shifted by their best logit (unshifted exponentials overflow above 88; in
/// exact arithmetic only the 1e-8 sees the shift), and the number of passes is bounded. Sums are in double, in
/// token order, on one thread. Prefer `sinkhorn_iteration`.
/// @source{Megatron-core code, moe_utils.sinkhorn}
struct alternating_sinkhorn {
  index_t passes = 1000;     ///< most passes, >= 0
  double tolerance = 1e-4;   ///< mean absolute change of the column factors to stop at, >= 0

  /// @param tokens number of tokens
  /// @param experts number of experts
  /// @returns scratch bytes of `prices`
  [[nodiscard]] static constexpr std::size_t workspace_bytes(index_t tokens, index_t experts) noexcept {
    return fairlead::workspace_bytes<float>(tokens * experts) + 2 * fairlead::workspace_bytes<double>(experts);
  }
  /// @brief Iterate; see `sinkhorn_iteration::prices`. Capacities are equal, whatever the problem says.
  /// @param problem scores and masks
  /// @param[out] prices -log of the column factors; what they held is not read. @shape{experts}
  /// @param ws at least `workspace_bytes(tokens, experts)`
  /// @returns `ok` if the factors settled, else `iteration_limit`; `value` is the last mean change
  /// @complexity O(passes x tokens x experts), no allocation
  template <host_backend Backend>
  sinkhorn_report prices(Backend const&, sinkhorn_problem<float> const& problem, std::span<double> prices,
                         workspace& ws) const {
    index_t const tokens = problem.scores.rows(), experts = problem.scores.cols();
    workspace::scope const give_back(ws);
    matrix_view<float> const cost(ws.take<float>(tokens * experts).data(), tokens, experts);
    std::span<double> const d1 = ws.take<double>(experts), sums = ws.take<double>(experts);
    std::fill(d1.begin(), d1.end(), 1.0);
    route_context const masks{.token_mask = problem.token_mask, .expert_mask = problem.expert_mask};
    index_t valid = 0;
    for (index_t t = 0; t < tokens; ++t) {
      detail::effective_row(no_noise{}, masks, t, experts, problem.scores.row(t), cost.row(t));
      float const largest = detail::softmax_of(cost.row(t), experts).largest;
      bool const counts = detail::is_valid(masks, t);
      valid += counts ? 1 : 0;
      for (index_t e = 0; e < experts; ++e) {
        cost(t, e) = counts ? numeric::exp(detail::clean_logit(cost(t, e)) - largest) : 0.0F;
      }
    }
    sinkhorn_report result{.status = passes > 0 ? status::ok : status::iteration_limit};
    constexpr double tiny = 1e-8;
    while (result.iterations < passes && valid > 0) {
      ++result.iterations;
      std::fill(sums.begin(), sums.end(), 0.0);
      for (index_t t = 0; t < tokens; ++t) {
        double row = 0.0;
        float const* const costs = cost.row(t);
        for (index_t e = 0; e < experts; ++e) { row += d1[static_cast<std::size_t>(e)] * static_cast<double>(costs[e]); }
        double const d0 = 1.0 / (static_cast<double>(valid) * (row + tiny));
        for (index_t e = 0; e < experts; ++e) { sums[static_cast<std::size_t>(e)] += d0 * static_cast<double>(costs[e]); }
      }
      result.value = 0.0;
      for (std::size_t e = 0; e < d1.size(); ++e) {
        double const next = 1.0 / (static_cast<double>(experts) * (sums[e] + tiny));
        result.value += std::abs(next - d1[e]) / static_cast<double>(experts);
        d1[e] = next;
      }
      bool const settled = result.value <= tolerance;
      result.status = settled ? status::ok : status::iteration_limit;
      if (settled) { break; }
    }
    for (std::size_t e = 0; e < d1.size(); ++e) { prices[e] = -std::log(d1[e]); }
    return result;
  }
};

/// @brief In training choose the k best of logit - price, where the prices of a Sinkhorn iteration even out this batch; in
/// evaluation the k best logits. Weights are sigmoid (k = 1) or softmax (k > 1) of the logits, not renormalised.
///
/// No capacity is kept: the transport plan is balanced, its k largest entries are so only nearly. The iteration sees the
/// rows of this call, so training couples the tokens of a batch; in evaluation a token is alone, and the router decodes.
/// No gradient goes through the prices. Do not add a load-balance loss.
/// @tparam Iteration `sinkhorn_iteration` (log domain) or `alternating_sinkhorn` (parity with Megatron)
/// @source{Megatron-core code, TopKRouter.sinkhorn_load_balancing; S-BASE}
template <class Iteration>
struct basic_sinkhorn_router {
  /// Weighs one expert a token.
  using single_type = token_choice<sigmoid_score, plain_selection, not_renormalised>;
  /// Weighs more than one.
  using several_type = token_choice<softmax_score, plain_selection, not_renormalised>;

  expert_count experts;     ///< number of experts, 1 ... 65536
  index_t k = 1;            ///< experts a token, 1 ... min(experts, 64)
  float scale = 1.0F;       ///< factor on all weights, finite
  Iteration iteration{};    ///< how prices are found

  /// @returns experts a token
  [[nodiscard]] constexpr index_t fan_out() const noexcept { return k; }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const noexcept {
    return fairlead::workspace_bytes<double>(experts) + fairlead::workspace_bytes<float>(experts) +
           std::max(iteration.workspace_bytes(tokens, experts), detail::route_workspace_bytes(tokens, experts));
  }
  /// @brief Choose experts and weights.
  /// @param on host backend
  /// @param logits @shape{tokens x experts}
  /// @param context phase, masks
  /// @param[out] out @shape{tokens x k}, by descending logit - price in training, by descending logit in evaluation
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity O(tokens x experts x (passes + k)) in training, no allocation
  /// @determinism the same bits at any number of threads
  template <host_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    detail::check_route(context, experts(), k, scale, logits, out);
    if (context.phase == phase::evaluate) {
      dispatch([&](auto const& choice) { choice.route(on, logits, context, out, ws); });
      return;
    }
    workspace::scope const scope(ws);
    std::span<double> const prices = ws.take<double>(experts);
    std::span<float> const bias = ws.take<float>(experts);
    std::fill(prices.begin(), prices.end(), 0.0);
    (void)iteration.prices(
        on,
        sinkhorn_problem<float>{
            .scores = logits, .capacity = {}, .token_mask = context.token_mask, .expert_mask = context.expert_mask},
        prices, ws);
    for (std::size_t e = 0; e < bias.size(); ++e) { bias[e] = price_as_bias(prices[e]); }
    using keys = token_choice<raw_score, plain_selection, softmax_over_chosen>;
    detail::for_each_part(on, logits.rows(), experts(), ws,
                          detail::route_part<keys>{{.experts = experts, .k = k, .selection = {}, .noise = {}},
                                                   logits, context, bias.data(), out, nullptr, 0});
    dispatch([&](auto const& choice) { detail::weigh_ids(choice, on, logits, context, out, ws); });
  }
  /// @brief Derive the loss by the logits; see `token_choice::backward`.
  /// @param on host backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x k}
  /// @param[out] grad_logits overwritten. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens)`
  template <host_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace& ws) const {
    dispatch([&](auto const& choice) { choice.backward(on, logits, context, out, grad_weights, grad_logits, ws); });
  }

 private:
  // A bias of fp32 range that leaves the sum with any finite logit a candidate.
  [[nodiscard]] static float price_as_bias(double price) noexcept {
    constexpr double most = 0x1p+100;
    return static_cast<float>(-std::clamp(price, -most, most));
  }
  template <class Function>
  void dispatch(Function const& f) const {
    if (k == 1) {
      f(single_type{.experts = experts, .k = k, .scale = scale, .selection = {}, .noise = {}});
    } else {
      f(several_type{.experts = experts, .k = k, .scale = scale, .selection = {}, .noise = {}});
    }
  }
};
/// @brief In evaluation a token of a Sinkhorn router does not see its batch-mates.
template <class Iteration>
inline constexpr bool causal<basic_sinkhorn_router<Iteration>> = true;
/// @brief In training it does.
template <class Iteration>
inline constexpr bool batch_coupled<basic_sinkhorn_router<Iteration>> = true;

/// @brief Sinkhorn routing in the log domain: bounded passes, no overflow.
using sinkhorn_router = basic_sinkhorn_router<sinkhorn_iteration>;
/// @brief Sinkhorn routing with Megatron's iteration, for parity.
using alternating_sinkhorn_router = basic_sinkhorn_router<alternating_sinkhorn>;

static_assert(router_on<sinkhorn_router, serial> && has_gradient_on<alternating_sinkhorn_router, serial>);

FAIRLEAD_NAMESPACE_END
