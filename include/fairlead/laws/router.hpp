// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `router_on`.
#include <fairlead/concepts/router.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/order.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/detail/router_examiner.hpp>
#include <fairlead/laws/verdict.hpp>
#include <fairlead/workload/adversarial_scores.hpp>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief Check a router on random and adversarial scores.
///
/// Laws: ids in range or none, distinct in a token; weights finite, 0 where none; NaN and -inf never chosen; masked
/// tokens and experts never routed; equal calls (and recomputation) give equal bits, whatever `out` held and however
/// rows are strided; scratch within `workspace_bytes`; zero tokens legal. Causal routers: a token routed alone, or in
/// a reversed batch, goes where it went in the batch. With `by_score`: equal scores go to the lowest ids, and in
/// evaluation a token with a candidate has an expert; with `best_win` too, no slot is none while candidates are left and
/// no score that was left is above a chosen one (stateless routers). Routers with gradient: overwritten, zero for masked
/// tokens, equal to central differences. Scores have `logit_columns(router)` columns; the first `experts()` of them
/// are taken as those of the experts.
/// @param router the router
/// @param on host backend
/// @param problem what to try
/// @returns the first broken law
/// @complexity many calls of the router; allocates
template <class Router, host_backend Backend>
  requires router_on<Router, Backend>
[[nodiscard]] verdict check_router(Router const& router, Backend const& on, router_problem const& problem) {
  index_t const experts = router.experts();
  index_t const k = router.fan_out();
  index_t const columns = logit_columns(router);
  if (experts < 1 || k < 1 || k > experts) { return verdict::broken("1 <= fan_out() <= experts()", experts, ' ', k); }
  detail::router_examiner<Router, Backend> examiner(router, on, problem);
  if (verdict const none = examiner.zero_tokens(); !none) { return none; }
  for (phase const when : {phase::evaluate, phase::train}) {
    matrix<float> const scores = detail::skewed_scores(problem, columns);
    if (verdict const v = examiner.examine(scores.view(), when, "skewed scores"); !v) { return v; }
    if (verdict const v = examiner.gradient(scores.view(), when); !v) { return v; }
    for (workload::adversarial const pattern : workload::all_adversarial) {
      matrix<float> const hard = workload::adversarial_scores{
          .tokens = problem.tokens, .experts = columns, .pattern = pattern, .seed = problem.seed}.make();
      if (verdict const v = examiner.examine(hard.view(), when, workload::name(pattern)); !v) { return v; }
    }
  }
  if (problem.by_score && causal<Router>) { return examiner.ties(); }
  return {};
}

/// @brief Check a router on the serial backend.
/// @param router the router
/// @param problem what to try
/// @returns the first broken law
template <class Router>
  requires router_on<Router, serial>
[[nodiscard]] verdict check_router(Router const& router, router_problem const& problem) {
  return check_router(router, serial{}, problem);
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
