// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Replicas of an expert on distinct ranks wherever that is possible, after any assigner or planner.
#include <fairlead/concepts/planner.hpp>
#include <fairlead/concepts/slot_assigner.hpp>
#include <fairlead/place/detail/hosting_ranks.hpp>
#include <fairlead/place/detail/separate_repeats.hpp>
#include <fairlead/place/slot_mapping.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Let another component fill the slots, then part replicas of an expert that met on a rank.
///
/// A second replica on a rank holds the same weights again: memory for nothing where a scheduler shares an expert's load
/// among ranks, and a single failure takes both. Each is exchanged with a replica, or an empty slot, of the rank that keeps
/// the heavier of the two lightest; where no single exchange does, replicas move along a chain of ranks. Numbers of replicas
/// stay. If any table of these numbers has no repeat, neither has the result (with `exchange_scope::node`: any table that
/// keeps to the same node what is there); else some stay, and `report::iterations` counts them.
/// @tparam Inner a `slot_assigner` or a `load_planner`, e.g. `spread_greedy` or `balanced_hierarchy`
template <class Inner>
struct distinct_ranks {
  static_assert(slot_assigner<Inner> || load_planner<Inner>,
                "distinct_ranks wraps a slot_assigner or a load_planner (concepts/slot_assigner.hpp, concepts/planner.hpp)");

  Inner inner{};                                   ///< fills the slots
  exchange_scope scope = exchange_scope::cluster;  ///< `node`: every replica stays on its node, groups of experts with it

  /// What a second replica is good for: as a planner inside means it.
  static constexpr replica_meaning meaning = [] {
    if constexpr (load_planner<Inner>) { return Inner::meaning; }
    return replica_meaning::equal_share;
  }();

  /// @brief Assign the replicas to slots.
  /// @param cluster the cluster
  /// @param load copies an expert, >= 0, adding up to less than 2^62. @shape{experts}
  /// @param replicas replicas an expert, >= 0. @shape{experts}
  /// @param[out] slots expert of each slot. @shape{cluster.slots()}
  /// @param ws at least `workspace_bytes(cluster, experts)`
  /// @returns status and bound of the assigner inside; `value` the largest load of a rank under equal shares, `iterations`
  ///          the slots whose expert the rank has already
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity that of the assigner, then O(repeats x slots x ranks x slots of a rank) at the worst, no allocation
  /// @determinism exact if the assigner is; ties: lowest slot
  report assign(topology const& cluster, std::span<index_t const> load, std::span<index_t const> replicas,
                std::span<expert_id> slots, workspace& ws) const
    requires slot_assigner<Inner>
  {
    return part(cluster, load, slots, inner.assign(cluster, load, replicas, slots, ws), ws);
  }

  /// @brief Plan the slots.
  /// @param cluster the cluster
  /// @param load what the planner inside needs
  /// @param now the table in use, or empty. @shape{cluster.slots()}
  /// @param[out] next the new table. @shape{cluster.slots()}
  /// @param ws at least `workspace_bytes(cluster, experts)`
  /// @returns status of the planner inside; `value` the largest load of a rank under equal shares, `bound` the mean load of
  ///          ranks with slots, `iterations` the slots whose expert the rank has already
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity that of the planner, then as `assign`
  /// @determinism exact if the planner is; ties: lowest slot
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now, std::span<expert_id> next,
              workspace& ws) const
    requires load_planner<Inner>
  {
    report ended = inner.plan(cluster, load, now, next, ws);
    ended.bound = detail::mean_share(cluster, load.totals);
    return part(cluster, load.totals, next, ended, ws);
  }

  /// @brief Scratch of `assign` or `plan`.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return std::max({static_cast<std::size_t>(inner.workspace_bytes(cluster, experts)),
                     detail::repeat_separator::bytes(cluster, experts), fairlead::workspace_bytes<index_t>(experts)});
  }

 private:
  report part(topology const& cluster, std::span<index_t const> load, std::span<expert_id> slots, report ended,
              workspace& ws) const {
    if (ended.status == status::infeasible || ended.status == status::unsupported) { return ended; }
    {
      workspace::scope const undo(ws);
      detail::repeat_separator table(cluster, load, slots, scope == exchange_scope::node, ws);
      ended.iterations = table.run();
    }
    workspace::scope const undo(ws);
    ended.value = detail::largest_share(cluster, load, slots, ws.take<index_t>(static_cast<index_t>(load.size())));
    ended.bound = std::min(ended.bound, ended.value);
    return ended;
  }
};

FAIRLEAD_NAMESPACE_END
