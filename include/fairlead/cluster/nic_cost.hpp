// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Predict the exchange of tokens from the busiest port: bytes over bandwidth, inside and between nodes.
#include <fairlead/cluster/detail/rank_traffic.hpp>
#include <fairlead/concepts/cost_model.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Whose bandwidth the number for traffic between nodes is.
enum class port_owner {
  rank,  ///< each rank has a port of its own
  node   ///< the ranks of a node share one, as published figures of a machine often mean
};

/// @brief Time of the busiest port, each direction on its own: max over ranks of max(sent, received) / bandwidth.
///
/// Links inside and between nodes work at the same time, and so do the two directions. What stays on its rank is free,
/// and so is every latency: see `alpha_beta_cost`. Says nothing about computation: add a `tile_cost` with
/// `summed_cost`. The default for comparing placements; a sum over all pairs of ranks, as some planners use, weighs
/// traffic too much.
struct nic_cost {
  double bytes_per_copy = 0.0;               ///< one row of activations. @unit{B}
  double intra_bytes_per_s = 0.0;            ///< of a rank to the others of its node, each direction; > 0. @unit{B/s}
  double inter_bytes_per_s = 0.0;            ///< to other nodes, each direction; > 0. @unit{B/s}
  port_owner inter_port = port_owner::rank;  ///< whose bandwidth `inter_bytes_per_s` is
  double exchanges = 4.0;                    ///< passes over the wire: dispatch and combine, forward and backward

  /// @brief Predict one layer and micro-batch.
  /// @param cluster the cluster
  /// @param where the placement
  /// @param schedule copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws scratch
  /// @returns the time of communication; `compute_s` is 0
  /// @throws contract_violation (level 1) on a shape mismatch or a bandwidth that is not positive
  /// @complexity O(ranks x (replicas + ranks)) time, O(ranks) scratch, no allocation
  /// @determinism exact counts, then a fixed order of fp64 operations
  [[nodiscard]] step_cost cost(topology const& cluster, placement const& where, const_token_schedule_view schedule,
                               workspace& ws) const {
    FAIRLEAD_EXPECTS(intra_bytes_per_s > 0.0 && inter_bytes_per_s > 0.0, "bandwidths must be positive",
                     intra_bytes_per_s, inter_bytes_per_s);
    workspace::scope const undo(ws);
    detail::rank_traffic const traffic = detail::count_rank_traffic(cluster, where, schedule, ws);
    double slowest = 0.0;
    for (index_t node = 0; node < cluster.nodes(); ++node) {
      index_t out = 0;
      index_t in = 0;
      for (index_t rank = cluster.node_offsets()[static_cast<std::size_t>(node)];
           rank < cluster.node_offsets()[static_cast<std::size_t>(node) + 1]; ++rank) {
        detail::tier_counts const& sent = traffic.sent[static_cast<std::size_t>(rank)];
        detail::tier_counts const& received = traffic.received[static_cast<std::size_t>(rank)];
        slowest = std::max(slowest,
                           static_cast<double>(std::max(sent.near_copies, received.near_copies)) / intra_bytes_per_s);
        out = (inter_port == port_owner::node ? out : 0) + sent.far_copies;
        in = (inter_port == port_owner::node ? in : 0) + received.far_copies;
        slowest = std::max(slowest, static_cast<double>(std::max(out, in)) / inter_bytes_per_s);
      }
    }
    return {.communication_s = exchanges * bytes_per_copy * slowest};
  }
  /// @param cluster the cluster
  /// @param experts not used
  /// @returns bytes of scratch
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, [[maybe_unused]] index_t experts) const noexcept {
    return detail::rank_traffic_bytes(cluster);
  }
};
static_assert(cost_model<nic_cost>);

FAIRLEAD_NAMESPACE_END
