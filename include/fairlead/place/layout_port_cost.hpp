// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Time of a step for a slot table from the busiest port, when every source splits evenly over the nearest replicas.
#include <fairlead/cluster/nic_cost.hpp>
#include <fairlead/place/layout_cost.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Predict the time of a step for a slot table from the busiest port and the busiest rank.
///
/// As `layout_cost`, with another clock: pairs of ranks exchange at the same time, so that the port with most bytes says how
/// long it takes (`nic_cost`), and not the sum over all pairs. Take this one where the answer should be a time, or where
/// ranks are many; the sum over pairs grows with their number and then decides alone. The answer is that of `nic_cost` for
/// the schedule of `local_node_even`, to the last bit, plus the computation of the busiest rank.
/// This library's choice: the published objective sums over pairs.
struct layout_port_cost {
  nic_cost ports{};                ///< what copies cost on the wire; its bandwidths must be set
  double seconds_per_copy = 0.0;   ///< forward computation of one copy, >= 0. @unit{s}
  double passes = 4.0;             ///< 1 = forward; 3 = with backward; 4 = with recomputation
  bool rotate = true;              ///< where remainders start; the same as the scheduler

  /// @brief Compute what all slot tables share; see `layout_cost::prepare`.
  /// @param cluster the cluster
  /// @param load copies a source and expert, or `totals` alone for equal sources
  /// @param ws scratch; the result views it
  /// @returns the loads in the form of `cost` and `traffic`
  /// @throws contract_violation (level 1) on a shape mismatch or a negative load
  /// @complexity O(ranks x experts) time and scratch, no allocation
  [[nodiscard]] source_loads prepare(topology const& cluster, load_estimate const& load, workspace& ws) const {
    return detail::prepare_sources(cluster, load, ws);
  }

  /// @brief Count what each rank exchanges.
  /// @param cluster the cluster
  /// @param sources what `prepare` returned for this cluster
  /// @param slots expert of each slot, or none; each expert with load has a slot. @shape{cluster.slots()}
  /// @param[out] ranks copies of each rank. @shape{cluster.ranks()}
  /// @param ws scratch
  /// @returns whether each expert with load has a slot; if not, nothing is counted
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(ranks x experts + slots) time, O(ranks + slots + experts) scratch, no allocation
  /// @determinism exact integers
  [[nodiscard]] bool traffic(topology const& cluster, source_loads const& sources, std::span<expert_id const> slots,
                             std::span<rank_exchange> ranks, workspace& ws) const;

  /// @brief The time of a step for a slot table.
  /// @param cluster the cluster
  /// @param sources what `prepare` returned for this cluster
  /// @param slots expert of each slot, or none. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns the cost; infinite if an expert with load has no slot
  /// @throws contract_violation (level 1) on a shape mismatch or a bandwidth that is not positive
  /// @complexity as `traffic`
  [[nodiscard]] step_cost cost(topology const& cluster, source_loads const& sources, std::span<expert_id const> slots,
                               workspace& ws) const;

  /// @brief What no slot table of this cluster beats: free exchange and even load of all ranks that have a slot.
  /// @param cluster the cluster
  /// @param sources what `prepare` returned for this cluster
  /// @returns a lower bound of `cost(...).total_s()`. @unit{s}
  /// @complexity O(experts + ranks)
  [[nodiscard]] double bound(topology const& cluster, source_loads const& sources) const noexcept {
    return passes * seconds_per_copy * detail::least_busiest(cluster, sources, true);
  }

  /// @brief Scratch of `prepare` and one `cost` or `traffic`.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    return layout_cost{}.workspace_bytes(cluster, experts) + fairlead::workspace_bytes<rank_exchange>(cluster.ranks());
  }
};

FAIRLEAD_NAMESPACE_END

#include <fairlead/place/detail/layout_port_cost_text.hpp>

FAIRLEAD_NAMESPACE_BEGIN
static_assert(layout_objective<layout_port_cost>);
FAIRLEAD_NAMESPACE_END
