// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Replicas in proportion to load with a floor for fault tolerance, from the least loaded expert upwards.
#include <fairlead/concepts/apportionment.hpp>
#include <fairlead/place/detail/counting.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Go through the experts by ascending load; each gets its share of the slots that are left, at least `least`.
///
/// With `least` replicas of every expert, on as many nodes, any least - 1 nodes may fail. Where slots do not suffice for
/// that, the floor is lowered to slots / experts, as the paper does with its threshold when nodes are lost. Counts do not
/// decrease in the order of the loads.
/// @source{Lazarus, equation 1; experts tie by ascending id, and no load at all means even counts: this library's choice}
struct sequential_quota {
  index_t least = 2;  ///< replicas that every expert gets if slots suffice, >= 1

  /// @param experts number of experts
  /// @param slots number of slots
  /// @returns the floor that applies: `least`, or what slots allow; 0 if slots < experts
  [[nodiscard]] constexpr index_t floor_of(index_t experts, index_t slots) const noexcept {
    return experts == 0 ? least : std::min(least, slots / experts);
  }
  /// @brief Decide the counts.
  /// @param load copies an expert, >= 0, adding up to less than 2^63. @shape{experts}
  /// @param slots slots to fill, < 2^31
  /// @param nodes not used
  /// @param[out] replicas counts that add up to `slots`, each >= `floor_of(experts, slots)`. @shape{experts}
  /// @param ws at least `workspace_bytes(experts, slots)`
  /// @returns ok, `value` the largest load of a replica; `status::infeasible` with zero counts if slots < experts
  /// @throws contract_violation (level 1) on wrong sizes or least < 1, (level 2) on bad loads
  /// @complexity O(experts log experts) time, no allocation
  /// @determinism exact integers: equal on every rank
  report apportion(std::span<index_t const> load, index_t slots, index_t nodes, std::span<index_t> replicas, workspace& ws) const {
    (void)nodes;
    FAIRLEAD_EXPECTS(least >= 1, "every expert needs at least one replica", least);
    auto const begun = detail::replica_counts::begin(load, slots, replicas);
    if (begun.settled) { return begun.ended; }
    workspace::scope const scope(ws);
    auto const order = ws.take<item>(static_cast<index_t>(load.size()));
    for (std::size_t e = 0; e < load.size(); ++e) { order[e] = {load[e], e}; }
    std::sort(order.begin(), order.end(), ascending{});
    index_t const floor = floor_of(static_cast<index_t>(load.size()), slots);
    index_t tail = begun.size.total;  // load of this expert and those behind it
    index_t left = slots;
    for (item const& next : order) {
      // tail is 0 only behind the last expert with load, and then there is none: ascending order puts zeros first.
      auto const share = static_cast<index_t>(static_cast<detail::replica_counts::wide>(next.load) * left / tail);
      index_t const count = std::max(share, floor);
      replicas[next.expert] = count;
      left -= count;
      tail -= next.load;
    }
    return {.value = detail::replica_counts::largest_share(load, replicas)};
  }
  /// @param experts number of experts
  /// @param slots not used
  /// @returns scratch bytes of `apportion`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t experts, index_t slots) const noexcept {
    (void)slots;
    return fairlead::workspace_bytes<item>(experts);
  }

 private:
  struct item {
    index_t load;
    std::size_t expert;
  };
  struct ascending {
    [[nodiscard]] bool operator()(item const& a, item const& b) const noexcept {
      return a.load != b.load ? a.load < b.load : a.expert < b.expert;
    }
  };
};
static_assert(apportionment<sequential_quota>);

FAIRLEAD_NAMESPACE_END
