// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Experts that share their nodes, so that few sets of failures are fatal.
#include <fairlead/concepts/slot_assigner.hpp>
#include <fairlead/place/detail/failure_units.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Put experts of like popularity together on their own group of nodes.
///
/// With c slots a node, the experts in ascending order of replicas are cut into groups of c; each group gets as many nodes
/// of its own as its first member has replicas, and each of these nodes holds every member once. Recovery then needs one
/// node of each group, where replicas scattered at random need one of every expert's own set. The replicas that are left
/// go wherever there is room, first to nodes that lack them. At most c experts form one group: expert sets are nested,
/// which is optimal. Right for skewed popularity.
///
/// The paper's proof of optimality for given counts fails when c does not divide the number of experts: the last group
/// then gets min(nodes left, replicas) nodes, so that popular experts may sit on fewer nodes than they have replicas, and
/// fewer failures than replicas can be fatal. `resilient_search` has no such gap.
///
/// Nodes with different numbers of slots are this library's extension: c is the mean, rounded down, nodes with more slots
/// come first, and a node with fewer takes the first members of its group.
/// @source{Lazarus, section 3.2, maximum rank overlap}
struct grouped_overlap {
  failure_domain domain = failure_domain::automatic;  ///< what fails as a whole

  /// @brief Assign the replicas to slots.
  /// @param cluster the cluster, ragged or not
  /// @param load load of each expert, for the order of equal counts, inside a node, and for `value`. @shape{experts}
  /// @param replicas replicas of each expert, >= 0. @shape{experts}
  /// @param[out] slots expert of each slot. @shape{cluster.slots()}
  /// @param ws scratch, see `workspace_bytes`
  /// @returns `ok`; `value` the largest load of a rank under equal shares, `bound` the mean load of a hosting rank;
  ///          `infeasible` with all slots none if there are more replicas than slots
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(experts log experts + replicas x nodes + replicas x ranks of a node x slots of a rank), no allocation
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
    std::span<index_t> const need = ws.take<index_t>(experts);
    detail::overlap_in_groups(layout, load, replicas, order, turn, need);
    detail::fill_slots(cluster, layout, load, replicas, slots, order, turn);
    return {.value = detail::largest_share(cluster, load, slots, need), .bound = detail::mean_share(cluster, load, replicas)};
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
static_assert(slot_assigner<grouped_overlap>);

FAIRLEAD_NAMESPACE_END
