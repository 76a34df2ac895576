// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Routers that do not ask the logits: random experts, and experts in turn, for baselines and benches.
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/detail/weigh_ids.hpp>
#include <fairlead/route/token_choice.hpp>
#include <fairlead/route/unit_score.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Choose experts at random: distinct, drawn anew each step, named by (seed, step, global token) alone.
///
/// Every candidate is as likely. Ranks must set `route_context::first_token` apart, or they draw the same experts.
struct random_experts {
  /// @param context seed, step, number of the first token, masks
  /// @param row row of the batch
  /// @param logits the row: NaN and -inf are never chosen. @shape{experts}
  /// @param experts number of experts
  /// @param k experts a token
  /// @param[out] ids experts or none. @shape{k}
  /// @complexity O(experts x k), no allocation
  static void choose(route_context const& context, index_t row, float const* logits, index_t experts, index_t k,
                     expert_id* ids) noexcept {
    constexpr std::uint64_t purpose = 0x52414E444FULL << 24U;  // keeps apart from noise
    auto const token = static_cast<std::uint64_t>(context.first_token + row);
    auto const quads = static_cast<std::uint64_t>((experts + 3) / 4);
    float best[max_fan_out];
    std::int32_t found[max_fan_out];
    std::fill_n(best, k, detail::minus_infinity);
    std::fill_n(found, k, -1);
    std::array<std::uint32_t, 4> words{};
    for (index_t e = 0; e < experts; ++e) {
      if (e % 4 == 0) {
        words = philox::draw(context.seed, context.step ^ purpose, token * quads + static_cast<std::uint64_t>(e / 4));
      }
      bool const masked = !context.expert_mask.empty() && context.expert_mask[static_cast<std::size_t>(e)] == 0;
      if (masked || !is_candidate(logits[e])) { continue; }
      detail::insert_best(philox::to_uniform(words[static_cast<std::size_t>(e % 4)]), static_cast<std::int32_t>(e), k,
                          best, found);
    }
    for (index_t j = 0; j < k; ++j) { ids[j] = static_cast<expert_id>(found[j]); }
  }
};

/// @brief Deal experts in turn: copy j of global token t goes to expert (t x k + j) mod experts.
///
/// Loads differ by at most one over any range of tokens. The global token counts, not the row: ranks with few rows would
/// otherwise all start at expert 0 and leave the rest idle. A masked expert, NaN or -inf is not skipped but gives none.
struct experts_in_turn {
  /// @param context number of the first token
  /// @param row row of the batch
  /// @param experts number of experts
  /// @param k experts a token
  /// @param[out] ids experts. @shape{k}
  /// @complexity O(k), no allocation
  static void choose(route_context const& context, index_t row, float const*, index_t experts, index_t k,
                     expert_id* ids) noexcept {
    auto const token = static_cast<std::uint64_t>(context.first_token + row) % static_cast<std::uint64_t>(experts);
    for (index_t j = 0; j < k; ++j) {
      auto const copy = token * static_cast<std::uint64_t>(k) + static_cast<std::uint64_t>(j);
      ids[j] = static_cast<expert_id>(copy % static_cast<std::uint64_t>(experts));
    }
  }
};

/// @brief Take the experts that a rule names, whatever the logits say, in every phase.
///
/// For baselines (random routing) and benches (an even load without training). Logits say which experts are candidates,
/// and weigh the chosen ones if Score looks at them. The choice depends on the token's global number, so it is neither
/// causal in the sense of the library nor coupled to batch-mates.
/// @tparam Rule `random_experts` or `experts_in_turn`
/// @tparam Score how a logit becomes a score
/// @tparam Renormalisation how scores become weights
template <class Rule, class Score, class Renormalisation>
struct forced_choice {
  /// What weighs and differentiates.
  using choice_type = token_choice<Score, plain_selection, Renormalisation>;

  expert_count experts;  ///< number of experts, 1 ... 65536
  index_t k = 1;         ///< experts a token, 1 ... min(experts, 64)
  float scale = 1.0F;    ///< factor on all weights, finite

  /// @returns experts a token
  [[nodiscard]] constexpr index_t fan_out() const noexcept { return k; }
  /// @returns the token choice that weighs
  [[nodiscard]] constexpr choice_type choice() const noexcept {
    return {.experts = experts, .k = k, .scale = scale, .selection = {}, .noise = {}};
  }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const noexcept {
    return choice().workspace_bytes(tokens);
  }
  /// @brief Name experts and weigh them.
  /// @param on host backend
  /// @param logits @shape{tokens x experts}
  /// @param context seed, step, number of the first token, masks
  /// @param[out] out @shape{tokens x k}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity O(tokens x (experts + k)), x k for random experts; no allocation
  /// @determinism the same bits for every host backend, number of threads and cut of the batch over ranks
  template <host_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    detail::check_route(context, experts(), k, scale, logits, out);
    on.for_each(logits.rows(), name_row{logits, context, out});
    detail::weigh_ids(choice(), on, logits, context, out, ws);
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
    choice().backward(on, logits, context, out, grad_weights, grad_logits, ws);
  }

 private:
  struct name_row {
    matrix_view<float const> logits;
    route_context context;
    routing_view out;
    void operator()(index_t row) const {
      Rule::choose(context, row, logits.row(row), logits.cols(), out.fan_out(), out.experts.row(row));
    }
  };
};

/// @brief Random experts with equal weights and no gate.
using random_choice = forced_choice<random_experts, unit_score, sum_over_chosen>;
/// @brief Experts in turn with equal weights: a perfectly even load for benches.
/// @source{MegaBlocks code, uniform_expert_assignment; TensorRT-LLM code, rank-aware perfect router}
using uniform_choice = forced_choice<experts_in_turn, unit_score, sum_over_chosen>;

static_assert(router_on<random_choice, serial> && has_gradient_on<uniform_choice, serial>);

FAIRLEAD_NAMESPACE_END
