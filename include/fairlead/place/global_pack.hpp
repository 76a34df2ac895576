// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Replicate the hottest experts, then pack replicas by descending load into the lightest rank.
#include <fairlead/concepts/planner.hpp>
#include <fairlead/place/detail/share_plan.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Plan from loads alone: replicas where the load a replica is largest, each replica to the lightest rank with
/// room.
///
/// The first choice where every rank can reach every other at about equal cost. Numbers of replicas minimise the
/// largest load of a replica; the packing is the longest-processing-time rule with a limit of slots on each rank. Loads
/// are compared exactly, as integers: proportional loads give equal plans. Nodes are not looked at, the table in use
/// neither.
///
/// Every slot is filled (unless `repeats` forbids it). Ranks may have any number of slots, or none. If each rank that
/// has slots has exactly one, replicas are not packed but placed in the order of their numbers, as EPLB does. Without
/// any load numbers of replicas differ by at most one; EPLB gives all spare replicas to the first expert then.
///
/// report: `value` the largest load of a rank when replicas take equal shares; `bound` the larger of the mean load of
/// ranks that have slots and the smallest possible largest load of a replica, which no plan for these slots can beat;
/// `iterations` the number of slots whose expert the rank has already.
/// @source{EPLB, rebalance_experts with one group}
struct global_pack {
  /// What a second replica is good for.
  static constexpr replica_meaning meaning = replica_meaning::equal_share;
  /// Whether a rank may hold two replicas of one expert.
  repeats_on_a_rank repeats = repeats_on_a_rank::allowed;

  /// @brief Place experts for the loads that are expected.
  /// @param cluster the cluster
  /// @param load loads; only `totals` is read. @unit{copies}
  /// @param now not looked at
  /// @param[out] next expert of each slot. @shape{cluster.slots()}
  /// @param ws scratch of `workspace_bytes(cluster, experts)`
  /// @returns how it ended
  /// @pre next has a place for each slot, fewer than 2^31 of them (level 1); loads are not negative and their sum is
  /// below
  ///      2^62 (level 2)
  /// @complexity O(experts log experts + slots log ranks), no allocation; `repeats` other than allowed: up to
  ///             O(slots x slots)
  /// @determinism exact: equal on every rank
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now,
              std::span<expert_id> next, workspace& ws) const {
    static_cast<void>(now);
    auto const experts = static_cast<index_t>(load.totals.size());
    FAIRLEAD_EXPECTS(static_cast<index_t>(next.size()) == cluster.slots() && cluster.slots() < INT32_MAX,
                     "the table needs a place for each slot", next.size(), cluster.slots());
    std::fill(next.begin(), next.end(), expert_id::none);
    if (experts > cluster.slots()) { return {status::infeasible, 0, 0.0, 0.0}; }
    if (experts == 0) { return {}; }
    workspace::scope const rewind(ws);
    detail::packing::packing_scratch const s(experts, cluster.slots(), cluster.ranks(), ws);
    auto const n = static_cast<std::uint32_t>(experts);
    std::uint64_t const total = detail::packing::copy_loads(load.totals, s.given);
    std::uint32_t const ranks = detail::packing::list_bins(cluster, 0, cluster.ranks(), s.bins);
    auto const part = detail::packing::plan_part(s, n, ranks, total, repeats);
    std::uint32_t const repeated = detail::packing::write_slots(
        s, n, ranks, next, [](std::uint32_t item) { return static_cast<expert_id>(item); });
    return {
        status::ok, static_cast<index_t>(repeated), part.value,
        std::min(part.value, std::max(part.largest_share, static_cast<double>(total) / static_cast<double>(ranks)))};
  }

  /// @brief Scratch that `plan` takes.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  /// @complexity O(1)
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return detail::packing::packing_scratch::bytes(experts, cluster.slots(), cluster.ranks());
  }
};
static_assert(load_planner<global_pack>);

FAIRLEAD_NAMESPACE_END
