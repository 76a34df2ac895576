// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `apportionment`.
#include <fairlead/concepts/apportionment.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/laws/detail/planning_cases.hpp>
#include <fairlead/laws/verdict.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The problems that `check_apportionment` makes.
struct apportionment_problem {
  index_t experts = 12;                   ///< experts, 1 to this, >= 1
  index_t extra_slots = 40;               ///< slots beyond one an expert, 0 to this
  index_t nodes = 4;                      ///< nodes, 1 to this, >= 1
  index_t largest_load = 1000;            ///< loads are 0 to this
  index_t huge_load = index_t{1} << 50U;  ///< loads of the case of huge loads are 1 to this
  std::uint64_t seed = 1;                 ///< seed of loads and sizes
  int cases = 360;                        ///< number of problems; 36 meet each kind of load with each choice of slots
  bool monotone = true;                   ///< an expert with more load has no fewer replicas
  bool scale_invariant = true;            ///< loads times three give the same counts
};

/// @brief Check a rule for numbers of replicas on random loads and sizes.
///
/// Laws: counts add up to the slots and each is at least one; without any load they differ by at most one; renaming
/// experts renames the counts when nothing ties; more load never means fewer replicas and loads times three change
/// nothing (unless the problem says otherwise); the result depends neither on old counts nor on scratch; nothing beside
/// the counts is written; no more scratch is taken than `workspace_bytes`, and it is given back; too few slots are reported
/// as infeasible with zero counts; no experts on no slots are legal. Loads: none, on one expert, tied, ones and zeros, powers, huge, random.
/// @tparam Rule a model of `apportionment`
/// @param rule the rule
/// @param problem sizes and seed
/// @returns the first broken law
/// @pre at least one expert and one node (level 1)
template <apportionment Rule>
[[nodiscard]] verdict check_apportionment(Rule const& rule, apportionment_problem const& problem = {}) {
  FAIRLEAD_EXPECTS(problem.experts >= 1 && problem.nodes >= 1 && problem.extra_slots >= 0,
                   "the check needs an expert and a node", problem.experts, problem.nodes, problem.extra_slots);
  constexpr index_t stale = 0x5EA1;
  // One call with exactly the scratch asked for, between two guards. Returns whether the guards held.
  auto const run = [&](std::vector<index_t> const& load, index_t slots, index_t nodes, std::byte dirt, index_t old,
                       std::vector<index_t>& replicas, status& ended) {
    std::vector<index_t> guarded(load.size() + 2, old);
    guarded.front() = guarded.back() = stale;
    buffer<std::byte> scratch(static_cast<index_t>(rule.workspace_bytes(static_cast<index_t>(load.size()), slots)));
    std::fill(scratch.span().begin(), scratch.span().end(), dirt);
    workspace ws(scratch.span());
    report const result = rule.apportion(load, slots, nodes, std::span(guarded).subspan(1, load.size()), ws);
    ended = result.status;
    replicas.assign(guarded.begin() + 1, guarded.end() - 1);
    return guarded.front() == stale && guarded.back() == stale && ws.used() == 0;
  };
  auto const all_zero = [](std::vector<index_t> const& counts) {
    return std::all_of(counts.begin(), counts.end(), [](index_t count) { return count == 0; });
  };

  for (int number = 0; number < problem.cases; ++number) {
    detail::whole_numbers draw(problem.seed, static_cast<std::uint64_t>(number));
    int const kind = number % detail::load_kinds;
    index_t const experts = number < problem.cases / 2 ? problem.experts : 1 + draw.below(problem.experts);
    index_t const nodes = 1 + draw.below(problem.nodes);
    index_t slots = experts + draw.below(problem.extra_slots + 1);
    if (number % 4 == 1) { slots = experts; }
    if (number % 4 == 2 && nodes * experts <= experts + problem.extra_slots) { slots = nodes * experts; }
    if (number % 4 == 3 && nodes * experts < experts + problem.extra_slots) { slots = nodes * experts + 1; }
    std::vector<index_t> load(static_cast<std::size_t>(experts));
    detail::planning_load(kind, problem.largest_load, problem.huge_load, load, draw);
    auto const broken = [&](char const* law) {
      return verdict::broken("apportionment: ", law, " (case ", number, ", seed ", problem.seed, ", ", experts, " experts, ",
                             slots, " slots, ", nodes, " nodes, load kind ", kind, ")");
    };
    try {
      std::vector<index_t> first;
      std::vector<index_t> second;
      status ended{};
      status again{};
      if (!run(load, slots, nodes, std::byte{0}, 0, first, ended) ||
          !run(load, slots, nodes, std::byte{0xA5}, stale, second, again)) {
        return broken("nothing beside the counts is written, and scratch is given back");
      }
      if (first != second || ended != again) { return broken("equal arguments give the equal counts, whatever counts and scratch held"); }
      if (ended != status::ok) { return broken("ends well when there is a slot an expert"); }
      index_t sum = 0;
      for (index_t const count : first) { sum += count; }
      if (std::any_of(first.begin(), first.end(), [](index_t count) { return count < 1; })) {
        return broken("every expert has at least one replica");
      }
      if (sum != slots) { return broken("the counts add up to the slots"); }
      auto const [least, most] = std::minmax_element(first.begin(), first.end());
      if (std::all_of(load.begin(), load.end(), [](index_t value) { return value == 0; }) && *most - *least > 1) {
        return broken("without any load the counts differ by at most one");
      }
      for (std::size_t a = 0; problem.monotone && a < load.size(); ++a) {
        for (std::size_t b = 0; b < load.size(); ++b) {
          if (load[a] > load[b] && first[a] < first[b]) { return broken("more load never means fewer replicas"); }
        }
      }
      if (problem.scale_invariant) {
        std::vector<index_t> scaled(load);
        for (index_t& value : scaled) { value *= 3; }
        if (!run(scaled, slots, nodes, std::byte{0x33}, stale, second, again) || first != second) {
          return broken("loads times three give the same counts");
        }
      }
      // Loads so fine that nothing ties, renamed. Distinct ones would not do: 6 on two replicas ties with 3 on one.
      for (index_t& value : load) { value = (std::min(value, index_t{1} << 12U) << 40U) + draw.below(index_t{1} << 40U); }
      std::vector<std::size_t> names(load.size());
      std::iota(names.begin(), names.end(), std::size_t{0});
      for (std::size_t i = names.size(); i > 1; --i) {
        std::swap(names[i - 1], names[static_cast<std::size_t>(draw.below(static_cast<index_t>(i)))]);
      }
      std::vector<index_t> renamed(load.size());
      for (std::size_t e = 0; e < load.size(); ++e) { renamed[names[e]] = load[e]; }
      if (!run(load, slots, nodes, std::byte{0x11}, stale, first, ended) ||
          !run(renamed, slots, nodes, std::byte{0x22}, stale, second, again)) {
        return broken("nothing beside the counts is written, and scratch is given back");
      }
      for (std::size_t e = 0; e < load.size(); ++e) {
        if (first[e] != second[names[e]]) { return broken("renaming experts renames the counts when nothing ties"); }
      }
      if (!run(load, experts - 1, nodes, std::byte{0x44}, stale, first, ended)) {
        return broken("nothing beside the counts is written, and scratch is given back");
      }
      if (ended != status::infeasible || !all_zero(first)) {
        return broken("too few slots are reported as infeasible, with zero counts");
      }
    } catch (contract_violation const& violation) {
      return verdict::broken("apportionment: workspace_bytes() suffices and legal input is accepted: ", violation.what());
    }
  }
  try {
    std::vector<index_t> counts;
    status ended{};
    if (!run({}, 0, 1, std::byte{0}, stale, counts, ended) || ended != status::ok) {
      return verdict::broken("apportionment: no experts on no slots are legal");
    }
  } catch (contract_violation const& violation) {
    return verdict::broken("apportionment: no experts on no slots are legal: ", violation.what());
  }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
