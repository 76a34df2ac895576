// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Take a new plan only if what it saves until the next one exceeds what moving costs.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/planner.hpp>
#include <fairlead/place/detail/slot_table.hpp>
#include <fairlead/place/split_objective.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Time of moving experts: the rank that fetches most is the last one.
///
/// A model of a move cost: `seconds(cluster, now, next, experts, ws)` and `workspace_bytes(cluster, experts)`. An
/// expert is fetched by a rank that has it in `next` and not in `now`.
struct fetch_time {
  double bytes_per_replica = 0.0;    ///< weights, and optimizer state if it moves too. @unit{B}
  double bytes_per_second = 1.0e10;  ///< into one rank, > 0. @unit{B/s}
  double fixed_s = 0.0;              ///< for any change at all: stopping, agreeing, rebuilding groups. @unit{s}

  /// @brief Scratch that `seconds` needs.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes: none
  [[nodiscard]] std::size_t workspace_bytes([[maybe_unused]] topology const& cluster,
                                            [[maybe_unused]] index_t experts) const {
    return 0;
  }

  /// @brief Predict how long a change takes.
  /// @param cluster the cluster
  /// @param now the table in use. @shape{cluster.slots()}
  /// @param next the new table. @shape{cluster.slots()}
  /// @param experts number of experts
  /// @param ws not used
  /// @returns seconds; 0 if nothing has to be fetched
  /// @complexity O(slots x slots of a rank), no allocation
  [[nodiscard]] double seconds(topology const& cluster, std::span<expert_id const> now, std::span<expert_id const> next,
                               [[maybe_unused]] index_t experts, [[maybe_unused]] workspace& ws) const {
    auto const offsets = cluster.slot_offsets();
    index_t most = 0;
    for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
      auto const first = static_cast<std::size_t>(offsets[static_cast<std::size_t>(rank)]);
      auto const last = static_cast<std::size_t>(offsets[static_cast<std::size_t>(rank) + 1]);
      index_t fetched = 0;
      for (std::size_t slot = first; slot < last; ++slot) {
        if (next[slot] == expert_id::none || detail::hosts_expert(cluster, now, rank, next[slot])) { continue; }
        bool again = false;  // a second replica on the rank is a copy inside it
        for (std::size_t before = first; before < slot; ++before) { again = again || next[before] == next[slot]; }
        fetched += again ? 0 : 1;
      }
      most = std::max(most, fetched);
    }
    return most == 0 ? 0.0 : fixed_s + static_cast<double>(most) * bytes_per_replica / bytes_per_second;
  }
};

/// @brief Wrap a planner with the candidate of doing nothing.
///
/// The proposal is taken if (seconds a step saved) x `steps` exceeds the seconds that moving takes; else the table in
/// use stays and the status is `no_improvement`. Time of a step is modelled as the largest load of a rank times
/// `seconds_per_copy`; the objective says how loads are shared. With samples their mean is taken and each is one step;
/// without, the totals are those of `steps_in_totals` steps. A table in use that is empty or has lost an expert is
/// never kept.
/// @tparam Planner a load_planner
/// @tparam Objective a slot_objective in units of largest / mean load
/// @tparam MoveCost a model of a move cost, as `fetch_time`
/// @source{EPLB, issue 25: the cost of moving is not modelled}
template <load_planner Planner, slot_objective Objective = equal_share_objective, class MoveCost = fetch_time>
struct keep_or_plan {
  /// How a scheduler has to read the replicas.
  static constexpr replica_meaning meaning = Planner::meaning;

  Planner planner{};               ///< makes the proposal
  Objective objective{};           ///< how even a table makes loads
  MoveCost moving{};               ///< what the change costs
  double seconds_per_copy = 1e-6;  ///< time of one token copy on a rank, > 0. @unit{s}
  double steps = 1000.0;           ///< steps (micro-batches of this layer) until the next plan, >= 0
  double steps_in_totals = 1.0;    ///< steps that `totals` add up, > 0; samples are one step each

  /// @brief Scratch that `plan` needs.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return fairlead::workspace_bytes<std::int32_t>(experts) +
           std::max({static_cast<std::size_t>(planner.workspace_bytes(cluster, experts)),
                     static_cast<std::size_t>(objective.workspace_bytes(cluster, experts)),
                     static_cast<std::size_t>(moving.workspace_bytes(cluster, experts))});
  }

  /// @brief Plan, or keep the table in use.
  /// @param cluster the cluster
  /// @param load what the planner needs
  /// @param now the table in use, or empty. @shape{cluster.slots()}
  /// @param[out] next the table to use. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns `value` the modelled seconds a step with `next`, `bound` those of a perfect balance; `iterations` as the
  /// planner says; `no_improvement` if the table in use stays, also when the planner finds none
  /// @throws contract_violation (level 1) on bad fields, and what the planner throws
  /// @complexity that of the planner, of two evaluations a sample, and of the move cost; no allocation
  /// @determinism as the planner; the comparison is of doubles that are computed equally on every rank
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now,
              std::span<expert_id> next, workspace& ws) const {
    detail::check_plan_arguments(cluster, load, now, next);
    FAIRLEAD_EXPECTS(seconds_per_copy > 0.0 && steps >= 0.0 && steps_in_totals > 0.0,
                     "keep_or_plan: seconds_per_copy and steps_in_totals are positive, steps is not negative",
                     seconds_per_copy, steps, steps_in_totals);
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(load.totals.size());
    report result = planner.plan(cluster, load, now, next, ws);
    if (result.status == status::infeasible || result.status == status::unsupported) { return result; }
    double const planned = step_seconds(cluster, load, next, ws);
    result.value = planned;
    result.bound = perfect_seconds(cluster, load);
    auto const replicas = ws.take<std::int32_t>(experts);
    if (now.empty() || !detail::is_whole_table(cluster, now, replicas)) { return result; }
    double const kept = step_seconds(cluster, load, now, ws);
    if ((kept - planned) * steps > moving.seconds(cluster, now, next, experts, ws)) { return result; }
    std::copy(now.begin(), now.end(), next.begin());
    result.status = status::no_improvement;
    result.value = kept;
    return result;
  }

 private:
  // Time of a step whose loads are perfectly even over the ranks with slots.
  [[nodiscard]] double mean_seconds(topology const& cluster, std::span<index_t const> loads, double in_steps) const {
    double sum = 0.0;
    for (index_t const l : loads) { sum += static_cast<double>(l); }
    return sum * seconds_per_copy / in_steps / static_cast<double>(std::max<index_t>(cluster.hosting_ranks(), 1));
  }

  // Calls f(loads, weight): the mean over samples, or the totals.
  template <class Function>
  void each_sample(load_estimate const& load, Function&& f) const {
    if (load.samples.rows() == 0) {
      f(load.totals, steps_in_totals);
      return;
    }
    for (index_t k = 0; k < load.samples.rows(); ++k) {
      f(std::span<index_t const>(load.samples.row(k), load.totals.size()), static_cast<double>(load.samples.rows()));
    }
  }

  [[nodiscard]] double perfect_seconds(topology const& cluster, load_estimate const& load) const {
    double seconds = 0.0;
    each_sample(load, [&](std::span<index_t const> loads, double in_steps) {
      seconds += mean_seconds(cluster, loads, in_steps);
    });
    return seconds;
  }

  [[nodiscard]] double step_seconds(topology const& cluster, load_estimate const& load,
                                    std::span<expert_id const> table, workspace& ws) const {
    double seconds = 0.0;
    each_sample(load, [&](std::span<index_t const> loads, double in_steps) {
      double const ratio =
          static_cast<double>(objective.cost(cluster, loads, table, {}, ws)) / static_cast<double>(slot_cost_unit);
      seconds += ratio * mean_seconds(cluster, loads, in_steps);
    });
    return seconds;
  }
};
/// Keeps the table in use when nothing better is found.
template <class Planner, class Objective, class MoveCost>
inline constexpr bool incremental<keep_or_plan<Planner, Objective, MoveCost>> = true;
/// As the planner: a kept table moves nothing.
template <class Planner, class Objective, class MoveCost>
inline constexpr bool budgets_moves<keep_or_plan<Planner, Objective, MoveCost>> = budgets_moves<Planner>;

FAIRLEAD_NAMESPACE_END
