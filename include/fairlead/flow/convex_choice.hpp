// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Choose servers for tokens exactly: the highest scores less a convex cost of how many each server gets.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/order.hpp>
#include <fairlead/flow/detail/choice_proof.hpp>
#include <fairlead/flow/detail/convex_demand.hpp>

#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief A convex cost by its steps: `cost(server, copies)` is what one copy more costs a server that has `copies`.
///
/// It must not fall with `copies` (a fall of the size of rounding does no harm). +inf closes the server: it takes no
/// further copies. The cost without copies is no part of it.
/// A cost that also has `total(server, copies)`, the sum of the first `copies` steps, spares the value a call for each copy.
template <class Marginal>
concept marginal_cost = requires(Marginal const& cost, index_t server, index_t copies) {
  { cost(server, copies) } -> std::convertible_to<double>;
};

/// @brief What `convex_choice` is asked: minimise cost of the counts - scale x sum of the chosen scores.
///
/// -inf and NaN forbid a pair, +inf counts as the largest finite number (`assignable`).
struct convex_choice_problem {
  matrix_view<float const> scores;  ///< worth of (token, server). @shape{tokens x servers}
  index_t fan_out = 1;              ///< distinct servers a token, >= 0
  double scale = 1.0;               ///< what a score is worth in the unit of the costs, finite, >= 0
  /// Prices to start from, of the slot before for instance; empty = none. They change the time, not the value.
  /// @shape{servers or 0}
  std::span<double const> warm_prices{};
  /// Every server once: the earlier one is preferred where nothing else decides; empty = by id. @shape{servers or 0}
  std::span<expert_id const> priority{};
};

/// @brief Where `convex_choice` writes.
struct convex_choice_result {
  /// Servers of a token by descending scale x score - price, ties by priority; none if infeasible.
  /// @shape{tokens x fan_out}
  matrix_view<expert_id> choices;
  std::span<index_t> counts;    ///< copies of each server. @shape{servers}
  /// Optimal prices: every token's servers are its best by scale x score - price, and a server's price lies between the
  /// costs of its last copy and of one more. Empty = not wanted. @shape{servers or 0}
  std::span<double> prices{};
};

/// @brief What `convex_choice` says: `value` is the cost reached (without what servers cost empty), `bound` what the prices
/// prove that no choice undercuts. `iterations` counts searches.
struct convex_choice_report : report {
  index_t augmentations = 0;  ///< copies moved one by one, or several alike at once
  index_t scans = 0;          ///< passes over all scores
  /// @returns how far the value may lie above the optimum; 0 up to rounding where `ok`
  [[nodiscard]] constexpr double gap() const noexcept { return value - bound; }
};

/// @brief Solve min sum_j h_j(n_j) - scale x sum of chosen scores exactly: each token takes `fan_out` servers, server j
/// gets n_j copies, h_j is convex.
///
/// Servers send their copies to one more node, the sink, each copy at its marginal cost: the residual graph has servers + 1
/// nodes. Prices come from exact solves of samples that grow fourfold (or from `warm_prices`); tokens choose at these
/// prices, servers offer what the prices pay for, and shortest-path trees, many paths a tree, move what does not meet.
/// Ties, identical rows and flat costs are split by flow. The certificate is made afresh from the caller's numbers and
/// the final prices.
///
/// Scores are widened, never rounded; costs are used in the unit of the scores, so that the result is optimal up to the
/// rounding of fp64 sums.
/// @complexity O(tokens x servers), and searches of O(servers^2) whose number grows with the copies that the first prices
///             misplace; O(tokens x fan_out) calls of the cost for the value. No allocation
/// @determinism equal bits for every host backend and number of threads
/// @source{edmonds1972, successive shortest paths with potentials; the contraction to servers with convex arcs to a sink,
///         samples and certificate: own}
struct convex_choice {
  /// Sweeps that move each price to the middle of the range in which the choice stays optimal; 0 = leave them at the border.
  int centre_sweeps = 2;

  /// @param tokens number of tokens, < 2^25, for fan_out > 1 < 2^22
  /// @param servers number of servers
  /// @param fan_out servers a token
  /// @returns scratch bytes of `solve`: twice the size of the scores, five times with few servers
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t servers, index_t fan_out) const {
    if (fan_out > servers) { return 0; }
    index_t const blocks = tokens / detail::choice_check::block_tokens + 1;
    return detail::transport_solve<float, no_backend, detail::convex_demand<no_cost>>::bytes(tokens, servers, fan_out) +
           fairlead::workspace_bytes<float>(tokens * servers) + fairlead::workspace_bytes<double>(servers) * 4 +
           fairlead::workspace_bytes<double>(blocks * fan_out) + fairlead::workspace_bytes<detail::choice_sums>(blocks);
  }

  /// @brief Choose.
  /// @tparam Marginal cost of one copy more
  /// @param on host backend
  /// @param problem scores, servers a token, scale
  /// @param cost `cost(server, copies)`, 0 <= copies < tokens, and `total` if it has that; called from the calling thread
  ///             only
  /// @param[out] result choices, counts, and prices if wanted
  /// @param ws at least `workspace_bytes(tokens, servers, fan_out)`
  /// @returns `ok`: optimal; `infeasible`: fan_out > servers, a token has too few usable servers, or closed servers leave
  ///          too little room (choices none, counts and prices 0, bound +inf); `iteration_limit`: complete, but costs so far
  ///          apart that the proof leaves more than rounding between value and bound
  /// @throws contract_violation (level 1) on shapes, a negative or infinite scale, or too many tokens; (level 2) on a
  ///         priority that does not name every server once
  template <host_backend Backend, marginal_cost Marginal>
  convex_choice_report solve(Backend const& on, convex_choice_problem const& problem, Marginal const& cost,
                             convex_choice_result const& result, workspace& ws) const;

 private:
  struct no_cost {
    double operator()(index_t, index_t) const { return 0.0; }
  };
  struct no_backend {};
};

template <host_backend Backend, marginal_cost Marginal>
convex_choice_report convex_choice::solve(Backend const& on, convex_choice_problem const& problem, Marginal const& cost,
                                          convex_choice_result const& result, workspace& ws) const {
  index_t const tokens = problem.scores.rows();
  index_t const servers = problem.scores.cols();
  index_t const fan_out = problem.fan_out;
  FAIRLEAD_EXPECTS(fan_out >= 0, "fan_out must not be negative", fan_out);
  FAIRLEAD_EXPECTS(problem.scale >= 0.0 && problem.scale < detail::infinite<double>, "scale must be finite and not negative",
                   problem.scale);
  FAIRLEAD_EXPECTS(result.choices.rows() == tokens && result.choices.cols() == fan_out, "choices must be tokens x fan_out",
                   result.choices.rows(), result.choices.cols());
  FAIRLEAD_EXPECTS(static_cast<index_t>(result.counts.size()) == servers, "one count a server", result.counts.size(), servers);
  FAIRLEAD_EXPECTS(result.prices.empty() || static_cast<index_t>(result.prices.size()) == servers,
                   "prices must be one a server or none", result.prices.size(), servers);
  FAIRLEAD_EXPECTS(problem.warm_prices.empty() || static_cast<index_t>(problem.warm_prices.size()) == servers,
                   "warm prices must be one a server or none", problem.warm_prices.size(), servers);
  FAIRLEAD_EXPECTS(problem.priority.empty() || static_cast<index_t>(problem.priority.size()) == servers,
                   "the priority must name every server once or be empty", problem.priority.size(), servers);
  FAIRLEAD_EXPECTS(centre_sweeps >= 0, "the number of sweeps must not be negative", centre_sweeps);
  detail::check_flow_size(tokens, servers, fan_out);
  for (index_t j = 0; j < servers && !problem.priority.empty(); ++j) {
    FAIRLEAD_EXPECTS_2(std::count(problem.priority.begin(), problem.priority.end(), static_cast<expert_id>(j)) == 1,
                       "the priority must name every server once", j);
  }
  std::fill(result.counts.begin(), result.counts.end(), index_t{0});
  std::fill(result.prices.begin(), result.prices.end(), 0.0);
  convex_choice_report report;
  auto const fail = [&](status why) {
    for (index_t t = 0; t < tokens; ++t) { std::fill_n(result.choices.row(t), fan_out, expert_id::none); }
    report.status = why;
    report.bound = why == status::infeasible ? detail::infinite<double> : -detail::infinite<double>;
    return report;
  };
  index_t const copies = tokens * fan_out;
  if (copies > 0 && fan_out > servers) { return fail(status::infeasible); }

  detail::scaled_marginal<Marginal> scaled{&cost, problem.priority.empty() ? nullptr : problem.priority.data(), 0.0, 1.0};
  if (copies == 0) {
    // Any price up to the cost of the first copy is optimal.
    for (index_t j = 0; j < servers && !result.prices.empty() && tokens > 0; ++j) {
      result.prices[static_cast<std::size_t>(scaled.server(j))] = std::min(0.0, scaled.raw(j, 0));
    }
    return report;
  }

  workspace::scope const scope(ws);
  std::span<double> const prices = ws.take<double>(servers);
  std::span<double> const final_prices = ws.take<double>(servers);
  std::span<double> const warm = ws.take<double>(servers);
  detail::set_level(scaled, servers, tokens, copies, problem.scale, ws.take<double>(servers));
  matrix_view<float const> scores = problem.scores;
  if (problem.scale == 0.0 || !problem.priority.empty()) {
    float* const copy = ws.take<float>(tokens * servers).data();
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t j = 0; j < servers; ++j) {
        float const score = problem.scores(t, scaled.server(j));
        copy[t * servers + j] = problem.scale == 0.0 && is_candidate(score) ? 0.0F : score;
      }
    }
    scores = {copy, tokens, servers};
  }
  assignment_problem<float> inner{.scores = scores, .fan_out = fan_out};
  if (!problem.warm_prices.empty()) {
    for (index_t j = 0; j < servers; ++j) {
      warm[static_cast<std::size_t>(j)] =
          (problem.warm_prices[static_cast<std::size_t>(scaled.server(j))] - scaled.level) / scaled.unit;
    }
    inner.warm_prices = warm;
  }
  for (;;) {
    detail::convex_demand<Marginal> demand(scaled, static_cast<int>(servers));
    assignment_report const solved = detail::transport_solve<float, Backend, detail::convex_demand<Marginal>>(
                                         detail::flow_tuning{.centre_sweeps = centre_sweeps}, on, inner,
                                         assignment_result{.owner = result.choices, .prices = prices}, demand, ws)
                                         .run();
    report.iterations += solved.iterations;
    report.augmentations += solved.augmentations;
    report.scans += solved.scans;
    if (solved.status != status::ok) { return fail(solved.status); }
    // Back to the caller's columns and units; then value and bound from them.
    for (std::size_t j = 0; j < prices.size(); ++j) {
      final_prices[static_cast<std::size_t>(scaled.server(static_cast<index_t>(j)))] = prices[j] * scaled.unit + scaled.level;
    }
    std::fill(result.counts.begin(), result.counts.end(), index_t{0});
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t k = 0; k < fan_out; ++k) {
        expert_id& choice = result.choices(t, k);
        choice = static_cast<expert_id>(scaled.server(to_index(choice)));
        ++result.counts[static_cast<std::size_t>(to_index(choice))];
      }
    }
    detail::choice_proof const proof = detail::prove_choice(on, problem.scores, result.choices, problem.scale, cost,
                                                            result.counts, final_prices, ws);
    report.value = proof.value;
    report.bound = proof.value - proof.gap;
    // Where all chosen steps are nothing, what is lost beside the level or the other steps.
    double const lost = 0x1p-50 * static_cast<double>(copies) * (std::abs(scaled.level) + (problem.scale == 0.0 ? scaled.unit : 0.0));
    if (proof.gap <= proof.size * 0x1p-36 + lost) { break; }
    if (inner.warm_prices.empty()) {
      report.status = status::iteration_limit;
      break;
    }
    inner.warm_prices = {};  // they were so large that rounding hid the scores
  }
  std::copy_n(final_prices.begin(), result.prices.size(), result.prices.begin());
  return report;
}

FAIRLEAD_NAMESPACE_END
