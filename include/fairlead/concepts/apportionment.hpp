// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that decides how many replicas each expert gets.
#include <fairlead/core/report.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Decides how many replicas each expert gets.
///
/// Required of a model `rule`:
/// - `rule.apportion(load, slots, nodes, replicas, ws)`: load >= 0 and out `replicas` @shape{experts}; `nodes` is the number
///   of nodes that the slots are spread over, which most rules do not look at. Writes counts that sum to `slots` and are at
///   least 1. `status::infeasible`, with all counts zero, if slots < experts or the rule's own floor does not fit; zero
///   experts with zero slots are ok. No load at all is legal: counts then differ by at most one.
/// - `rule.workspace_bytes(experts, slots)`: scratch it needs; the call allocates nothing.
/// - Integer arithmetic and ties to the lowest expert: the result is equal on every rank.
/// @complexity stated by each model
template <class Rule>
concept apportionment = requires(Rule const& rule, std::span<index_t const> load, index_t size, std::span<index_t> replicas,
                                 workspace& ws) {
  { rule.apportion(load, size, size, replicas, ws) } -> std::same_as<report>;
  { rule.workspace_bytes(size, size) } -> std::convertible_to<std::size_t>;
};

FAIRLEAD_NAMESPACE_END
