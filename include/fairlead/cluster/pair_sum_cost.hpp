// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Time of a step as a sum over all pairs of ranks plus the computation of the busiest rank.
#include <fairlead/concepts/cost_model.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Charge every copy that changes its rank, all pairs one after the other, and the busiest rank's computation.
///
/// T = exchanges * token_bytes * (copies inside nodes / intra + copies between nodes / inter)
///   + (3 + recompute) * seconds_per_copy * (copies of the busiest rank).
/// Copies that stay on their rank are free. The sum over pairs orders layouts by how many copies leave their rank or
/// node; as a time it is too long by about the number of ranks, because pairs exchange at the same time. For seconds
/// that can be compared with a clock take a model of the busiest link. Copies are counted in integers, so that equal
/// schedules have equal costs on every rank.
/// @source{2602.11686, section 3.2, equations 2-4} with the conservation constraint by source rank (the paper prints its
/// indices swapped) and with free self traffic (the published code takes 10^18 bytes a second).
struct pair_sum_cost {
  double token_bytes = 8192.0;              ///< bytes of one copy on the wire, > 0. @unit{B}
  double intra_bytes_per_s = 216.269e9;     ///< between two ranks of a node, > 0. @unit{B/s}
  double inter_bytes_per_s = 88.9539e9;     ///< between two ranks of different nodes, > 0. @unit{B/s}
  double seconds_per_copy = 1.484375e-6;    ///< forward computation of one copy, >= 0. @unit{s}
  bool recompute = true;                    ///< the forward computation is repeated in backward
  index_t exchanges = 4;                    ///< exchanges of a step: 2 forward and 2 backward

  /// @brief The time that counts of copies stand for.
  /// @param same_node copies that change their rank inside a node
  /// @param other_node copies that change their node
  /// @param busiest copies of the busiest rank
  /// @returns the cost
  /// @complexity O(1)
  [[nodiscard]] constexpr step_cost cost_of(double same_node, double other_node, double busiest) const noexcept {
    double const trips = static_cast<double>(exchanges) * token_bytes;
    return {.communication_s = trips * (same_node / intra_bytes_per_s + other_node / inter_bytes_per_s),
            .compute_s = (recompute ? 4.0 : 3.0) * seconds_per_copy * busiest};
  }

  /// @brief The time of a schedule.
  /// @param cluster the cluster
  /// @param where the placement that the schedule refers to
  /// @param schedule copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws scratch
  /// @returns the cost
  /// @throws contract_violation (level 1) on a shape mismatch or a bandwidth that is not positive
  /// @complexity O(ranks x (experts + replicas)) time, no allocation
  /// @determinism exact counts; the same double everywhere
  [[nodiscard]] step_cost cost(topology const& cluster, placement const& where, const_token_schedule_view schedule,
                               workspace& ws) const {
    FAIRLEAD_EXPECTS(intra_bytes_per_s > 0.0 && inter_bytes_per_s > 0.0, "bandwidths must be positive",
                     intra_bytes_per_s, inter_bytes_per_s);
    FAIRLEAD_EXPECTS(where.ranks() == cluster.ranks(), "the placement is for another number of ranks", where.ranks(),
                     cluster.ranks());
    FAIRLEAD_EXPECTS(schedule.rows() == cluster.ranks() && schedule.cols() == where.replicas(),
                     "the schedule needs one row a source rank and one column a replica", schedule.rows(),
                     schedule.cols(), cluster.ranks(), where.replicas());
    workspace::scope const scope(ws);
    auto const received = ws.take<index_t>(cluster.ranks());
    std::fill(received.begin(), received.end(), index_t{0});
    index_t same_node = 0;
    index_t other_node = 0;
    for (index_t source = 0; source < schedule.rows(); ++source) {
      count_t const* copies = schedule.row(source);
      for (index_t e = 0; e < where.experts(); ++e) {
        for (replica const& host : where.replicas(static_cast<expert_id>(e))) {
          index_t const count = *copies++;
          index_t const rank = to_index(host.rank);
          received[static_cast<std::size_t>(rank)] += count;
          if (rank == source) { continue; }
          (cluster.node_of(rank) == cluster.node_of(source) ? same_node : other_node) += count;
        }
      }
    }
    index_t busiest = 0;
    for (index_t const count : received) { busiest = std::max(busiest, count); }
    return cost_of(static_cast<double>(same_node), static_cast<double>(other_node), static_cast<double>(busiest));
  }

  /// @brief Scratch of `cost`.
  /// @param cluster the cluster
  /// @param experts number of experts, not looked at
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    (void)experts;
    return fairlead::workspace_bytes<index_t>(cluster.ranks());
  }
};
static_assert(cost_model<pair_sum_cost>);

FAIRLEAD_NAMESPACE_END
