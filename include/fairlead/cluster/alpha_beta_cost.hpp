// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Predict the exchange of tokens as latency per message plus bytes over bandwidth.
#include <fairlead/cluster/detail/rank_traffic.hpp>
#include <fairlead/concepts/cost_model.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The latency-bandwidth model: each rank sends its messages one after another, and receives likewise.
///
/// All copies of one rank for another are one message. The time is the largest, over ranks, of max(sending, receiving).
/// Use it where messages are small (decoding, many ranks); for large ones `nic_cost` says the same with fewer numbers.
/// Start-up costs make the time neither convex nor concave in the counts: good for comparing, not for flow solvers.
/// @source{hockney1994, The communication challenge for MPP, time of a message}
struct alpha_beta_cost {
  double bytes_per_copy = 0.0;     ///< one row of activations. @unit{B}
  double intra_latency_s = 0.0;    ///< start of a message inside a node, >= 0. @unit{s}
  double inter_latency_s = 0.0;    ///< start of a message to another node, >= 0. @unit{s}
  double intra_bytes_per_s = 0.0;  ///< inside a node, each direction; > 0. @unit{B/s}
  double inter_bytes_per_s = 0.0;  ///< between nodes, each direction, of one rank; > 0. @unit{B/s}
  double exchanges = 4.0;          ///< passes over the wire: dispatch and combine, forward and backward

  /// @brief Predict one layer and micro-batch.
  /// @param cluster the cluster
  /// @param where the placement
  /// @param schedule copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws scratch
  /// @returns the time of communication; `compute_s` is 0
  /// @throws contract_violation (level 1) on a shape mismatch, a bandwidth that is not positive, a negative latency
  /// @complexity O(ranks x (replicas + ranks)) time, O(ranks) scratch, no allocation
  /// @determinism exact counts, then a fixed order of fp64 operations
  [[nodiscard]] step_cost cost(topology const& cluster, placement const& where, const_token_schedule_view schedule,
                               workspace& ws) const {
    FAIRLEAD_EXPECTS(
        intra_bytes_per_s > 0.0 && inter_bytes_per_s > 0.0 && intra_latency_s >= 0.0 && inter_latency_s >= 0.0,
        "bandwidths must be positive and latencies must not be negative", intra_bytes_per_s, inter_bytes_per_s,
        intra_latency_s, inter_latency_s);
    workspace::scope const undo(ws);
    detail::rank_traffic const traffic = detail::count_rank_traffic(cluster, where, schedule, ws);
    double slowest = 0.0;
    for (detail::tier_counts const& sent : traffic.sent) { slowest = std::max(slowest, time_of(sent)); }
    for (detail::tier_counts const& received : traffic.received) { slowest = std::max(slowest, time_of(received)); }
    return {.communication_s = exchanges * slowest};
  }
  /// @param cluster the cluster
  /// @param experts not used
  /// @returns bytes of scratch
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, [[maybe_unused]] index_t experts) const noexcept {
    return detail::rank_traffic_bytes(cluster);
  }

 private:
  [[nodiscard]] double time_of(detail::tier_counts const& counts) const noexcept {
    return static_cast<double>(counts.near_messages) * intra_latency_s +
           static_cast<double>(counts.far_messages) * inter_latency_s +
           bytes_per_copy * (static_cast<double>(counts.near_copies) / intra_bytes_per_s +
                             static_cast<double>(counts.far_copies) / inter_bytes_per_s);
  }
};
static_assert(cost_model<alpha_beta_cost>);

FAIRLEAD_NAMESPACE_END
