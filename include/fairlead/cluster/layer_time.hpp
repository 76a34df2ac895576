// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Predict a whole layer: tiles of the busiest rank, two exchanges, and the scheduler itself.
#include <fairlead/cluster/detail/rank_traffic.hpp>
#include <fairlead/concepts/cost_model.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief max over ranks of the experts' time + exchanges x (latency + largest(sent, received) x bytes / bandwidth) +
/// scheduler.
///
/// One bandwidth for all links: the model for judging schedulers on one kind of link, where the scheduler's own time
/// counts as well. For links inside and between nodes use `summed_cost` of `nic_cost` and `tile_cost`.
struct layer_time {
  double seconds_per_copy = 0.0;  ///< time of one row in a full tile, >= 0. @unit{s}
  index_t tile = 1;               ///< rows of a tile, >= 1
  double bytes_per_copy = 0.0;    ///< one row of activations. @unit{B}
  double bytes_per_s = 0.0;       ///< bandwidth of a rank, each direction; > 0. @unit{B/s}
  double latency_s = 0.0;         ///< of an exchange in which anything crosses ranks, >= 0. @unit{s}
  double exchanges = 2.0;         ///< dispatch and combine
  double scheduler_s = 0.0;       ///< time of the scheduler, added to the computation, >= 0. @unit{s}

  /// @brief Predict one layer and micro-batch.
  /// @param cluster the cluster
  /// @param where the placement
  /// @param schedule copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws scratch
  /// @returns both times
  /// @throws contract_violation (level 1) on a shape mismatch, a tile < 1, a bandwidth that is not positive
  /// @complexity O(ranks x (replicas + ranks)) time, O(ranks) scratch, no allocation
  /// @determinism exact counts, then a fixed order of fp64 operations
  [[nodiscard]] step_cost cost(topology const& cluster, placement const& where, const_token_schedule_view schedule,
                               workspace& ws) const {
    FAIRLEAD_EXPECTS(tile >= 1 && seconds_per_copy >= 0.0 && latency_s >= 0.0 && bytes_per_s > 0.0,
                     "a tile has at least one row, times must not be negative and the bandwidth must be positive", tile,
                     seconds_per_copy, latency_s, bytes_per_s);
    workspace::scope const undo(ws);
    detail::rank_traffic const traffic = detail::count_rank_traffic(cluster, where, schedule, ws);
    index_t largest = 0;
    for (std::size_t rank = 0; rank < traffic.sent.size(); ++rank) {
      detail::tier_counts const& sent = traffic.sent[rank];
      detail::tier_counts const& received = traffic.received[rank];
      largest = std::max({largest, sent.near_copies + sent.far_copies, received.near_copies + received.far_copies});
    }
    double const exchange =
        largest == 0 ? 0.0 : latency_s + static_cast<double>(largest) * bytes_per_copy / bytes_per_s;
    detail::replica_time const time{seconds_per_copy, tile, 0.0, 0.0};
    return {.communication_s = exchanges * exchange,
            .compute_s = detail::busiest_rank(where, schedule, time, ws.take<double>(where.ranks())) + scheduler_s};
  }
  /// @param cluster the cluster
  /// @param experts not used
  /// @returns bytes of scratch
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, [[maybe_unused]] index_t experts) const noexcept {
    return detail::rank_traffic_bytes(cluster) + fairlead::workspace_bytes<double>(cluster.ranks());
  }
};
static_assert(cost_model<layer_time>);

FAIRLEAD_NAMESPACE_END
