// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Exact balanced assignment of tokens that live on several ranks, without gathering their scores.
#include <fairlead/assign/detail/distributed_run.hpp>
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/flow/token_runs.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Solve one assignment problem whose rows are spread over ranks; every rank learns the owners of its own rows.
///
/// Per-rank solving (each rank balances its own tokens) and this are different problems: here the capacities count over
/// all ranks, and the optimum is that of the gathered scores. No score leaves its rank. Each rank holds the same small
/// graph of experts, in which the arc from one expert to another costs what the cheapest move of a token between them
/// loses, a minimum over the ranks:
/// - prices start from soft loads, summed over the ranks (or from `warm_prices`);
/// - each phase walks shortest paths from overfull to underfull experts, the same on every rank, pushes as many tied
///   tokens as all arcs of a path have, and reduces anew the arc costs of the experts that tokens left or entered;
/// - on disjoint paths the phases are shared. Tokens that tie move in rank order, then in token order.
///
/// The loop ends when every capacity is served; the prices are then optimal, and `bound` proves it. They are normalised
/// as those of `balanced_flow`, but not moved to the middle of their range. Ranks that hold
/// consecutive rows of one matrix get the same owners and prices as one rank that holds all of them, whatever their
/// number. Use a one-rank solver where the scores are in one place: it is faster.
/// @source{edmonds1972, successive shortest paths with potentials; on the graph of experts and over ranks: own}
struct distributed_flow {
  /// Passes over the scores that improve the prices before the first choice; more of them save phases. >= 0
  index_t start_sweeps = 24;
  /// Phases after which the search for the best stops; tokens are then moved by capacity alone. >= 0
  index_t max_phases = index_t{1} << 20;
  /// Rows of arc costs in one message: its length is this times experts. >= 1
  index_t rows_per_message = 16;

  /// @param tokens most tokens of this rank
  /// @param experts most experts
  /// @param fan_out most experts a token
  /// @param ranks number of ranks
  /// @returns scratch bytes of `solve`: 8 experts^2 and what grows linearly in experts, ranks and runs of tokens
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t experts, index_t fan_out,
                                            index_t ranks) const noexcept {
    return detail::distributed_run_bytes(token_runs{tokens}.count(), experts, fan_out, ranks, rows_per_message);
  }

  /// @brief Assign the tokens of all ranks.
  /// @tparam Backend host backend
  /// @tparam Comm communicator that reduces and gathers 64-bit integers and reduces doubles, in host memory
  /// @tparam Score `float` or `bfloat16`
  /// @param on where the passes over this rank's scores run
  /// @param comm the ranks
  /// @param problem scores and mask of this rank's rows, 0 or more; fan_out, capacities and warm prices of the whole
  ///        problem, equal on every rank
  /// @param[out] result owners of this rank's rows; prices, equal on every rank
  /// @param ws at least `workspace_bytes(tokens, experts, fan_out, ranks)`
  /// @returns the report of the whole problem, equal on every rank. `ok`: optimal. `infeasible`: owners are
  ///          none, prices 0, the bound is -inf.
  ///          `iteration_limit`: `max_phases` were not enough; owners serve all capacities, `bound` says how far they
  ///          can be from the best. `iterations` counts phases, `augmentations` copies that paths carried
  /// @pre the fields are as documented and the shapes fit (level 1); ranks agree on all but the rows (level 3)
  /// @throws contract_violation, and what the communicator throws
  /// @complexity phases <= copies above the capacities after the start, each at least one; a phase costs
  ///             O(experts^2 + tokens x changed experts / experts x experts) and 1 + changed experts / rows_per_message
  ///             messages (one more if fan_out > 1) of at most experts x rows_per_message numbers; no allocation
  /// @determinism owners, prices and counts are equal at any number of threads and, for consecutive rows, of ranks;
  ///              `value` and `bound` to rounding
  /// @collective every rank of `comm`
  template <host_backend Backend, class Comm, class Score>
    requires has_all_reduce<Comm, double, Backend> && has_all_reduce<Comm, std::int64_t, Backend> &&
             has_all_gather<Comm, std::int64_t, Backend>
  distributed_assignment_report solve(Backend const& on, Comm& comm, assignment_problem<Score> const& problem,
                                      assignment_result const& result, workspace& ws) const {
    check_assignment(problem, result);
    FAIRLEAD_EXPECTS(start_sweeps >= 0 && max_phases >= 0 && rows_per_message >= 1,
                     "sweeps and phases must not be negative, a message needs a row", start_sweeps, max_phases,
                     rows_per_message);
    workspace::scope const scope(ws);
    detail::distributed_run<Backend, Comm, Score> run(on, comm, problem, result, ws, rows_per_message);
    run.expect_agreement();
    return run.solve(start_sweeps, max_phases);
  }
};

/// `ok` means optimal.
template <>
inline constexpr bool exact_solver<distributed_flow> = true;
/// Any fan_out.
template <>
inline constexpr bool solves_fan_out<distributed_flow> = true;
/// Lower and upper capacities.
template <>
inline constexpr bool solves_bounds<distributed_flow> = true;
/// Forbidden pairs.
template <>
inline constexpr bool solves_forbidden<distributed_flow> = true;
/// Warm prices save phases.
template <>
inline constexpr bool warm_startable<distributed_flow> = true;
/// Prices and a finite bound.
template <>
inline constexpr bool has_prices<distributed_flow> = true;

FAIRLEAD_NAMESPACE_END
