// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Try several rules for numbers of replicas, and take the slot table that costs least.
#include <fairlead/concepts/apportionment.hpp>
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/layout_objective.hpp>
#include <fairlead/concepts/planner.hpp>
#include <fairlead/place/layout_cost.hpp>
#include <fairlead/place/spread_greedy.hpp>

#include <tuple>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Which counts a random change starts from.
enum class change_parent {
  best,  ///< those of the best table so far: changes climb
  any    ///< a random earlier candidate: the published rule
};

/// @brief What `layout_tuner::tune` chose.
struct layout_choice {
  /// `value` is the cost of the table, `bound` what no table beats (both @unit{s}), `iterations` the tables evaluated.
  fairlead::report report;
  step_cost cost;      ///< cost of the table, by cause
  index_t winner = -1; ///< `layout_tuner::kept`, or number of the rule, or for a change `rules + number of the change`; -1 = nothing
};

/// @brief Try several rules for numbers of replicas, and take the slot table whose predicted step is shortest.
///
/// A rule says how many replicas each expert gets, the assigner where they go, the objective what that costs; the table of
/// the least cost wins, the first one among equals. No single rule is best: counts in proportion win while replicas are
/// scarce, counts in multiples of the nodes once they are plentiful. Rules are folded over at compile time and share one
/// workspace; equal counts are evaluated once.
///
/// With `keep` the table in use takes part, before all others: the new one is then never worse on this load, and an equal
/// one moves nothing. `changes` asks for further candidates, each made from an earlier one by moving one replica (or one for
/// each node, if both counts are multiples of the nodes) from a random expert to another. There may be fewer distinct counts
/// than asked for, so that attempts are capped. Changes cost as much time as rules do and find better tables where the even
/// split, not the counts, is what keeps loads apart.
/// @tparam Rules a `std::tuple` of models of `apportionment`
/// @tparam Assigner a model of `slot_assigner`
/// @tparam Objective a model of `layout_objective`
/// @source{2602.11686, Algorithm 2} Candidates beyond the paper's two, the table in use, and changes of the best counts are
/// this library's choice.
template <class Rules, class Assigner = spread_greedy, class Objective = layout_cost>
struct layout_tuner {
  Rules rules;                    ///< the rules, in order of preference among equals
  Assigner assigner{};            ///< which rank hosts which replica
  Objective objective{};          ///< what a table costs
  bool keep = true;               ///< whether the table in use is a candidate
  index_t changes = 0;            ///< further candidates by random changes, >= 0
  change_parent parents = change_parent::best;  ///< what they start from
  index_t attempts = 16;          ///< draws for each of them at most, >= 0
  std::uint64_t seed = 2333;      ///< seed of the changes

  /// The even split takes replicas for equal shares.
  static constexpr replica_meaning meaning = replica_meaning::equal_share;
  /// `layout_choice::winner` when the table in use was kept.
  static constexpr index_t kept = -2;
  /// Number of rules.
  static constexpr index_t rule_count = static_cast<index_t>(std::tuple_size_v<Rules>);

  /// @brief Choose a table, and say which candidate it is.
  /// @param cluster the cluster
  /// @param load `totals` @shape{experts}; `by_source` @shape{ranks x experts}, or empty: equal sources
  /// @param now the table in use, or empty; not a candidate if some expert has no slot. @shape{cluster.slots()}
  /// @param[out] next the table. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns the choice; `status::infeasible`, with all slots none, if no candidate gives every expert a slot
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity one prepared objective, and for each candidate one rule, one assignment, one cost; no allocation
  /// @determinism as rules, assigner and objective: with those of this library equal on every rank
  [[nodiscard]] layout_choice tune(topology const& cluster, load_estimate const& load, std::span<expert_id const> now,
                                   std::span<expert_id> next, workspace& ws) const;

  /// @brief Choose a table; see `tune`.
  /// @param cluster the cluster
  /// @param load `totals` @shape{experts}; `by_source` @shape{ranks x experts}, or empty: equal sources
  /// @param now the table in use, or empty. @shape{cluster.slots()}
  /// @param[out] next the table. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns status, cost, bound and number of tables evaluated
  /// @throws contract_violation (level 1) on a shape mismatch
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now, std::span<expert_id> next,
              workspace& ws) const {
    return tune(cluster, load, now, next, ws).report;
  }

  /// @brief Scratch of `tune`.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    std::size_t most = std::max(assigner.workspace_bytes(cluster, experts), fairlead::workspace_bytes<std::int32_t>(experts));
    std::apply([&](auto const&... rule) {
      ((most = std::max<std::size_t>(most, rule.workspace_bytes(experts, cluster.slots()))), ...);
    }, rules);
    return most + objective.workspace_bytes(cluster, experts) +
           fairlead::workspace_bytes<index_t>((rule_count + changes) * experts) +
           fairlead::workspace_bytes<expert_id>(cluster.slots());
  }
};

/// @brief Stated: it starts from the table in use, when `keep` is set.
template <class Rules, class Assigner, class Objective>
inline constexpr bool incremental<layout_tuner<Rules, Assigner, Objective>> = true;

FAIRLEAD_NAMESPACE_END

#include <fairlead/place/detail/layout_tuner_text.hpp>
