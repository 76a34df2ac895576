// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Replicas in proportion to load, at least one each: floors first, largest remainders next.
#include <fairlead/concepts/apportionment.hpp>
#include <fairlead/place/detail/counting.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Give each expert its share of the slots, rounded down but at least one, and settle the difference by remainders.
///
/// An expert's goal is load / total x slots. Its count starts at max(1, floor(goal)). While counts add up to too few, the
/// expert furthest below its goal gets one more; while they add up to too many, the expert furthest above gives one up,
/// unless it has only one: then its distance still counts as one less, and the next is asked. Right where replicas are
/// units of capacity: places follow demand. Where replicas share load evenly, `greedy_max_replicas` has the smaller
/// largest share.
///
/// The loops of the paper are not run: after every expert with a goal below one has been refused once, all distances lie
/// in one interval of length one, so each further round asks every expert exactly once, in the order of the remainders.
/// Whole rounds are therefore subtracted at once, and the last, incomplete one is a selection.
/// @source{SYMI, algorithm 1; ties to the lowest expert, no load at all and too few slots are not in the paper}
struct largest_remainder {
  /// @brief Decide the counts.
  /// @param load copies an expert, >= 0, adding up to less than 2^63. @shape{experts}
  /// @param slots slots to fill, < 2^31
  /// @param nodes not used
  /// @param[out] replicas counts that add up to `slots`, each >= 1. @shape{experts}
  /// @param ws at least `workspace_bytes(experts, slots)`
  /// @returns ok, `value` the largest load of a replica; `status::infeasible` with zero counts if slots < experts
  /// @throws contract_violation (level 1) on wrong sizes, (level 2) on bad loads
  /// @complexity O(experts log total) time, O(experts sqrt(experts)) more where few experts have most of the load; no
  ///             allocation
  /// @determinism exact integers: equal on every rank
  report apportion(std::span<index_t const> load, index_t slots, index_t nodes, std::span<index_t> replicas, workspace& ws) const {
    (void)nodes;
    auto const begun = detail::replica_counts::begin(load, slots, replicas);
    if (begun.settled) { return begun.ended; }
    workspace::scope const scope(ws);
    auto const keys = ws.take<index_t>(static_cast<index_t>(load.size()));
    index_t const total = begun.size.total;
    detail::replica_counts::divide<true>(load, begun.size, slots, replicas.data(), keys.data());
    index_t floors = 0;
    for (index_t const count : replicas) { floors += std::max<index_t>(count, 1); }
    index_t steps = 0;
    if (floors <= slots) {
      for (std::size_t e = 0; e < keys.size(); ++e) {
        keys[e] = replicas[e] > 0 ? keys[e] : -1;  // a goal below one is exceeded already
        replicas[e] = std::max<index_t>(replicas[e], 1);
      }
      steps = slots - floors;
      detail::replica_counts::step_largest(keys, steps, 1, replicas);
    } else {
      for (index_t& count : replicas) { count = std::max<index_t>(count, 1); }
      steps = floors - slots;
      index_t const left = whole_rounds(steps, replicas);
      for (std::size_t e = 0; e < keys.size(); ++e) { keys[e] = replicas[e] > 1 ? total - 1 - keys[e] : -1; }
      detail::replica_counts::step_largest(keys, left, -1, replicas);
    }
    return {.iterations = steps, .value = detail::replica_counts::largest_share(load, replicas)};
  }
  /// @param experts number of experts
  /// @param slots not used
  /// @returns scratch bytes of `apportion`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t experts, index_t slots) const noexcept {
    (void)slots;
    return fairlead::workspace_bytes<index_t>(experts);
  }

 private:
  // Takes one from every count above one, as often as `excess` has room for a whole round; returns what is left of it.
  // Rounds between two changes of the set are taken at once, so that there are at most sqrt(2 excess) passes.
  static index_t whole_rounds(index_t excess, std::span<index_t> replicas) noexcept {
    for (;;) {
      index_t givers = 0;
      index_t least = detail::replica_counts::most_slots;
      for (index_t const count : replicas) {
        givers += count > 1 ? 1 : 0;
        least = std::min(least, count > 1 ? count - 1 : detail::replica_counts::most_slots);
      }
      if (excess < givers || givers == 0) { return excess; }
      index_t const rounds = std::min(least, excess / givers);
      for (index_t& count : replicas) { count -= count > 1 ? rounds : 0; }
      excess -= rounds * givers;
    }
  }
};
static_assert(apportionment<largest_remainder>);

FAIRLEAD_NAMESPACE_END
