// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `load_planner`.
#include <fairlead/concepts/planner.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/laws/detail/planning_cases.hpp>
#include <fairlead/laws/verdict.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The problems that `check_load_planner` makes.
struct load_planner_problem {
  index_t ranks = 6;                      ///< number of ranks, >= 1
  index_t ranks_per_node = 2;             ///< ranks of a node, >= 1
  index_t experts = 10;                   ///< number of experts, >= 1
  index_t extra_slots = 9;                ///< slots beyond one an expert
  index_t largest_load = 1000;            ///< loads are 0 to this
  index_t huge_load = index_t{1} << 40U;  ///< loads of the case of huge loads are 1 to this
  index_t samples = 3;                    ///< samples of the estimate; they sum to the totals
  std::uint64_t seed = 1;                 ///< seed of loads and clusters
  int cases = 126;                        ///< number of problems; 63 meet each kind of cluster with each kind of load
  bool ragged = true;                     ///< ranks with different numbers of slots, or none; nodes of different sizes
  bool fills_slots = false;               ///< no slot stays empty
  bool value_is_largest_share = false;    ///< `value` is the largest load of a rank under equal shares
  bool has_bound = true;                  ///< `bound` is a lower bound of `value`
  bool scale_invariant = false;           ///< loads times three give the same slots and three times the value
  bool needs_now = false;                 ///< it cannot start without a table in use
  /// Whether the planner has rules of its own that may leave no table though slots >= experts: it may then say
  /// infeasible, with all slots none.
  bool may_refuse = false;
};

/// @brief Check a planner from loads on random loads and clusters.
///
/// Laws: every expert gets a slot, other slots hold experts or none, with the table in use given or empty; the result
/// depends neither on old content of `next` nor on scratch; nothing beside `next` is written and `now` is left alone;
/// no more scratch is taken than `workspace_bytes`; fewer slots than experts are reported as infeasible with all slots
/// none; no load, load on one expert, ties, huge loads, one rank, ranks without slots, ragged ranks and nodes, no slot
/// to spare, no experts and no ranks are legal; and what the flags of the problem state.
/// @tparam Planner a model of `load_planner`
/// @param planner the planner
/// @param problem sizes, seed and statements
/// @returns the first broken law
/// @pre at least one rank, one rank a node and one expert (level 1)
template <load_planner Planner>
[[nodiscard]] verdict check_load_planner(Planner const& planner, load_planner_problem const& problem = {}) {
  FAIRLEAD_EXPECTS(problem.ranks >= 1 && problem.experts >= 1 && problem.ranks_per_node >= 1,
                   "the check needs a rank and an expert", problem.ranks, problem.experts, problem.ranks_per_node);
  constexpr auto stale = static_cast<expert_id>(0x5EA1);
  // One call with exactly the scratch asked for, between two guards. Returns whether the guards held.
  auto const run = [&](topology const& cluster, load_estimate const& load, std::vector<expert_id> const& now,
                       std::byte dirt, expert_id old, std::vector<expert_id>& next, report& ended) {
    auto const size = static_cast<std::size_t>(cluster.slots());
    std::vector<expert_id> guarded(size + 2, old);
    guarded.front() = guarded.back() = stale;
    std::vector<expert_id> const kept(now);
    buffer<std::byte> scratch(
        static_cast<index_t>(planner.workspace_bytes(cluster, static_cast<index_t>(load.totals.size()))));
    std::fill(scratch.span().begin(), scratch.span().end(), dirt);
    workspace ws(scratch.span());
    ended = planner.plan(cluster, load, now, std::span(guarded).subspan(1, size), ws);
    next.assign(guarded.begin() + 1, guarded.end() - 1);
    return guarded.front() == stale && guarded.back() == stale && kept == now;
  };
  auto const all_none = [](std::vector<expert_id> const& slots) {
    return std::all_of(slots.begin(), slots.end(), [](expert_id e) { return e == expert_id::none; });
  };

  for (int number = 0; number < problem.cases; ++number) {
    detail::whole_numbers draw(problem.seed, static_cast<std::uint64_t>(number));
    int const shape = number % detail::cluster_kinds;
    int const kind = number % detail::load_kinds;
    topology const cluster =
        detail::planning_cluster(shape, problem.ranks, problem.ranks_per_node, problem.experts + problem.extra_slots,
                                 problem.experts, problem.ragged, draw);
    std::vector<index_t> totals(static_cast<std::size_t>(problem.experts));
    detail::planning_load(kind, problem.largest_load, problem.huge_load, totals, draw);
    matrix<index_t> by_source(cluster.ranks(), problem.experts);
    matrix<index_t> samples(problem.samples, problem.experts);
    auto const spread = [&] {  // each total at random over the rows
      for (matrix<index_t>* part : {&by_source, &samples}) {
        for (index_t e = 0; e < problem.experts && part->rows() > 0; ++e) {
          index_t left = totals[static_cast<std::size_t>(e)];
          for (index_t row = 0; row + 1 < part->rows(); ++row) {
            (*part)(row, e) = draw.below(left + 1);
            left -= (*part)(row, e);
          }
          (*part)(part->rows() - 1, e) = left;
        }
      }
    };
    spread();
    load_estimate const load{totals, by_source.view(), samples.view()};
    auto const broken = [&](char const* law) {
      return verdict::broken("load_planner: ", law, " (case ", number, ", seed ", problem.seed, ", ", cluster.ranks(),
                             " ranks, ", cluster.slots(), " slots, ", problem.experts, " experts, cluster kind ", shape,
                             ", load kind ", kind, ")");
    };
    std::vector<expert_id> now;  // each expert once, the other slots at random, all of it shuffled
    for (index_t slot = 0; slot < cluster.slots(); ++slot) {
      now.push_back(static_cast<expert_id>(slot < problem.experts ? slot : draw.below(problem.experts)));
    }
    for (std::size_t i = now.size(); i > 1; --i) {
      std::swap(now[i - 1], now[static_cast<std::size_t>(draw.below(static_cast<index_t>(i)))]);
    }
    try {
      for (bool const in_use : {false, true}) {
        if (!in_use && problem.needs_now) { continue; }
        std::vector<expert_id> const& before = in_use ? now : std::vector<expert_id>{};
        std::vector<expert_id> first;
        std::vector<expert_id> second;
        report ended;
        report again;
        if (!run(cluster, load, before, std::byte{0}, expert_id::none, first, ended) ||
            !run(cluster, load, before, std::byte{0xA5}, stale, second, again)) {
          return broken("nothing beside the next table is written");
        }
        if (first != second || ended.status != again.status || ended.value != again.value ||
            ended.bound != again.bound) {
          return broken("equal arguments give the equal result, whatever the next table and scratch held");
        }
        if (ended.status == status::infeasible && problem.may_refuse) {
          if (!all_none(first)) { return broken("all slots are none when it is infeasible"); }
          continue;
        }
        if (ended.status != status::ok && ended.status != status::iteration_limit &&
            ended.status != status::no_improvement) {
          return broken("ends well when there is a slot for every expert");
        }
        std::vector<bool> found(totals.size(), false);
        for (expert_id const expert : first) {
          if (expert == expert_id::none) {
            if (problem.fills_slots) { return broken("no slot stays empty"); }
            continue;
          }
          if (to_index(expert) < 0 || to_index(expert) >= problem.experts) {
            return broken("slots hold experts or none");
          }
          found[static_cast<std::size_t>(expert)] = true;
        }
        if (std::find(found.begin(), found.end(), false) != found.end()) { return broken("every expert gets a slot"); }
        if (problem.value_is_largest_share &&
            !detail::nearly_equal(ended.value, detail::largest_equal_share(cluster, totals, first))) {
          return broken("value is the largest load of a rank under equal shares");
        }
        if (problem.has_bound && ended.bound > ended.value * (1.0 + 1e-9)) {
          return broken("the bound is not above the value");
        }
        if (problem.scale_invariant) {
          for (index_t& total : totals) { total *= 3; }
          for (matrix<index_t>* part : {&by_source, &samples}) {
            for (index_t& entry : part->span()) { entry *= 3; }
          }
          bool const guarded = run(cluster, load, before, std::byte{0x33}, stale, second, again);
          for (index_t& total : totals) { total /= 3; }
          for (matrix<index_t>* part : {&by_source, &samples}) {
            for (index_t& entry : part->span()) { entry /= 3; }
          }
          if (!guarded) { return broken("nothing beside the next table is written"); }
          if (first != second || !detail::nearly_equal(again.value, 3.0 * ended.value)) {
            return broken("loads times three give the same slots and three times the value");
          }
        }
      }
      // One slot fewer than experts, on a cluster of the same ranks.
      std::vector<index_t> offsets(cluster.slot_offsets().begin(), cluster.slot_offsets().end());
      for (index_t& offset : offsets) { offset = std::min(offset, problem.experts - 1); }
      topology const small(cluster.node_offsets(), offsets);
      std::vector<expert_id> next;
      report ended;
      std::vector<expert_id> const held(now.begin(), now.begin() + small.slots());
      if (!run(small, load, problem.needs_now ? held : std::vector<expert_id>{}, std::byte{0x11}, stale, next, ended)) {
        return broken("nothing beside the next table is written");
      }
      if (ended.status != status::infeasible || !all_none(next)) {
        return broken("fewer slots than experts are reported as infeasible, with all slots none");
      }
    } catch (contract_violation const& violation) {
      return verdict::broken("load_planner: workspace_bytes() suffices and legal input is accepted: ",
                             violation.what());
    }
  }

  // Nothing to place.
  for (topology const& cluster : {topology(), topology(2, 0), topology(3, 2, 2)}) {
    try {
      std::vector<expert_id> next;
      report ended;
      std::vector<expert_id> const empty(problem.needs_now ? static_cast<std::size_t>(cluster.slots()) : 0,
                                         expert_id::none);
      if (!run(cluster, {}, empty, std::byte{0x77}, stale, next, ended) || ended.status == status::infeasible ||
          ended.status == status::unsupported || !all_none(next)) {
        return verdict::broken("load_planner: no experts are legal and leave all slots none (", cluster.slots(),
                               " slots)");
      }
    } catch (contract_violation const& violation) {
      return verdict::broken("load_planner: no experts are legal: ", violation.what());
    }
  }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
