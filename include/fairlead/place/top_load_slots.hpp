// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief One replica each, and all further ones for the few experts with the most load.
#include <fairlead/concepts/apportionment.hpp>
#include <fairlead/place/detail/growth.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Give the slots beyond one an expert to the `most` experts with the largest load, at most `per_expert` replicas each.
///
/// With `per_expert` the number of ranks, and `most` the copies that a step can hide (`overlap_degree` in
/// `fairlead/cluster/overlap.hpp`): if every one of them fits on every rank, that is what they get; else they share the slots
/// by load, the next replica always to the largest load per replica. Slots that they cannot take go to the other experts in
/// the same way, and only when every expert has `per_expert` replicas, beyond that.
/// @source{Hecate, section on sparse materialisation; that the shares are by load per replica, and what happens to slots
/// left over, is this library's choice}
struct top_load_slots {
  index_t most = 1;        ///< experts that get more than one replica first, >= 0
  index_t per_expert = 0;  ///< replicas that make sense, the number of ranks; 0 = no limit

  /// @brief Decide the counts.
  /// @param load copies an expert, >= 0, adding up to less than 2^63. @shape{experts}
  /// @param slots slots to fill, < 2^31
  /// @param nodes not used
  /// @param[out] replicas counts that add up to `slots`, each >= 1. @shape{experts}
  /// @param ws at least `workspace_bytes(experts, slots)`
  /// @returns ok, `value` the largest load of a replica; `status::infeasible` with zero counts if slots < experts
  /// @throws contract_violation (level 1) on wrong sizes or negative fields, (level 2) on bad loads
  /// @complexity O(experts log experts) time while `per_expert` limits nobody, at most O((experts + slots) log experts); no
  ///             allocation
  /// @determinism exact integers: equal on every rank
  report apportion(std::span<index_t const> load, index_t slots, index_t nodes, std::span<index_t> replicas, workspace& ws) const {
    (void)nodes;
    namespace counting = detail::replica_counts;
    FAIRLEAD_EXPECTS(most >= 0 && per_expert >= 0, "numbers of experts and replicas must not be negative", most, per_expert);
    counting::start const begun = counting::begin(load, slots, replicas);
    if (begun.settled) { return begun.ended; }
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(load.size());
    auto const flags = ws.take<index_t>(experts);
    auto const loads = ws.take<index_t>(experts);
    auto const counts = ws.take<index_t>(experts);
    auto const trial = ws.take<index_t>(experts);
    auto const candidates = ws.take<counting::candidate>(experts);
    std::fill(flags.begin(), flags.end(), index_t{0});
    counting::step_largest(load, std::min(most, experts), 1, flags);
    index_t const limit = per_expert == 0 ? counting::no_limit : per_expert;
    index_t left = slots - experts;
    for (index_t const group : {1, 0}) {  // the busiest first; in the order of ids, which decide ties
      std::size_t size = 0;
      for (std::size_t e = 0; e < load.size(); ++e) {
        if (flags[e] == group) { loads[size++] = load[e]; }
      }
      std::span<index_t const> const members = loads.first(size);
      left = counting::hand_out<counting::by_replicas>(members, counting::measure(members), left, limit, counts.first(size),
                                                       trial.first(size), candidates.first(size));
      std::size_t next = 0;
      for (std::size_t e = 0; e < load.size(); ++e) {
        if (flags[e] == group) { replicas[e] = counts[next++]; }
      }
    }
    if (left > 0) {
      counting::gather(load, replicas, candidates);
      (void)counting::grow<counting::by_replicas>(candidates, left);
      counting::scatter(candidates, replicas);
    }
    return {.value = counting::largest_share(load, replicas)};
  }
  /// @param experts number of experts
  /// @param slots not used
  /// @returns scratch bytes of `apportion`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t experts, index_t slots) const noexcept {
    (void)slots;
    return 4 * fairlead::workspace_bytes<index_t>(experts) + fairlead::workspace_bytes<detail::replica_counts::candidate>(experts);
  }
};
static_assert(apportionment<top_load_slots>);

FAIRLEAD_NAMESPACE_END
