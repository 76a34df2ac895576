// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Move single experts between ranks, heaviest first, and only if that makes the busiest rank lighter.
#include <fairlead/concepts/planner.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/place/detail/slot_table.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Give each expert one place: heaviest first, to the least loaded rank with a free slot.
///
/// A permutation, no replicas: slots beyond the experts stay empty, and ranks may have any number of slots. When least
/// loaded ranks tie exactly and the expert's old rank is one of them, it stays there. The new table is taken only if
/// the largest load of a rank falls; else the one in use stays and the status is `no_improvement`. An expert that stays
/// on its rank keeps its slot. A table in use with replicas, or without some expert, is not kept: this planner cannot
/// make it.
/// @source{SmartMoE, online placement of its code}
struct lpt_permutation {
  /// How a scheduler has to read the replicas; there is one each.
  static constexpr replica_meaning meaning = replica_meaning::host;

  /// @brief Scratch that `plan` needs.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return 3 * fairlead::workspace_bytes<std::int32_t>(experts) +
           2 * fairlead::workspace_bytes<index_t>(cluster.ranks()) +
           fairlead::workspace_bytes<std::int32_t>(cluster.ranks()) +
           fairlead::workspace_bytes<std::int32_t>(cluster.slots());
  }

  /// @brief Place experts for expected loads.
  /// @param cluster the cluster
  /// @param load totals are looked at
  /// @param now the table in use, or empty. @shape{cluster.slots()}
  /// @param[out] next the new table. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns `value` the largest load of a rank, `bound` the larger of the mean and the heaviest expert. @unit{copies}
  /// @throws contract_violation (level 1) on a shape mismatch or a small workspace
  /// @complexity O(experts log experts + experts x (ranks + slots of a rank)), no allocation
  /// @determinism exact integers: equal on every rank
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now,
              std::span<expert_id> next, workspace& ws) const {
    detail::check_plan_arguments(cluster, load, now, next);
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(load.totals.size());
    std::fill(next.begin(), next.end(), expert_id::none);
    if (experts > cluster.slots()) { return {.status = status::infeasible}; }
    if (experts == 0) { return {}; }
    auto const order = ws.take<std::int32_t>(experts);
    auto const old_slot = ws.take<std::int32_t>(experts);
    auto const new_rank = ws.take<std::int32_t>(experts);
    auto const rank_load = ws.take<index_t>(cluster.ranks());
    auto const old_load = ws.take<index_t>(cluster.ranks());
    auto const left = ws.take<std::int32_t>(cluster.ranks());
    auto const rank_of = ws.take<std::int32_t>(cluster.slots());
    detail::fill_rank_of_slot(cluster, rank_of);
    // Whether the table in use is a permutation, and what its busiest rank carries.
    bool permutation = !now.empty();
    std::fill(old_slot.begin(), old_slot.end(), -1);
    std::fill(old_load.begin(), old_load.end(), 0);
    for (std::size_t slot = 0; slot < now.size(); ++slot) {
      if (now[slot] == expert_id::none) { continue; }
      index_t const e = to_index(now[slot]);
      if (e < 0 || e >= experts || old_slot[static_cast<std::size_t>(e)] >= 0) {
        permutation = false;
        continue;
      }
      old_slot[static_cast<std::size_t>(e)] = static_cast<std::int32_t>(slot);
      old_load[static_cast<std::size_t>(rank_of[slot])] += load.totals[static_cast<std::size_t>(e)];
    }
    permutation = permutation && std::find(old_slot.begin(), old_slot.end(), -1) == old_slot.end();

    index_t sum = 0;
    index_t heaviest = 0;
    for (std::size_t e = 0; e < order.size(); ++e) {
      order[e] = static_cast<std::int32_t>(e);
      sum += load.totals[e];
      heaviest = std::max(heaviest, load.totals[e]);
    }
    std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
      index_t const x = load.totals[static_cast<std::size_t>(a)];
      index_t const y = load.totals[static_cast<std::size_t>(b)];
      return x != y ? x > y : a < b;
    });
    std::fill(rank_load.begin(), rank_load.end(), 0);
    for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
      left[static_cast<std::size_t>(rank)] = static_cast<std::int32_t>(cluster.slots(rank));
    }
    for (std::int32_t const e : order) {
      index_t best = -1;
      for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
        auto const r = static_cast<std::size_t>(rank);
        if (left[r] > 0 && (best < 0 || rank_load[r] < rank_load[static_cast<std::size_t>(best)])) { best = rank; }
      }
      std::int32_t const was = old_slot[static_cast<std::size_t>(e)];
      if (was >= 0) {
        auto const home = static_cast<std::size_t>(rank_of[static_cast<std::size_t>(was)]);
        if (left[home] > 0 && rank_load[home] == rank_load[static_cast<std::size_t>(best)]) {
          best = static_cast<index_t>(home);
        }
      }
      new_rank[static_cast<std::size_t>(e)] = static_cast<std::int32_t>(best);
      rank_load[static_cast<std::size_t>(best)] += load.totals[static_cast<std::size_t>(e)];
      --left[static_cast<std::size_t>(best)];
    }
    index_t const hosts = cluster.hosting_ranks();
    report result{.iterations = experts,
                  .value = static_cast<double>(*std::max_element(rank_load.begin(), rank_load.end())),
                  .bound = static_cast<double>(std::max(heaviest, (sum + hosts - 1) / hosts))};
    if (permutation) {
      index_t const before = *std::max_element(old_load.begin(), old_load.end());
      if (static_cast<double>(before) <= result.value) {
        std::copy(now.begin(), now.end(), next.begin());
        result.status = status::no_improvement;
        result.value = static_cast<double>(before);
        return result;
      }
    }
    // Those who stay keep their slot; the others take the free slots of their rank in order.
    for (std::size_t e = 0; e < order.size(); ++e) {
      if (old_slot[e] >= 0 && rank_of[static_cast<std::size_t>(old_slot[e])] == new_rank[e]) {
        next[static_cast<std::size_t>(old_slot[e])] = static_cast<expert_id>(e);
      }
    }
    for (std::int32_t const e : order) {
      auto const i = static_cast<std::size_t>(e);
      if (old_slot[i] >= 0 && rank_of[static_cast<std::size_t>(old_slot[i])] == new_rank[i]) { continue; }
      auto slot = static_cast<std::size_t>(cluster.slot_offsets()[static_cast<std::size_t>(new_rank[i])]);
      while (next[slot] != expert_id::none) { ++slot; }
      next[slot] = static_cast<expert_id>(e);
    }
    return result;
  }
};
static_assert(load_planner<lpt_permutation>);
/// Starts from the table in use, and keeps it when nothing better is found.
template <>
inline constexpr bool incremental<lpt_permutation> = true;

FAIRLEAD_NAMESPACE_END
