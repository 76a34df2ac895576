// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Equally many replicas of every expert.
#include <fairlead/concepts/apportionment.hpp>
#include <fairlead/place/detail/counting.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Give every expert slots / experts replicas; the experts with the most load take what is left over, one each.
///
/// Looks at the load for the remainder only. Published planners define it only where experts divide slots, and lose this
/// candidate without a word elsewhere; the remainder rule is this library's choice.
/// @source{2602.11686, LAER-MoE, the candidate "even"; MicroMoE, symmetric placement}
struct even_replicas {
  /// @brief Decide the counts.
  /// @param load copies an expert, >= 0, adding up to less than 2^63. @shape{experts}
  /// @param slots slots to fill, < 2^31
  /// @param nodes not used
  /// @param[out] replicas counts that add up to `slots`, each >= 1. @shape{experts}
  /// @param ws not used
  /// @returns ok, `value` the largest load of a replica; `status::infeasible` with zero counts if slots < experts
  /// @throws contract_violation (level 1) on wrong sizes, (level 2) on bad loads
  /// @complexity O(experts log total) time, no allocation
  /// @determinism exact integers: equal on every rank
  report apportion(std::span<index_t const> load, index_t slots, index_t nodes, std::span<index_t> replicas, workspace& ws) const {
    (void)nodes;
    (void)ws;
    auto const begun = detail::replica_counts::begin(load, slots, replicas);
    if (begun.settled) { return begun.ended; }
    auto const experts = static_cast<index_t>(load.size());
    std::fill(replicas.begin(), replicas.end(), slots / experts);
    detail::replica_counts::step_largest(load, slots % experts, 1, replicas);
    return {.value = detail::replica_counts::largest_share(load, replicas)};
  }
  /// @param experts not used
  /// @param slots not used
  /// @returns 0
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t experts, index_t slots) const noexcept {
    (void)experts;
    (void)slots;
    return 0;
  }
};
static_assert(apportionment<even_replicas>);

FAIRLEAD_NAMESPACE_END
