// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `cost_model`.
#include <fairlead/concepts/cost_model.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/laws/detail/copy_cases.hpp>
#include <fairlead/laws/verdict.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The problems that `check_cost_model` makes.
struct cost_model_problem {
  index_t ranks = 6;           ///< number of ranks
  index_t experts = 5;         ///< number of experts
  index_t most_slots = 4;      ///< slots of a rank, 1 to this
  count_t largest_count = 50;  ///< copies of a (source, replica), 0 to this
  bool ranks_alike =
      true;  ///< whether ranks of a node, and nodes of equal size, are alike: then swapping them changes nothing
  double tolerance = 1e-12;  ///< relative difference that rounding may make
  std::uint64_t seed = 1;    ///< seed of everything
  int cases = 24;            ///< number of clusters tried
};

/// @brief Check a cost model on random clusters, placements with short-lived copies, and schedules.
///
/// Laws: times are finite and not negative; equal arguments give equal times, whatever scratch held, with no more
/// scratch than `workspace_bytes`; one more copy anywhere never makes the total smaller; no copies at all are legal and
/// cost no more than any; if ranks are alike, exchanging two neighbouring ranks of a node with equally many slots
/// (contents, sources and all) changes nothing.
/// @tparam Model a model of `cost_model`
/// @param model the model
/// @param problem sizes and seed
/// @returns the first broken law
/// @pre at least one rank and one expert (level 1)
template <cost_model Model>
[[nodiscard]] verdict check_cost_model(Model const& model, cost_model_problem const& problem = {}) {
  FAIRLEAD_EXPECTS(problem.ranks >= 1 && problem.experts >= 1 && problem.most_slots >= 1,
                   "the check needs a rank, an expert and a slot", problem.ranks, problem.experts, problem.most_slots);
  for (int number = 0; number < problem.cases; ++number) {
    detail::case_numbers draw(problem.seed, static_cast<std::uint64_t>(number));
    auto const broken = [&](char const* law) {
      return verdict::broken("cost_model: ", law, " (case ", number, ", seed ", problem.seed, ", ", problem.ranks,
                             " ranks, ", problem.experts, " experts)");
    };
    topology const cluster = detail::random_cluster(draw, problem.ranks, 1, problem.most_slots);
    placement const base =
        make_placement(cluster, problem.experts, detail::random_table(draw, cluster.slots(), problem.experts));
    std::vector<replica_copy> copies;
    for (index_t i = draw.below(4); i > 0; --i) {
      copies.push_back(
          {static_cast<expert_id>(draw.below(problem.experts)), static_cast<rank_id>(draw.below(problem.ranks))});
    }
    placement const where = with_copies(base, copies);
    matrix<count_t> schedule(problem.ranks, where.replicas());
    for (count_t& count : schedule.span()) {
      count = number + 1 == problem.cases || draw.below(3) == 0
                  ? 0
                  : static_cast<count_t>(draw.below(problem.largest_count + 1));
    }
    buffer<std::byte> scratch(static_cast<index_t>(model.workspace_bytes(cluster, problem.experts)));
    std::fill(scratch.span().begin(), scratch.span().end(), std::byte{0x00});
    auto const cost = [&](placement const& at, matrix<count_t> const& counts) {
      workspace ws(scratch.span());
      return model.cost(cluster, at, counts.view(), ws);
    };
    try {
      step_cost const first = cost(where, schedule);
      if (!(first.communication_s >= 0.0 && first.compute_s >= 0.0 && std::isfinite(first.total_s()))) {
        return broken("times are finite and not negative");
      }
      std::fill(scratch.span().begin(), scratch.span().end(), std::byte{0x5A});
      step_cost const second = cost(where, schedule);
      if (first.communication_s != second.communication_s || first.compute_s != second.compute_s) {
        return broken("equal arguments give equal times, whatever scratch held");
      }
      double const slack = problem.tolerance * first.total_s();
      matrix<count_t> const nothing(problem.ranks, where.replicas());
      if (cost(where, nothing).total_s() > first.total_s() + slack) {
        return broken("no copies cost no more than some");
      }
      for (int trial = 0; trial < 8 && where.replicas() > 0; ++trial) {
        count_t& count = schedule(draw.below(problem.ranks), draw.below(where.replicas()));
        ++count;
        bool const fell = cost(where, schedule).total_s() < first.total_s() - slack;
        --count;
        if (fell) { return broken("one more copy never takes less time"); }
      }
      // Exchange two neighbours of one node: their contents, and what they send.
      for (index_t a = 0; a + 1 < problem.ranks; ++a) {
        index_t const b = a + 1;
        if (!problem.ranks_alike || cluster.node_of(a) != cluster.node_of(b) || cluster.slots(a) != cluster.slots(b)) {
          continue;
        }
        std::vector<index_t> offsets(1, 0);
        std::vector<expert_id> slots;
        auto const other = [&](index_t rank) { return rank == a ? b : rank == b ? a : rank; };
        for (index_t rank = 0; rank < problem.ranks; ++rank) {
          auto const row = where.experts_on(static_cast<rank_id>(other(rank)));
          slots.insert(slots.end(), row.begin(), row.end());
          offsets.push_back(static_cast<index_t>(slots.size()));
        }
        placement const swapped(problem.experts, offsets, slots);
        matrix<count_t> moved(problem.ranks, swapped.replicas());
        for (index_t rank = 0; rank < problem.ranks; ++rank) {
          for (index_t slot = 0; slot < swapped.slots(static_cast<rank_id>(rank)); ++slot) {
            auto const local = static_cast<local_slot_id>(slot);
            index_t const column = swapped.replica_at(static_cast<rank_id>(rank), local);
            index_t const old = where.replica_at(static_cast<rank_id>(other(rank)), local);
            for (index_t source = 0; column >= 0 && source < problem.ranks; ++source) {
              moved(source, column) = schedule(other(source), old);
            }
          }
        }
        if (std::fabs(cost(swapped, moved).total_s() - first.total_s()) > slack) {
          return broken("exchanging two ranks of a node changes nothing");
        }
      }
    } catch (contract_violation const& violation) {
      return verdict::broken("cost_model: workspace_bytes() suffices and legal input is accepted: ", violation.what());
    }
  }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
