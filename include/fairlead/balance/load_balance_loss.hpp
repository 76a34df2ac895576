// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Punish the product of load and probability: the auxiliary loss of Switch, GShard and their successors.
#include <fairlead/balance/detail/best_of_row.hpp>
#include <fairlead/balance/detail/row_loop.hpp>
#include <fairlead/balance/detail/row_terms.hpp>
#include <fairlead/concepts/balance_signal.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The probability factor is softmax(logits).
struct softmax_share {};
/// @brief The probability factor is sigmoid(logits) / (their sum + 1e-20).
///
/// The small constant keeps the share defined and leaves the known escape open: a router can push all sigmoids of a
/// row below it, and the loss falls under its uniform value.
struct sigmoid_share {};

/// @brief Loads are counted over this rank's micro-batch.
struct micro_batch_scope {};
/// @brief Loads are counted over each sequence of `length` consecutive rows; the last one may be shorter.
struct sequence_scope {
  index_t length = 1;  ///< tokens of a sequence, >= 1
};
/// @brief Loads are counted over all ranks and over the micro-batches of the global batch so far.
struct global_batch_scope {};

/// @brief Every copy counts: f_e = n_e / (k T), the loss is `coefficient` at even loads for every k.
struct every_choice {
  static constexpr bool from_totals = true;  ///< whether the counts of all ranks say enough
  /// @param fan_out experts a token
  /// @returns leading choices that count
  [[nodiscard]] static constexpr index_t choices(index_t fan_out) noexcept { return fan_out; }
  /// @param fan_out experts a token
  /// @returns what loads are divided by besides the tokens
  [[nodiscard]] static constexpr index_t divisor(index_t fan_out) noexcept { return fan_out; }
};
/// @brief Only first choices count: f_e = n_e / T (GShard, DeepSpeed top-1 and top-2, Tutel, mesh-TensorFlow).
struct first_choice {
  static constexpr bool from_totals = false;  ///< the counts of all ranks mix the choices
  /// @returns 1
  [[nodiscard]] static constexpr index_t choices(index_t) noexcept { return 1; }
  /// @returns 1
  [[nodiscard]] static constexpr index_t divisor(index_t) noexcept { return 1; }
};
/// @brief Every copy counts and k is left out: f_e = n_e / T, the loss is k x `coefficient` at even loads (Flaxformer).
struct sum_of_choices {
  static constexpr bool from_totals = true;  ///< whether the counts of all ranks say enough
  /// @param fan_out experts a token
  /// @returns leading choices that count
  [[nodiscard]] static constexpr index_t choices(index_t fan_out) noexcept { return fan_out; }
  /// @returns 1
  [[nodiscard]] static constexpr index_t divisor(index_t) noexcept { return 1; }
};
/// @brief The k best clean logits of a token count, whatever bias, groups or noise made of them (Megatron).
struct best_scores {
  static constexpr bool from_totals = false;  ///< the counts of all ranks are those of the routing
  /// @param fan_out experts a token
  /// @returns leading choices that count
  [[nodiscard]] static constexpr index_t choices(index_t fan_out) noexcept { return fan_out; }
  /// @param fan_out experts a token
  /// @returns what loads are divided by besides the tokens
  [[nodiscard]] static constexpr index_t divisor(index_t fan_out) noexcept { return fan_out; }
};

/// @brief What a balance loss carries between calls.
struct load_balance_state {
  std::vector<index_t> counts;  ///< copies per expert in the global batch so far. @shape{experts}
  index_t tokens = 0;           ///< valid tokens in the global batch so far
  index_t batch_tokens = 0;     ///< valid tokens of this micro-batch over all ranks
};

/// @brief Add coefficient * E * sum_e f_e P_e: the load share f of an expert times its mean probability P.
///
/// f_e = n_e / (k T) with the copies n_e of the routing before capacity, held constant (or what `Counted` says); P_e is
/// the mean over tokens of the share that the clean logits give to e (no noise, bias or group mask). Perfectly even
/// loads give the value `coefficient` for every k. `balance/framework_losses.hpp` names what frameworks use. Padding is in
/// neither factor. Experts that the context masks out are in neither factor either, and E counts the others. NaN
/// counts as -inf, and a row without a finite maximum adds nothing.
///
/// What a rank returns and adds is its part of the mean over all valid tokens of all ranks: parts add up over ranks,
/// so that summed gradients do not depend on how many ranks hold the tokens. In the scopes micro-batch and sequence a
/// group's loss weighs as much as it has tokens.
///
/// Deviation: Megatron divides by sequences and ranks, which is the same when all hold equally many tokens.
/// @tparam Share softmax_share or sigmoid_share
/// @tparam Scope micro_batch_scope, sequence_scope or global_batch_scope
/// @tparam Counted every_choice, first_choice, sum_of_choices or best_scores; in the global scope, where only the copies
/// of all ranks are known, every_choice or sum_of_choices
/// @source{Switch Transformers, section 2.2; scopes as in Megatron-core}
template <class Share = softmax_share, class Scope = micro_batch_scope, class Counted = every_choice>
  requires(std::same_as<Share, softmax_share> || std::same_as<Share, sigmoid_share>)
struct load_balance_loss {
  static_assert(Counted::from_totals || !std::same_as<Scope, global_batch_scope>,
                "the loads of a global batch are those of all copies: count every_choice or sum_of_choices");
  double coefficient = 1e-2;  ///< value of the loss at even loads
  Share share{};              ///< probability factor
  Scope scope{};              ///< what loads are counted over

  /// @param experts number of experts, >= 1
  /// @returns zero counts
  /// @throws contract_violation (level 1) on a bad number or scope; std::bad_alloc
  /// @complexity O(experts), allocates
  [[nodiscard]] load_balance_state make_state(index_t experts) const {
    FAIRLEAD_EXPECTS(experts >= 1, "a balance loss needs experts", experts);
    if constexpr (std::same_as<Scope, sequence_scope>) {
      FAIRLEAD_EXPECTS(scope.length >= 1, "sequences need at least one token", scope.length);
    }
    load_balance_state state;
    state.counts.assign(static_cast<std::size_t>(experts), 0);
    return state;
  }
  /// @brief Take in the loads of a micro-batch, before its `add_gradient`.
  /// @param global_counts copies per expert over all ranks, before capacity. @shape{experts}
  /// @param global_tokens valid tokens over all ranks
  /// @param[in,out] state running counts
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(experts), no allocation
  void accumulate(std::span<index_t const> global_counts, index_t global_tokens, load_balance_state& state) const {
    FAIRLEAD_EXPECTS(global_counts.size() == state.counts.size(), "one count an expert", global_counts.size(),
                     state.counts.size());
    FAIRLEAD_EXPECTS(global_tokens >= 0, "the number of tokens must not be negative", global_tokens);
    for (std::size_t e = 0; e < state.counts.size(); ++e) { state.counts[e] += global_counts[e]; }
    state.tokens += global_tokens;
    state.batch_tokens = global_tokens;
  }
  /// @brief Add scale times the derivative of this rank's part.
  /// @param on execution backend
  /// @param logits clean logits. @shape{tokens x experts}
  /// @param routing what the router wrote, before capacity. @shape{tokens x fan_out}
  /// @param context masks
  /// @param state counts, with this micro-batch taken in
  /// @param scale factor of the gradient (not of the value)
  /// @param[in,out] grad_logits gradient to add to. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens, experts)`
  /// @returns this rank's part of the loss, coefficient included; 0 without effect before `accumulate` was called
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(tokens (experts + fan_out)), no allocation
  /// @determinism the same bits at any number of threads
  template <execution_backend Backend>
  double add_gradient(Backend const& on, matrix_view<float const> logits, const_routing_view routing,
                      route_context const& context, load_balance_state const& state, double scale,
                      matrix_view<float> grad_logits, workspace& ws) const {
    return implementation<load_balance_loss, Backend>::add_gradient(*this, on, logits, routing, context, state, scale,
                                                                    grad_logits, ws);
  }
  /// @brief Forget the counts: a new global batch begins.
  /// @param[in,out] state running counts
  /// @complexity O(experts)
  void end_global_batch(load_balance_state& state) const noexcept {
    std::fill(state.counts.begin(), state.counts.end(), index_t{0});
    state.tokens = 0;
    state.batch_tokens = 0;
  }
  /// @param tokens rows of a call, >= 0
  /// @param experts number of experts
  /// @returns bytes of scratch of `add_gradient`
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t experts) const noexcept {
    return fairlead::workspace_bytes<float>(groups(tokens) * experts) + detail::row_loop_bytes(tokens, experts);
  }
  /// @param tokens rows of a call, >= 0
  /// @returns groups of rows with counts of their own
  [[nodiscard]] index_t groups(index_t tokens) const noexcept {
    if constexpr (std::same_as<Scope, sequence_scope>) {
      return (tokens + scope.length - 1) / scope.length;
    } else {
      return 1;
    }
  }
};

/// @brief The loss of the Switch Transformer: softmax shares, loads of this rank's micro-batch.
using switch_loss = load_balance_loss<softmax_share, micro_batch_scope>;

namespace detail {

/// Turn the copies of one group into the factors of its rows.
template <class Counted>
struct group_factors_task {
  matrix_view<float const> logits;
  const_routing_view routing;
  route_context const* context;
  index_t length;
  index_t experts;
  double scale;  // coefficient * E / (divisor * tokens of all ranks)
  float* factors;
  void operator()(index_t group) const {
    float* const mine = factors + group * experts;
    std::fill_n(mine, experts, 0.0F);
    index_t valid = 0;
    index_t const end = std::min(routing.tokens(), (group + 1) * length);
    for (index_t token = group * length; token < end; ++token) {
      if (!is_valid_token(*context, token)) { continue; }
      ++valid;
      // fp32 counts whole numbers to 2^24, more than the rows of a rank.
      if constexpr (std::same_as<Counted, best_scores>) {
        count_best(logits.row(token), mine);
      } else {
        for (index_t j = 0; j < Counted::choices(routing.fan_out()); ++j) {
          expert_id const expert = routing.experts(token, j);
          if (expert != expert_id::none) { mine[to_index(expert)] += 1.0F; }
        }
      }
    }
    auto const factor = static_cast<float>(valid == 0 ? 0.0 : scale / static_cast<double>(valid));
    for (index_t e = 0; e < experts; ++e) { mine[e] *= factor; }
  }
  void count_best(float const* row, float* counts) const noexcept {
    std::uint8_t const* const allowed = context->expert_mask.empty() ? nullptr : context->expert_mask.data();
    std::int32_t ids[most_best_of_row];
    best_of_row(row, allowed, experts, routing.fan_out(), ids);
    for (index_t j = 0; j < routing.fan_out() && ids[j] >= 0; ++j) { counts[ids[j]] += 1.0F; }
  }
};

template <class Share>
struct balance_row {
  matrix_view<float const> logits;
  matrix_view<float> grad;
  std::uint8_t const* allowed;
  float const* factors;
  index_t length;  // rows of a group
  float scale;
  double operator()(index_t token, float* scratch) const {
    index_t const experts = logits.cols();
    float const* const mine = factors + token / length * experts;
    if constexpr (std::same_as<Share, softmax_share>) {
      return softmax_term(logits.row(token), allowed, experts, mine, scale, grad.row(token), scratch);
    } else {
      return sigmoid_term(logits.row(token), allowed, experts, mine, scale, grad.row(token), scratch);
    }
  }
};

}  // namespace detail

/// @brief The host text of `load_balance_loss`.
template <class Share, class Scope, class Counted, host_backend Backend>
struct implementation<load_balance_loss<Share, Scope, Counted>, Backend> {
  /// @brief See `load_balance_loss::add_gradient`.
  static double add_gradient(load_balance_loss<Share, Scope, Counted> const& loss, Backend const& on,
                             matrix_view<float const> logits, const_routing_view routing, route_context const& context,
                             load_balance_state const& state, double scale, matrix_view<float> grad_logits,
                             workspace& ws) {
    detail::expect_loss_shapes(logits, routing, context, grad_logits);
    index_t const tokens = logits.rows();
    index_t const experts = logits.cols();
    FAIRLEAD_EXPECTS(static_cast<index_t>(state.counts.size()) == experts, "the state is for another number of experts",
                     state.counts.size(), experts);
    if constexpr (std::same_as<Counted, best_scores>) { detail::expect_few_choices(routing.fan_out()); }
    if (tokens == 0 || routing.fan_out() == 0 || state.batch_tokens == 0) { return 0.0; }
    workspace::scope const give_back(ws);
    index_t const groups = loss.groups(tokens);
    std::span<float> const factors = ws.take<float>(groups * experts);
    double const even = loss.coefficient * static_cast<double>(detail::allowed_experts(context, experts)) /
                        (static_cast<double>(Counted::divisor(routing.fan_out())) * static_cast<double>(state.batch_tokens));
    index_t length = tokens;
    if constexpr (std::same_as<Scope, global_batch_scope>) {
      for (std::size_t e = 0; e < factors.size(); ++e) {
        factors[e] = static_cast<float>(even * static_cast<double>(state.counts[e]) / static_cast<double>(state.tokens));
      }
    } else {
      if constexpr (std::same_as<Scope, sequence_scope>) { length = loss.scope.length; }
      on.for_each(groups, detail::group_factors_task<Counted>{logits, routing, &context, length, experts, even, factors.data()});
      on.wait();
    }
    std::uint8_t const* const allowed = context.expert_mask.empty() ? nullptr : context.expert_mask.data();
    return detail::sum_over_rows(on, tokens, experts, context,
                                 detail::balance_row<Share>{logits, grad_logits, allowed, factors.data(), length,
                                                            static_cast<float>(scale)},
                                 ws);
  }
};

static_assert(balance_signal_on<switch_loss, serial>);
static_assert(balance_signal_on<load_balance_loss<sigmoid_share, sequence_scope>, serial>);
static_assert(balance_signal_on<load_balance_loss<softmax_share, global_batch_scope>, serial>);

FAIRLEAD_NAMESPACE_END
