// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Put the replicas of each expert side by side, expert after expert.
#include <fairlead/concepts/slot_assigner.hpp>
#include <fairlead/core/contract.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Fill the slots in rank order: all replicas of expert 0, then all of expert 1, and so on; empty slots last.
///
/// The ranks of an expert are an interval (of the ranks that have slots), so few groups of ranks are needed to add up
/// gradients. Several replicas of an expert may share a rank. It looks at no load: made for replicas that are units of
/// capacity; where ranks must finish at the same time, pack by load.
/// @source{SYMI, section 4: replicas of an expert are placed contiguously}
struct contiguous_slots {
  /// @brief Fill the table.
  /// @param cluster the cluster
  /// @param load copies an expert, >= 0; decides only `value`. @shape{experts}
  /// @param replicas how many slots each expert gets, >= 0. @shape{experts}
  /// @param[out] slots expert of each slot. @shape{cluster.slots()}
  /// @param ws at least `workspace_bytes(cluster, experts)`
  /// @returns ok, `value` the largest load of a rank when replicas share evenly; `status::infeasible` with an empty table if
  ///          the replicas do not fit
  /// @throws contract_violation (level 1) on wrong sizes, (level 2) on negative numbers
  /// @complexity O(slots + experts + ranks) time, no allocation
  /// @determinism exact: equal on every rank
  report assign(topology const& cluster, std::span<index_t const> load, std::span<index_t const> replicas,
                std::span<expert_id> slots, workspace& ws) const {
    FAIRLEAD_EXPECTS(load.size() == replicas.size(), "one load and one count an expert", load.size(), replicas.size());
    FAIRLEAD_EXPECTS(static_cast<index_t>(slots.size()) == cluster.slots(), "the table has one entry a slot of the cluster",
                     slots.size(), cluster.slots());
    index_t total = 0;
    for (std::size_t e = 0; e < replicas.size(); ++e) {
      FAIRLEAD_EXPECTS_2(replicas[e] >= 0 && load[e] >= 0, "loads and counts must not be negative", e, replicas[e], load[e]);
      total += replicas[e];
    }
    if (total > cluster.slots()) {
      std::fill(slots.begin(), slots.end(), expert_id::none);
      return {.status = status::infeasible};
    }
    fill(replicas, slots);
    std::fill(slots.begin() + total, slots.end(), expert_id::none);
    return {.value = largest_rank_load(cluster, load, replicas, slots, total, ws)};
  }
  /// @param cluster not used
  /// @param experts number of experts
  /// @returns scratch bytes of `assign`
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    (void)cluster;
    return 2 * fairlead::workspace_bytes<double>(experts);
  }

 private:
  // Whole blocks that may reach into the slots of the next expert, which overwrites them: no remainder loop an expert.
  static void fill(std::span<index_t const> replicas, std::span<expert_id> slots) noexcept {
    constexpr index_t block = 16;
    index_t const last = static_cast<index_t>(slots.size()) - block;
    expert_id* const table = slots.data();
    index_t at = 0;
    for (std::size_t e = 0; e < replicas.size(); ++e) {
      auto const expert = static_cast<expert_id>(e);
      index_t const end = at + replicas[e];
      index_t slot = at;
      for (; slot < end && slot <= last; slot += block) { std::fill_n(table + slot, block, expert); }
      for (; slot < end; ++slot) { table[slot] = expert; }
      at = end;
    }
  }

  // The load in front of slot p is linear in p along an expert: one lookup at each end of a rank.
  static double largest_rank_load(topology const& cluster, std::span<index_t const> load, std::span<index_t const> replicas,
                                  std::span<expert_id const> slots, index_t total, workspace& ws) {
    if (total == 0) { return 0.0; }
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(load.size());
    auto const share = ws.take<double>(experts);   // load of a replica
    auto const origin = ws.take<double>(experts);  // load in front of slot 0, if the expert's line went on to there
    double before = 0.0;
    index_t first = 0;
    for (std::size_t e = 0; e < replicas.size(); ++e) {
      share[e] = static_cast<double>(load[e]) / static_cast<double>(std::max<index_t>(replicas[e], 1));
      origin[e] = before - share[e] * static_cast<double>(first);
      before += replicas[e] > 0 ? static_cast<double>(load[e]) : 0.0;
      first += replicas[e];
    }
    double largest = 0.0;
    double begin = 0.0;
    auto const offsets = cluster.slot_offsets();
    for (std::size_t rank = 1; rank < offsets.size(); ++rank) {
      index_t const slot = std::min(offsets[rank], total);
      // The line of the expert in front of the end meets that of the expert behind it there.
      auto const e = static_cast<std::size_t>(slots[static_cast<std::size_t>(slot > 0 ? slot - 1 : 0)]);
      double const end = slot > 0 ? origin[e] + share[e] * static_cast<double>(slot) : 0.0;
      largest = std::max(largest, end - begin);
      begin = end;
    }
    return largest;
  }
};
static_assert(slot_assigner<contiguous_slots>);

FAIRLEAD_NAMESPACE_END
