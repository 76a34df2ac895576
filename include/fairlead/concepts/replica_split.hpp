// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concepts of the two halves of a token scheduler: how much each replica gets, and from which ranks.
#include <fairlead/core/load.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/core/token_schedule.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Decides how many copies each replica gets, whatever rank they come from.
///
/// Required of a model `rule`:
/// - `rule.split(totals, where, shares, ws)`: totals >= 0, < 2^31 each @shape{experts}; out `shares`
///   @shape{where.replicas()}, the columns of a `token_schedule`. The shares of an expert are >= 0 and sum to its total.
///   `status::lost_expert`, with all shares zero, if an expert with load has no replica. `value` is the largest number of
///   copies of a rank, `bound` a lower bound on it where the rule has one.
/// - `rule.workspace_bytes(where)`: scratch it needs; the call allocates nothing.
/// - Equal arguments give equal shares, on every rank.
template <class Rule>
concept replica_split = requires(Rule const& rule, std::span<index_t const> totals, placement const& where,
                                 std::span<count_t> shares, workspace& ws) {
  { rule.split(totals, where, shares, ws) } -> std::same_as<report>;
  { rule.workspace_bytes(where) } -> std::convertible_to<std::size_t>;
};

/// @brief Decides which source ranks feed which replica, once each replica's number of copies is known.
///
/// Required of a model `rule`:
/// - `rule.route(load, where, shares, out, ws)`: load @shape{ranks x experts}, shares as above with column sums of the load;
///   out @shape{ranks x where.replicas()} with rows that sum to the load and columns that sum to the shares. `value` is the
///   number of copies that stay on their rank.
/// - `rule.workspace_bytes(where)`: scratch it needs; the call allocates nothing.
template <class Rule>
concept source_router = requires(Rule const& rule, load_view load, placement const& where, std::span<count_t const> shares,
                                 token_schedule_view out, workspace& ws) {
  { rule.route(load, where, shares, out, ws) } -> std::same_as<report>;
  { rule.workspace_bytes(where) } -> std::convertible_to<std::size_t>;
};

/// @brief Stated: the largest load of a rank is the least possible, and `bound` proves it.
template <class Rule>
inline constexpr bool optimal_split = false;

/// @brief Stated by a `source_router`: as many copies stay on their rank as load and shares allow.
template <class Rule>
inline constexpr bool keeps_local = false;

FAIRLEAD_NAMESPACE_END
