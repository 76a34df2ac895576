// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that decides on which rank each replica sits.
#include <fairlead/core/report.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Decides on which rank each replica sits, once their numbers are known.
///
/// Required of a model `assigner`:
/// - `assigner.assign(cluster, load, replicas, slots, ws)`: load >= 0 and replicas @shape{experts}, out `slots`
///   @shape{cluster.slots()}. Each expert e appears in exactly replicas[e] slots; slots beyond the sum of `replicas` are
///   none. `value` is the largest load of a rank when each replica takes an equal share of its expert's load; `bound` a
///   lower bound on that over the assigner's own freedom, where it has one. `status::infeasible`, with all slots none, if the
///   replicas do not fit.
/// - `assigner.workspace_bytes(cluster, experts)`: scratch it needs; the call allocates nothing.
/// - The result is equal on every rank: ties follow (load descending, expert ascending, rank ascending).
template <class Assigner>
concept slot_assigner = requires(Assigner const& assigner, topology const& cluster, index_t experts,
                                 std::span<index_t const> numbers, std::span<expert_id> slots, workspace& ws) {
  { assigner.assign(cluster, numbers, numbers, slots, ws) } -> std::same_as<report>;
  { assigner.workspace_bytes(cluster, experts) } -> std::convertible_to<std::size_t>;
};

FAIRLEAD_NAMESPACE_END
