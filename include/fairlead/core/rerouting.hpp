// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Which part of each expert's copies runs on which rank for one layer call, and which weights have to follow.
#include <fairlead/core/plan.hpp>

#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief A run of an expert's copies that one rank computes.
///
/// Positions number the copies of an expert over all ranks: the q-th copy of rank p has the number of copies of lower
/// ranks plus q.
struct expert_segment {
  rank_id rank;   ///< who computes them
  index_t begin;  ///< first position
  index_t end;    ///< behind the last position
  /// @returns number of copies
  [[nodiscard]] constexpr index_t size() const noexcept { return end - begin; }
  /// Equality of all members.
  friend constexpr bool operator==(expert_segment const&, expert_segment const&) = default;
};

/// @brief What a rerouting planner decided, in memory of the caller. Every rank makes the equal one.
///
/// The segments of an expert cover [0, its load) without gaps, in the order in which they were given out. Each (expert,
/// rank) pair occurs once, unless the planner was told to keep duplicates. Nothing in it outlives the layer call: imported
/// weights go to slots behind the resident ones, and their gradients go back to the rank they came from.
struct rerouting {
  std::span<index_t> offsets;                 ///< first segment of each expert, and the end. @shape{experts + 1}
  std::span<expert_segment> segment_storage;  ///< room for `most_segments`
  std::span<replica_move> transfer_storage;   ///< room for `most_transfers`
  std::span<index_t> rank_load;               ///< copies that each rank computes. @shape{ranks}
  index_t transfer_count = 0;                 ///< used part of `transfer_storage`
  index_t capacity = 0;                       ///< copies of a rank above which it counted as overloaded
  index_t forced = 0;                         ///< remainders that no rank had room for
  bool used_plan = false;                     ///< false: the gate kept every expert on its own rank

  /// @param experts number of experts
  /// @param ranks number of ranks
  /// @returns how many segments a plan may have: each piece that leaves either ends its expert or fills its rank
  [[nodiscard]] static constexpr index_t most_segments(index_t experts, index_t ranks) noexcept { return 2 * experts + ranks; }
  /// @param experts number of experts
  /// @param ranks number of ranks
  /// @returns how many transfers a plan may have
  [[nodiscard]] static constexpr index_t most_transfers(index_t experts, index_t ranks) noexcept { return experts + ranks; }

  /// @returns number of experts
  [[nodiscard]] index_t experts() const noexcept { return static_cast<index_t>(offsets.size()) - 1; }
  /// @returns number of ranks
  [[nodiscard]] index_t ranks() const noexcept { return static_cast<index_t>(rank_load.size()); }
  /// @param expert an expert
  /// @returns its segments; empty if it has no copies
  [[nodiscard]] std::span<expert_segment const> segments(expert_id expert) const noexcept {
    auto const first = static_cast<std::size_t>(offsets[static_cast<std::size_t>(expert)]);
    auto const end = static_cast<std::size_t>(offsets[static_cast<std::size_t>(expert) + 1]);
    return std::span<expert_segment const>(segment_storage).subspan(first, end - first);
  }
  /// @returns weights that have to travel, by ascending (expert, position); `slot` is the place behind the resident slots
  ///          that `with_copies` gives the copy when it gets the transfers in this order
  [[nodiscard]] std::span<replica_move const> transfers() const noexcept {
    return std::span<replica_move const>(transfer_storage).first(static_cast<std::size_t>(transfer_count));
  }
};

/// @brief Own the memory of a `rerouting`.
class rerouting_memory {
 public:
  /// @brief Make room for any plan of this size.
  /// @param experts number of experts, >= 0
  /// @param ranks number of ranks, >= 0
  /// @throws std::bad_alloc
  rerouting_memory(index_t experts, index_t ranks)
      : offsets_(static_cast<std::size_t>(experts) + 1),
        segments_(static_cast<std::size_t>(rerouting::most_segments(experts, ranks))),
        transfers_(static_cast<std::size_t>(rerouting::most_transfers(experts, ranks))),
        rank_load_(static_cast<std::size_t>(ranks)) {}
  /// @returns an empty rerouting over this memory
  [[nodiscard]] rerouting view() noexcept {
    return {.offsets = offsets_, .segment_storage = segments_, .transfer_storage = transfers_, .rank_load = rank_load_};
  }

 private:
  std::vector<index_t> offsets_;
  std::vector<expert_segment> segments_;
  std::vector<replica_move> transfers_;
  std::vector<index_t> rank_load_;
};

/// @brief The short-lived copies of a rerouting, for `with_copies`.
/// @param moves the transfers
/// @param[out] out appended in the same order
/// @throws contract_violation (level 1) if the list is full
/// @complexity O(transfers), no allocation
inline void add_copies(std::span<replica_move const> moves, copy_list& out) {
  for (replica_move const& move : moves) { out.add({move.expert, move.to}); }
}

FAIRLEAD_NAMESPACE_END
