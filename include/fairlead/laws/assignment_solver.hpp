// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `assignment_solver_on`, by its stated capabilities.
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/verdict.hpp>
#include <fairlead/laws/detail/assignment_examiner.hpp>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The problems that `check_assignment_solver` makes.
struct assignment_solver_options {
  std::uint64_t seed = 1;   ///< seed of scores, capacities and masks
  int cases = 240;          ///< small problems that are compared with an exhaustive answer
  index_t tokens = 97;      ///< tokens of the larger problems, >= 1
  index_t experts = 8;      ///< experts of the larger problems, >= 1
  /// Rounding that a sum may show, relative to its largest summand, for each of its summands.
  double tolerance = 1e-11;
};

/// @brief Check an assignment solver on random small problems and on the adversarial catalogue.
///
/// For every solver: owners exist, are distinct and in order, none for masked tokens, never a forbidden pair; capacities
/// are kept (`keeps_capacity`); `value` is the sum of the assigned scores, `bound` at least that, and with `has_prices`
/// the dual function at the finite prices; `infeasible` only where a maximum flow finds no assignment, owners then none;
/// what the solver does not state is answered `unsupported`, what it states is not. Two backends, old content of memory,
/// row strides and bfloat16 change no bit of the result; nothing outside of owners, prices and `workspace_bytes()` of
/// scratch is written. An exact solver finds the best of all assignments of small problems, its prices satisfy
/// complementary slackness and close the gap, and its value follows constants on rows and (equality) columns, positive
/// factors, token permutations; any warm prices, its own included, leave the value alone.
/// @tparam Solver a model of `assignment_solver_on<Solver, Backend>` and `assignment_solver_on<Solver, Other>`
/// @param solver the solver
/// @param options sizes and seed
/// @param on backend
/// @param other second backend, whose results must be equal: `threads{3}` for instance
/// @returns the first broken law
/// @pre at least one token and one expert (level 1)
template <class Solver, host_backend Backend = serial, host_backend Other = serial>
  requires assignment_solver_on<Solver, Backend> && assignment_solver_on<Solver, Other>
[[nodiscard]] verdict check_assignment_solver(Solver const& solver, assignment_solver_options const& options = {},
                                              Backend const& on = {}, Other const& other = {}) {
  FAIRLEAD_EXPECTS(options.tokens >= 1 && options.experts >= 1, "the check needs a token and an expert", options.tokens,
                   options.experts);
  return detail::assignment_examiner<Solver, Backend, Other, assignment_solver_options>(solver, options, on, other)
      .check();
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
