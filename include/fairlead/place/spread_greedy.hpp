// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Put replicas on ranks: spread each expert over the nodes, and take the least loaded rank there.
#include <fairlead/concepts/slot_assigner.hpp>
#include <fairlead/place/detail/minimum_tree.hpp>
#include <fairlead/place/detail/share_order.hpp>

#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Where a replica goes when a node that is behind with its expert has no free slot.
enum class full_node_rule {
  next_node,  ///< to the nodes with a free slot that have fewest replicas of the expert: the most even spread
  any_rank    ///< to the least loaded rank with a free slot, wherever: the published code
};

/// @brief Put replicas on ranks, the largest shares first: to a node with fewest replicas of the expert, and there to the
/// least loaded rank that has a free slot.
///
/// Each replica weighs an equal share of its expert's load. With the experts in the order (share descending, id
/// ascending) a replica goes to the rank of the smallest (load, id) among the free ranks of the nodes that hold fewest
/// replicas of its expert; nodes without any slot do not count. An expert with a replica on every node is never fetched
/// from another node by `local_node_even`-like schedulers. Two replicas of an expert may meet on a rank:
/// `report::iterations` counts how often.
///
/// The replicas of an expert come one after the other, so that they fill nodes in rounds: a round that reaches every open
/// node needs no comparison between nodes, only a last, partial one does. Loads of ranks are fixed-point integers that
/// share a 64-bit word with the rank: exact to 2^-(62 - bits of ranks) of the whole load, equal on every rank, and the
/// smallest word is the smallest (load, id).
/// @source{2602.11686, Algorithm 1} The paper does not say what happens when a node that is behind is full. Its code then
/// gives the spread up (`full_node_rule::any_rank`): one node of fewer slots, or a lost rank, unbalances all others. Keeping
/// the spread among nodes with room is this library's choice; on even clusters both rules hardly ever differ.
struct spread_greedy {
  full_node_rule full_nodes = full_node_rule::next_node;  ///< what to do when a node that is behind is full

  /// @brief Assign all replicas.
  /// @param cluster the cluster; nodes and ranks may be ragged
  /// @param load copies an expert, >= 0, sum < 2^63. @shape{experts}
  /// @param replicas replicas an expert, >= 0. @shape{experts}
  /// @param[out] slots expert of each slot; free slots of a rank are its last ones. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns `status::ok`, `value` the largest load of a rank under equal shares, `bound` the larger of the mean load of
  ///          ranks with a slot and the largest share, `iterations` the number of replicas that met another one of their
  ///          expert on their rank; or `status::infeasible`, with all slots none, if there are more replicas than slots
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) on a negative number
  /// @complexity O(experts x (log experts + nodes) + slots x log ranks of a node) time, O(ranks + nodes + experts) scratch,
  ///             no allocation
  /// @determinism exact integers: equal on every rank; loads times a constant give the same slots
  report assign(topology const& cluster, std::span<index_t const> load, std::span<index_t const> replicas,
                std::span<expert_id> slots, workspace& ws) const;

  /// @brief Scratch of `assign`.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    index_t const nodes = cluster.nodes();
    return fairlead::workspace_bytes<std::int32_t>(experts) + fairlead::workspace_bytes<std::uint64_t>(tree_words(cluster)) +
           fairlead::workspace_bytes<std::uint64_t>(detail::minimum_tree::words(nodes)) +
           fairlead::workspace_bytes<std::uint64_t>(nodes) + fairlead::workspace_bytes<index_t>(nodes) +
           3 * fairlead::workspace_bytes<std::int32_t>(cluster.ranks());
  }

 private:
  [[nodiscard]] static index_t tree_words(topology const& cluster) noexcept {
    index_t words = 0;
    auto const first = cluster.node_offsets();
    for (std::size_t node = 0; node + 1 < first.size(); ++node) {
      words += detail::minimum_tree::words(first[node + 1] - first[node]);
    }
    return words;
  }
};

FAIRLEAD_NAMESPACE_END

#include <fairlead/place/detail/spread_greedy_text.hpp>

FAIRLEAD_NAMESPACE_BEGIN
static_assert(slot_assigner<spread_greedy>);
FAIRLEAD_NAMESPACE_END
