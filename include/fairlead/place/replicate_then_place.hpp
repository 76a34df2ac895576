// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A planner made of two decisions: how many replicas each expert gets, then where they sit.
#include <fairlead/concepts/apportionment.hpp>
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/planner.hpp>
#include <fairlead/concepts/slot_assigner.hpp>
#include <fairlead/place/contiguous_slots.hpp>
#include <fairlead/place/detail/hosting_ranks.hpp>
#include <fairlead/place/largest_remainder.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Stated by a rule for numbers of replicas: what it takes a second replica for. Specialise it beside a rule of
/// your own; an equal share of the expert's load unless stated.
template <class Apportionment>
inline constexpr replica_meaning apportioned_meaning = replica_meaning::equal_share;
/// Counts in proportion to load are counts of places.
template <>
inline constexpr replica_meaning apportioned_meaning<largest_remainder> = replica_meaning::capacity_unit;

/// @brief Decide the numbers of replicas, then assign all slots; the table in use plays no part.
///
/// The two decisions are made apart, so the pair is not a joint optimum even where each part is one. The rule sees the
/// number of nodes that have slots.
/// @tparam Apportionment how many replicas (`apportionment`)
/// @tparam Assigner where they sit (`slot_assigner`)
/// @tparam Meaning what a second replica is good for; the schedulers that follow must take it for the same. Give
/// `replica_meaning::host` to let a flow decide the shares, but mind that an assigner may put two replicas on one rank
template <class Apportionment, class Assigner, replica_meaning Meaning = apportioned_meaning<Apportionment>>
struct replicate_then_place {
  static_assert(apportionment<Apportionment>, "the first template argument must model fairlead::apportionment "
                                              "(concepts/apportionment.hpp), e.g. fairlead::greedy_max_replicas");
  static_assert(slot_assigner<Assigner>, "the second template argument must model fairlead::slot_assigner "
                                         "(concepts/slot_assigner.hpp), e.g. fairlead::contiguous_slots");

  Apportionment replicate{};  ///< how many replicas
  Assigner place{};           ///< where they sit

  static constexpr replica_meaning meaning = Meaning;  ///< what a second replica is good for

  /// @brief Plan a slot table.
  /// @param cluster the cluster
  /// @param load what is expected; only `totals` is looked at
  /// @param now not used
  /// @param[out] next expert of each slot; no slot stays empty. @shape{cluster.slots()}
  /// @param ws at least `workspace_bytes(cluster, experts)`
  /// @returns what the assigner says: `value` is the largest load of a rank when replicas share evenly;
  ///          `status::infeasible`, with all slots none, if the rule or the assigner finds no room
  /// @throws contract_violation (level 1) on wrong sizes, (level 2) on bad loads
  /// @complexity that of both parts, and O(nodes); no allocation
  /// @determinism equal on every rank, like the parts
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now, std::span<expert_id> next,
              workspace& ws) const {
    (void)now;
    FAIRLEAD_EXPECTS(static_cast<index_t>(next.size()) == cluster.slots(), "the table has one entry a slot of the cluster",
                     next.size(), cluster.slots());
    workspace::scope const scope(ws);
    if (load.totals.empty()) {  // no expert, nothing to place: slots may stay empty then
      std::fill(next.begin(), next.end(), expert_id::none);
      return {};
    }
    auto const replicas = ws.take<index_t>(static_cast<index_t>(load.totals.size()));
    report const counted = replicate.apportion(load.totals, cluster.slots(), detail::nodes_with_slots(cluster), replicas, ws);
    if (counted.status == status::infeasible || counted.status == status::unsupported) {
      std::fill(next.begin(), next.end(), expert_id::none);
      return {.status = counted.status};
    }
    return place.assign(cluster, load.totals, replicas, next, ws);
  }
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns scratch bytes of `plan`
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return fairlead::workspace_bytes<index_t>(experts) +
           std::max<std::size_t>(replicate.workspace_bytes(experts, cluster.slots()), place.workspace_bytes(cluster, experts));
  }
};

/// Replicas side by side: the ranks of an expert are neighbours among the ranks with slots.
template <class Apportionment, replica_meaning Meaning>
inline constexpr bool hosts_are_intervals<replicate_then_place<Apportionment, contiguous_slots, Meaning>> = true;

/// @brief Places in proportion to load, expert after expert: replicas as units of capacity.
/// @source{SYMI, algorithm 1 and its placement}
using proportional_in_order = replicate_then_place<largest_remainder, contiguous_slots>;
static_assert(load_planner<proportional_in_order>);
static_assert(proportional_in_order::meaning == replica_meaning::capacity_unit && hosts_are_intervals<proportional_in_order>);

FAIRLEAD_NAMESPACE_END
