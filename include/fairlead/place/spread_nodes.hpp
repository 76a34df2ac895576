// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Replicas of an expert on as many nodes as there are.
#include <fairlead/concepts/slot_assigner.hpp>
#include <fairlead/place/detail/failure_units.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Deal the replicas of each expert onto the nodes with the most free slots, one a node and round.
///
/// Experts with more replicas come first. Every expert gets min(replicas, nodes) distinct nodes where slots are even, so
/// that any replicas - 1 failures are survived; but there are many different sets of nodes whose loss is fatal, where
/// `grouped_overlap` has few. Inside a node the replicas go to different ranks.
/// @source{Lazarus, section 3.2, the baseline "spread"}
struct spread_nodes {
  failure_domain domain = failure_domain::automatic;  ///< what fails as a whole

  /// @brief Assign the replicas to slots.
  /// @param cluster the cluster, ragged or not
  /// @param load load of each expert, for the order inside a node and for `value`. @shape{experts}
  /// @param replicas replicas of each expert, >= 0. @shape{experts}
  /// @param[out] slots expert of each slot. @shape{cluster.slots()}
  /// @param ws scratch, see `workspace_bytes`
  /// @returns `ok`; `value` the largest load of a rank under equal shares, `bound` the mean load of a hosting rank;
  ///          `infeasible` with all slots none if there are more replicas than slots
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(experts x nodes log nodes + replicas x ranks of a node x slots of a rank), no allocation
  /// @determinism exact
  report assign(topology const& cluster, std::span<index_t const> load, std::span<index_t const> replicas, std::span<expert_id> slots,
                workspace& ws) const {
    FAIRLEAD_EXPECTS(load.size() == replicas.size(), "one load and one count an expert", load.size(), replicas.size());
    FAIRLEAD_EXPECTS(static_cast<index_t>(slots.size()) == cluster.slots(), "one entry a slot of the cluster", slots.size(), cluster.slots());
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(load.size());
    if (detail::fitting_replicas(cluster, replicas) < 0) {
      std::fill(slots.begin(), slots.end(), expert_id::none);
      return {.status = status::infeasible};
    }
    detail::unit_layout const layout = detail::make_unit_layout(cluster, experts, domain, ws);
    std::span<std::int32_t> const order = ws.take<std::int32_t>(experts);
    std::span<std::int32_t> const turn = ws.take<std::int32_t>(cluster.ranks());
    detail::spread_over_units(layout, replicas, order, turn);
    detail::fill_slots(cluster, layout, load, replicas, slots, order, turn);
    std::span<index_t> const counts = ws.take<index_t>(experts);
    return {.value = detail::largest_share(cluster, load, slots, counts), .bound = detail::mean_share(cluster, load, replicas)};
  }
  /// @brief Scratch of `assign`.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    return detail::unit_layout_bytes(cluster.ranks(), experts) + fairlead::workspace_bytes<std::int32_t>(experts) +
           fairlead::workspace_bytes<std::int32_t>(cluster.ranks()) + fairlead::workspace_bytes<index_t>(experts);
  }
};
static_assert(slot_assigner<spread_nodes>);

FAIRLEAD_NAMESPACE_END
