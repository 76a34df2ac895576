// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What a planner decided: a placement, copies for a while, and what has to move.
#include <fairlead/core/placement.hpp>
#include <fairlead/core/topology.hpp>

#include <algorithm>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief A copy of an expert's weights on a rank beyond its slots, for one or a few steps; optimizer state stays home.
struct replica_copy {
  expert_id expert;  ///< the expert
  rank_id rank;      ///< the rank that gets the copy
  /// Equality of both members.
  friend constexpr bool operator==(replica_copy const&, replica_copy const&) = default;
};

/// @brief A list of copies with a fixed capacity, in memory of the caller.
struct copy_list {
  std::span<replica_copy> storage;  ///< room for them
  index_t size = 0;                 ///< how many there are
  /// @brief Append a copy.
  /// @param copy the copy
  /// @throws contract_violation (level 1) if the storage is full
  void add(replica_copy copy) {
    FAIRLEAD_EXPECTS(size < static_cast<index_t>(storage.size()), "the list of copies is full", size, storage.size());
    storage[static_cast<std::size_t>(size++)] = copy;
  }
  /// @returns the copies
  [[nodiscard]] std::span<replica_copy const> view() const noexcept { return storage.first(static_cast<std::size_t>(size)); }
};

/// @brief Weights of one expert that travel from a rank that has them to a slot that needs them.
struct replica_move {
  expert_id expert;    ///< the expert
  rank_id from;        ///< a rank that held a replica before, or none: it has to come from a checkpoint
  rank_id to;          ///< the rank that needs it
  local_slot_id slot;  ///< the slot there
  /// Equality of all members.
  friend constexpr bool operator==(replica_move const&, replica_move const&) = default;
};

/// @brief Everything that activating a decision needs. Every rank makes the equal plan.
struct plan {
  placement base;                    ///< the resident replicas
  std::vector<replica_copy> copies;  ///< short-lived copies on top of `base`
  placement where;                   ///< `base` with the copies in extra slots: what schedulers see
  std::vector<replica_move> moves;   ///< what leads from the placement before to `base`
  double modelled_gain = 0.0;        ///< seconds a step that the planner's cost model expects to save. @unit{s}

  /// @returns version of the resident placement
  [[nodiscard]] std::uint64_t version() const noexcept { return base.version(); }
  /// @returns a hash of the resident replicas and the copies; ranks compare it before they activate a plan
  [[nodiscard]] std::uint64_t fingerprint() const noexcept { return where.fingerprint(); }
};

/// @brief Make a placement from a slot table over the slots of a cluster.
/// @param cluster the cluster
/// @param experts number of experts
/// @param slot_experts expert of each slot, or none. @shape{cluster.slots()}
/// @param meaning what a second replica is good for
/// @param version number of the plan
/// @returns the placement
/// @throws contract_violation (level 1) on a shape mismatch or an expert out of range; std::bad_alloc
/// @complexity O(slots + experts + ranks), allocates
[[nodiscard]] inline placement make_placement(topology const& cluster, index_t experts, std::span<expert_id const> slot_experts,
                                              replica_meaning meaning = replica_meaning::host, std::uint64_t version = 0) {
  return {experts, cluster.slot_offsets(), slot_experts, meaning, version};
}

/// @brief Add short-lived copies to a placement: extra slots behind those of each rank, in the order of the list.
/// @param base the placement
/// @param copies the copies; a copy of an expert that the rank already hosts is left out
/// @returns the placement with the copies; the same version as `base`
/// @throws contract_violation (level 1) on an unknown rank or expert; std::bad_alloc
/// @complexity O(slots + copies x (ranks + replicas of the expert)), allocates
[[nodiscard]] inline placement with_copies(placement const& base, std::span<replica_copy const> copies) {
  std::vector<std::vector<expert_id>> extra(static_cast<std::size_t>(base.ranks()));
  for (replica_copy const copy : copies) {
    FAIRLEAD_EXPECTS(to_index(copy.rank) >= 0 && to_index(copy.rank) < base.ranks(), "no such rank", copy.rank, base.ranks());
    FAIRLEAD_EXPECTS(to_index(copy.expert) >= 0 && to_index(copy.expert) < base.experts(), "no such expert", copy.expert, base.experts());
    std::vector<expert_id>& mine = extra[static_cast<std::size_t>(copy.rank)];
    auto const resident = base.experts_on(copy.rank);
    if (std::find(resident.begin(), resident.end(), copy.expert) == resident.end() &&
        std::find(mine.begin(), mine.end(), copy.expert) == mine.end()) {
      mine.push_back(copy.expert);
    }
  }
  std::vector<index_t> offsets(1, 0);
  std::vector<expert_id> slots;
  for (index_t rank = 0; rank < base.ranks(); ++rank) {
    auto const resident = base.experts_on(static_cast<rank_id>(rank));
    slots.insert(slots.end(), resident.begin(), resident.end());
    std::vector<expert_id> const& mine = extra[static_cast<std::size_t>(rank)];
    slots.insert(slots.end(), mine.begin(), mine.end());
    offsets.push_back(static_cast<index_t>(slots.size()));
  }
  return {base.experts(), offsets, slots, base.meaning(), base.version()};
}

FAIRLEAD_NAMESPACE_END
