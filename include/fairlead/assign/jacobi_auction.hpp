// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Balanced assignment by an auction in rounds, on integer prices: exact, the same on host and device.
#include <fairlead/assign/detail/auction_host.hpp>
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/exec/serial.hpp>

#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Several independent problems of equal shape, such as the layers of a model.
/// @tparam Score `float` or `bfloat16`
template <class Score>
struct assignment_batch {
  matrix_view<Score const> scores;             ///< problem after problem. @shape{problems x tokens, experts}
  index_t problems = 1;                        ///< number of problems
  std::span<index_t const> capacity{};         ///< copies each expert takes; host memory. @shape{problems x experts, or experts}
  std::span<std::uint8_t const> token_mask{};  ///< zero = padding; empty = all valid. @shape{problems x tokens or 0}
  std::span<double const> warm_prices{};       ///< prices to start from; empty = none. @shape{problems x experts or 0}

  /// @returns tokens of one problem
  [[nodiscard]] constexpr index_t tokens() const noexcept { return problems > 0 ? scores.rows() / problems : 0; }
  /// @returns experts of one problem
  [[nodiscard]] constexpr index_t experts() const noexcept { return scores.cols(); }
};

/// @brief Tokens bid for experts in rounds: all unassigned tokens at once, at the prices of the round's start.
///
/// Scores are rounded to a grid of at most 2^-29 of the largest one (coarser above 8191 experts), arithmetic is in integers,
/// so that a round's result is a function of sets: any number of threads, and a device, give the same owners and prices.
/// Epsilon shrinks from phase to phase down to 1 / (experts + 1) of a grid step, where the assignment is the best one on
/// the grid. Holders of an expert that turned somebody away raise their bids in the next round too, as far as they would
/// go: without this, tokens with equal rows overbid each other one by one.
///
/// Reach for it on a device, or for many problems at once. One expert a token, exact capacities; pairs may be forbidden.
/// @source{bertsekas1989, auction for the transportation problem; deviations in docs/algorithms/assign.md}
struct jacobi_auction {
  index_t divisor = 8;                        ///< epsilon is divided by this from phase to phase, >= 2
  index_t first_divisor = 4;                  ///< first epsilon = range of the scores / this, >= 1
  index_t warm_divisor = 1024;                ///< the same with warm prices, >= 1
  index_t most_rounds = index_t{1} << 20;     ///< rounds after which the last complete phase is the answer, >= 0

  /// @param tokens most tokens
  /// @param experts most experts
  /// @returns scratch bytes of `solve`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens, index_t experts, index_t /*fan_out*/) const noexcept {
    return batch_workspace_bytes(1, tokens, experts);
  }
  /// @param problems most problems
  /// @param tokens most tokens of one
  /// @param experts most experts of one
  /// @returns scratch bytes of `solve_batch`: about 4 a score and 48 a token
  [[nodiscard]] constexpr std::size_t batch_workspace_bytes(index_t problems, index_t tokens, index_t experts) const noexcept {
    return detail::auction_memory::bytes(problems, tokens, experts) +
           fairlead::workspace_bytes<assignment_report>(problems) + fairlead::workspace_bytes<index_t>(problems * experts);
  }
  /// @brief Assign each token to one expert.
  ///
  /// Statuses: `ok` - the best assignment on the grid; `iteration_limit` - a complete one; `infeasible`;
  /// `unsupported` - fan_out above 1, or lower < upper.
  /// @param on execution backend. On a device the scores, the mask, warm prices, owners and prices are device memory,
  /// capacities host memory; the call waits for the device once every few rounds and for the report
  /// @param problem what to solve
  /// @param[out] result owners, and prices where wanted: the least price of an expert with capacity is 0
  /// @param ws at least `workspace_bytes(tokens, experts, 1)`, memory of the backend
  /// @returns status, rounds (iterations), bids (augmentations), value, and the bound that the prices prove
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity O(tokens x experts) a phase on usual scores, phases O(log(range x experts)); no allocation
  /// @determinism owners, prices, value and bound are the same bits for every backend and number of threads
  template <execution_backend Backend, class Score>
  assignment_report solve(Backend const& on, assignment_problem<Score> const& problem, assignment_result const& result,
                          workspace& ws) const {
    check_assignment(problem, result);
    check();
    FAIRLEAD_EXPECTS(problem.tokens() < (index_t{1} << 31) && problem.experts() <= 65536, "too many tokens or experts",
                     problem.tokens(), problem.experts());
    assignment_report report;
    if (problem.fan_out > 1 || !problem.equality()) {
      report.status = status::unsupported;
      if (problem.tokens() > 0) { implementation<jacobi_auction, Backend>::clear(on, result.owner); }
      return report;
    }
    if (problem.fan_out == 0 || problem.tokens() == 0) {
      index_t least = 0;
      for (index_t const lower : problem.lower) { least = least > lower ? least : lower; }
      report.status = least > 0 ? status::infeasible : status::ok;
      if (!result.prices.empty()) { on.fill_zero(result.prices.data(), result.prices.size_bytes()); }
      return report;
    }
    assignment_batch<Score> const batch{problem.scores, 1, problem.upper, problem.token_mask, problem.warm_prices};
    implementation<jacobi_auction, Backend>::solve(*this, on, batch, result.owner, result.prices,
                                                   std::span<assignment_report>(&report, 1), ws);
    return report;
  }
  /// @brief Solve many problems of equal shape at once; each stops on its own.
  /// @param on execution backend, see `solve`
  /// @param batch the problems
  /// @param[out] owner @shape{problems x tokens, 1}
  /// @param[out] prices empty = not wanted. @shape{problems x experts or 0}
  /// @param[out] reports one for each problem, host memory. @shape{problems}
  /// @param ws at least `batch_workspace_bytes(problems, tokens, experts)`, memory of the backend
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity as many `solve`, in one sequence of launches on a device; no allocation
  /// @determinism as `solve`; a problem's result does not depend on the others
  template <execution_backend Backend, class Score>
  void solve_batch(Backend const& on, assignment_batch<Score> const& batch, matrix_view<expert_id> owner,
                   std::span<double> prices, std::span<assignment_report> reports, workspace& ws) const {
    check();
    check_batch(batch, owner, prices, reports);
    if (batch.problems == 0) { return; }
    if (batch.tokens() == 0) {
      for (index_t p = 0; p < batch.problems; ++p) {
        index_t const* const capacity = batch.capacity.data() + (shared(batch) ? 0 : p * batch.experts());
        bool idle = true;
        for (index_t e = 0; e < batch.experts(); ++e) { idle = idle && capacity[e] == 0; }
        reports[static_cast<std::size_t>(p)] = {};
        if (!idle) { reports[static_cast<std::size_t>(p)].status = status::infeasible; }
      }
      if (!prices.empty()) { on.fill_zero(prices.data(), prices.size_bytes()); }
      return;
    }
    implementation<jacobi_auction, Backend>::solve(*this, on, batch, owner, prices, reports, ws);
  }

 private:
  template <class Score>
  [[nodiscard]] static bool shared(assignment_batch<Score> const& batch) {
    return static_cast<index_t>(batch.capacity.size()) == batch.experts();
  }
  void check() const {
    FAIRLEAD_EXPECTS(divisor >= 2 && first_divisor >= 1 && warm_divisor >= 1 && most_rounds >= 0,
                     "epsilon must shrink: divisor >= 2, first and warm divisors >= 1, most_rounds >= 0", divisor,
                     first_divisor, warm_divisor, most_rounds);
    FAIRLEAD_EXPECTS(most_rounds <= index_t{1} << 30, "most_rounds must be at most 2^30", most_rounds);
  }
  template <class Score>
  void check_batch(assignment_batch<Score> const& batch, matrix_view<expert_id> owner, std::span<double const> prices,
                   std::span<assignment_report const> reports) const {
    index_t const problems = batch.problems;
    index_t const rows = batch.scores.rows();
    index_t const experts = batch.experts();
    FAIRLEAD_EXPECTS(problems >= 0 && rows == problems * batch.tokens(), "scores must be problems x tokens rows", rows, problems);
    FAIRLEAD_EXPECTS(batch.tokens() < (index_t{1} << 31) && experts <= 65536, "too many tokens or experts", batch.tokens(), experts);
    FAIRLEAD_EXPECTS(shared(batch) || static_cast<index_t>(batch.capacity.size()) == problems * experts,
                     "capacity must be one an expert, or one a problem and expert", batch.capacity.size(), problems, experts);
    for ([[maybe_unused]] index_t const capacity : batch.capacity) {
      FAIRLEAD_EXPECTS(capacity >= 0, "capacities must not be negative", capacity);
    }
    FAIRLEAD_EXPECTS(batch.token_mask.empty() || static_cast<index_t>(batch.token_mask.size()) == rows,
                     "the mask must have one byte a token or be empty", batch.token_mask.size(), rows);
    FAIRLEAD_EXPECTS(batch.warm_prices.empty() || static_cast<index_t>(batch.warm_prices.size()) == problems * experts,
                     "warm prices must be one a problem and expert or none", batch.warm_prices.size(), problems, experts);
    FAIRLEAD_EXPECTS(owner.rows() == rows && owner.cols() == 1, "owner must be problems x tokens rows of 1", owner.rows(),
                     owner.cols());
    FAIRLEAD_EXPECTS(prices.empty() || static_cast<index_t>(prices.size()) == problems * experts,
                     "prices must be one a problem and expert or none", prices.size(), problems, experts);
    FAIRLEAD_EXPECTS(static_cast<index_t>(reports.size()) == problems, "one report a problem", reports.size(), problems);
  }
};

/// @brief Pairs may be forbidden.
template <>
inline constexpr bool solves_forbidden<jacobi_auction> = true;
/// @brief Warm prices skip the first phases.
template <>
inline constexpr bool warm_startable<jacobi_auction> = true;
/// @brief Prices prove the bound.
template <>
inline constexpr bool has_prices<jacobi_auction> = true;

namespace detail {
/// One problem of a batch, by one thread.
template <class Score>
struct auction_problem {
  jacobi_auction policy;
  assignment_batch<Score> batch;
  auction_memory memory;
  matrix_view<expert_id> owner;
  std::span<double> prices;
  std::span<assignment_report> reports;
  [[nodiscard]] auction_input<Score> input(index_t p) const {
    index_t const tokens = batch.tokens();
    index_t const experts = batch.experts();
    bool const shared = static_cast<index_t>(batch.capacity.size()) == experts;
    return {batch.scores.rows(p * tokens, tokens), batch.capacity.data() + (shared ? 0 : p * experts),
            batch.token_mask.empty() ? nullptr : batch.token_mask.data() + p * tokens,
            batch.warm_prices.empty() ? nullptr : batch.warm_prices.data() + p * experts};
  }
  template <class Backend>
  void solve(Backend const& on, index_t p) const {
    index_t const tokens = batch.tokens();
    auto const experts = static_cast<std::size_t>(batch.experts());
    auto const own = prices.empty() ? prices : prices.subspan(static_cast<std::size_t>(p) * experts, experts);
    host_auction<Score, jacobi_auction> auction(policy, input(p), memory.of(p));
    reports[static_cast<std::size_t>(p)] = auction.solve(on, owner.rows(p * tokens, tokens), own);
  }
  void operator()(index_t p) const { solve(serial{}, p); }
};
}  // namespace detail

/// @brief Host text of `jacobi_auction`: a single problem computes its bids in parallel, a batch solves problems in
/// parallel.
template <host_backend Backend>
struct implementation<jacobi_auction, Backend> {
  /// See `jacobi_auction::solve_batch`.
  template <class Score>
  static void solve(jacobi_auction const& policy, Backend const& on, assignment_batch<Score> const& batch,
                    matrix_view<expert_id> owner, std::span<double> prices, std::span<assignment_report> reports,
                    workspace& ws) {
    workspace::scope const scope(ws);
    auto const memory = detail::auction_memory::take(ws, batch.problems, batch.tokens(), batch.experts());
    detail::auction_problem<Score> const problem{policy, batch, memory, owner, prices, reports};
    if (batch.problems == 1) {
      problem.solve(on, 0);
    } else {
      on.for_each(batch.problems, problem);
    }
  }
  /// Owners of a problem that is not solved.
  static void clear(Backend const&, matrix_view<expert_id> owner) {
    for (index_t t = 0; t < owner.rows(); ++t) { std::fill(owner.row(t), owner.row(t) + owner.cols(), expert_id::none); }
  }
};
static_assert(assignment_solver_on<jacobi_auction, serial> && assignment_solver_on<jacobi_auction, serial, bfloat16>);

FAIRLEAD_NAMESPACE_END
