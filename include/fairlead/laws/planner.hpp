// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `planner`.
#include <fairlead/concepts/planner.hpp>
#include <fairlead/laws/verdict.hpp>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The problems that `check_planner` makes: all combinations up to these sizes.
struct planner_problem {
  index_t max_ranks = 6;     ///< ranks from 1
  index_t min_experts = 1;   ///< experts from here; raise it if the planner cannot place fewer
  index_t max_experts = 13;  ///< experts to here
};

/// @brief Check a planner at every number of ranks and experts up to a limit.
///
/// Laws: the placement has the asked number of ranks and experts; every expert has a replica; two calls give equal
/// placements (equal fingerprints), so that ranks that call it apart agree.
/// @tparam Planner a model of `planner`
/// @param plan the planner
/// @param problem sizes
/// @returns the first broken law
template <planner Planner>
[[nodiscard]] verdict check_planner(Planner const& plan, planner_problem const& problem = {}) {
  for (index_t ranks = 1; ranks <= problem.max_ranks; ++ranks) {
    for (index_t experts = problem.min_experts; experts <= problem.max_experts; ++experts) {
      auto const broken = [&](char const* law) {
        return verdict::broken("planner: ", law, " (", ranks, " ranks, ", experts, " experts)");
      };
      placement const first = plan.initial(ranks, experts);
      if (first.ranks() != ranks) { return broken("the placement covers all ranks"); }
      if (first.experts() != experts) { return broken("the placement covers all experts"); }
      if (first.has_lost_expert()) { return broken("every expert has a replica"); }
      if (plan.initial(ranks, experts).fingerprint() != first.fingerprint()) {
        return broken("equal arguments give the equal placement");
      }
    }
  }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
