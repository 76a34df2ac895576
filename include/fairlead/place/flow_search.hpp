// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Search for a table that an exact token scheduler can balance, also when loads move before it is used.
#include <fairlead/concepts/planner.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/place/detail/distinct_pack.hpp>
#include <fairlead/place/detail/slot_search.hpp>
#include <fairlead/place/detail/surge.hpp>
#include <fairlead/place/global_pack.hpp>
#include <fairlead/place/split_objective.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Place replicas for a scheduler that splits loads exactly: who hosts what matters, equal shares do not.
///
/// With an exact min-max scheduler (`min_max_flow`) a table is bad only if some set of experts outgrows all of its
/// hosts together. Four steps:
/// 1. *Surges*: what experts gained over `horizon` samples, in the last `window` samples, is fitted by two exponential
///    surges, each with a probability and a mean length: jumps of experts below an even share, and growth of the others
///    in proportion to their share. A few large jumps among many zeros stay rare and large.
/// 2. *Hosts*: each slot goes to the expert whose expected excess over what its hosts carry falls most: calm loads get
/// hosts
///    by load, wild ones a second host for experts that are idle now.
/// 3. *Where*: distinct ranks, heavy shares first, each on the least loaded rank; or the table of `global_pack` for the
///    totals, if that costs clearly less on the samples of step 4.
/// 4. *Search*: swaps and replacements, blamed by the exact split, until the totals, `draws` samples of surges and
/// `changes`
///    repetitions of past changes are all balanced, or `evaluations` tables were looked at.
///
/// `value` is the mean of the objective over those samples, `bound` the least cost; `status::ok` means that all samples
/// are perfect, `status::iteration_limit` that the search ended at its cap or found no more moves. It reads `totals`
/// and `samples` (with fewer than two samples the surges are assumed) and starts afresh: wrap it in `keep_or_plan` or
/// map its slots to bound what moves. It does not look at nodes. This library's own; no paper is followed.
/// @tparam Objective a model of slot_objective
template <slot_objective Objective = free_split_objective>
struct flow_search {
  /// How a scheduler has to read the replicas.
  static constexpr replica_meaning meaning = Objective::meaning;

  Objective objective{};        ///< what is made small
  index_t window = 8;           ///< samples looked at, >= 1
  index_t horizon = 8;          ///< samples between the newest sample and the use of the plan, >= 1
  double fresh_caution = 0.5;   ///< factor of the mean jump that does not depend on an expert's load, >= 0
  double growth_caution = 0.5;  ///< factor of the mean growth in proportion to it, >= 0
  index_t draws = 24;           ///< samples of surges to balance, >= 0
  index_t changes = 8;          ///< past changes to balance, >= 0
  index_t evaluations = 200;    ///< cap on tables looked at, >= 1
  index_t patience = 150;       ///< moves without gain that end the search, >= 1
  int replace_percent = 10;  ///< moves that change numbers of replicas, instead of swapping; experts keep two replicas
  std::uint64_t seed = 1;    ///< seed of samples and moves; equal on every rank

  /// @brief Scratch that `plan` needs.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return fairlead::workspace_bytes<index_t>((1 + draws + changes) * experts) +
           4 * fairlead::workspace_bytes<index_t>(experts) + fairlead::workspace_bytes<std::int32_t>(experts) +
           std::max({detail::distinct_pack_bytes(cluster, experts),
                     detail::slot_search<Objective>::bytes(objective, cluster, experts, 1 + draws + changes),
                     fairlead::workspace_bytes<expert_id>(cluster.slots()) +
                         std::max(packing.workspace_bytes(cluster, experts),
                                  static_cast<std::size_t>(objective.workspace_bytes(cluster, experts)))});
  }

  /// @brief Fill a table for loads to come.
  /// @param cluster the cluster
  /// @param load totals and, if there are any, samples
  /// @param now not looked at
  /// @param[out] next the new table. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns how it ended
  /// @throws contract_violation (level 1) on a shape mismatch, bad fields or a small workspace
  /// @complexity O((slots - experts) x experts + slots x ranks) for the start; at most `evaluations` x (1 + draws +
  /// changes) exact splits, of which most tables need one or two. No allocation.
  /// @determinism equal on every rank: integers, and fp32 values that are correctly rounded
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now,
              std::span<expert_id> next, workspace& ws) const {
    detail::check_plan_arguments(cluster, load, now, next);
    FAIRLEAD_EXPECTS(window >= 1 && horizon >= 1 && draws >= 0 && changes >= 0 && evaluations >= 1 && patience >= 1,
                     "flow_search: window, horizon, evaluations and patience must be positive", window, horizon,
                     evaluations, patience);
    FAIRLEAD_EXPECTS(fresh_caution >= 0.0 && growth_caution >= 0.0, "flow_search: caution must not be negative",
                     fresh_caution, growth_caution);
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(load.totals.size());
    std::fill(next.begin(), next.end(), expert_id::none);
    if (experts > cluster.slots()) { return {.status = status::infeasible}; }
    if (experts == 0) { return {.value = 1.0, .bound = 1.0}; }
    auto const samples = ws.take<index_t>((1 + draws + changes) * experts);
    auto const weights = ws.take<index_t>(experts);
    auto const first = ws.take<index_t>(experts);
    auto const second = ws.take<index_t>(experts);
    auto const gains = ws.take<index_t>(experts);
    auto const hosts = ws.take<std::int32_t>(experts);
    auto const size = static_cast<std::size_t>(experts);
    auto const shares = samples.first(size);
    detail::to_shares(load.totals, shares);
    detail::surge_model const surges =
        detail::fit_surges(load.samples, {window, horizon, fresh_caution, growth_caution}, first, second);
    detail::count_hosts(shares, surges, cluster.slots(), cluster.hosting_ranks(), gains, hosts);
    for (std::size_t e = 0; e < size; ++e) {
      weights[e] = shares[e] + detail::times(surges.fresh_chance, surges.fresh_mean) +
                   detail::times(surges.growth_chance, detail::times(surges.growth_factor, shares[e]));
    }
    detail::distinct_pack(cluster, weights, hosts, next, ws);

    index_t rows = 1;
    for (index_t k = 0; k < draws; ++k, ++rows) {
      detail::draw_surge(shares, surges, seed, static_cast<std::uint64_t>(k),
                         samples.subspan(static_cast<std::size_t>(rows) * size, size));
    }
    // Changes that end at rows spread evenly over the window, the newest first.
    index_t const past = std::min(window, load.samples.rows() - 1);
    for (index_t k = 0; k < std::min(changes, past); ++k, ++rows) {
      index_t const to = load.samples.rows() - 1 - k * past / std::min(changes, past);
      detail::repeat_change(load.samples, std::max<index_t>(0, to - horizon), to, shares, first, second,
                            samples.subspan(static_cast<std::size_t>(rows) * size, size));
    }
    matrix_view<index_t const> const judged(samples.data(), rows, experts);
    take_packing_if_better(cluster, load, judged, next, ws);
    detail::slot_search_rules const rules{.evaluations = evaluations,
                                          .patience = patience,
                                          .donor_keeps = 2,
                                          .replace_percent = replace_percent,
                                          .seed = seed};
    detail::slot_search<Objective> search(objective, cluster, judged, next, rules, ws);
    detail::slot_search_result const found = search.run();
    return {.status = found.perfect ? status::ok : status::iteration_limit,
            .iterations = found.evaluations,
            .value = static_cast<double>(found.cost) / static_cast<double>(found.counted * slot_cost_unit),
            .bound = static_cast<double>(objective.least_cost()) / static_cast<double>(slot_cost_unit)};
  }

 private:
  static constexpr global_pack packing{.repeats = repeats_on_a_rank::avoided};

  void take_packing_if_better(topology const& cluster, load_estimate const& load, matrix_view<index_t const> samples,
                              std::span<expert_id> next, workspace& ws) const {
    workspace::scope const scope(ws);
    auto const packed = ws.take<expert_id>(cluster.slots());
    if (packing.plan(cluster, load, {}, packed, ws).status != status::ok) { return; }
    index_t difference = 0;
    for (index_t k = 0; k < samples.rows(); ++k) {
      std::span<index_t const> const sample(samples.row(k), static_cast<std::size_t>(samples.cols()));
      difference += objective.cost(cluster, sample, packed, {}, ws) - objective.cost(cluster, sample, next, {}, ws);
    }
    // A small advantage is not worth the hosts of idle experts, which few samples ask for.
    if (difference < -samples.rows() * slot_cost_unit / 32) { std::copy(packed.begin(), packed.end(), next.begin()); }
  }
};
static_assert(load_planner<flow_search<>>);

FAIRLEAD_NAMESPACE_END
