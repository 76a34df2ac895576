// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Two classical divisor rules with at least one replica each: Webster, and Huntington and Hill.
#include <fairlead/concepts/apportionment.hpp>
#include <fairlead/place/detail/growth.hpp>

#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Webster's rule: each next replica goes to the largest load / (replicas + 1/2).
///
/// Counts are shares rounded to the nearest whole number, for a common divisor; no systematic favour to experts with
/// little or much load. Between `largest_remainder` and `greedy_max_replicas`: unlike the first it never takes a replica
/// away when slots are added.
/// @source{balinski1982, chapter on divisor methods; at least one each is this library's choice, as in every rule here}
struct webster_replicas {
  /// @brief Decide the counts.
  /// @param load copies an expert, >= 0, adding up to less than 2^63. @shape{experts}
  /// @param slots slots to fill, < 2^31
  /// @param nodes not used
  /// @param[out] replicas counts that add up to `slots`, each >= 1. @shape{experts}
  /// @param ws at least `workspace_bytes(experts, slots)`
  /// @returns ok, `value` the largest load of a replica; `status::infeasible` with zero counts if slots < experts
  /// @throws contract_violation (level 1) on wrong sizes, (level 2) on bad loads
  /// @complexity O(experts log experts) time whatever the slots, no allocation
  /// @determinism exact integers: equal on every rank
  report apportion(std::span<index_t const> load, index_t slots, index_t nodes, std::span<index_t> replicas, workspace& ws) const {
    (void)nodes;
    return detail::replica_counts::apportion_by<detail::replica_counts::by_half_steps>(load, slots, replicas, ws);
  }
  /// @param experts number of experts
  /// @param slots not used
  /// @returns scratch bytes of `apportion`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t experts, index_t slots) const noexcept {
    (void)slots;
    return detail::replica_counts::apportion_by_bytes(experts);
  }
};
static_assert(apportionment<webster_replicas>);

/// @brief The rule of Huntington and Hill: each next replica goes to the largest load / sqrt(replicas (replicas + 1)).
///
/// No move of one replica from an expert to another makes their loads per replica more alike, measured by their ratio.
/// Squares are compared, exactly: no root and no rounding.
/// @source{balinski1982, chapter on divisor methods}
struct huntington_hill_replicas {
  /// @brief Decide the counts.
  /// @param load copies an expert, >= 0, adding up to less than 2^63. @shape{experts}
  /// @param slots slots to fill, < 2^31
  /// @param nodes not used
  /// @param[out] replicas counts that add up to `slots`, each >= 1. @shape{experts}
  /// @param ws at least `workspace_bytes(experts, slots)`
  /// @returns ok, `value` the largest load of a replica; `status::infeasible` with zero counts if slots < experts
  /// @throws contract_violation (level 1) on wrong sizes, (level 2) on bad loads
  /// @complexity O(experts log experts) time whatever the slots, no allocation; loads x slots >= 2^63 compare more slowly
  /// @determinism exact integers: equal on every rank
  report apportion(std::span<index_t const> load, index_t slots, index_t nodes, std::span<index_t> replicas, workspace& ws) const {
    (void)nodes;
    return detail::replica_counts::apportion_by<detail::replica_counts::by_geometric_mean>(load, slots, replicas, ws);
  }
  /// @param experts number of experts
  /// @param slots not used
  /// @returns scratch bytes of `apportion`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t experts, index_t slots) const noexcept {
    (void)slots;
    return detail::replica_counts::apportion_by_bytes(experts);
  }
};
static_assert(apportionment<huntington_hill_replicas>);

FAIRLEAD_NAMESPACE_END
