// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that assigns tokens to experts under capacities.
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Says how much scratch memory a solve needs.
template <class Solver>
concept has_solver_workspace = requires(Solver const& solver, index_t size) {
  { solver.workspace_bytes(size, size, size) } -> std::convertible_to<std::size_t>;
};

/// @brief Solves a balanced assignment problem.
///
/// Required of a model `solver`:
/// - `solver.solve(on, problem, result, ws)` writes `result.owner` and, where it has duals, `result.prices`, and returns
///   an `assignment_report`. Status: `ok` - every capacity and every token is served (optimal if `exact<Solver>`);
///   `infeasible` - no such assignment exists, owners are none; `iteration_limit` - owners serve all capacities but are
///   not proved best; `unsupported` - the problem needs a capability that the solver has not stated, owners are none.
/// - `solver.workspace_bytes(tokens, experts, fan_out)`: scratch for a problem of at most that size.
/// - Every loop has a bound: no input makes it hang. Equal inputs give equal results at any number of threads.
///
/// What a solver can do is stated by the variable templates below; `laws/assignment_solver.hpp` checks what is stated.
/// @tparam Score `float` or `bfloat16`
template <class Solver, class Backend, class Score = float>
concept assignment_solver_on =
    has_solver_workspace<Solver> && execution_backend<Backend> &&
    requires(Solver const& solver, Backend const& on, assignment_problem<Score> const& problem,
             assignment_result const& result, workspace& ws) {
      { solver.solve(on, problem, result, ws) } -> std::same_as<assignment_report>;
    };

/// @brief Stated: `ok` means optimal, and the bound proves it up to rounding.
template <class Solver>
inline constexpr bool exact_solver = false;
/// @brief Stated: fan_out may be above 1.
template <class Solver>
inline constexpr bool solves_fan_out = false;
/// @brief Stated: lower < upper is allowed; otherwise capacities must be equalities.
template <class Solver>
inline constexpr bool solves_bounds = false;
/// @brief Stated: pairs may be forbidden.
template <class Solver>
inline constexpr bool solves_forbidden = false;
/// @brief Stated: warm prices shorten the solve (all solvers accept them; others ignore them).
template <class Solver>
inline constexpr bool warm_startable = false;
/// @brief Stated: it writes prices, and its bound is finite.
template <class Solver>
inline constexpr bool has_prices = false;
/// @brief Stated: `ok` means that no capacity is exceeded; false for rules that only aim at balance.
template <class Solver>
inline constexpr bool keeps_capacity = true;

/// @brief What a solver over ranks says: every rank the same.
struct distributed_assignment_report : assignment_report {
  index_t messages = 0;         ///< collectives that were started
  index_t message_numbers = 0;  ///< 64-bit numbers that a rank put into them, all messages together
};

/// @brief Solves one assignment problem whose rows are spread over the ranks of a communicator.
///
/// Required of a model `solver`:
/// - `solver.solve(on, comm, problem, result, ws)`: scores, mask and owners are those of this rank's rows; fan_out,
///   capacities, warm prices and the prices that come out are those of the whole problem, equal on every rank. Status
///   and the statements of capability mean what they mean elsewhere, about the gathered problem. Collective.
/// - `solver.workspace_bytes(tokens, experts, fan_out, ranks)`: scratch of one rank.
/// - Scores stay on their rank: a message holds O(experts) numbers.
/// @tparam Score `float` or `bfloat16`
template <class Solver, class Backend, class Comm, class Score = float>
concept distributed_assignment_solver_on =
    communicator<Comm> && execution_backend<Backend> &&
    requires(Solver const& solver, Backend const& on, Comm& comm, assignment_problem<Score> const& problem,
             assignment_result const& result, workspace& ws, index_t size) {
      { solver.workspace_bytes(size, size, size, size) } -> std::convertible_to<std::size_t>;
      { solver.solve(on, comm, problem, result, ws) } -> std::same_as<distributed_assignment_report>;
    };

FAIRLEAD_NAMESPACE_END
