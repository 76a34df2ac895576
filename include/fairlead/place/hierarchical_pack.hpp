// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Whole groups of experts to nodes, then replicate and pack inside each node.
#include <fairlead/place/detail/expert_groups.hpp>
#include <fairlead/place/global_pack.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Plan from loads such that a group of experts stays on one node: replicas then never leave it.
///
/// For routers that choose groups first (group-limited routing): a token's copies then cross nodes as few times as it
/// has groups. Groups go to nodes by descending load, each to the lightest node that has fewer than groups / nodes of
/// them; inside a node `global_pack` does the rest on the node's own slots. The three steps are not joint, which costs
/// balance: `balanced_hierarchy` keeps the same constraint and comes closer to its bound.
///
/// Group g has the experts [g E / groups, (g + 1) E / groups), rounded down. Nodes without a slot do not count. It
/// falls back to `global_pack` where groups are fewer than 1, or are no multiple of the nodes, or do not fit into the
/// slots of the nodes that they are packed to; the result is then as if there was one group.
///
/// report: `value` the largest load of a rank when replicas take equal shares; `bound` the largest lower bound of a
/// node: the mean load of its ranks, the smallest possible largest load of a replica (for this packing of groups);
/// `iterations` the number of slots whose expert the rank has already.
/// @source{EPLB, rebalance_experts_hierarchical}
struct hierarchical_pack {
  /// What a second replica is good for.
  static constexpr replica_meaning meaning = replica_meaning::equal_share;
  /// Number of groups of consecutive experts.
  index_t groups = 1;
  /// Whether a rank may hold two replicas of one expert.
  repeats_on_a_rank repeats = repeats_on_a_rank::allowed;

  /// @brief Place experts for the loads that are expected.
  /// @param cluster the cluster
  /// @param load loads; only `totals` is read. @unit{copies}
  /// @param now not looked at
  /// @param[out] next expert of each slot. @shape{cluster.slots()}
  /// @param ws scratch of `workspace_bytes(cluster, experts)`
  /// @returns how it ended
  /// @pre next has a place for each slot, fewer than 2^31 of them (level 1); loads are not negative and their sum is
  /// below
  ///      2^62 (level 2)
  /// @complexity O(experts log experts + groups x nodes + slots log ranks), no allocation
  /// @determinism exact: equal on every rank
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now,
              std::span<expert_id> next, workspace& ws) const {
    auto const experts = static_cast<index_t>(load.totals.size());
    FAIRLEAD_EXPECTS(static_cast<index_t>(next.size()) == cluster.slots() && cluster.slots() < INT32_MAX,
                     "the table needs a place for each slot", next.size(), cluster.slots());
    workspace::scope const rewind(ws);
    if (experts > 0 && experts <= cluster.slots() && groups > 0 && groups <= experts) {
      detail::packing::group_scratch const g(groups, cluster.nodes(), ws);
      std::uint32_t const nodes = detail::packing::list_nodes(cluster, g);
      detail::packing::sum_groups(load.totals, groups, g);
      if (nodes > 1 && groups % nodes == 0 && detail::packing::pack_groups(g, experts, groups, nodes)) {
        return plan_nodes(cluster, load, next, g, nodes, ws);
      }
    }
    return global_pack{.repeats = repeats}.plan(cluster, load, now, next, ws);
  }

  /// @brief Scratch that `plan` takes.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  /// @complexity O(1)
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return detail::packing::group_scratch::bytes(std::min(std::max<index_t>(groups, 0), experts), cluster.nodes()) +
           fairlead::workspace_bytes<std::uint32_t>(experts) +
           detail::packing::packing_scratch::bytes(experts, cluster.slots(), cluster.ranks());
  }

 private:
  report plan_nodes(topology const& cluster, load_estimate const& load, std::span<expert_id> next,
                    detail::packing::group_scratch const& g, std::uint32_t nodes, workspace& ws) const {
    auto const experts = static_cast<index_t>(load.totals.size());
    std::span<std::uint32_t> const names = ws.take<std::uint32_t>(experts);
    detail::packing::packing_scratch const s(experts, cluster.slots(), cluster.ranks(), ws);
    std::fill(next.begin(), next.end(), expert_id::none);
    report result;
    for (std::uint32_t node = 0; node < nodes; ++node) {
      // Experts of the node in the order in which its groups came.
      std::uint32_t n = 0;
      std::uint64_t total = 0;
      for (std::uint32_t i = 0; i < g.held[node]; ++i) {
        index_t const group = g.list[node * groups + i];
        for (index_t e = detail::packing::group_begin(group, groups, experts);
             e < detail::packing::group_begin(group + 1, groups, experts); ++e) {
          names[n] = static_cast<std::uint32_t>(e);
          s.given[n] = static_cast<std::uint64_t>(load.totals[static_cast<std::size_t>(e)]);
          total += s.given[n++];
        }
      }
      std::uint32_t const ranks = detail::packing::list_bins(cluster, g.first_rank[node], g.last_rank[node], s.bins);
      if (n == 0) { continue; }
      auto const part = detail::packing::plan_part(s, n, ranks, total, repeats);
      result.iterations += detail::packing::write_slots(
          s, n, ranks, next, [&](std::uint32_t item) { return static_cast<expert_id>(names[item]); });
      result.value = std::max(result.value, part.value);
      result.bound =
          std::max({result.bound, part.largest_share, static_cast<double>(total) / static_cast<double>(ranks)});
    }
    result.bound = std::min(result.bound, result.value);
    return result;
  }
};
static_assert(load_planner<hierarchical_pack>);

FAIRLEAD_NAMESPACE_END
