// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Put two cost models together, one for communication and one for computation.
#include <fairlead/cluster/tile_cost.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Both causes of two models added up: `summed_cost{nic_cost{...}, tile_cost{...}}`.
/// @tparam First a cost_model
/// @tparam Second a cost_model
template <class First, class Second>
struct summed_cost {
  First first;    ///< one model
  Second second;  ///< the other

  /// @brief Predict one layer and micro-batch.
  /// @param cluster the cluster
  /// @param where the placement
  /// @param schedule copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws scratch
  /// @returns the sums of both models' times, by cause
  /// @throws what the models throw
  /// @complexity that of both models; no allocation of its own
  [[nodiscard]] step_cost cost(topology const& cluster, placement const& where, const_token_schedule_view schedule,
                               workspace& ws) const {
    static_assert(cost_model<First> && cost_model<Second>, "summed_cost adds two models of the concept cost_model");
    step_cost const one = first.cost(cluster, where, schedule, ws);
    step_cost const two = second.cost(cluster, where, schedule, ws);
    return {one.communication_s + two.communication_s, one.compute_s + two.compute_s};
  }
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes of scratch: the larger need
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return std::max(first.workspace_bytes(cluster, experts), second.workspace_bytes(cluster, experts));
  }
};
static_assert(cost_model<summed_cost<tile_cost, tile_cost>>);

FAIRLEAD_NAMESPACE_END
