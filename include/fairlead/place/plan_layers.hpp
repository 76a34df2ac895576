// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Plan many layers on one cluster with one workspace.
#include <fairlead/concepts/planner.hpp>
#include <fairlead/core/matrix_view.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Plan each layer of a model from its loads.
///
/// One layer after the other, so that scratch stays in the nearest cache; split the rows over threads if you have some
/// to spare, each with a workspace of its own.
/// @tparam Planner a model of `load_planner` that needs neither sources nor samples
/// @param planner the planner
/// @param cluster the cluster, the same for all layers
/// @param loads copies a layer and expert. @shape{layers x experts} @unit{copies}
/// @param now tables in use, or a view without rows. @shape{layers x slots}
/// @param[out] next tables. @shape{layers x slots}
/// @param[out] reports how each layer ended. @shape{layers}, or empty
/// @param ws scratch of `planner.workspace_bytes(cluster, experts)`, for all layers together
/// @returns the worst of all: first status that is not ok, sum of iterations, largest value, largest bound
/// @throws contract_violation (level 1) on a shape mismatch
/// @complexity that of the planner, times layers; no allocation
/// @determinism that of the planner; layers do not depend on each other
template <load_planner Planner>
report plan_layers(Planner const& planner, topology const& cluster, matrix_view<index_t const> loads,
                   matrix_view<expert_id const> now, matrix_view<expert_id> next, std::span<report> reports,
                   workspace& ws) {
  FAIRLEAD_EXPECTS(next.rows() == loads.rows() && next.cols() == cluster.slots(),
                   "there is one table a layer with a place for each slot", next.rows(), next.cols(), cluster.slots());
  FAIRLEAD_EXPECTS(now.rows() == 0 || (now.rows() == loads.rows() && now.cols() == cluster.slots()),
                   "the tables in use have the shape of the next ones, or there are none", now.rows(), now.cols());
  FAIRLEAD_EXPECTS(reports.empty() || static_cast<index_t>(reports.size()) == loads.rows(),
                   "there is one report a layer", reports.size(), loads.rows());
  report worst;
  auto const experts = static_cast<std::size_t>(loads.cols());
  auto const slots = static_cast<std::size_t>(cluster.slots());
  for (index_t layer = 0; layer < loads.rows(); ++layer) {
    std::span<expert_id const> const before =
        now.rows() == 0 ? std::span<expert_id const>{} : std::span<expert_id const>(now.row(layer), slots);
    report const ended = planner.plan(cluster, load_estimate{.totals = std::span(loads.row(layer), experts)}, before,
                                      std::span(next.row(layer), slots), ws);
    if (worst.status == status::ok) { worst.status = ended.status; }
    worst.iterations += ended.iterations;
    worst.value = std::max(worst.value, ended.value);
    worst.bound = std::max(worst.bound, ended.bound);
    if (!reports.empty()) { reports[static_cast<std::size_t>(layer)] = ended; }
  }
  return worst;
}

FAIRLEAD_NAMESPACE_END
