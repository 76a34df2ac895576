// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Which expert sits in which slot of which rank; immutable once made.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>

#include <cstdint>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief What a second replica of an expert is good for; the literature uses one word for three things.
enum class replica_meaning {
  host,           ///< a host with a free share: the scheduler decides how much it gets (min-max flow)
  equal_share,    ///< each replica gets 1 / replicas of the expert's copies (EPLB, Lazarus)
  capacity_unit   ///< each replica adds a fixed number of places (SYMI)
};

/// @brief One replica of an expert.
struct replica {
  rank_id rank;        ///< the rank that hosts it
  local_slot_id slot;  ///< the slot inside that rank
  /// Equality of both members.
  friend constexpr bool operator==(replica const&, replica const&) = default;
};

/// @brief A slot -> expert table with its inverse, the replicas of each expert in (rank, slot) order.
///
/// Ranks may have different numbers of slots and a slot may be empty. Every rank builds the same placement; the
/// `fingerprint` makes that checkable with one integer.
class placement {
 public:
  /// A placement of nothing on nothing.
  placement() : slot_offsets_(1, 0), replica_offsets_(1, 0) {}

  /// @brief Build from the slot table.
  /// @param experts number of logical experts, >= 0
  /// @param slot_offsets first slot of each rank, and the end. @shape{ranks + 1}, starting at 0, non-decreasing
  /// @param slot_experts expert of each slot, or none. @shape{slots}
  /// @param meaning what a second replica is good for
  /// @param version number of the plan that made it
  /// @throws contract_violation (level 1) on inconsistent sizes, on an expert out of range
  /// @complexity O(slots + experts + ranks) time and space, allocates
  placement(index_t experts, std::span<index_t const> slot_offsets, std::span<expert_id const> slot_experts,
            replica_meaning meaning = replica_meaning::host, std::uint64_t version = 0)
      : slot_offsets_(slot_offsets.begin(), slot_offsets.end()),
        slot_experts_(slot_experts.begin(), slot_experts.end()),
        replica_offsets_(static_cast<std::size_t>(experts < 0 ? 0 : experts) + 1, 0),
        meaning_(meaning),
        version_(version) {
    FAIRLEAD_EXPECTS(experts >= 0, "the number of experts must not be negative", experts);
    FAIRLEAD_EXPECTS(!slot_offsets.empty() && slot_offsets.front() == 0, "slot_offsets starts with 0 and has ranks + 1 entries");
    FAIRLEAD_EXPECTS(slot_offsets.back() == static_cast<index_t>(slot_experts.size()),
                     "slot_offsets ends with the number of slots", slot_offsets.back(), slot_experts.size());
    for (std::size_t rank = 0; rank + 1 < slot_offsets_.size(); ++rank) {  // before anything is read through them
      FAIRLEAD_EXPECTS(slot_offsets_[rank] <= slot_offsets_[rank + 1], "slot_offsets must not decrease", rank,
                       slot_offsets_[rank], slot_offsets_[rank + 1]);
    }
    for (expert_id const expert : slot_experts) {
      if (expert == expert_id::none) { continue; }
      FAIRLEAD_EXPECTS(to_index(expert) >= 0 && to_index(expert) < experts, "slot holds an unknown expert", expert, experts);
      ++replica_offsets_[static_cast<std::size_t>(expert) + 1];
    }
    for (std::size_t e = 0; e < static_cast<std::size_t>(experts); ++e) { replica_offsets_[e + 1] += replica_offsets_[e]; }
    replicas_.resize(static_cast<std::size_t>(replica_offsets_.back()));
    slot_replicas_.assign(slot_experts.size(), -1);
    std::vector<index_t> next(replica_offsets_.begin(), replica_offsets_.end() - 1);
    for (std::size_t rank = 0; rank + 1 < slot_offsets_.size(); ++rank) {
      for (index_t slot = slot_offsets_[rank]; slot < slot_offsets_[rank + 1]; ++slot) {
        expert_id const expert = slot_experts_[static_cast<std::size_t>(slot)];
        if (expert == expert_id::none) { continue; }
        index_t const at = next[static_cast<std::size_t>(expert)]++;
        replicas_[static_cast<std::size_t>(at)] = {static_cast<rank_id>(rank), static_cast<local_slot_id>(slot - slot_offsets_[rank])};
        slot_replicas_[static_cast<std::size_t>(slot)] = at;
      }
    }
    fingerprint_ = compute_fingerprint();
  }

  /// @returns number of ranks
  [[nodiscard]] index_t ranks() const noexcept { return static_cast<index_t>(slot_offsets_.size()) - 1; }
  /// @returns number of logical experts
  [[nodiscard]] index_t experts() const noexcept { return static_cast<index_t>(replica_offsets_.size()) - 1; }
  /// @returns number of slots on all ranks
  [[nodiscard]] index_t slots() const noexcept { return slot_offsets_.back(); }
  /// @param rank a rank
  /// @returns number of slots of that rank
  [[nodiscard]] index_t slots(rank_id rank) const noexcept {
    return slot_offsets_[static_cast<std::size_t>(rank) + 1] - slot_offsets_[static_cast<std::size_t>(rank)];
  }
  /// @param rank a rank
  /// @returns expert of each slot of that rank. @shape{slots(rank)}
  [[nodiscard]] std::span<expert_id const> experts_on(rank_id rank) const noexcept {
    return std::span(slot_experts_).subspan(static_cast<std::size_t>(slot_offsets_[static_cast<std::size_t>(rank)]),
                                            static_cast<std::size_t>(slots(rank)));
  }
  /// @returns number of replicas of all experts (slots that are not empty)
  [[nodiscard]] index_t replicas() const noexcept { return static_cast<index_t>(replicas_.size()); }
  /// @param expert an expert
  /// @returns its replicas by ascending (rank, slot); empty if the expert is lost
  [[nodiscard]] std::span<replica const> replicas(expert_id expert) const noexcept {
    auto const first = static_cast<std::size_t>(replica_offset(expert));
    return std::span(replicas_).subspan(first, static_cast<std::size_t>(replica_offsets_[static_cast<std::size_t>(expert) + 1]) - first);
  }
  /// @param expert an expert
  /// @returns number of its first replica in the list of all replicas: the column of a `token_schedule`
  [[nodiscard]] index_t replica_offset(expert_id expert) const noexcept {
    return replica_offsets_[static_cast<std::size_t>(expert)];
  }
  /// @param rank a rank
  /// @param slot a slot of that rank
  /// @returns number of the replica in that slot in the list of all replicas, or -1 if the slot is empty
  [[nodiscard]] index_t replica_at(rank_id rank, local_slot_id slot) const noexcept {
    return slot_replicas_[static_cast<std::size_t>(slot_offsets_[static_cast<std::size_t>(rank)] + to_index(slot))];
  }
  /// @returns whether some expert has no replica
  [[nodiscard]] bool has_lost_expert() const noexcept {
    for (std::size_t e = 0; e + 1 < replica_offsets_.size(); ++e) {
      if (replica_offsets_[e] == replica_offsets_[e + 1]) { return true; }
    }
    return false;
  }
  /// @returns what a second replica is good for
  [[nodiscard]] replica_meaning meaning() const noexcept { return meaning_; }
  /// @returns number of the plan that made it
  [[nodiscard]] std::uint64_t version() const noexcept { return version_; }
  /// @returns a hash of everything above; equal placements have equal fingerprints on every rank
  [[nodiscard]] std::uint64_t fingerprint() const noexcept { return fingerprint_; }

 private:
  [[nodiscard]] std::uint64_t compute_fingerprint() const noexcept {
    // FNV-1a over 64-bit words; the shift lets high bits reach the low ones, which multiplications alone never do.
    std::uint64_t hash = 0xCBF29CE484222325ULL;
    auto const mix = [&hash](std::uint64_t word) {
      hash = (hash ^ word) * 0x100000001B3ULL;
      hash ^= hash >> 29U;
    };
    mix(version_);
    mix(static_cast<std::uint64_t>(meaning_));
    mix(static_cast<std::uint64_t>(experts()));
    for (index_t const offset : slot_offsets_) { mix(static_cast<std::uint64_t>(offset)); }
    for (expert_id const expert : slot_experts_) { mix(static_cast<std::uint64_t>(to_index(expert))); }
    return hash;
  }

  std::vector<index_t> slot_offsets_;
  std::vector<expert_id> slot_experts_;
  std::vector<index_t> replica_offsets_;
  std::vector<replica> replicas_;
  std::vector<index_t> slot_replicas_;
  replica_meaning meaning_ = replica_meaning::host;
  std::uint64_t version_ = 0;
  std::uint64_t fingerprint_ = 0;
};

FAIRLEAD_NAMESPACE_END
