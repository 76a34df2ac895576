// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The smallest largest load of a replica: each next replica goes to the expert with the most load per replica.
#include <fairlead/concepts/apportionment.hpp>
#include <fairlead/place/detail/growth.hpp>

#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Start with one replica each, and give each further one to the expert with the largest load / replicas.
///
/// No counts with the same sum have a smaller largest load of a replica: the one for replicas that share their expert's
/// load evenly, and the best start for flow schedulers. An expert without load keeps one replica. The result is that of
/// handing out one by one, but most are handed out at once: with t = total / budget, floor(load / t) quotients of an
/// expert are at or above t, and those of all experts fit the budget; a heap of the few experts that can still come gives
/// out the rest. Quotients are compared exactly, where EPLB compares them in fp32: its counts may differ on near ties.
/// @source{2602.11686, LAER-MoE, algorithm 4; EPLB, replicate_experts; MicroMoE, asymmetric placement}
struct greedy_max_replicas {
  /// @brief Decide the counts.
  /// @param load copies an expert, >= 0, adding up to less than 2^63. @shape{experts}
  /// @param slots slots to fill, < 2^31
  /// @param nodes not used
  /// @param[out] replicas counts that add up to `slots`, each >= 1. @shape{experts}
  /// @param ws at least `workspace_bytes(experts, slots)`
  /// @returns ok, `value` the largest load of a replica, which is the least possible; `status::infeasible` with zero counts if
  ///          slots < experts
  /// @throws contract_violation (level 1) on wrong sizes, (level 2) on bad loads
  /// @complexity O(experts log experts) time whatever the slots, no allocation
  /// @determinism exact integers: equal on every rank
  report apportion(std::span<index_t const> load, index_t slots, index_t nodes, std::span<index_t> replicas, workspace& ws) const {
    (void)nodes;
    report ended = detail::replica_counts::apportion_by<detail::replica_counts::by_replicas>(load, slots, replicas, ws);
    ended.bound = ended.value;
    return ended;
  }
  /// @param experts number of experts
  /// @param slots not used
  /// @returns scratch bytes of `apportion`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t experts, index_t slots) const noexcept {
    (void)slots;
    return detail::replica_counts::apportion_by_bytes(experts);
  }
};
static_assert(apportionment<greedy_max_replicas>);

FAIRLEAD_NAMESPACE_END
