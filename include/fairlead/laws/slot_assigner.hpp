// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `slot_assigner`.
#include <fairlead/concepts/slot_assigner.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/laws/detail/planning_cases.hpp>
#include <fairlead/laws/verdict.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The problems that `check_slot_assigner` makes.
struct slot_assigner_problem {
  index_t ranks = 6;                      ///< number of ranks, >= 1
  index_t ranks_per_node = 2;             ///< ranks of a node, >= 1
  index_t experts = 10;                   ///< number of experts, >= 1
  index_t extra_slots = 9;                ///< slots beyond one an expert
  index_t largest_load = 1000;            ///< loads are 0 to this
  index_t huge_load = index_t{1} << 40U;  ///< loads of the case of huge loads are 1 to this
  std::uint64_t seed = 1;                 ///< seed of loads, clusters and numbers of replicas
  int cases = 126;                        ///< number of problems; 63 meet each kind of cluster with each kind of load
  bool ragged = true;                     ///< ranks with different numbers of slots, or none; nodes of different sizes
  bool empty_slots = true;                ///< fewer replicas than slots
  bool zero_replicas = true;              ///< experts without a replica
  /// Whether the assigner has rules of its own that replicas may break though they fit by number: it may then say
  /// infeasible, with all slots none.
  bool may_refuse = false;
  bool scale_invariant = true;  ///< loads times three give the same slots
};

/// @brief Check a slot assigner on random loads, clusters and numbers of replicas.
///
/// Laws: each expert appears in exactly as many slots as it has replicas; other slots are none; `value` is the largest
/// load of a rank under equal shares and `bound` is not above it; the result depends neither on old content of `slots`
/// nor on scratch; nothing beside `slots` is written; no more scratch is taken than `workspace_bytes`; replicas that do
/// not fit are reported as infeasible with all slots none; no load, load on one expert, ties, huge loads, one rank,
/// ranks without slots, ragged ranks and nodes, no experts and no ranks are legal; loads times three give three times
/// the value.
/// @tparam Assigner a model of `slot_assigner`
/// @param assigner the assigner
/// @param problem sizes and seed
/// @returns the first broken law
/// @pre at least one rank, one rank a node and one expert (level 1)
template <slot_assigner Assigner>
[[nodiscard]] verdict check_slot_assigner(Assigner const& assigner, slot_assigner_problem const& problem = {}) {
  FAIRLEAD_EXPECTS(problem.ranks >= 1 && problem.experts >= 1 && problem.ranks_per_node >= 1,
                   "the check needs a rank and an expert", problem.ranks, problem.experts, problem.ranks_per_node);
  constexpr auto stale = static_cast<expert_id>(0x5EA1);
  // One call with exactly the scratch asked for, between two guards. Returns whether the guards held.
  auto const run = [&](topology const& cluster, std::vector<index_t> const& load, std::vector<index_t> const& replicas,
                       std::byte dirt, expert_id old, std::vector<expert_id>& slots, report& ended) {
    auto const size = static_cast<std::size_t>(cluster.slots());
    std::vector<expert_id> guarded(size + 2, old);
    guarded.front() = guarded.back() = stale;
    buffer<std::byte> scratch(
        static_cast<index_t>(assigner.workspace_bytes(cluster, static_cast<index_t>(load.size()))));
    std::fill(scratch.span().begin(), scratch.span().end(), dirt);
    workspace ws(scratch.span());
    ended = assigner.assign(cluster, load, replicas, std::span(guarded).subspan(1, size), ws);
    slots.assign(guarded.begin() + 1, guarded.end() - 1);
    return guarded.front() == stale && guarded.back() == stale;
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
    std::vector<index_t> load(static_cast<std::size_t>(problem.experts));
    detail::planning_load(kind, problem.largest_load, problem.huge_load, load, draw);
    std::vector<index_t> replicas(load.size(), 1);
    index_t const spare =
        problem.empty_slots && number % 3 == 1 ? draw.below(cluster.slots() - problem.experts + 1) : 0;
    for (index_t left = cluster.slots() - problem.experts - spare; left > 0; --left) {
      ++replicas[static_cast<std::size_t>(draw.below(problem.experts))];
    }
    if (problem.zero_replicas && number % 5 == 2) {
      replicas[static_cast<std::size_t>(draw.below(problem.experts))] = 0;
    }
    auto const broken = [&](char const* law) {
      return verdict::broken("slot_assigner: ", law, " (case ", number, ", seed ", problem.seed, ", ", cluster.ranks(),
                             " ranks, ", cluster.slots(), " slots, ", problem.experts, " experts, cluster kind ", shape,
                             ", load kind ", kind, ")");
    };
    try {
      std::vector<expert_id> first;
      std::vector<expert_id> second;
      report ended;
      report again;
      if (!run(cluster, load, replicas, std::byte{0}, expert_id::none, first, ended) ||
          !run(cluster, load, replicas, std::byte{0xA5}, stale, second, again)) {
        return broken("nothing beside the slots is written");
      }
      if (first != second || ended.status != again.status || ended.value != again.value || ended.bound != again.bound) {
        return broken("equal arguments give the equal result, whatever slots and scratch held");
      }
      if (ended.status == status::infeasible && problem.may_refuse) {
        if (!all_none(first)) { return broken("all slots are none when it is infeasible"); }
        continue;
      }
      if (ended.status == status::infeasible || ended.status == status::unsupported) {
        return broken("ends well when the replicas fit");
      }
      std::vector<index_t> found(load.size(), 0);
      for (expert_id const expert : first) {
        if (expert == expert_id::none) { continue; }
        if (to_index(expert) < 0 || to_index(expert) >= problem.experts) {
          return broken("slots hold experts or none");
        }
        ++found[static_cast<std::size_t>(expert)];
      }
      if (found != replicas) { return broken("each expert has as many slots as replicas"); }
      double const largest = detail::largest_equal_share(cluster, load, first);
      if (!detail::nearly_equal(ended.value, largest)) {
        return broken("value is the largest load of a rank under equal shares");
      }
      if (ended.bound > ended.value * (1.0 + 1e-9)) { return broken("the bound is not above the value"); }
      if (problem.scale_invariant) {
        std::vector<index_t> scaled(load);
        for (index_t& entry : scaled) { entry *= 3; }
        if (!run(cluster, scaled, replicas, std::byte{0x33}, stale, second, again)) {
          return broken("nothing beside the slots is written");
        }
        if (first != second || !detail::nearly_equal(again.value, 3.0 * ended.value)) {
          return broken("loads times three give the same slots and three times the value");
        }
      }
      // One replica more than there are slots.
      std::vector<index_t> many(replicas);
      index_t sum = 0;
      for (index_t const count : many) { sum += count; }
      many[static_cast<std::size_t>(draw.below(problem.experts))] += cluster.slots() - sum + 1;
      if (!run(cluster, load, many, std::byte{0x11}, stale, second, again)) {
        return broken("nothing beside the slots is written");
      }
      if (again.status != status::infeasible || !all_none(second)) {
        return broken("replicas that do not fit are reported as infeasible, with all slots none");
      }
    } catch (contract_violation const& violation) {
      return verdict::broken("slot_assigner: workspace_bytes() suffices and legal input is accepted: ",
                             violation.what());
    }
  }

  // Nothing to place.
  for (topology const& cluster : {topology(), topology(2, 0), topology(3, 2, 2)}) {
    try {
      std::vector<expert_id> slots;
      report ended;
      if (!run(cluster, {}, {}, std::byte{0x77}, stale, slots, ended) || ended.status == status::infeasible ||
          ended.status == status::unsupported || !all_none(slots) || ended.value != 0.0) {
        return verdict::broken("slot_assigner: no experts are legal and leave all slots none (", cluster.slots(),
                               " slots)");
      }
    } catch (contract_violation const& violation) {
      return verdict::broken("slot_assigner: no experts are legal: ", violation.what());
    }
  }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
