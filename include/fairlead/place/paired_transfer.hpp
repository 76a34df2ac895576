// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Move replicas one by one from the least to the most loaded expert, starting from the table in use.
#include <fairlead/concepts/planner.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/place/detail/share_loads.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Shrink the expert with the lightest replicas and expand the one with the heaviest, while the busiest rank
/// gains.
///
/// A step takes the expert whose replicas carry most and the one whose replicas carry least among those that can lose
/// one, and gives a slot of the second to the first: the slot, on a rank that does not host the first yet, that leaves
/// the smallest largest load (ties: the lowest slot). It is kept if the largest load of a rank falls, or stays and the
/// heaviest replica gets lighter; else the plan ends. So it never gets worse, and the donor keeps a replica. It also
/// ends when max / mean load of a rank is at most `threshold`, and at `max_moves`.
///
/// A table in use that is empty or has lost an expert is replaced by an even one first. Deviations: the paper's body
/// was not available; this follows its published descriptions. The re-implementation inside LAER compares max / min
/// instead of max / mean, moves one pair per node, and runs off its list when every expert has one replica a node: here
/// every loop is bounded. Which slot is taken, and the tie rule, are this library's choice.
/// @source{FlexMoE, expand and shrink of its scheduler}
struct paired_transfer {
  /// How a scheduler has to read the replicas.
  static constexpr replica_meaning meaning = replica_meaning::equal_share;

  double threshold = 1.2;  ///< max / mean load of a rank that is good enough, >= 1
  index_t max_moves = 10;  ///< replicas moved a plan, >= 0

  /// @brief Scratch that `plan` needs.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return 2 * detail::share_loads::bytes(cluster, experts) + detail::distinct_pack_bytes(cluster, experts);
  }

  /// @brief Improve the table in use.
  /// @param cluster the cluster
  /// @param load totals are looked at
  /// @param now the table in use, or empty. @shape{cluster.slots()}
  /// @param[out] next the new table. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns `value` the largest load of a rank with equal shares, `bound` the mean, `iterations` the replicas moved;
  /// ok at the threshold, iteration_limit at the cap, no_improvement if a further move does not help
  /// @throws contract_violation (level 1) on a shape mismatch, bad fields or a small workspace
  /// @complexity O(max_moves x (experts + replicas of the donor x slots)), no allocation
  /// @determinism exact integers (shares rounded down to 1/1024 copy): equal on every rank
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now,
              std::span<expert_id> next, workspace& ws) const {
    detail::check_plan_arguments(cluster, load, now, next);
    FAIRLEAD_EXPECTS(threshold >= 1.0 && max_moves >= 0, "paired_transfer: threshold >= 1 and max_moves >= 0",
                     threshold, max_moves);
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(load.totals.size());
    std::fill(next.begin(), next.end(), expert_id::none);
    if (experts > cluster.slots()) { return {.status = status::infeasible}; }
    if (experts == 0) { return {}; }
    detail::share_loads state(cluster, load.totals, ws);
    detail::share_loads trial(cluster, load.totals, ws);
    if (detail::is_whole_table(cluster, now, state.replicas)) {
      std::copy(now.begin(), now.end(), next.begin());
    } else {
      detail::even_table(cluster, load.totals, state.replicas, next, ws);
    }
    state.measure(load.totals, next);
    report result{.status = status::iteration_limit, .bound = detail::mean_rank_load(cluster, load.totals)};
    double const enough = threshold * result.bound * static_cast<double>(state.fraction);
    for (;; ++result.iterations) {
      if (static_cast<double>(state.largest()) <= enough) {
        result.status = status::ok;
        break;
      }
      if (result.iterations == max_moves) { break; }
      if (!move_one(cluster, load.totals, next, state, trial)) {
        result.status = status::no_improvement;
        break;
      }
    }
    result.value = detail::largest_share_load(cluster, load.totals, next, state.replicas);
    return result;
  }

 private:
  static bool move_one(topology const& cluster, std::span<index_t const> load, std::span<expert_id> slots,
                       detail::share_loads& state, detail::share_loads& trial) {
    // load[a] / replicas[a] against load[b] / replicas[b], exactly.
    auto const heavier = [&](std::size_t a, std::size_t b) {
      return static_cast<detail::slot_wide>(load[a]) * state.replicas[b] >
             static_cast<detail::slot_wide>(load[b]) * state.replicas[a];
    };
    std::size_t rich = 0;
    for (std::size_t e = 1; e < load.size(); ++e) {
      if (heavier(e, rich)) { rich = e; }
    }
    auto const wanted = static_cast<expert_id>(rich);
    auto const has_slot_for = [&](std::size_t donor) {
      for (std::size_t slot = 0; slot < slots.size(); ++slot) {
        if (slots[slot] == static_cast<expert_id>(donor) &&
            !detail::hosts_expert(cluster, slots, state.rank_of[slot], wanted)) {
          return true;
        }
      }
      return false;
    };
    std::size_t poor = load.size();
    for (std::size_t e = 0; e < load.size(); ++e) {
      if (e == rich || state.replicas[e] < 2 || (poor < load.size() && !heavier(poor, e))) { continue; }
      if (has_slot_for(e)) { poor = e; }
    }
    // An empty slot costs nobody anything, so it comes first.
    std::size_t best = slots.size();
    index_t best_largest = 0;
    for (int pass = 0; pass < 2 && best == slots.size(); ++pass) {
      expert_id const donor = pass == 0 ? expert_id::none : static_cast<expert_id>(poor);
      if (pass == 1 && poor == load.size()) { return false; }
      for (std::size_t slot = 0; slot < slots.size(); ++slot) {
        if (slots[slot] != donor || detail::hosts_expert(cluster, slots, state.rank_of[slot], wanted)) { continue; }
        slots[slot] = wanted;
        trial.measure(load, slots);
        slots[slot] = donor;
        if (best == slots.size() || trial.largest() < best_largest) { best = slot, best_largest = trial.largest(); }
      }
    }
    if (best == slots.size()) { return false; }
    expert_id const donor = slots[best];
    slots[best] = wanted;
    trial.measure(load, slots);
    auto const heaviest = [&](detail::share_loads const& s) {
      index_t largest = 0;
      for (std::size_t e = 0; e < load.size(); ++e) {
        largest = std::max(largest, s.share(load[e], s.replicas[e]));
      }
      return largest;
    };
    index_t const before = state.largest();
    if (best_largest < before || (best_largest == before && heaviest(trial) < heaviest(state))) {
      state.measure(load, slots);
      return true;
    }
    slots[best] = donor;
    return false;
  }
};
static_assert(load_planner<paired_transfer>);
/// Starts from the table in use, and keeps it when nothing better is found.
template <>
inline constexpr bool incremental<paired_transfer> = true;

FAIRLEAD_NAMESPACE_END
