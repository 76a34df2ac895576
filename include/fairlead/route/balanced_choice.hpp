// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Balanced assignment as a router: every expert takes the same number of tokens in training.
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/core/saved_state.hpp>
#include <fairlead/route/detail/balanced_text.hpp>
#include <fairlead/route/token_choice.hpp>

#include <cstdint>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief In evaluation a token takes its best experts by logit. Causal; loads are only as even as the logits.
/// @source{BASE, section 3.2.2}
struct greedy_evaluation {};

/// @brief In evaluation a token takes its best experts by logit - price, with prices frozen from training.
///
/// The prices are those under which the training batches were balanced, so tokens of the same kind stay balanced, and
/// a token still sees no batch-mate. Needs a solver with prices.
struct priced_evaluation {
  double keep = 0.9;  ///< share of the old average at each global batch, 0 <= keep < 1; the first batch replaces it
};

/// @brief Who takes the copies that do not divide evenly.
enum class remainder_rule {
  lowest_experts,  ///< the experts with the lowest ids take one more, on every rank; every solver can
  solver_chooses   ///< the solver decides between floor and ceiling by the logits; needs a solver with `solves_bounds`
};

/// @brief The state of a balanced router: host memory, equal on every rank after `observe`; save it with the parameters.
struct balanced_prices {
  std::vector<double> frozen;    ///< average of training prices, mean 0: what priced evaluation subtracts. @shape{experts}
  std::vector<double> warm;      ///< mean prices of the last global batch: where solves start. @shape{experts}
  std::int64_t batches = 0;      ///< global batches that brought prices
  std::int64_t fallbacks = 0;    ///< micro-batches, over all ranks, that had no balanced assignment and went greedy
  std::int64_t unproved = 0;     ///< micro-batches, over all ranks, whose solver stopped at its cap
  fairlead::status last_status = fairlead::status::ok;  ///< how the last solve of this rank in training ended
  /// Sums of this rank since the last `observe`: tokens x price, tokens, fallbacks, unproved. @shape{experts + 3}
  std::vector<double> pending;

  /// @brief Visit what is saved, in a fixed order (`save_state`, `load_state`); between global batches.
  template <class Self, class Function>
  static void each_array(Self& self, Function&& f) {
    f(std::span(self.frozen));
    f(std::span(self.warm));
    f(std::span(&self.batches, 1));
    f(std::span(&self.fallbacks, 1));
    f(std::span(&self.unproved, 1));
    f(std::span(self.pending));
  }
};
static_assert(has_state_arrays<balanced_prices>);

/// @brief Assign the tokens of a rank so that experts get equal loads and the sum of their logits is largest; weigh each
/// token by the sigmoid of its logit.
///
/// The router of BASE layers. In training and recomputation the tokens of the micro-batch *of this rank* share the
/// experts evenly: tokens x k / experts each, one more for some if that is no integer. Each rank solves its own problem,
/// so that with W ranks the global load of an expert is the sum of W even shares, and the value lies below that of the
/// global assignment. Reach for it when tokens of a batch may see each other in training; shuffle correlated tokens over
/// the ranks first (`shuffled`). In evaluation a batch must not decide, so `Evaluation` does.
///
/// Masked tokens take no place, masked experts give none. A token with fewer than k candidates (NaN, -inf and masked
/// experts are none) takes those it has, outside of the assignment. If no even assignment exists among the rest because
/// of forbidden pairs, or the solver cannot deal with them, all tokens of the micro-batch choose greedily and the state
/// counts a fallback: no token is lost. +inf counts as the largest finite number.
///
/// No gradient flows through the assignment: the only path is the weight of the expert that a token was given, wanted or
/// not. With k > 1 the weights are the sigmoids themselves, not divided by their sum; another `Renormalisation` divides.
/// @tparam Solver an `assignment_solver_on`
/// @tparam Evaluation `greedy_evaluation` or `priced_evaluation`
/// @tparam Score how a logit becomes a weight
/// @tparam Renormalisation how the weights of a token are normalised
/// @source{BASE, sections 3.2 and 3.3; deviations: non-finite logits forbid their pair (the code replaces them by the
/// smallest finite one), loads need not divide, an expert need not be a rank}
template <class Solver, class Evaluation = greedy_evaluation, class Score = sigmoid_score,
          class Renormalisation = not_renormalised>
struct balanced_choice {
  static_assert(!std::is_same_v<Evaluation, priced_evaluation> || has_prices<Solver>,
                "priced_evaluation needs a solver that states has_prices");
  /// The router of greedy choices: evaluation, tokens with too few candidates, fallback, gradient.
  using choice_type = token_choice<Score, plain_selection, Renormalisation>;

  expert_count experts;     ///< number of experts, 1 ... 65536
  index_t k = 1;            ///< experts a token, 1 ... min(experts, 64); above 1 the solver must state `solves_fan_out`
  float scale = 1.0F;       ///< factor on all weights, finite
  /// Who takes what does not divide. Each rank has a remainder of its own: on the lowest experts all of them would add up.
  remainder_rule remainder = solves_bounds<Solver> ? remainder_rule::solver_chooses : remainder_rule::lowest_experts;
  Solver solver{};          ///< makes the assignment
  Evaluation evaluation{};  ///< what happens in evaluation

  /// @returns experts a token
  [[nodiscard]] constexpr index_t fan_out() const noexcept { return k; }
  /// @returns the router of greedy choices
  [[nodiscard]] constexpr choice_type choice() const noexcept {
    return {.experts = experts, .k = k, .scale = scale, .selection = {}, .noise = {}};
  }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const {
    std::size_t const rows = choice().workspace_bytes(tokens);
    std::size_t const solve = solver.workspace_bytes(tokens, experts, k);
    return (rows > solve ? rows : solve) + 2 * fairlead::workspace_bytes<index_t>(experts) +
           fairlead::workspace_bytes<std::uint8_t>(tokens) + fairlead::workspace_bytes<double>(experts);
  }
  /// @returns prices of zero
  /// @throws std::bad_alloc
  [[nodiscard]] balanced_prices make_state() const {
    auto const size = static_cast<std::size_t>(experts());
    return {.frozen = std::vector<double>(size), .warm = std::vector<double>(size),
            .pending = std::vector<double>(size + 3)};
  }

  /// @brief Choose experts and weights: balanced in training and recomputation, by `Evaluation` in evaluation.
  /// @param on execution backend of host memory
  /// @param logits @shape{tokens x experts}
  /// @param context phase and masks
  /// @param state prices, only read
  /// @param[out] out @shape{tokens x k}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity that of the solver, plus O(tokens x k); O(tokens x experts x k) in evaluation; no allocation
  /// @determinism ids and weights are the same bits for every number of threads
  template <execution_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context,
             balanced_prices const& state, routing_view out, workspace& ws) const {
    check(context, logits, state, out);
    using text = implementation<balanced_choice, Backend>;
    if (context.phase == phase::evaluate) {
      text::evaluate(*this, on, logits, context, state, out, ws);
    } else {
      text::assign(*this, on, logits, context, state, out, nullptr, ws);
    }
  }
  /// @brief Route as `route` does, and keep prices and status until `observe`. Parameters as there.
  /// @param on execution backend of host memory
  /// @param logits @shape{tokens x experts}
  /// @param context phase and masks; only training is learned from
  /// @param[in,out] state prices; `pending` and `last_status` change
  /// @param[out] out @shape{tokens x k}
  /// @param ws at least `workspace_bytes(tokens)`
  template <execution_backend Backend>
  void route_and_learn(Backend const& on, matrix_view<float const> logits, route_context const& context,
                       balanced_prices& state, routing_view out, workspace& ws) const {
    if (context.phase != phase::train) { return route(on, logits, context, state, out, ws); }
    check(context, logits, state, out);
    implementation<balanced_choice, Backend>::assign(*this, on, logits, context, state, out, &state, ws);
  }
  /// @brief Publish the prices of the global batch: the mean over ranks and micro-batches, weighted by their tokens.
  /// @param on execution backend of host memory
  /// @param comm communicator with `has_all_reduce` of double
  /// @param counts copies per expert over all ranks; not used, since prices say more. @shape{experts}
  /// @param[in,out] state equal on every rank afterwards but for `last_status`
  /// @throws contract_violation (level 1) on wrong sizes or a share `keep` outside [0, 1)
  /// @collective all ranks
  /// @complexity one message of experts + 3 numbers, no allocation
  template <host_backend Backend, class Comm>
  void observe(Backend const& on, Comm& comm, [[maybe_unused]] std::span<index_t const> counts,
               balanced_prices& state) const {
    static_assert(has_all_reduce<Comm, double, Backend>,
                  "balanced_choice averages prices over ranks: the communicator needs all_reduce of doubles");
    FAIRLEAD_EXPECTS(static_cast<index_t>(counts.size()) == experts(), "one count an expert", counts.size(), experts());
    check_state(state);
    comm.all_reduce(on, std::span<double>(state.pending), reduction::sum).wait();
    double keep = 0.0;
    if constexpr (std::is_same_v<Evaluation, priced_evaluation>) {
      FAIRLEAD_EXPECTS(evaluation.keep >= 0.0 && evaluation.keep < 1.0, "keep must be in [0, 1)", evaluation.keep);
      keep = evaluation.keep;
    }
    detail::publish_prices(keep, state);
  }
  /// @brief Derive the loss by the logits, given its derivative by the weights; the assignment is held constant.
  /// @param on execution backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param state not used
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x k}
  /// @param[out] grad_logits overwritten. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens)`
  template <execution_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                [[maybe_unused]] balanced_prices const& state, const_routing_view out,
                matrix_view<float const> grad_weights, matrix_view<float> grad_logits, workspace& ws) const {
    choice().backward(on, logits, context, out, grad_weights, grad_logits, ws);
  }

 private:
  void check_state([[maybe_unused]] balanced_prices const& state) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(state.frozen.size()) == experts() &&
                         static_cast<index_t>(state.warm.size()) == experts() &&
                         static_cast<index_t>(state.pending.size()) == experts() + 3,
                     "the state must come from make_state()", state.frozen.size(), state.pending.size(), experts());
  }
  void check(route_context const& context, matrix_view<float const> logits, balanced_prices const& state,
             const_routing_view out) const {
    detail::check_route(context, experts(), k, scale, logits, out);
    check_state(state);
    FAIRLEAD_EXPECTS(k == 1 || solves_fan_out<Solver>, "k > 1 needs a solver that states solves_fan_out", k);
    FAIRLEAD_EXPECTS(remainder == remainder_rule::lowest_experts || solves_bounds<Solver>,
                     "remainder_rule::solver_chooses needs a solver that states solves_bounds");
  }
};

/// @brief In evaluation a token of a balanced router sees no batch-mate: prices are fixed while it routes.
template <class Solver, class Evaluation, class Score, class Renormalisation>
inline constexpr bool causal<balanced_choice<Solver, Evaluation, Score, Renormalisation>> = true;
/// @brief In training tokens of a batch compete for places.
template <class Solver, class Evaluation, class Score, class Renormalisation>
inline constexpr bool batch_coupled<balanced_choice<Solver, Evaluation, Score, Renormalisation>> = true;

/// @brief Host text of `balanced_choice`.
template <class Solver, class Evaluation, class Score, class Renormalisation, host_backend Backend>
struct implementation<balanced_choice<Solver, Evaluation, Score, Renormalisation>, Backend> {
  static_assert(assignment_solver_on<Solver, Backend>,
                ".solver must model fairlead::assignment_solver_on (concepts/assignment_solver.hpp)");
  using policy = balanced_choice<Solver, Evaluation, Score, Renormalisation>;  ///< the router

  /// See `balanced_choice::route`, in evaluation.
  static void evaluate(policy const& router, Backend const& on, matrix_view<float const> logits,
                       route_context const& context, balanced_prices const& state, routing_view out, workspace& ws) {
    if constexpr (std::is_same_v<Evaluation, priced_evaluation>) {
      detail::choose_by_price<Score, Renormalisation>(router, on, logits, context, std::span<double const>(state.frozen), out, ws);
    } else {
      router.choice().route(on, logits, context, out, ws);
    }
  }
  /// See `balanced_choice::route`, in training; `learner` is null when nothing is to be kept.
  static void assign(policy const& router, Backend const& on, matrix_view<float const> logits,
                     route_context const& context, balanced_prices const& state, routing_view out,
                     balanced_prices* learner, workspace& ws) {
    detail::assign_evenly<Score, Renormalisation>(router, on, logits, context, state, out, learner, ws);
  }
};

FAIRLEAD_NAMESPACE_END
