// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `replica_split`.
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/laws/token_scheduler.hpp>
#include <fairlead/laws/verdict.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The problems that `check_replica_split` makes.
struct replica_split_problem {
  index_t ranks = 5;            ///< number of ranks
  index_t experts = 8;          ///< number of experts
  index_t extra_slots = 9;      ///< slots beyond one an expert: further replicas, or empty
  index_t largest_total = 400;  ///< copies an expert of the random cases, 0 to this, < 2^31
  std::uint64_t seed = 1;       ///< seed of totals and placements
  int cases = 24;               ///< number of placements tried
};

namespace detail {

// Copies that each rank gets by some shares.
[[nodiscard]] inline std::vector<index_t> rank_loads(placement const& where, std::span<count_t const> shares) {
  std::vector<index_t> loads(static_cast<std::size_t>(where.ranks()), 0);
  for (index_t e = 0; e < where.experts(); ++e) {
    auto column = static_cast<std::size_t>(where.replica_offset(static_cast<expert_id>(e)));
    for (replica const& copy : where.replicas(static_cast<expert_id>(e))) {
      loads[static_cast<std::size_t>(copy.rank)] += shares[column++];
    }
  }
  return loads;
}

// The least possible largest rank load, by the density of every set of ranks: no scheduler can push the copies of
// experts that live inside a set out of it, and a largest load of the rounded-up density is enough.
[[nodiscard]] inline index_t least_largest_load(placement const& where, std::span<index_t const> totals) {
  std::vector<std::uint32_t> hosts(totals.size(), 0);
  for (std::size_t e = 0; e < totals.size(); ++e) {
    for (replica const& copy : where.replicas(static_cast<expert_id>(e))) { hosts[e] |= 1U << static_cast<unsigned>(copy.rank); }
  }
  index_t best = 0;
  for (std::uint32_t set = 1; set < (1U << static_cast<unsigned>(where.ranks())); ++set) {
    index_t inside = 0;
    index_t size = 0;
    for (std::uint32_t rest = set; rest != 0; rest &= rest - 1) { ++size; }
    for (std::size_t e = 0; e < totals.size(); ++e) { inside += (hosts[e] & ~set) == 0 ? totals[e] : 0; }
    best = std::max(best, (inside + size - 1) / size);
  }
  return best;
}

// Totals of one case: the first ones are the inputs that break careless code.
[[nodiscard]] inline std::vector<index_t> adversarial_totals(index_t experts, index_t largest, std::uint64_t seed, int number) {
  constexpr index_t most = 2147483647;
  std::vector<index_t> totals(static_cast<std::size_t>(experts), 0);
  for (std::size_t e = 0; e < totals.size(); ++e) {
    auto const word = philox::draw(seed, 7000 + static_cast<std::uint64_t>(number), e)[0];
    auto const random = static_cast<index_t>(philox::below(word, static_cast<std::uint32_t>(largest + 1)));
    auto const hot = static_cast<std::size_t>(seed % static_cast<std::uint64_t>(experts));
    switch (number % 8) {
      case 0: totals[e] = 0; break;                                    // no load
      case 1: totals[e] = e == hot ? most : 0; break;                  // one expert takes the most that a count holds
      case 2: totals[e] = most - static_cast<index_t>(e % 3); break;   // sums far beyond 32 bits
      case 3: totals[e] = 1; break;                                    // nothing but remainders
      case 4: totals[e] = largest; break;                              // ties everywhere
      case 5: totals[e] = largest >> std::min<std::size_t>(e, 40); break;  // strong skew
      default: totals[e] = random; break;
    }
  }
  return totals;
}

}  // namespace detail

/// @brief Check a rule on one placement and one load.
///
/// Laws: the report is ok (or says that a cap was met: `iteration_limit`, `no_improvement`); shares are >= 0 and those of
/// an expert sum to its total; `value` is the largest number of copies of a rank and `bound` no more; a rule with
/// `optimal_split` ends ok with value == bound, and up to 12 ranks the value is the least possible one by enumeration;
/// nothing depends on old content of shares or scratch; nothing outside of the shares is written; `workspace_bytes`
/// suffices; an expert with load and without replica gives `status::lost_expert` and shares of zero.
/// The rule must be one without base loads and speeds.
/// @tparam Split a model of `replica_split`
/// @param rule the rule
/// @param where the placement
/// @param totals copies an expert, >= 0, < 2^31. @shape{experts}
/// @returns the first broken law
template <replica_split Split>
[[nodiscard]] verdict check_replica_split_on(Split const& rule, placement const& where, std::span<index_t const> totals) {
  auto const broken = [&](auto const&... parts) {
    return verdict::broken("replica_split: ", parts..., " (", where.ranks(), " ranks, ", where.experts(), " experts, ",
                           where.replicas(), " replicas)");
  };
  constexpr std::size_t guard = 4;
  auto const columns = static_cast<std::size_t>(where.replicas());
  std::vector<count_t> first(columns + 2 * guard, count_t{-7});
  std::vector<count_t> second(columns + 2 * guard, count_t{1234567});
  auto const inner = [&](std::vector<count_t>& all) { return std::span(all).subspan(guard, columns); };
  buffer<std::byte> scratch(static_cast<index_t>(rule.workspace_bytes(where)));  // exactly as much as asked for
  report ended;
  report again;
  try {
    std::fill(scratch.span().begin(), scratch.span().end(), std::byte{0});
    workspace ws(scratch.span());
    ended = rule.split(totals, where, inner(first), ws);
    std::fill(scratch.span().begin(), scratch.span().end(), std::byte{0xA5});
    workspace dirty(scratch.span());
    again = rule.split(totals, where, inner(second), dirty);
  } catch (contract_violation const& violation) {
    return broken("workspace_bytes() suffices and legal input is accepted: ", violation.what());
  }
  for (std::size_t i = 0; i < guard; ++i) {
    if (first[i] != -7 || first[guard + columns + i] != -7 || second[i] != 1234567 || second[guard + columns + i] != 1234567) {
      return broken("nothing outside of the shares is written");
    }
  }
  if (!std::equal(inner(first).begin(), inner(first).end(), inner(second).begin()) || ended.status != again.status ||
      ended.value != again.value || ended.bound != again.bound) {
    return broken("equal arguments give equal shares and reports, whatever shares and scratch held");
  }
  std::span<count_t const> const shares = inner(first);
  bool lost = false;
  for (std::size_t e = 0; e < totals.size(); ++e) {
    lost = lost || (totals[e] > 0 && where.replicas(static_cast<expert_id>(e)).empty());
  }
  if (lost) {
    if (ended.status != status::lost_expert) { return broken("a lost expert with load is reported"); }
    if (std::any_of(shares.begin(), shares.end(), [](count_t share) { return share != 0; })) {
      return broken("the shares are zero when an expert is lost");
    }
    return {};
  }
  if (ended.status != status::ok && ended.status != status::iteration_limit && ended.status != status::no_improvement) {
    return broken("ends well when no expert with load is lost");
  }
  for (std::size_t e = 0; e < totals.size(); ++e) {
    auto const expert = static_cast<expert_id>(e);
    auto column = static_cast<std::size_t>(where.replica_offset(expert));
    index_t sum = 0;
    for (std::size_t k = 0; k < where.replicas(expert).size(); ++k) {
      if (shares[column] < 0) { return broken("no share is negative: expert ", e, ", share ", shares[column]); }
      sum += shares[column++];
    }
    if (sum != totals[e]) { return broken("the shares of an expert sum to its total: expert ", e, ", ", sum, " of ", totals[e]); }
  }
  std::vector<index_t> const loads = detail::rank_loads(where, shares);
  index_t const largest = loads.empty() ? 0 : *std::max_element(loads.begin(), loads.end());
  if (ended.value != static_cast<double>(largest)) {
    return broken("value is the largest number of copies of a rank: ", ended.value, " for ", largest);
  }
  if (!(ended.bound <= ended.value)) { return broken("bound is a lower bound: ", ended.bound, " above ", ended.value); }
  if (where.ranks() <= 12) {
    index_t const least = detail::least_largest_load(where, totals);
    if (ended.bound > static_cast<double>(least)) { return broken("bound is a lower bound: ", ended.bound, " above the least load ", least); }
    if (optimal_split<Split> && largest != least) {
      return broken("an optimal split reaches the least possible largest load: ", largest, " instead of ", least);
    }
  }
  if (optimal_split<Split> && (ended.status != status::ok || ended.value != ended.bound)) {
    return broken("an optimal split proves its value: bound ", ended.bound, ", value ", ended.value);
  }
  return {};
}

/// @brief Check a rule on random and adversarial loads and placements; see `check_replica_split_on` for the laws.
///
/// Placements have ragged ranks, empty slots, several replicas on one rank and lost experts; loads are zero, all on one
/// expert, near 2^31, all one, all equal, strongly skewed, random.
/// @tparam Split a model of `replica_split`
/// @param rule the rule
/// @param problem sizes and seed
/// @returns the first broken law
/// @pre at least one rank and one expert, largest_total < 2^31 (level 1)
template <replica_split Split>
[[nodiscard]] verdict check_replica_split(Split const& rule, replica_split_problem const& problem = {}) {
  FAIRLEAD_EXPECTS(problem.ranks >= 1 && problem.experts >= 1 && problem.largest_total >= 0 && problem.largest_total < 2147483647,
                   "the check needs a rank, an expert and totals < 2^31", problem.ranks, problem.experts, problem.largest_total);
  for (int number = 0; number < problem.cases; ++number) {
    token_scheduler_problem const shape{.ranks = problem.ranks, .experts = problem.experts, .extra_slots = problem.extra_slots, .seed = problem.seed};
    placement const where = detail::random_placement(shape, static_cast<std::uint64_t>(number));
    auto totals = detail::adversarial_totals(problem.experts, problem.largest_total, problem.seed, number);
    auto const told = [&](verdict const& found) { return verdict::broken(found.reason(), " (case ", number, ", seed ", problem.seed, ")"); };
    if (verdict const found = check_replica_split_on(rule, where, totals); !found) { return told(found); }
    // Lose one expert, first with load, then without.
    index_t const lost = number % problem.experts;
    placement const crippled = detail::without_expert(where, lost);
    totals[static_cast<std::size_t>(lost)] = 1;
    if (verdict const found = check_replica_split_on(rule, crippled, totals); !found) { return told(found); }
    totals[static_cast<std::size_t>(lost)] = 0;
    if (verdict const found = check_replica_split_on(rule, crippled, totals); !found) { return told(found); }
  }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
