// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The better of grouped and spread replicas, improved by swaps that make recovery from failures more likely.
#include <fairlead/concepts/slot_assigner.hpp>
#include <fairlead/metrics/recovery.hpp>
#include <fairlead/place/detail/failure_units.hpp>
#include <fairlead/place/detail/unit_climb.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Lay out replicas so that, when nodes fail, every expert is most likely to keep one.
///
/// Starts from the layouts of `grouped_overlap` and `spread_nodes`, and from each exchanges two replicas of two nodes, or
/// moves one into an empty slot, as long as that is better; the better end wins, so that it is never worse than either.
/// Better means, in this order: fewer experts below their floor of min(`least`, nodes, replicas) distinct nodes; then
/// - with `alive` > 0: a larger probability of recovery with that many nodes alive;
/// - with `alive` = 0: fewer fatal sets of one failed node, then of two, and so on: the best layout when failures are rare.
///
/// Beyond `counted_nodes` nodes, layouts are compared by the first term that is not zero: the smallest number of nodes of
/// an expert, and how many different sets of that size there are. `sampled_recovery` has no such limit.
///
/// Where no exchange helps, pairs are tried of which the first changes nothing: two experts with one replica each, say,
/// that should share a node but cannot get there in one step.
/// @tparam Recovery how layouts are judged: `metrics::exact_recovery`, or `metrics::sampled_recovery` with `alive` > 0
/// @source{Lazarus, section 3.2}, the problem; the search is this library's.
template <class Recovery = metrics::exact_recovery>
struct resilient_search {
  index_t least = 2;                                  ///< distinct nodes that every expert should have, >= 1
  index_t alive = 0;                                  ///< nodes that stay in the case to optimise; 0 = failures are rare
  index_t evaluations = 20000;                        ///< layouts to judge at the most, >= 2
  index_t counted_nodes = 16;                         ///< nodes up to which all sets are counted: doubles the time each
  failure_domain domain = failure_domain::automatic;  ///< what fails as a whole
  Recovery recovery{};                                ///< judges a layout

  /// @brief Assign the replicas to slots.
  /// @param cluster the cluster, ragged or not
  /// @param load load of each expert, for the order of equal counts, inside a node, and for `value`. @shape{experts}
  /// @param replicas replicas of each expert, >= 0. @shape{experts}
  /// @param[out] slots expert of each slot. @shape{cluster.slots()}
  /// @param ws scratch, see `workspace_bytes`
  /// @returns `ok` if no exchange nor such a pair helps any more, `iteration_limit` if the evaluations ran out; `iterations` evaluations;
  ///          `value` the largest load of a rank under equal shares, `bound` the mean load of a hosting rank. `infeasible`
  ///          with all slots none if there are more replicas than slots, or if no layout was found that keeps the floors
  /// @throws contract_violation (level 1) on a shape mismatch or bad fields
  /// @complexity O(evaluations x (that of `Recovery` + experts)), no allocation
  /// @determinism exact
  report assign(topology const& cluster, std::span<index_t const> load, std::span<index_t const> replicas, std::span<expert_id> slots,
                workspace& ws) const {
    FAIRLEAD_EXPECTS(load.size() == replicas.size(), "one load and one count an expert", load.size(), replicas.size());
    FAIRLEAD_EXPECTS(static_cast<index_t>(slots.size()) == cluster.slots(), "one entry a slot of the cluster", slots.size(), cluster.slots());
    FAIRLEAD_EXPECTS(least >= 1 && alive >= 0 && evaluations >= 2, "floor, nodes alive and evaluations must make sense", least, alive, evaluations);
    FAIRLEAD_EXPECTS(alive > 0 || detail::counts_all_failures<Recovery>, "sampling needs the number of nodes that stay alive: set `alive`");
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(load.size());
    if (detail::fitting_replicas(cluster, replicas) < 0) {
      std::fill(slots.begin(), slots.end(), expert_id::none);
      return {.status = status::infeasible};
    }
    detail::unit_layout grouped = detail::make_unit_layout(cluster, experts, domain, ws);
    detail::unit_layout spread = detail::make_unit_layout(cluster, experts, domain, ws);
    std::span<std::int32_t> const order = ws.take<std::int32_t>(experts);
    std::span<std::int32_t> const turn = ws.take<std::int32_t>(cluster.ranks());
    std::span<index_t> const need = ws.take<index_t>(experts);
    detail::overlap_in_groups(grouped, load, replicas, order, turn, need);
    detail::spread_over_units(spread, replicas, order, turn);

    detail::unit_climb<Recovery> climb(recovery, cluster.ranks(), grouped.units, experts, least, alive,
                                      detail::counts_all_failures<Recovery> && grouped.units > counted_nodes, replicas, ws);
    climb.agree_on_terms(grouped, spread, ws);
    bool const settled_grouped = climb.improve(grouped, evaluations / 2, ws);
    climb.keep_score();
    bool const settled_spread = climb.improve(spread, evaluations - evaluations / 2, ws);
    bool const prefer_spread = climb.beats_kept();
    if (!prefer_spread) { climb.restore_score(); }
    report ended{.status = settled_grouped && settled_spread ? status::ok : status::iteration_limit, .iterations = climb.evaluations()};
    if (climb.below_floor()) {
      std::fill(slots.begin(), slots.end(), expert_id::none);
      ended.status = status::infeasible;
      return ended;
    }
    detail::fill_slots(cluster, prefer_spread ? spread : grouped, load, replicas, slots, order, turn);
    ended.value = detail::largest_share(cluster, load, slots, need);
    ended.bound = detail::mean_share(cluster, load, replicas);
    return ended;
  }

  /// @brief Scratch of `assign`.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    return 2 * detail::unit_layout_bytes(cluster.ranks(), experts) + fairlead::workspace_bytes<std::int32_t>(experts) +
           fairlead::workspace_bytes<std::int32_t>(cluster.ranks()) + fairlead::workspace_bytes<index_t>(experts) +
           detail::unit_climb<Recovery>::bytes(recovery, cluster.ranks(), experts);
  }
};
static_assert(slot_assigner<resilient_search<>>);

FAIRLEAD_NAMESPACE_END
