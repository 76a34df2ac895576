// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `copy_planner`.
#include <fairlead/concepts/copy_planner.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/laws/detail/copy_cases.hpp>
#include <fairlead/laws/verdict.hpp>

#include <cstddef>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The problems that `check_copy_planner` makes.
struct copy_planner_problem {
  index_t ranks = 6;             ///< number of ranks
  index_t experts = 8;           ///< number of experts
  index_t most_slots = 4;        ///< slots of a rank, 1 to this
  index_t largest_load = 10000;  ///< copies of a (source, expert), 0 to this; some experts get ten times as many
  std::uint64_t seed = 1;        ///< seed of everything
  int cases = 32;                ///< number of clusters tried
};

/// @brief Check a planner of short-lived copies on random clusters, placements and loads.
///
/// Laws: copies are appended behind what the list holds, at most `most_copies`; each is of an existing expert on an
/// existing rank that has slots and does not host the expert, none twice; value <= bound, equal if there is no copy;
/// equal arguments give equal copies, whatever scratch held, with no more scratch than `workspace_bytes`; no load at
/// all and one rank are legal; an expert with load and without a replica gives `status::lost_expert` and no copies.
/// @tparam Planner a model of `copy_planner`
/// @param planner the planner
/// @param problem sizes and seed
/// @returns the first broken law
/// @pre at least one rank and one expert (level 1)
template <copy_planner Planner>
[[nodiscard]] verdict check_copy_planner(Planner const& planner, copy_planner_problem const& problem = {}) {
  FAIRLEAD_EXPECTS(problem.ranks >= 1 && problem.experts >= 1 && problem.most_slots >= 1,
                   "the check needs a rank, an expert and a slot", problem.ranks, problem.experts, problem.most_slots);
  for (int number = 0; number < problem.cases; ++number) {
    detail::case_numbers draw(problem.seed, static_cast<std::uint64_t>(number));
    index_t const ranks = number == 1 ? 1 : problem.ranks;
    auto const broken = [&](char const* law) {
      return verdict::broken("copy_planner: ", law, " (case ", number, ", seed ", problem.seed, ", ", ranks, " ranks, ",
                             problem.experts, " experts)");
    };
    index_t const least = std::min(problem.most_slots, (problem.experts + ranks - 1) / ranks);
    topology const cluster = detail::random_cluster(draw, ranks, least, problem.most_slots);
    std::vector<expert_id> table = detail::random_table(draw, cluster.slots(), problem.experts);
    placement const where = make_placement(cluster, problem.experts, table);
    matrix<index_t> by_source(ranks, problem.experts);
    std::vector<index_t> totals(static_cast<std::size_t>(problem.experts), 0);
    for (index_t e = 0; e < problem.experts; ++e) {
      index_t const heat = draw.below(4) == 0 ? 10 : 1;
      bool const lost = where.replicas(static_cast<expert_id>(e)).empty();
      for (index_t rank = 0; rank < ranks && number != 0 && !lost; ++rank) {
        by_source(rank, e) = heat * draw.below(problem.largest_load + 1);
        totals[static_cast<std::size_t>(e)] += by_source(rank, e);
      }
    }
    load_estimate const load{.totals = totals, .by_source = by_source.view()};
    index_t const most = planner.most_copies(cluster, problem.experts);
    buffer<std::byte> scratch(static_cast<index_t>(planner.workspace_bytes(cluster, problem.experts)));
    replica_copy const before{static_cast<expert_id>(0), static_cast<rank_id>(0)};
    std::vector<replica_copy> storage(static_cast<std::size_t>(most) + 1, before);
    std::vector<replica_copy> again(static_cast<std::size_t>(most) + 1, before);
    copy_list first{storage, 1};
    copy_list second{again, 1};
    report ended;
    try {
      std::fill(scratch.span().begin(), scratch.span().end(), std::byte{0x00});
      workspace ws(scratch.span());
      ended = planner.copies(cluster, load, where, first, ws);
      std::fill(scratch.span().begin(), scratch.span().end(), std::byte{0x5A});
      workspace other(scratch.span());
      (void)planner.copies(cluster, load, where, second, other);
    } catch (contract_violation const& violation) {
      return verdict::broken("copy_planner: workspace_bytes() and most_copies() suffice and legal input is accepted: ",
                             violation.what());
    }
    if (ended.status != status::ok && ended.status != status::no_improvement) {
      return broken("ends well when no expert is lost");
    }
    if (first.size < 1 || first.size > most + 1 || !(storage[0] == before)) {
      return broken("copies are appended, at most most_copies()");
    }
    for (index_t i = 1; i < first.size; ++i) {
      replica_copy const copy = storage[static_cast<std::size_t>(i)];
      if (to_index(copy.expert) < 0 || to_index(copy.expert) >= problem.experts || to_index(copy.rank) < 0 ||
          to_index(copy.rank) >= ranks) {
        return broken("expert and rank of a copy exist");
      }
      if (cluster.slots(to_index(copy.rank)) == 0) { return broken("ranks without slots get no copy"); }
      for (replica const& one : where.replicas(copy.expert)) {
        if (one.rank == copy.rank) { return broken("no copy goes to a rank that hosts the expert"); }
      }
      for (index_t j = 1; j < i; ++j) {
        if (storage[static_cast<std::size_t>(j)] == copy) { return broken("no copy is made twice"); }
      }
    }
    if (!(ended.value <= ended.bound)) { return broken("the modelled time with copies is at most that without"); }
    if (first.size == 1 && ended.value != ended.bound) { return broken("without a copy value equals bound"); }
    if (first.size != second.size || !std::equal(storage.begin(), storage.begin() + first.size, again.begin())) {
      return broken("equal arguments give equal copies, whatever scratch held");
    }

    // Lose an expert that has load.
    index_t const gone = draw.below(problem.experts);
    std::replace(table.begin(), table.end(), static_cast<expert_id>(gone), expert_id::none);
    totals[static_cast<std::size_t>(gone)] += 1;
    by_source(0, gone) += 1;
    placement const crippled = make_placement(cluster, problem.experts, table);
    first.size = 1;
    try {
      workspace ws(scratch.span());
      ended = planner.copies(cluster, load, crippled, first, ws);
    } catch (contract_violation const& violation) {
      return verdict::broken("copy_planner: a lost expert is reported, not thrown: ", violation.what());
    }
    if (ended.status != status::lost_expert || first.size != 1) {
      return broken("a lost expert with load is reported, without copies");
    }
  }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
