// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief An objective for memory-bound decoding: how many experts the busiest rank has to read.
#include <fairlead/concepts/slot_objective.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/place/detail/slot_table.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Expected number of distinct experts that the busiest rank activates.
///
/// With few tokens a step the time of a rank is that of reading weights: one read for each expert with at least one
/// token, whatever their number. An expert with n copies in a sample and r replicas activates min(n, r) of them when
/// each replica takes an equal share, so a replica is active with probability min(n, r) / r; replicas on the same rank
/// are one read. Samples should be single steps: totals over many steps make every expert look active. Blamed are the
/// slots with an active expert on the first rank that has the largest sum. Which replicas are active when n < r, and
/// that the mean of a sample is taken, is this library's choice; no paper is followed.
struct decode_objective {
  /// How a scheduler has to read the replicas.
  static constexpr replica_meaning meaning = replica_meaning::equal_share;

  /// @brief Scratch that `cost` needs.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes([[maybe_unused]] topology const& cluster, index_t experts) const {
    return 2 * fairlead::workspace_bytes<std::int32_t>(experts) + fairlead::workspace_bytes<index_t>(experts);
  }
  /// @returns no activation at all: 0
  [[nodiscard]] constexpr index_t least_cost() const noexcept { return 0; }

  /// @brief Compute the activated replicas of the busiest rank.
  /// @param cluster the cluster
  /// @param totals copies an expert in one step. @shape{experts}
  /// @param slots the table. @shape{cluster.slots()}
  /// @param[out] blamed 1 for active slots of the busiest rank, or empty. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns expected number of experts read by that rank, in units of 1 / slot_cost_unit, each floored
  /// @throws contract_violation (level 1) if the workspace is too small
  /// @complexity O(slots + experts), no allocation
  /// @determinism exact
  [[nodiscard]] index_t cost(topology const& cluster, std::span<index_t const> totals, std::span<expert_id const> slots,
                             std::span<std::uint8_t> blamed, workspace& ws) const {
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(totals.size());
    auto const hosts = ws.take<std::int32_t>(experts);
    auto const last_rank = ws.take<std::int32_t>(experts);
    auto const share = ws.take<index_t>(experts);
    std::fill(hosts.begin(), hosts.end(), 0);
    std::fill(last_rank.begin(), last_rank.end(), -1);
    auto const offsets = cluster.slot_offsets();
    // Calls f(expert, slot) for the first slot of each expert on the rank.
    auto const each = [&](index_t rank, auto&& f) {
      for (index_t slot = offsets[static_cast<std::size_t>(rank)]; slot < offsets[static_cast<std::size_t>(rank) + 1];
           ++slot) {
        expert_id const expert = slots[static_cast<std::size_t>(slot)];
        if (expert == expert_id::none || last_rank[static_cast<std::size_t>(expert)] == rank) { continue; }
        last_rank[static_cast<std::size_t>(expert)] = static_cast<std::int32_t>(rank);
        f(static_cast<std::size_t>(expert), static_cast<std::size_t>(slot));
      }
    };
    for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
      each(rank, [&](std::size_t e, std::size_t) { ++hosts[e]; });
    }
    for (std::size_t e = 0; e < totals.size(); ++e) {
      share[e] = hosts[e] == 0 ? 0 : std::min<index_t>(totals[e], hosts[e]) * slot_cost_unit / hosts[e];
    }
    std::fill(last_rank.begin(), last_rank.end(), -1);
    index_t largest = 0;
    index_t busiest = -1;
    for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
      index_t active = 0;
      each(rank, [&](std::size_t e, std::size_t) { active += share[e]; });
      if (active > largest) { largest = active, busiest = rank; }
    }
    if (!blamed.empty()) {
      std::fill(blamed.begin(), blamed.end(), std::uint8_t{0});
      if (busiest >= 0) {
        std::fill(last_rank.begin(), last_rank.end(), -1);
        each(busiest, [&](std::size_t e, std::size_t slot) { blamed[slot] = share[e] > 0 ? 1 : 0; });
      }
    }
    return largest;
  }
};
static_assert(slot_objective<decode_objective>);

FAIRLEAD_NAMESPACE_END
