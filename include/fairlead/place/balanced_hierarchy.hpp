// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Whole groups of experts to nodes, exactly, then replicas and ranks of each node chosen together.
#include <fairlead/concepts/planner.hpp>
#include <fairlead/place/detail/balanced_nodes.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Plan from loads under the constraint that a group of experts stays on one node, close to what it allows.
///
/// The constraint of `hierarchical_pack`, and the planner to take where the constraint is wanted; with one
/// group it refines `global_pack`. Two things make it better. Groups go to nodes by branch and bound, so that the
/// heaviest node is as light as it can be. Inside a node numbers of replicas are not those with the smallest largest
/// replica: that rule splits the hottest expert until slots for the others run out. Experts heavier than a threshold
/// get just as many replicas as bring them below it, the others share the rest; each threshold is tried by packing and
/// pairwise exchange, and the best one stays. Only nodes that are above the bound are searched. If the
/// plan stays above it, packings that spread experts more evenly over nodes are tried too: they leave slots for
/// replicas.
///
/// Group g has the experts [g E / groups, (g + 1) E / groups), rounded down; a node may get any number of groups that
/// fit its slots. Nodes and ranks may be of any size. With fewer than two groups, fewer groups than nodes that have
/// slots, more groups than experts, or where no packing of whole groups was found, nodes do not matter: the whole
/// cluster is searched as one node. A node that gets no group keeps its slots empty; that happens only where its slots
/// or its ranks are too few for any.
///
/// report: `value` the largest load of a rank when replicas take equal shares; `bound` what no plan under the
/// constraint can beat: the best packing of group loads over the ranks of nodes (a lower bound of it when `group_steps`
/// ran out), or the largest replica that cannot be avoided. `iterations` is the number of packings tried.
/// @source{EPLB, the constraint of rebalance_experts_hierarchical; search and bound are this library's own}
struct balanced_hierarchy {
  /// What a second replica is good for.
  static constexpr replica_meaning meaning = replica_meaning::equal_share;
  /// Number of groups of consecutive experts.
  index_t groups = 1;
  /// Numbers of replicas tried on a node beyond the greedy ones. More are slower and better.
  index_t attempts = 32;
  /// A node is settled when it is no further above the bound than the bound divided by this.
  index_t closeness = 256;
  /// Exchanges in a row on one packing.
  index_t exchanges = 64;
  /// Steps of branch and bound over packings of groups to nodes, for each of up to three such packings.
  index_t group_steps = 500;

  /// @brief Place experts for the loads that are expected.
  /// @param cluster the cluster
  /// @param load loads; only `totals` is read. @unit{copies}
  /// @param now not looked at
  /// @param[out] next expert of each slot. @shape{cluster.slots()}
  /// @param ws scratch of `workspace_bytes(cluster, experts)`
  /// @returns how it ended
  /// @pre next has a place for each slot, fewer than 2^31 of them; fields are not negative, closeness is at least 1
  ///      (level 1); loads are not negative and their sum is below 2^62 (level 2)
  /// @complexity O(group_steps x nodes) for the groups; O(attempts x exchanges x slots of a node x slots of a rank) at
  ///             worst for each node above the bound; no allocation
  /// @determinism exact: equal on every rank, equal for proportional loads
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now,
              std::span<expert_id> next, workspace& ws) const {
    auto const experts = static_cast<index_t>(load.totals.size());
    FAIRLEAD_EXPECTS(static_cast<index_t>(next.size()) == cluster.slots() && cluster.slots() < INT32_MAX,
                     "the table needs a place for each slot", next.size(), cluster.slots());
    FAIRLEAD_EXPECTS(attempts >= 0 && exchanges >= 0 && group_steps >= 0 && closeness >= 1,
                     "limits must not be negative and closeness is at least 1", attempts, exchanges, group_steps,
                     closeness);
    static_cast<void>(now);
    std::fill(next.begin(), next.end(), expert_id::none);
    if (experts > cluster.slots()) { return {status::infeasible, 0, 0.0, 0.0}; }
    if (experts == 0) { return {}; }
    workspace::scope const rewind(ws);
    bool const grouped = groups > 1 && groups <= experts;
    detail::packing::balanced_nodes nodes(cluster, load.totals, grouped ? groups : 1, ws);
    if (grouped && nodes.pack_groups(group_steps)) {
      return nodes.plan_groups(next, group_steps, attempts, closeness, exchanges);
    }
    nodes.join_nodes();
    return nodes.plan(next, attempts, closeness, exchanges, ~std::uint64_t{0});
  }

  /// @brief Scratch that `plan` takes.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  /// @complexity O(1)
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return detail::packing::balanced_nodes::bytes(cluster, experts, groups > 1 && groups <= experts ? groups : 1);
  }
};
static_assert(load_planner<balanced_hierarchy>);

FAIRLEAD_NAMESPACE_END
