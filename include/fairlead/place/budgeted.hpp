// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Bound how many experts a planner may move at a time.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/planner.hpp>
#include <fairlead/place/detail/budget.hpp>
#include <fairlead/place/slot_mapping.hpp>

#include <algorithm>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief A planner that goes towards another planner's proposal, at most `max_moves` fetched experts at a time.
///
/// The proposal is fitted to the table in use first. If all of it fits into the budget and makes loads more even, it is
/// taken as it is. Else single slots change, best first: a slot takes the expert that the proposal wants there, if the
/// old one has another replica, or changes places with a slot that holds it. A step may raise no rank above the largest
/// load; among those that are left the one is taken by which the sum of squared rank loads falls most per fetch. If
/// there is none the table in use stays. Loads are those of equal shares, load / replicas: a scheduler that splits
/// better does better with either table. Every table on the way hosts every expert.
///
/// An expert that the table in use has lost is placed first, from the budget, and beyond it if it has to be: a plan
/// without it would be invalid. Without a table in use there is no bound, and the proposal is the plan.
/// @tparam Planner a load_planner
/// @tparam Mapper a slot_mapper that fits the proposal to the table in use
template <class Planner, class Mapper = min_cost_mapping>
struct budgeted {
  static constexpr replica_meaning meaning = Planner::meaning;  ///< as the planner means it
  Planner planner{};                                            ///< makes the proposals
  index_t max_moves = 0;                                        ///< experts that may be fetched a plan, >= 0
  Mapper mapper{};                                              ///< fits them to the table in use

  /// @brief Plan a bounded step.
  /// @param cluster the cluster
  /// @param load what the planner needs
  /// @param now the table in use, or empty. @shape{cluster.slots()}
  /// @param[out] next the new table. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns `iterations` = experts fetched, `value` = largest load of a rank with equal shares, `bound` = mean load
  ///          of a rank with slots; `status::no_improvement` if the table in use stays; what the planner says if it
  ///          fails
  /// @throws contract_violation (level 1) on a shape mismatch or a negative budget
  /// @complexity that of the planner and the mapper, then O(max_moves x slots x replicas) time, O(slots) scratch, no
  ///             allocation
  /// @determinism exact integers; ties: lowest slot
  /// @source{vLLM, bounded swaps of its load balancer}
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now,
              std::span<expert_id> next, workspace& ws) const {
    static_assert(load_planner<Planner>, "budgeted wraps a load_planner (concepts/planner.hpp)");
    static_assert(slot_mapper<Mapper>, "the mapper must be a slot_mapper (concepts/slot_mapper.hpp)");
    FAIRLEAD_EXPECTS(max_moves >= 0, "the number of moves must not be negative", max_moves);
    FAIRLEAD_EXPECTS(static_cast<index_t>(next.size()) == cluster.slots() && (now.empty() || now.size() == next.size()),
                     "both tables need one entry a slot of the cluster", next.size(), now.size(), cluster.slots());
    workspace::scope const undo(ws);
    std::span<expert_id> const wanted = ws.take<expert_id>(cluster.slots());
    report const proposed = propose(cluster, load, now, wanted, ws);
    bool const valid = proposed.status == status::ok || proposed.status == status::iteration_limit ||
                       proposed.status == status::no_improvement;
    if (!valid || now.empty()) {
      std::copy(wanted.begin(), wanted.end(), next.begin());
      if (!valid) { return proposed; }
      state after(cluster, load.totals, next, next, ws);
      index_t distinct = 0;  // nothing was there: each distinct expert of a rank is fetched
      for (std::size_t slot = 0; slot < next.size(); ++slot) { distinct += first_on_rank(after, next, slot) ? 1 : 0; }
      return finish(cluster, load, after, proposed.status, distinct);
    }
    std::copy(now.begin(), now.end(), next.begin());
    std::span<expert_id> const start = ws.take<expert_id>(cluster.slots());
    state current(cluster, load.totals, now, next, ws);
    bool changed = restore(load, wanted, next, current);
    auto const before = current.measure();
    std::copy(next.begin(), next.end(), start.begin());
    // All of it at once, if it fits.
    std::copy(wanted.begin(), wanted.end(), next.begin());
    current.rebuild();
    if (current.fetched() <= max_moves && current.measure() < before) {
      return finish(cluster, load, current, status::ok, current.fetched());
    }
    std::copy(start.begin(), start.end(), next.begin());
    current.rebuild();
    // Every step lowers the sum of squares and raises no largest load, so that this ends; the cap is for the time it
    // takes.
    index_t steps = 2 * cluster.slots();
    while (steps > 0 && step(wanted, next, current)) { --steps, changed = true; }
    return finish(cluster, load, current, changed ? status::ok : status::no_improvement, current.fetched());
  }
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes of scratch
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return 2 * fairlead::workspace_bytes<expert_id>(cluster.slots()) +
           std::max({planner.workspace_bytes(cluster, experts), mapper.workspace_bytes(cluster, experts),
                     state::bytes(cluster, experts)});
  }

 private:
  using state = detail::budget_state;

  report propose(topology const& cluster, load_estimate const& load, std::span<expert_id const> now,
                 std::span<expert_id> wanted, workspace& ws) const {
    workspace::scope const undo(ws);
    report const proposed = planner.plan(cluster, load, now, wanted, ws);
    bool const hosted = proposed.status == status::ok || proposed.status == status::iteration_limit ||
                        proposed.status == status::no_improvement;
    if (hosted && !now.empty()) { (void)mapper.map(cluster, now, wanted, ws); }
    return proposed;
  }
  [[nodiscard]] static bool first_on_rank(state const& table, std::span<expert_id const> slots, std::size_t slot) {
    if (slots[slot] == expert_id::none) { return false; }
    for (std::size_t other = slot; other-- > 0 && table.rank_of(other) == table.rank_of(slot);) {
      if (slots[other] == slots[slot]) { return false; }
    }
    return true;
  }
  [[nodiscard]] static report finish(topology const& cluster, load_estimate const& load, state const& table,
                                     fairlead::status how, index_t fetched) {
    index_t total = 0;
    for (index_t const one : load.totals) { total += one; }
    index_t const hosting = cluster.hosting_ranks();
    return {.status = how,
            .iterations = fetched,
            .value = table.to_copies(table.measure().largest),
            .bound = hosting == 0 ? 0.0 : static_cast<double>(total) / static_cast<double>(hosting)};
  }
  // Places every expert without a replica: where the proposal has it, in an empty slot, or instead of the replica that
  // is missed least.
  [[nodiscard]] static bool restore(load_estimate const& load, std::span<expert_id const> wanted,
                                    std::span<expert_id> next, state& table) {
    bool any = false;
    for (std::size_t e = 0; e < load.totals.size(); ++e) {
      auto const expert = static_cast<expert_id>(e);
      if (table.replicas(expert) > 0) { continue; }
      std::size_t place = next.size();
      for (std::size_t slot = 0; slot < next.size(); ++slot) {
        bool const free = next[slot] == expert_id::none || table.replicas(next[slot]) > 1;
        if (!free) { continue; }
        if (place == next.size() || better_place(wanted, next, table, expert, slot, place)) { place = slot; }
      }
      if (place == next.size()) { continue; }  // fewer slots than experts: the planner has refused that
      table.put(place, expert);
      any = true;
    }
    return any;
  }
  // (where the proposal wants it, empty, least load of the rank that is left, lowest slot)
  [[nodiscard]] static bool better_place(std::span<expert_id const> wanted, std::span<expert_id const> next,
                                         state const& table, expert_id expert, std::size_t a, std::size_t b) {
    bool const wants_a = wanted[a] == expert;
    bool const wants_b = wanted[b] == expert;
    if (wants_a != wants_b) { return wants_a; }
    bool const empty_a = next[a] == expert_id::none;
    bool const empty_b = next[b] == expert_id::none;
    if (empty_a != empty_b) { return empty_a; }
    auto const left = [&](std::size_t slot, bool empty) {
      return table.load_of(table.rank_of(slot)) - (empty ? 0 : table.share(next[slot], 0));
    };
    return left(a, empty_a) < left(b, empty_b);
  }
  // The best single change towards the proposal that the budget allows; false if none makes loads more even.
  [[nodiscard]] bool step(std::span<expert_id const> wanted, std::span<expert_id> next, state& table) const {
    state::wide best_gain = 0;
    index_t best_cost = 1;
    std::size_t best_slot = 0;
    std::ptrdiff_t best_partner = -1;
    auto const consider = [&](state::wide gain, std::size_t slot, expert_id expert, std::ptrdiff_t partner) {
      if (gain <= 0) { return; }
      index_t const fetched = table.fetched_after(slot, expert, partner, next[slot]);
      if (fetched > max_moves && fetched > table.fetched()) { return; }
      index_t const cost =
          std::max<index_t>(fetched - table.fetched(), 0) + 1;  // plus one: free changes are compared by gain
      if (best_gain > 0 && gain * best_cost <= best_gain * cost) { return; }
      best_gain = gain;
      best_cost = cost;
      best_slot = slot;
      best_partner = partner;
    };
    for (std::size_t slot = 0; slot < next.size(); ++slot) {
      expert_id const expert = wanted[slot];
      expert_id const old = next[slot];
      if (expert == expert_id::none || expert == old) { continue; }
      if (old == expert_id::none || table.replicas(old) > 1) {
        consider(table.gain_of_replacing(slot, expert), slot, expert, -1);
      }
      for (std::int32_t other = table.first_slot(expert); other >= 0; other = table.next_slot(other)) {
        auto const partner = static_cast<std::size_t>(other);
        if (wanted[partner] == expert || table.rank_of(partner) == table.rank_of(slot)) { continue; }
        consider(table.gain_of_swapping(slot, partner), slot, expert, other);
      }
    }
    if (best_gain <= 0) { return false; }
    if (best_partner < 0) {
      table.put(best_slot, wanted[best_slot]);
    } else {
      table.swap(best_slot, static_cast<std::size_t>(best_partner));
    }
    return true;
  }
};

/// At most `max_moves` experts are fetched, but for lost ones.
template <class Planner, class Mapper>
inline constexpr bool budgets_moves<budgeted<Planner, Mapper>> = true;
/// The table in use stays when nothing better is found.
template <class Planner, class Mapper>
inline constexpr bool incremental<budgeted<Planner, Mapper>> = true;

FAIRLEAD_NAMESPACE_END
