// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How `layout_tuner` works.
#include <fairlead/core/philox.hpp>
#include <fairlead/place/detail/hosting_ranks.hpp>
#include <fairlead/place/layout_tuner.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// Moves a replica, or one for each node, from an expert that can spare it to another one. False if this draw cannot.
[[nodiscard]] inline bool move_replicas(std::span<index_t> replicas, index_t nodes, std::uint32_t from_word,
                                        std::uint32_t to_word) noexcept {
  auto const experts = static_cast<std::uint32_t>(replicas.size());
  if (experts < 2) { return false; }
  std::uint32_t const from = philox::below(from_word, experts);
  std::uint32_t to = philox::below(to_word, experts - 1);
  to += to >= from ? 1 : 0;
  bool const symmetric = nodes > 0 && replicas[from] % nodes == 0 && replicas[to] % nodes == 0;
  index_t const step = symmetric ? nodes : 1;
  if (replicas[from] <= step) { return false; }
  replicas[from] -= step;
  replicas[to] += step;
  return true;
}

// Whether a table holds every expert, and nothing but experts.
[[nodiscard]] inline bool holds_all(std::span<expert_id const> slots, std::span<std::int32_t> seen) noexcept {
  std::fill(seen.begin(), seen.end(), 0);
  for (expert_id const expert : slots) {
    if (expert == expert_id::none) { continue; }
    if (to_index(expert) < 0 || to_index(expert) >= static_cast<index_t>(seen.size())) { return false; }
    seen[static_cast<std::size_t>(expert)] = 1;
  }
  return std::find(seen.begin(), seen.end(), 0) == seen.end();
}

}  // namespace detail

template <class Rules, class Assigner, class Objective>
layout_choice layout_tuner<Rules, Assigner, Objective>::tune(topology const& cluster, load_estimate const& load,
                                                             std::span<expert_id const> now, std::span<expert_id> next,
                                                             workspace& ws) const {
  static_assert(slot_assigner<Assigner>, "the assigner of a layout_tuner models slot_assigner (concepts/slot_assigner.hpp)");
  static_assert(layout_objective<Objective>,
                "the objective of a layout_tuner models layout_objective (concepts/layout_objective.hpp)");
  FAIRLEAD_EXPECTS(static_cast<index_t>(next.size()) == cluster.slots(), "one entry a slot of the cluster", next.size(),
                   cluster.slots());
  FAIRLEAD_EXPECTS(now.empty() || now.size() == next.size(), "the table in use has another number of slots", now.size(),
                   next.size());
  FAIRLEAD_EXPECTS(changes >= 0 && attempts >= 0, "numbers of changes must not be negative", changes, attempts);
  auto const experts = static_cast<index_t>(load.totals.size());
  std::fill(next.begin(), next.end(), expert_id::none);
  if (experts == 0) { return {}; }
  if (cluster.slots() < experts) { return {.report = {.status = status::infeasible}, .cost = {}}; }

  workspace::scope const scope(ws);
  auto const prepared = objective.prepare(cluster, load, ws);
  auto const counts = ws.take<index_t>((rule_count + changes) * experts);
  auto const other = ws.take<expert_id>(cluster.slots());
  index_t const nodes = detail::nodes_with_slots(cluster);
  layout_choice best{.report = {.status = status::infeasible, .bound = objective.bound(cluster, prepared)}, .cost = {}};
  index_t made = 0;  // distinct counts so far
  // The best table and the one being tried take turns in two arrays.
  std::span<expert_id> leading = next;
  std::span<expert_id> trial = other;
  index_t leading_counts = 0;  // the counts that made the best table apart from the one in use
  double leading_cost = std::numeric_limits<double>::infinity();
  auto const judge = [&](std::span<expert_id const> slots, index_t candidate) {
    step_cost const cost = objective.cost(cluster, prepared, slots, ws);
    ++best.report.iterations;
    if (candidate != kept && cost.total_s() < leading_cost) {
      leading_cost = cost.total_s();
      leading_counts = made - 1;
    }
    if (best.winner != -1 && !(cost.total_s() < best.report.value)) { return false; }
    best.winner = candidate;
    best.cost = cost;
    best.report.status = status::ok;
    best.report.value = cost.total_s();
    return true;
  };
  auto const counts_of = [&](index_t candidate) {
    return counts.subspan(static_cast<std::size_t>(candidate * experts), static_cast<std::size_t>(experts));
  };

  if (keep && !now.empty()) {
    bool complete = false;
    {
      workspace::scope const check(ws);
      complete = detail::holds_all(now, ws.take<std::int32_t>(experts));
    }
    if (complete && judge(now, kept)) { std::copy(now.begin(), now.end(), leading.begin()); }
  }

  auto const try_counts = [&](index_t candidate) {
    auto const mine = counts_of(made);
    for (index_t earlier = 0; earlier < made; ++earlier) {
      if (std::equal(mine.begin(), mine.end(), counts_of(earlier).begin())) { return false; }
    }
    ++made;
    report const assigned = assigner.assign(cluster, load.totals, mine, trial, ws);
    if (assigned.status == status::infeasible || assigned.status == status::unsupported) { return true; }
    if (judge(trial, candidate)) { std::swap(leading, trial); }
    return true;
  };
  index_t number = 0;
  auto const try_rule = [&](auto const& rule) {
    static_assert(apportionment<std::remove_cvref_t<decltype(rule)>>,
                  "the rules of a layout_tuner are a std::tuple of models of apportionment (concepts/apportionment.hpp)");
    report const made_counts = rule.apportion(load.totals, cluster.slots(), nodes, counts_of(made), ws);
    if (made_counts.status != status::infeasible && made_counts.status != status::unsupported) { try_counts(number); }
    ++number;
  };
  std::apply([&](auto const&... rule) { (try_rule(rule), ...); }, rules);

  index_t const drawn_from_rules = made;
  std::uint64_t draw = 0;
  for (index_t change = 0; drawn_from_rules > 0 && change < changes; ++change) {
    for (index_t attempt = 0; attempt < attempts; ++attempt) {
      auto const words = philox::draw(seed, 0, draw++);
      auto const parent = counts_of(parents == change_parent::best
                                        ? leading_counts
                                        : static_cast<index_t>(philox::below(words[0], static_cast<std::uint32_t>(made))));
      auto const mine = counts_of(made);
      std::copy(parent.begin(), parent.end(), mine.begin());
      if (detail::move_replicas(mine, nodes, words[1], words[2]) && try_counts(rule_count + change)) { break; }
    }
  }

  if (best.winner == -1) {
    std::fill(next.begin(), next.end(), expert_id::none);
  } else if (leading.data() != next.data()) {
    std::copy(leading.begin(), leading.end(), next.begin());
  }
  return best;
}

FAIRLEAD_NAMESPACE_END
