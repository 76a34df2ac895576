// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Solve a slot's routing exactly, speeds included: a convex choice instead of a mixed-integer program.
#include <fairlead/edge/detail/select_servers.hpp>
#include <fairlead/edge/lyapunov_linear.hpp>
#include <fairlead/edge/slot_cost.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/flow/convex_choice.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {
template <class Cost>
struct marginal_of {
  Cost cost;
  [[nodiscard]] double operator()(index_t server, index_t copies) const { return cost.marginal(server, copies); }
  [[nodiscard]] double total(index_t server, index_t copies) const { return cost.rise(server, 0, copies); }
};

/// Remembers each step: the solver asks for one several times, and two roots are dearer than a look.
template <class Cost>
struct remembered_marginal {
  Cost cost;
  std::span<double> steps;  // NaN = not asked for yet. servers x tokens
  index_t tokens;
  [[nodiscard]] double operator()(index_t server, index_t copies) const {
    double& own = steps[static_cast<std::size_t>(server * tokens + copies)];
    if (own != own) { own = cost.marginal(server, copies); }
    return own;
  }
  [[nodiscard]] double total(index_t server, index_t copies) const { return cost.rise(server, 0, copies); }
};
/// Up to this many steps are remembered.
inline constexpr index_t most_remembered_steps = index_t{1} << 16;
[[nodiscard]] constexpr bool remembers_steps(index_t tokens, index_t servers) noexcept {
  return tokens * servers <= most_remembered_steps;
}

[[nodiscard]] inline std::size_t exact_route_bytes(convex_choice const& solver, index_t tokens, index_t servers, index_t fan_out) {
  return solver.workspace_bytes(tokens, servers, fan_out) + workspace_bytes<double>(servers) + workspace_bytes<expert_id>(servers);
}

/// Whether the solver left a choice, be it proved optimal or not.
[[nodiscard]] inline bool routed(matrix_view<expert_id const> choice) {
  return choice.rows() == 0 || choice(0, 0) != expert_id::none;
}

/// Solve with the marginal costs that `marginal` gives; the tie policy is asked once a slot.
template <tie_break Ties, class Marginal>
convex_choice_report route_exactly(convex_choice const& solver, slot_view const& view, Ties const& ties, Marginal const& marginal,
                                   matrix_view<expert_id> choice, std::span<index_t> counts, workspace& ws) {
  workspace::scope const scope(ws);
  if (view.tokens() == 0) {
    std::fill(counts.begin(), counts.end(), index_t{0});
    return {};
  }
  std::span<expert_id> priority;
  if constexpr (!breaks_ties_by_id<Ties>) {
    priority = ws.take<expert_id>(view.servers());
    for (index_t j = 0; j < view.servers(); ++j) { priority[static_cast<std::size_t>(j)] = static_cast<expert_id>(j); }
    std::sort(priority.begin(), priority.end(), [&](expert_id a, expert_id b) {
      auto const first = ties.rank(view, 0, to_index(a));
      auto const second = ties.rank(view, 0, to_index(b));
      return first != second ? first < second : a < b;
    });
  }
  return solver.solve(serial{}, {.scores = view.scores, .fan_out = view.fan_out,
                                 .scale = view.weights.utility * view.weights.gate, .priority = priority},
                      marginal, {.choices = choice, .counts = counts}, ws);
}
}  // namespace detail

/// @brief Routing and speeds of a slot together, exactly: least drift plus penalty with service bounded by the copies there.
///
/// A copy beyond what a server can serve costs its backlog, one that lets it serve more is worth it: servers fill up to
/// equal marginal cost, and the gate decides inside that. The problem is a convex choice (`flow/convex_choice.hpp`), whose
/// linear program has integral corners, so that no branch and bound is needed. Use it with `closed_form_speed`.
/// V weighs the gate and the service that the routing makes possible alike: for large V both count, the gate's own choice is
/// the limit of large mu. A slot with scores of NaN, which level 2 refuses, is routed by `lyapunov_linear`.
/// @complexity that of `convex_choice`, no allocation
/// @determinism exact: equal bits in every run; the tie policy is asked once a slot
/// @source{2512.06784, per-slot problem (reconstructed; the summaries name a mixed-integer solver)}
struct lyapunov_convex {
  convex_choice solver{};  ///< fields of the solver

  /// @param tokens tokens of a slot
  /// @param servers number of servers
  /// @param fan_out servers a token
  /// @returns scratch bytes of `route`
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t servers, index_t fan_out) const {
    return std::max(detail::exact_route_bytes(solver, tokens, servers, fan_out),
                    lyapunov_linear{}.workspace_bytes(tokens, servers, fan_out));
  }
  /// See `keyed_router::route`.
  template <energy_model Model, tie_break Ties>
  void route(slot_view const& view, Model const& servers, Ties const& ties, matrix_view<expert_id> choice,
             std::span<index_t> counts, workspace& ws) const {
    (void)solve(view, servers, ties, choice, counts, ws);
    if (!detail::routed(choice)) { lyapunov_linear{}.route(view, servers, ties, choice, counts, ws); }
  }
  /// @brief As `route`, with the solver's certificate.
  /// @param view scores and state
  /// @param servers the energy model
  /// @param ties who is preferred where nothing else decides, asked for row 0
  /// @param[out] choice @shape{tokens x fan_out}
  /// @param[out] counts copies a server. @shape{servers}
  /// @param ws at least `workspace_bytes(tokens, servers, fan_out)`
  /// @returns value and bound without the costs of empty servers, h(0)
  template <energy_model Model, tie_break Ties>
  convex_choice_report solve(slot_view const& view, Model const& servers, Ties const& ties, matrix_view<expert_id> choice,
                             std::span<index_t> counts, workspace& ws) const {
    detail::check_slot(view, servers.servers(), choice, counts);
    workspace::scope const scope(ws);
    auto const wanted = ws.take<double>(view.servers());
    coupled_cost<Model> cost{&view, &servers};
    for (index_t j = 0; j < view.servers(); ++j) { wanted[static_cast<std::size_t>(j)] = cost.unbounded(j); }
    cost.wanted = wanted;
    return detail::route_exactly(solver, view, ties, detail::marginal_of<coupled_cost<Model>>{cost}, choice, counts, ws);
  }
};
static_assert(slot_router<lyapunov_convex, cubic_energy, ties_by_id>);

/// @brief As `lyapunov_convex`, with the squares of the token queues kept instead of bounded: no herding at any V.
///
/// Use it with `exact_drift_speed`, which serves what this routing counts with.
/// @complexity that of `convex_choice`, no allocation
/// @determinism exact: equal bits in every run; the tie policy is asked once a slot
/// @source{2512.06784, per-slot problem (reconstructed); keeping the squares is this library's variant}
struct exact_drift {
  convex_choice solver{};  ///< fields of the solver

  /// @param tokens tokens of a slot
  /// @param servers number of servers
  /// @param fan_out servers a token
  /// @returns scratch bytes of `route`
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t servers, index_t fan_out) const {
    // The most that any smaller number of tokens needs, so that a workspace for many serves few.
    index_t const steps = std::min(tokens * servers, detail::most_remembered_steps);
    return std::max(detail::exact_route_bytes(solver, tokens, servers, fan_out) + fairlead::workspace_bytes<double>(steps),
                    lyapunov_linear{}.workspace_bytes(tokens, servers, fan_out));
  }
  /// See `keyed_router::route`.
  template <energy_model Model, tie_break Ties>
  void route(slot_view const& view, Model const& servers, Ties const& ties, matrix_view<expert_id> choice,
             std::span<index_t> counts, workspace& ws) const {
    (void)solve(view, servers, ties, choice, counts, ws);
    if (!detail::routed(choice)) { lyapunov_linear{}.route(view, servers, ties, choice, counts, ws); }
  }
  /// See `lyapunov_convex::solve`.
  template <energy_model Model, tie_break Ties>
  convex_choice_report solve(slot_view const& view, Model const& servers, Ties const& ties, matrix_view<expert_id> choice,
                             std::span<index_t> counts, workspace& ws) const {
    detail::check_slot(view, servers.servers(), choice, counts);
    exact_drift_cost<Model> const cost{&view, &servers};
    if (!detail::remembers_steps(view.tokens(), view.servers())) {
      return detail::route_exactly(solver, view, ties, detail::marginal_of<exact_drift_cost<Model>>{cost}, choice, counts, ws);
    }
    workspace::scope const scope(ws);
    auto const steps = ws.take<double>(view.tokens() * view.servers());
    std::fill(steps.begin(), steps.end(), std::numeric_limits<double>::quiet_NaN());
    return detail::route_exactly(solver, view, ties,
                                 detail::remembered_marginal<exact_drift_cost<Model>>{cost, steps, view.tokens()}, choice, counts, ws);
  }
};
static_assert(slot_router<exact_drift, cubic_energy, ties_by_id>);

FAIRLEAD_NAMESPACE_END
