// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `slot_mapper`.
#include <fairlead/concepts/slot_mapper.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/laws/detail/copy_cases.hpp>
#include <fairlead/laws/verdict.hpp>

#include <cstddef>
#include <cstdint>
#include <set>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The problems that `check_slot_mapper` makes.
struct slot_mapper_problem {
  index_t ranks = 6;          ///< number of ranks
  index_t experts = 7;        ///< number of experts
  index_t most_slots = 4;     ///< slots of a rank, 1 to this
  bool inside_nodes = false;  ///< whether ranks change places inside their node only
  std::uint64_t seed = 1;     ///< seed of everything
  int cases = 48;             ///< number of clusters tried
};

namespace detail {

// (rank, expert) pairs of `next` that `now` does not have.
[[nodiscard]] inline index_t fetched_pairs(topology const& cluster, std::vector<expert_id> const& now,
                                           std::vector<expert_id> const& next) {
  index_t count = 0;
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    auto const first = static_cast<std::ptrdiff_t>(cluster.slot_offsets()[static_cast<std::size_t>(rank)]);
    auto const end = first + static_cast<std::ptrdiff_t>(cluster.slots(rank));
    std::set<expert_id> missing(next.begin() + first, next.begin() + end);
    missing.erase(expert_id::none);
    for (auto slot = now.empty() ? end : first; slot < end; ++slot) {
      missing.erase(now[static_cast<std::size_t>(slot)]);
    }
    count += static_cast<index_t>(missing.size());
  }
  return count;
}

// Contents of all ranks, sorted: equal if one table is the other with ranks exchanged and slots permuted.
[[nodiscard]] inline std::vector<std::vector<index_t>> rank_contents(topology const& cluster,
                                                                     std::vector<expert_id> const& table,
                                                                     bool inside_nodes) {
  std::vector<std::vector<index_t>> contents;
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    std::vector<index_t> row;
    for (index_t slot = 0; slot < cluster.slots(rank); ++slot) {
      row.push_back(
          to_index(table[static_cast<std::size_t>(cluster.slot_offsets()[static_cast<std::size_t>(rank)] + slot)]));
    }
    std::sort(row.begin(), row.end());
    row.insert(row.begin(), {inside_nodes ? cluster.node_of(rank) : 0, cluster.slots(rank)});
    contents.push_back(row);
  }
  std::sort(contents.begin(), contents.end());
  return contents;
}

}  // namespace detail

/// @brief Check a slot mapper on random clusters and tables.
///
/// Laws: the result is the given table with whole ranks of equally many slots exchanged (inside nodes, if the problem
/// says so) and slots permuted inside ranks; `value` is the number of (rank, expert) pairs that the result has and the
/// table in use has not; never more than for the table as given; a table in use that comes as the new one needs no
/// fetch and stays as it is; an empty table in use is legal; equal arguments give the equal result, whatever scratch
/// held, with no more scratch than `workspace_bytes`.
/// @tparam Mapper a model of `slot_mapper`
/// @param mapper the mapper
/// @param problem sizes and seed
/// @returns the first broken law
/// @pre at least one rank and one expert (level 1)
template <slot_mapper Mapper>
[[nodiscard]] verdict check_slot_mapper(Mapper const& mapper, slot_mapper_problem const& problem = {}) {
  FAIRLEAD_EXPECTS(problem.ranks >= 1 && problem.experts >= 1 && problem.most_slots >= 1,
                   "the check needs a rank, an expert and a slot", problem.ranks, problem.experts, problem.most_slots);
  for (int number = 0; number < problem.cases; ++number) {
    detail::case_numbers draw(problem.seed, static_cast<std::uint64_t>(number));
    auto const broken = [&](char const* law) {
      return verdict::broken("slot_mapper: ", law, " (case ", number, ", seed ", problem.seed, ", ", problem.ranks,
                             " ranks, ", problem.experts, " experts)");
    };
    topology const cluster = detail::random_cluster(draw, problem.ranks, 1, problem.most_slots);
    std::vector<expert_id> const next = detail::random_table(draw, cluster.slots(), problem.experts);
    std::vector<expert_id> now = detail::random_table(draw, cluster.slots(), problem.experts);
    if (number == 0) { now.clear(); }
    if (number % 4 == 1) { now = next; }
    buffer<std::byte> scratch(static_cast<index_t>(mapper.workspace_bytes(cluster, problem.experts)));
    std::vector<expert_id> first = next;
    std::vector<expert_id> second = next;
    report ended;
    try {
      std::fill(scratch.span().begin(), scratch.span().end(), std::byte{0x00});
      workspace ws(scratch.span());
      ended = mapper.map(cluster, now, first, ws);
      std::fill(scratch.span().begin(), scratch.span().end(), std::byte{0x5A});
      workspace other(scratch.span());
      (void)mapper.map(cluster, now, second, other);
    } catch (contract_violation const& violation) {
      return verdict::broken("slot_mapper: workspace_bytes() suffices and legal input is accepted: ", violation.what());
    }
    if (ended.status != status::ok) { return broken("a legal table can be mapped"); }
    if (first != second) { return broken("equal arguments give the equal table, whatever scratch held"); }
    if (detail::rank_contents(cluster, first, problem.inside_nodes) !=
        detail::rank_contents(cluster, next, problem.inside_nodes)) {
      return broken("only whole ranks of equally many slots change places, and slots inside a rank");
    }
    index_t const fetched = detail::fetched_pairs(cluster, now, first);
    if (ended.value != static_cast<double>(fetched)) {
      return broken("value is the number of (rank, expert) pairs to fetch");
    }
    if (fetched > detail::fetched_pairs(cluster, now, next)) { return broken("mapping never makes more to fetch"); }
    if (number % 4 == 1 && first != now) { return broken("the table in use stays as it is"); }
  }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
