// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Greedy assignments in a fixed order: of all pairs by score, or of the experts by lot.
#include <fairlead/assign/detail/completion.hpp>
#include <fairlead/assign/detail/working.hpp>
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail::rounding {

/// A pair in the order of all pairs: score descending, token ascending, expert ascending.
struct scored_pair {
  double score;
  std::int32_t token, expert;
  /// For the heap of the standard library, whose top is the largest.
  [[nodiscard]] friend bool operator<(scored_pair const& a, scored_pair const& b) noexcept {
    if (a.score != b.score) { return a.score < b.score; }
    return a.token != b.token ? a.token > b.token : a.expert > b.expert;
  }
};

/// The end of both solvers: complete what is left, order the rows, no prices.
template <host_backend Backend, class Score>
[[nodiscard]] assignment_report complete_without_prices(Backend const& on, assignment_problem<Score> const& problem,
                                                        assignment_result const& result, assignment_report report,
                                                        workspace& ws) {
  std::span<double const> const zeros = take_prices(problem, false, ws);
  hand_out(zeros, result);
  completion<Score> repair(problem, zeros, result.owner, ws);
  bool const complete = repair.run();
  report.augmentations = repair.moved();
  if (!complete) {
    end_without(report, status::infeasible, result);
    return report;
  }
  report.value = settle(on, problem, zeros, result.owner, ws);
  report.bound = std::numeric_limits<double>::infinity();
  return report;
}

[[nodiscard]] constexpr std::size_t greedy_order_bytes(index_t tokens, index_t experts, index_t fan_out) noexcept {
  return working_bytes(tokens, fan_out) + workspace_bytes<double>(experts) + workspace_bytes<index_t>(experts) +
         workspace_bytes<std::int32_t>(experts) + workspace_bytes<scored_pair>(tokens) +
         completion<float>::bytes(tokens, experts, fan_out);
}

}  // namespace detail::rounding

/// @brief Take pairs by descending score, as long as the token has a free choice and the expert has room.
///
/// The order is (score descending, token ascending, expert ascending). The pairs are never sorted: a heap holds the best
/// open pair of each token, which gives the same assignment in O(tokens) scratch. Copies that the order leaves without
/// an expert, and lower capacities, are served by moves as in `greedy_repair`: `ok` is a complete assignment,
/// `infeasible` means that none exists. Warm prices are not read; it has no prices, so its bound is +inf.
struct greedy_edge_sort {
  /// @brief Scratch of `solve`.
  /// @param tokens number of tokens
  /// @param experts number of experts
  /// @param fan_out experts a token
  /// @returns bytes
  [[nodiscard]] static constexpr std::size_t workspace_bytes(index_t tokens, index_t experts, index_t fan_out) noexcept {
    return detail::rounding::greedy_order_bytes(tokens, experts, fan_out);
  }

  /// @brief Take pairs in order.
  /// @param on backend, a model of `host_backend`
  /// @param problem what to assign
  /// @param[out] result owners; prices become 0 if they are asked for
  /// @param ws at least `workspace_bytes(tokens, experts, fan_out)` bytes
  /// @returns status, value, and in `augmentations` the copies placed by repair
  /// @throws contract_violation (level 1) on a shape mismatch or too small a workspace
  /// @complexity O(tokens x fan_out x (experts + log tokens)) plus O(experts) whenever the best expert of a waiting token
  /// is found full, at most experts times a token; no allocation
  /// @determinism equal results at any number of threads: the order is serial
  template <host_backend Backend, class Score>
  assignment_report solve(Backend const& on, assignment_problem<Score> const& problem, assignment_result const& result,
                          workspace& ws) const {
    check_assignment(problem, result);
    workspace::scope const scope(ws);
    detail::rounding::clear_owner(result.owner);
    std::span<index_t> const room = ws.take<index_t>(problem.experts());
    detail::rounding::open_experts open{ws.take<std::int32_t>(problem.experts()), 0};
    for (index_t e = 0; e < problem.experts(); ++e) {
      room[static_cast<std::size_t>(e)] = problem.upper[static_cast<std::size_t>(e)];
      if (room[static_cast<std::size_t>(e)] > 0) { open.add(e); }
    }
    auto const heap = ws.take<detail::rounding::scored_pair>(problem.tokens());
    auto const first = heap.begin();
    auto last = first;
    for (index_t t = 0; t < problem.tokens() && problem.fan_out > 0; ++t) {
      if (detail::rounding::token_counts(problem, t) && best_open(problem, result.owner, open, t, *last)) { ++last; }
    }
    std::make_heap(first, last);
    assignment_report report;
    report.scans = 1;
    while (first != last) {
      std::pop_heap(first, last);
      detail::rounding::scored_pair const next = *--last;
      auto const e = static_cast<std::size_t>(next.expert);
      if (room[e] > 0) {
        expert_id* const row = result.owner.row(next.token);
        *std::find(row, row + problem.fan_out, expert_id::none) = static_cast<expert_id>(next.expert);
        if (--room[e] == 0) { open.remove(next.expert); }
        ++report.iterations;
        if (row[problem.fan_out - 1] != expert_id::none) { continue; }
      }
      if (best_open(problem, result.owner, open, next.token, *last)) { std::push_heap(first, ++last); }
    }
    return detail::rounding::complete_without_prices(on, problem, result, report, ws);
  }

 private:
  template <class Score>
  [[nodiscard]] static bool best_open(assignment_problem<Score> const& problem, matrix_view<expert_id> owner,
                                      detail::rounding::open_experts const& open, index_t token, detail::rounding::scored_pair& found) {
    Score const* const scores = problem.scores.row(token);
    double best = detail::rounding::unusable;
    std::int32_t expert = -1;
    for (std::int32_t const e : open.view()) {
      double const score = assignable(scores[e]);
      if (score > best && !detail::rounding::holds(owner.row(token), problem.fan_out, e)) {
        best = score;
        expert = e;
      }
    }
    if (expert >= 0) { found = {best, static_cast<std::int32_t>(token), expert}; }
    return expert >= 0;
  }
};
/// Takes any fan-out.
template <>
inline constexpr bool solves_fan_out<greedy_edge_sort> = true;
/// Lower and upper capacities may differ.
template <>
inline constexpr bool solves_bounds<greedy_edge_sort> = true;
/// Never uses a forbidden pair.
template <>
inline constexpr bool solves_forbidden<greedy_edge_sort> = true;
static_assert(assignment_solver_on<greedy_edge_sort, serial>);

/// @brief Let the experts choose in random order: each takes its best tokens of those that still have a free choice.
///
/// Early experts take as many as their upper capacity allows, late ones what is left; the order is drawn from the seed,
/// so that no expert is always last: change the seed every step. Scores are not changed. What is left over is repaired
/// as in `greedy_repair`. Ties go to the lower token. Warm prices are not read; no prices, its bound is +inf.
/// @source{StableMoE, greedy balanced assignment of its code, which overwrites the scores}
struct greedy_expert_order {
  std::uint64_t seed = 0;  ///< names the order of the experts

  /// @brief Scratch of `solve`.
  /// @param tokens number of tokens
  /// @param experts number of experts
  /// @param fan_out experts a token
  /// @returns bytes
  [[nodiscard]] static constexpr std::size_t workspace_bytes(index_t tokens, index_t experts, index_t fan_out) noexcept {
    return detail::rounding::greedy_order_bytes(tokens, experts, fan_out);
  }

  /// @brief Draw an order of the experts.
  /// @param[out] order a permutation of 0 ... experts - 1. @shape{experts}
  /// @complexity O(experts), no allocation
  /// @determinism a function of the seed and the number of experts
  constexpr void draw_order(std::span<std::int32_t> order) const noexcept {
    for (std::size_t e = 0; e < order.size(); ++e) { order[e] = static_cast<std::int32_t>(e); }
    for (std::size_t left = order.size(); left > 1; --left) {
      std::uint32_t const word = philox::draw(seed, 0x6F72646572, left)[0];
      std::swap(order[left - 1], order[philox::below(word, static_cast<std::uint32_t>(left))]);
    }
  }

  /// @brief Let the experts choose.
  /// @param on backend, a model of `host_backend`
  /// @param problem what to assign
  /// @param[out] result owners; prices become 0 if they are asked for
  /// @param ws at least `workspace_bytes(tokens, experts, fan_out)` bytes
  /// @returns status, value, and in `augmentations` the copies placed by repair
  /// @throws contract_violation (level 1) on a shape mismatch or too small a workspace
  /// @complexity O(tokens x (experts + fan_out)) on average, no allocation
  /// @determinism equal results at any number of threads: the order is serial
  template <host_backend Backend, class Score>
  assignment_report solve(Backend const& on, assignment_problem<Score> const& problem, assignment_result const& result,
                          workspace& ws) const {
    check_assignment(problem, result);
    workspace::scope const scope(ws);
    detail::rounding::clear_owner(result.owner);
    std::span<std::int32_t> const order = ws.take<std::int32_t>(problem.experts());
    draw_order(order);
    auto const pairs = ws.take<detail::rounding::scored_pair>(problem.tokens());
    assignment_report report;
    report.scans = 1;
    for (std::int32_t const expert : order) {
      auto const first = pairs.begin();
      auto last = first;
      for (index_t t = 0; t < problem.tokens() && problem.fan_out > 0; ++t) {
        if (!detail::rounding::token_counts(problem, t) || result.owner(t, problem.fan_out - 1) != expert_id::none) { continue; }
        double const score = assignable(problem.scores(t, expert));
        if (score > detail::rounding::unusable) { *last++ = {score, static_cast<std::int32_t>(t), expert}; }
      }
      index_t const most = problem.upper[static_cast<std::size_t>(expert)];
      if (most < last - first) {
        std::nth_element(first, first + most, last, [](auto const& a, auto const& b) { return b < a; });
        last = first + most;
      }
      for (auto pair = first; pair != last; ++pair) {
        expert_id* const row = result.owner.row(pair->token);
        *std::find(row, row + problem.fan_out, expert_id::none) = static_cast<expert_id>(expert);
      }
      report.iterations += last - first;
    }
    return detail::rounding::complete_without_prices(on, problem, result, report, ws);
  }
};
/// Takes any fan-out.
template <>
inline constexpr bool solves_fan_out<greedy_expert_order> = true;
/// Lower and upper capacities may differ.
template <>
inline constexpr bool solves_bounds<greedy_expert_order> = true;
/// Never uses a forbidden pair.
template <>
inline constexpr bool solves_forbidden<greedy_expert_order> = true;
static_assert(assignment_solver_on<greedy_expert_order, serial>);

FAIRLEAD_NAMESPACE_END
