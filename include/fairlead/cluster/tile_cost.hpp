// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Predict the computation of experts: whole tiles, a launch and a reading of weights for each busy replica.
#include <fairlead/cluster/detail/rank_traffic.hpp>
#include <fairlead/concepts/cost_model.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Time of the busiest rank: the sum over its busy replicas of launch + max(rows in whole tiles, reading
/// weights).
///
/// "Tokens" are not time: a matrix product works on whole tiles of rows, starting it costs something, and with few rows
/// it waits for its weights, so that decoding wants few busy replicas and a replica of three tokens is not cheap. An
/// idle replica costs nothing. Says nothing about communication: add `nic_cost` or `alpha_beta_cost` with
/// `summed_cost`.
struct tile_cost {
  double seconds_per_copy = 0.0;  ///< time of one row in a full tile, >= 0. @unit{s}
  index_t tile = 1;               ///< rows of a tile, >= 1
  double launch_s = 0.0;          ///< start of one replica's products, >= 0. @unit{s}
  double weight_read_s = 0.0;  ///< least time of a busy replica: its weights over the memory bandwidth, >= 0. @unit{s}
  double passes = 1.0;         ///< 1 = forward; 3 = with backward; 4 = with recomputation

  /// @brief Predict one layer and micro-batch.
  /// @param cluster the cluster
  /// @param where the placement
  /// @param schedule copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws scratch
  /// @returns the time of computation; `communication_s` is 0
  /// @throws contract_violation (level 1) on a shape mismatch, a tile < 1 or a negative time
  /// @complexity O(ranks x replicas) time, O(ranks) scratch, no allocation
  /// @determinism exact counts, then a fixed order of fp64 operations
  [[nodiscard]] step_cost cost(topology const& cluster, placement const& where, const_token_schedule_view schedule,
                               workspace& ws) const {
    FAIRLEAD_EXPECTS(tile >= 1 && seconds_per_copy >= 0.0 && launch_s >= 0.0 && weight_read_s >= 0.0,
                     "a tile has at least one row and times must not be negative", tile, seconds_per_copy, launch_s,
                     weight_read_s);
    FAIRLEAD_EXPECTS(where.ranks() == cluster.ranks() && schedule.cols() == where.replicas(),
                     "the placement needs the ranks of the cluster, the schedule one column a replica", where.ranks(),
                     cluster.ranks(), schedule.cols(), where.replicas());
    workspace::scope const undo(ws);
    detail::replica_time const time{seconds_per_copy, tile, launch_s, weight_read_s};
    return {.compute_s = passes * detail::busiest_rank(where, schedule, time, ws.take<double>(where.ranks()))};
  }
  /// @param cluster the cluster
  /// @param experts not used
  /// @returns bytes of scratch
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, [[maybe_unused]] index_t experts) const noexcept {
    return fairlead::workspace_bytes<double>(cluster.ranks());
  }
};
static_assert(cost_model<tile_cost>);

FAIRLEAD_NAMESPACE_END
