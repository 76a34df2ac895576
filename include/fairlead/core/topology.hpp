// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How many ranks there are, on which node each sits, and how many expert slots it has.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The shape of a cluster: nodes of consecutive ranks, and expert slots on each rank.
///
/// Nodes may hold different numbers of ranks and ranks different numbers of slots. A rank without slots hosts nothing
/// but may still send tokens; that is also how a failed rank is described (`without`): rank ids do not change. Equal on
/// every rank. Bandwidths are not part of it: they belong to cost models.
class topology {
 public:
  /// A cluster of nothing.
  topology() : node_offsets_(1, 0), slot_offsets_(1, 0) {}

  /// @brief Equal nodes and equal ranks; the last node holds what is left.
  /// @param ranks number of ranks, >= 0
  /// @param slots_per_rank expert slots of each rank, >= 0
  /// @param ranks_per_node ranks of a node, >= 1; 0 = all ranks on one node
  /// @throws contract_violation (level 1) on a negative size; std::bad_alloc
  topology(index_t ranks, index_t slots_per_rank, index_t ranks_per_node = 0) {
    FAIRLEAD_EXPECTS(ranks >= 0 && slots_per_rank >= 0 && ranks_per_node >= 0,
                     "the sizes of a cluster must not be negative", ranks, slots_per_rank, ranks_per_node);
    index_t const step = ranks_per_node == 0 ? std::max<index_t>(ranks, 1) : ranks_per_node;
    for (index_t rank = 0; rank < ranks; rank += step) { node_offsets_.push_back(rank); }
    node_offsets_.push_back(ranks);
    for (index_t rank = 0; rank <= ranks; ++rank) { slot_offsets_.push_back(rank * slots_per_rank); }
    fill_nodes();
  }

  /// @brief Nodes and ranks of different sizes.
  /// @param node_offsets first rank of each node, and the end. @shape{nodes + 1}, from 0, non-decreasing
  /// @param slot_offsets first slot of each rank, and the end. @shape{ranks + 1}, from 0, non-decreasing
  /// @throws contract_violation (level 1) on inconsistent offsets; std::bad_alloc
  topology(std::span<index_t const> node_offsets, std::span<index_t const> slot_offsets)
      : node_offsets_(node_offsets.begin(), node_offsets.end()), slot_offsets_(slot_offsets.begin(), slot_offsets.end()) {
    FAIRLEAD_EXPECTS(!node_offsets.empty() && node_offsets.front() == 0 && std::is_sorted(node_offsets.begin(), node_offsets.end()),
                     "node_offsets starts with 0, does not decrease and has nodes + 1 entries");
    FAIRLEAD_EXPECTS(!slot_offsets.empty() && slot_offsets.front() == 0 && std::is_sorted(slot_offsets.begin(), slot_offsets.end()),
                     "slot_offsets starts with 0, does not decrease and has ranks + 1 entries");
    FAIRLEAD_EXPECTS(node_offsets.back() == static_cast<index_t>(slot_offsets.size()) - 1,
                     "node_offsets ends with the number of ranks", node_offsets.back(), slot_offsets.size());
    fill_nodes();
  }

  /// @returns number of ranks
  [[nodiscard]] index_t ranks() const noexcept { return static_cast<index_t>(slot_offsets_.size()) - 1; }
  /// @returns number of nodes
  [[nodiscard]] index_t nodes() const noexcept { return static_cast<index_t>(node_offsets_.size()) - 1; }
  /// @returns number of slots on all ranks
  [[nodiscard]] index_t slots() const noexcept { return slot_offsets_.back(); }
  /// @param rank a rank
  /// @returns number of slots of that rank
  [[nodiscard]] index_t slots(index_t rank) const noexcept {
    return slot_offsets_[static_cast<std::size_t>(rank) + 1] - slot_offsets_[static_cast<std::size_t>(rank)];
  }
  /// @param rank a rank
  /// @returns the node that it sits on
  [[nodiscard]] index_t node_of(index_t rank) const noexcept { return node_of_[static_cast<std::size_t>(rank)]; }
  /// @returns number of ranks that have a slot
  [[nodiscard]] index_t hosting_ranks() const noexcept {
    index_t count = 0;
    for (index_t rank = 0; rank < ranks(); ++rank) { count += slots(rank) > 0 ? 1 : 0; }
    return count;
  }
  /// @returns first rank of each node, and the end. @shape{nodes + 1}
  [[nodiscard]] std::span<index_t const> node_offsets() const noexcept { return node_offsets_; }
  /// @returns first slot of each rank, and the end. @shape{ranks + 1}
  [[nodiscard]] std::span<index_t const> slot_offsets() const noexcept { return slot_offsets_; }

  /// @brief The same cluster when some ranks can host nothing, because they failed or are reserved.
  /// @param lost the ranks, in any order
  /// @returns a cluster with the same ranks and nodes, where these ranks have no slot
  /// @throws contract_violation (level 1) on an unknown rank; std::bad_alloc
  /// @complexity O(ranks + lost), allocates the result
  [[nodiscard]] topology without(std::span<rank_id const> lost) const {
    std::vector<index_t> sizes(static_cast<std::size_t>(ranks()));
    for (index_t rank = 0; rank < ranks(); ++rank) { sizes[static_cast<std::size_t>(rank)] = slots(rank); }
    for (rank_id const rank : lost) {
      FAIRLEAD_EXPECTS(to_index(rank) >= 0 && to_index(rank) < ranks(), "no such rank", rank, ranks());
      sizes[static_cast<std::size_t>(rank)] = 0;
    }
    std::vector<index_t> offsets(1, 0);
    for (index_t const size : sizes) { offsets.push_back(offsets.back() + size); }
    return {node_offsets_, offsets};
  }

 private:
  void fill_nodes() {
    node_of_.resize(static_cast<std::size_t>(ranks()));
    for (std::size_t node = 0; node + 1 < node_offsets_.size(); ++node) {
      std::fill(node_of_.begin() + node_offsets_[node], node_of_.begin() + node_offsets_[node + 1], static_cast<index_t>(node));
    }
  }

  std::vector<index_t> node_offsets_;
  std::vector<index_t> slot_offsets_;
  std::vector<index_t> node_of_;
};

FAIRLEAD_NAMESPACE_END
