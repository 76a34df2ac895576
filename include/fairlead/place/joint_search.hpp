// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Search numbers and places of replicas together, for several samples of loads at once.
#include <fairlead/concepts/planner.hpp>
#include <fairlead/place/detail/slot_search.hpp>
#include <fairlead/place/global_pack.hpp>
#include <fairlead/place/repeats.hpp>
#include <fairlead/place/split_objective.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {
// The planner, told to keep replicas of an expert apart if it can be told.
template <class Planner>
constexpr Planner without_repeats() {
  Planner planner{};
  if constexpr (requires { planner.repeats = repeats_on_a_rank::avoided; }) {
    planner.repeats = repeats_on_a_rank::avoided;
  }
  return planner;
}
}  // namespace detail

/// @brief Improve on replicate-then-pack, which decides numbers before it knows what they do to the packing.
///
/// Starts from what `start` plans, or from the table in use if that costs less, and changes single slots: two slots of
/// different ranks swap, a slot gets another expert; no move puts an expert twice on a rank. Moves are drawn (seeded)
/// among the slots that the objective blames; after `patience` moves without gain the best table is shaken by a few
/// random moves. The best table seen is the result, so it never costs more than that of `start`. Numbers and places are
/// one decision, and a table has to suit all samples.
///
/// What counts is the mean cost of the worst `tail` of the samples: 1 = plain mean, towards 0 = the worst sample. (A
/// quantile alone would not see most changes.) Without samples the totals are the only one. `value` is that mean,
/// `bound` the least cost; ok means that all samples are perfect, iteration_limit that the cap was reached.
/// Reconstructed from the public description of its idea: the moves, the shake and the cap are this library's choice.
/// @tparam Objective a model of slot_objective
/// @tparam Start a load_planner with the same meaning of replicas
/// @source{FlashLB, joint objective over samples}
template <slot_objective Objective = equal_share_objective, load_planner Start = global_pack>
struct joint_search {
  /// How a scheduler has to read the replicas.
  static constexpr replica_meaning meaning = Objective::meaning;

  Objective objective{};  ///< what is made small
  Start start =
      detail::without_repeats<Start>();  ///< where it starts; by default with repeats on a rank only where forced
  double tail = 1.0;           ///< share of the samples, the worst ones, that count; in (0, 1], at least one sample
  index_t samples = 16;        ///< samples looked at, the newest ones, >= 1
  index_t evaluations = 4000;  ///< cap on tables looked at, >= 1
  index_t patience = 200;      ///< moves without gain before the best table is shaken, >= 1
  index_t shake = 3;           ///< random moves of a shake; 0 = end instead
  int replace_percent = 50;    ///< moves that change numbers of replicas instead of swapping, 0 to 100
  std::uint64_t seed = 1;      ///< seed of the moves; equal on every rank

  /// @brief Scratch that `plan` needs.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return fairlead::workspace_bytes<std::int32_t>(experts) +
           std::max(static_cast<std::size_t>(start.workspace_bytes(cluster, experts)),
                    std::max(static_cast<std::size_t>(objective.workspace_bytes(cluster, experts)),
                             detail::slot_search<Objective>::bytes(objective, cluster, experts, samples)));
  }

  /// @brief Place experts for the samples.
  /// @param cluster the cluster
  /// @param load totals and, if there are any, samples
  /// @param now the table in use, or empty. @shape{cluster.slots()}
  /// @param[out] next the new table. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns how it ended
  /// @throws contract_violation (level 1) on a shape mismatch, bad fields or a small workspace
  /// @complexity that of `start`, then at most `evaluations` x `samples` evaluations of the objective; no allocation
  /// @determinism equal on every rank: integers, seeded moves
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now,
              std::span<expert_id> next, workspace& ws) const {
    detail::check_plan_arguments(cluster, load, now, next);
    FAIRLEAD_EXPECTS(tail > 0.0 && tail <= 1.0 && samples >= 1 && evaluations >= 1 && patience >= 1 && shake >= 0,
                     "joint_search: tail is in (0, 1], samples, evaluations and patience are positive", tail, samples,
                     evaluations, patience, shake);
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(load.totals.size());
    double const least = static_cast<double>(objective.least_cost()) / static_cast<double>(slot_cost_unit);
    report const begun = start.plan(cluster, load, now, next, ws);
    if (begun.status == status::infeasible || begun.status == status::unsupported) { return begun; }
    if (experts == 0) { return {.value = least, .bound = least}; }
    index_t const all = load.samples.rows();
    index_t const rows = all == 0 ? 1 : std::min(all, samples);
    matrix_view<index_t const> const used(all == 0 ? load.totals.data() : load.samples.row(all - rows), rows, experts);
    detail::slot_search_rules rules{
        .evaluations = evaluations,
        .patience = patience,
        .kick = shake,
        .donor_keeps = 1,
        .replace_percent = replace_percent,
        .tail = std::max<index_t>(1, static_cast<index_t>(tail * static_cast<double>(rows))),
        .seed = seed};
    auto const replicas = ws.take<std::int32_t>(experts);
    if (!now.empty() && detail::is_whole_table(cluster, now, replicas)) {
      index_t difference = 0;  // of the mean cost: a rough choice of the start is enough, the search decides
      for (index_t k = 0; k < rows; ++k) {
        std::span<index_t const> const sample(used.row(k), static_cast<std::size_t>(experts));
        difference += objective.cost(cluster, sample, now, {}, ws) - objective.cost(cluster, sample, next, {}, ws);
      }
      if (difference < 0 && rules.tail == rows) { std::copy(now.begin(), now.end(), next.begin()); }
    }
    detail::slot_search<Objective> search(objective, cluster, used, next, rules, ws);
    detail::slot_search_result const found = search.run();
    return {.status = found.perfect ? status::ok : status::iteration_limit,
            .iterations = found.evaluations,
            .value = static_cast<double>(found.cost) / static_cast<double>(found.counted * slot_cost_unit),
            .bound = least};
  }
};
static_assert(load_planner<joint_search<>>);
/// Starts from the table in use where that is better.
template <class Objective, class Start>
inline constexpr bool incremental<joint_search<Objective, Start>> = true;

FAIRLEAD_NAMESPACE_END
