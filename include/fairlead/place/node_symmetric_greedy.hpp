// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Replicas by load, in steps of one on each node as soon as an expert has one on each.
#include <fairlead/concepts/apportionment.hpp>
#include <fairlead/place/detail/growth.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Like `greedy_max_replicas`, but an expert with a replica on each node grows by one on each node.
///
/// Starts with one replica a node where that fits, else with one. With whole replicas a node, routing inside nodes is
/// the same on every node. Slots that whole steps leave over go to the largest load per replica, one by one: the
/// published code leaves them to chance (its loop ends with an empty heap). If nodes x experts = slots there is no choice
/// left, and the counts are even: try `greedy_max_replicas` as well.
/// @source{2602.11686, LAER-MoE, the allocator of its code (allocate_expert_replicas_precise); the fill of leftover slots is
/// this library's choice}
struct node_symmetric_greedy {
  /// @brief Decide the counts.
  /// @param load copies an expert, >= 0, adding up to less than 2^63. @shape{experts}
  /// @param slots slots to fill, < 2^31
  /// @param nodes number of nodes that the slots are spread over; less than 1 counts as 1
  /// @param[out] replicas counts that add up to `slots`, each >= 1. @shape{experts}
  /// @param ws at least `workspace_bytes(experts, slots)`
  /// @returns ok, `value` the largest load of a replica; `status::infeasible` with zero counts if slots < experts
  /// @throws contract_violation (level 1) on wrong sizes, (level 2) on bad loads
  /// @complexity O(experts log experts) time where nodes x experts <= slots, else O(slots log experts); no allocation
  /// @determinism exact integers: equal on every rank
  report apportion(std::span<index_t const> load, index_t slots, index_t nodes, std::span<index_t> replicas, workspace& ws) const {
    namespace counting = detail::replica_counts;
    counting::start const begun = counting::begin(load, slots, replicas);
    if (begun.settled) { return begun.ended; }
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(load.size());
    auto const candidates = ws.take<counting::candidate>(experts);
    index_t const step = std::max<index_t>(nodes, 1);
    if (slots / step >= experts) {
      // Everybody has one on each node: whole steps are the plain rule with `step` slots as one.
      auto const trial = ws.take<index_t>(experts);
      (void)counting::hand_out<counting::by_replicas>(load, begun.size, slots / step - experts, counting::no_limit, replicas, trial, candidates);
      for (index_t& count : replicas) { count *= step; }
      if (slots % step > 0) {
        counting::gather(load, replicas, candidates);
        (void)counting::grow<counting::by_replicas>(candidates, slots % step);
        counting::scatter(candidates, replicas);
      }
    } else {
      // Nobody has to leave the heap for good: somebody is below one a node as long as slots are left.
      std::fill(replicas.begin(), replicas.end(), index_t{1});
      counting::gather(load, replicas, candidates);
      if (counting::by_replicas::fits(begun.size.largest, slots)) {
        grow_in_steps(candidates, slots - experts, step, counting::preferred<counting::by_replicas, true>{});
      } else {
        grow_in_steps(candidates, slots - experts, step, counting::preferred<counting::by_replicas, false>{});
      }
      counting::scatter(candidates, replicas);
    }
    return {.value = counting::largest_share(load, replicas)};
  }
  /// @param experts number of experts
  /// @param slots not used
  /// @returns scratch bytes of `apportion`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t experts, index_t slots) const noexcept {
    (void)slots;
    return detail::replica_counts::apportion_by_bytes(experts);
  }

 private:
  // One replica below one a node, `step` replicas from there on; whoever cannot grow any more leaves the heap.
  template <class Order>
  static void grow_in_steps(std::span<detail::replica_counts::candidate> heap, index_t budget, index_t step, Order before) noexcept {
    detail::replica_counts::build(heap, before);
    while (budget > 0 && !heap.empty()) {
      detail::replica_counts::candidate top = heap.front();
      index_t const more = top.replicas >= step ? step : 1;
      if (more <= budget) {
        budget -= more;
        top.replicas += more;
        detail::replica_counts::sink(heap, 0, top, before);
      } else {
        detail::replica_counts::candidate const last = heap.back();
        heap.back() = top;
        heap = heap.first(heap.size() - 1);
        if (!heap.empty()) { detail::replica_counts::sink(heap, 0, last, before); }
      }
    }
  }
};
static_assert(apportionment<node_symmetric_greedy>);

FAIRLEAD_NAMESPACE_END
