// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Two objectives of a slot table: load shared freely over hosts, and load shared equally over replicas.
#include <fairlead/concepts/slot_objective.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/place/detail/split_optimum.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Largest over mean load of a rank when a scheduler splits each expert's load over its hosts as well as can be.
///
/// What counts is only which ranks host an expert; a second replica on one rank is worth nothing. The optimum is exact
/// in integers (level raised to the density of the set of ranks that has no way out), so the cost is the one that an
/// exact min-max scheduler reaches. The mean is over ranks with a slot; rounding up to whole copies is not held against
/// a table. Blamed are the slots, on the densest set of ranks, of experts that have no host outside of it.
/// @source{2511.16947, section 5, Eq. 3}
struct free_split_objective {
  /// How a scheduler has to read the replicas.
  static constexpr replica_meaning meaning = replica_meaning::host;

  /// @brief Scratch that `cost` needs.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return detail::split_scratch::bytes(cluster, experts);
  }
  /// @returns the cost of a perfect balance: one
  [[nodiscard]] constexpr index_t least_cost() const noexcept { return slot_cost_unit; }

  /// @brief Compute largest / mean load of the best split.
  /// @param cluster the cluster
  /// @param totals copies an expert. @shape{experts}
  /// @param slots the table. @shape{cluster.slots()}
  /// @param[out] blamed 1 for slots that make the cost, or empty. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns cost in units of 1 / slot_cost_unit, rounded up
  /// @throws contract_violation (level 1) if the workspace is too small
  /// @complexity O(slots + ranks) a search for room, usually a few tens of them; at most one raise a rank. No
  /// allocation.
  /// @determinism exact
  [[nodiscard]] index_t cost(topology const& cluster, std::span<index_t const> totals, std::span<expert_id const> slots,
                             std::span<std::uint8_t> blamed, workspace& ws) const {
    workspace::scope const scope(ws);
    detail::split_scratch scratch(cluster, static_cast<index_t>(totals.size()), ws);
    index_t const hosts = cluster.hosting_ranks();
    detail::split_answer const answer = detail::split_optimum(cluster, totals, slots, hosts, scratch);
    index_t total = 0;
    for (index_t const load : scratch.rank_load) { total += load; }
    if (!blamed.empty()) {
      std::fill(blamed.begin(), blamed.end(), std::uint8_t{0});
      if (answer.crowded) { blame(cluster, totals, slots, blamed, scratch); }
    }
    return answer.crowded ? detail::ratio_cost(answer.largest, total, hosts) : slot_cost_unit;
  }

 private:
  static void blame(topology const& cluster, std::span<index_t const> totals, std::span<expert_id const> slots,
                    std::span<std::uint8_t> blamed, detail::split_scratch& scratch) {
    auto const offsets = cluster.slot_offsets();
    for (std::size_t rank = 0; rank < scratch.seen.size(); ++rank) {
      if (scratch.seen[rank] == 0) { continue; }
      for (auto slot = static_cast<std::size_t>(offsets[rank]); slot < static_cast<std::size_t>(offsets[rank + 1]);
           ++slot) {
        if (slots[slot] == expert_id::none) { continue; }
        auto const e = static_cast<std::size_t>(slots[slot]);
        bool inside = totals[e] > 0;
        for (std::int32_t k = scratch.first_edge[e]; inside && k < scratch.first_edge[e + 1]; ++k) {
          inside = scratch.seen[static_cast<std::size_t>(scratch.edge_rank[static_cast<std::size_t>(k)])] != 0;
        }
        blamed[slot] = inside ? 1 : 0;
      }
    }
  }
};
static_assert(slot_objective<free_split_objective>);

/// @brief Largest over mean load of a rank when every replica of an expert takes an equal share.
///
/// Shares are floored to 1/1024 copy. Blamed are all slots of the first rank with the largest load.
/// @source{EPLB, eplb.py, balanced_packing}
struct equal_share_objective {
  /// How a scheduler has to read the replicas.
  static constexpr replica_meaning meaning = replica_meaning::equal_share;

  /// @brief Scratch that `cost` needs.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes([[maybe_unused]] topology const& cluster, index_t experts) const {
    return fairlead::workspace_bytes<std::int32_t>(experts) + fairlead::workspace_bytes<index_t>(experts);
  }
  /// @returns the cost of a perfect balance: one
  [[nodiscard]] constexpr index_t least_cost() const noexcept { return slot_cost_unit; }

  /// @brief Compute largest / mean load under equal shares.
  /// @param cluster the cluster
  /// @param totals copies an expert, adding up to less than 2^62. @shape{experts}
  /// @param slots the table. @shape{cluster.slots()}
  /// @param[out] blamed 1 for the slots of the busiest rank, or empty. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns cost in units of 1 / slot_cost_unit, rounded up
  /// @throws contract_violation (level 1) if the workspace is too small
  /// @complexity O(slots + experts), no allocation
  /// @determinism exact
  [[nodiscard]] index_t cost(topology const& cluster, std::span<index_t const> totals, std::span<expert_id const> slots,
                             std::span<std::uint8_t> blamed, workspace& ws) const {
    workspace::scope const scope(ws);
    auto const replicas = ws.take<std::int32_t>(static_cast<index_t>(totals.size()));
    auto const share = ws.take<index_t>(static_cast<index_t>(totals.size()));
    detail::count_replicas(slots, replicas);
    index_t const fraction = detail::share_fraction(totals);
    index_t total = 0;
    for (std::size_t e = 0; e < totals.size(); ++e) {
      share[e] = replicas[e] == 0 ? 0 : totals[e] * fraction / replicas[e];
      total += replicas[e] == 0 ? 0 : totals[e] * fraction;
    }
    auto const offsets = cluster.slot_offsets();
    index_t largest = 0;
    index_t busiest = -1;
    for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
      index_t load = 0;
      for (index_t slot = offsets[static_cast<std::size_t>(rank)]; slot < offsets[static_cast<std::size_t>(rank) + 1];
           ++slot) {
        expert_id const e = slots[static_cast<std::size_t>(slot)];
        load += e == expert_id::none ? 0 : share[static_cast<std::size_t>(e)];
      }
      if (load > largest) { largest = load, busiest = rank; }
    }
    index_t const cost = detail::ratio_cost(largest, total, cluster.hosting_ranks());
    if (!blamed.empty()) {
      std::fill(blamed.begin(), blamed.end(), std::uint8_t{0});
      if (cost > slot_cost_unit) {
        std::fill(blamed.begin() + offsets[static_cast<std::size_t>(busiest)],
                  blamed.begin() + offsets[static_cast<std::size_t>(busiest) + 1], std::uint8_t{1});
      }
    }
    return cost;
  }
};
static_assert(slot_objective<equal_share_objective>);

FAIRLEAD_NAMESPACE_END
