// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `source_router`.
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/laws/token_scheduler.hpp>
#include <fairlead/laws/verdict.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The problems that `check_source_router` makes.
struct source_router_problem {
  index_t ranks = 5;          ///< number of ranks
  index_t experts = 8;        ///< number of experts
  index_t extra_slots = 9;    ///< slots beyond one an expert: further replicas, or empty
  count_t largest_load = 60;  ///< copies per (source, expert) of the random cases, 0 to this
  std::uint64_t seed = 1;     ///< seed of loads, shares and placements
  int cases = 24;             ///< number of placements tried
};

namespace detail {

// The most copies that can stay on their rank: per expert and rank the smaller of what starts and what ends there.
[[nodiscard]] inline index_t most_local_copies(load_view load, placement const& where, std::span<count_t const> shares) {
  index_t sum = 0;
  for (index_t e = 0; e < where.experts(); ++e) {
    auto const copies = where.replicas(static_cast<expert_id>(e));
    auto column = static_cast<std::size_t>(where.replica_offset(static_cast<expert_id>(e)));
    for (std::size_t k = 0; k < copies.size();) {
      index_t const rank = to_index(copies[k].rank);
      index_t here = 0;
      for (; k < copies.size() && to_index(copies[k].rank) == rank; ++k) { here += shares[column++]; }
      sum += std::min<index_t>(here, load(rank, e));
    }
  }
  return sum;
}

// Loads whose totals stay below 2^31, and random shares with these totals.
inline void random_load_and_shares(source_router_problem const& problem, int number, placement const& where, matrix<count_t>& load,
                                   std::vector<count_t>& shares) {
  std::uint64_t index = 0;
  auto const below = [&](index_t bound) {
    auto const word = philox::draw(problem.seed, 9000 + static_cast<std::uint64_t>(number), index++)[0];
    return static_cast<index_t>(philox::below(word, static_cast<std::uint32_t>(bound)));
  };
  index_t const share_of_limit = 2147483647 / problem.ranks;
  for (index_t e = 0; e < problem.experts; ++e) {
    auto const expert = static_cast<expert_id>(e);
    index_t total = 0;
    for (index_t source = 0; source < problem.ranks; ++source) {
      index_t copies = below(index_t{problem.largest_load} + 1);
      if (number == 0) { copies = 0; }                             // no load
      if (number == 1) { copies = share_of_limit - below(2); }     // totals just below 2^31
      if (number == 2) { copies = source == e % problem.ranks ? 2147483647 : 0; }  // one source has all
      if (number % 4 == 3 && below(3) != 0) { copies = 0; }        // many sources have none
      load(source, e) = static_cast<count_t>(copies);
      total += copies;
    }
    auto const replicas = where.replicas(expert);
    auto const first = static_cast<std::size_t>(where.replica_offset(expert));
    for (std::size_t k = 0; k < replicas.size(); ++k) {
      bool const last = k + 1 == replicas.size();
      index_t share = last ? total : std::min(total, below(2 * total / static_cast<index_t>(replicas.size()) + 1));
      if (!last && below(4) == 0) { share = 0; }
      shares[first + k] = static_cast<count_t>(share);
      total -= share;
    }
  }
}

}  // namespace detail

/// @brief Check a rule on one placement, load and set of shares.
///
/// Laws: the report is ok; counts are >= 0, rows sum to the load and columns to the shares; `value` is the number of
/// copies that stay on their rank, the most possible for a rule with `keeps_local`; nothing depends on old content of
/// `out` or scratch nor on the row stride; nothing outside of `out` is written; `workspace_bytes` suffices.
/// @tparam Router a model of `source_router`
/// @param rule the rule
/// @param load copies per source and expert. @shape{ranks x experts}
/// @param where the placement; every expert with load has a replica
/// @param shares copies of each replica. @shape{where.replicas()}
/// @returns the first broken law
template <source_router Router>
[[nodiscard]] verdict check_source_router_on(Router const& rule, load_view load, placement const& where, std::span<count_t const> shares) {
  auto const broken = [&](auto const&... parts) {
    return verdict::broken("source_router: ", parts..., " (", where.ranks(), " ranks, ", where.experts(), " experts, ",
                           where.replicas(), " replicas)");
  };
  index_t const columns = where.replicas();
  matrix<count_t> first(load.rows(), columns);
  matrix<count_t> wide(load.rows(), columns + 3);
  std::fill_n(wide.data(), wide.span().size(), count_t{-7});
  token_schedule_view const second(wide.data(), load.rows(), columns, columns + 3);
  buffer<std::byte> scratch(static_cast<index_t>(rule.workspace_bytes(where)));  // exactly as much as asked for
  report ended;
  report again;
  try {
    std::fill(scratch.span().begin(), scratch.span().end(), std::byte{0});
    workspace ws(scratch.span());
    ended = rule.route(load, where, shares, first.view(), ws);
    std::fill(scratch.span().begin(), scratch.span().end(), std::byte{0xA5});
    workspace dirty(scratch.span());
    again = rule.route(load, where, shares, second, dirty);
  } catch (contract_violation const& violation) {
    return broken("workspace_bytes() suffices and legal input is accepted: ", violation.what());
  }
  if (ended.status != status::ok || again.status != status::ok) { return broken("ends well when no expert is lost"); }
  index_t local = 0;
  for (index_t source = 0; source < load.rows(); ++source) {
    for (index_t column = 0; column < columns; ++column) {
      if (first(source, column) != second(source, column)) {
        return broken("equal arguments give the equal result, whatever out and scratch held");
      }
    }
    for (index_t column = columns; column < columns + 3; ++column) {
      if (wide(source, column) != -7) { return broken("nothing outside of out is written"); }
    }
  }
  if (ended.value != again.value) { return broken("equal arguments give the equal report"); }
  if (!conserves(load, where, first.view())) { return broken("counts are not negative and rows sum to the load"); }
  for (index_t e = 0; e < where.experts(); ++e) {
    auto const replicas = where.replicas(static_cast<expert_id>(e));
    for (std::size_t k = 0; k < replicas.size(); ++k) {
      index_t const column = where.replica_offset(static_cast<expert_id>(e)) + static_cast<index_t>(k);
      index_t sum = 0;
      for (index_t source = 0; source < load.rows(); ++source) { sum += first(source, column); }
      if (sum != shares[static_cast<std::size_t>(column)]) {
        return broken("columns sum to the shares: expert ", e, ", replica ", k, ", ", sum, " of ", shares[static_cast<std::size_t>(column)]);
      }
      local += first(to_index(replicas[k].rank), column);
    }
  }
  if (ended.value != static_cast<double>(local)) {
    return broken("value is the number of copies that stay on their rank: ", ended.value, " for ", local);
  }
  index_t const most = detail::most_local_copies(load, where, shares);
  if (keeps_local<Router> && local != most) { return broken("as many copies as possible stay on their rank: ", local, " of ", most); }
  return {};
}

/// @brief Check a rule on random and adversarial loads, shares and placements; see `check_source_router_on` for the laws.
/// @tparam Router a model of `source_router`
/// @param rule the rule
/// @param problem sizes and seed
/// @returns the first broken law
/// @pre at least one rank and one expert, ranks * largest_load < 2^31 (level 1)
template <source_router Router>
[[nodiscard]] verdict check_source_router(Router const& rule, source_router_problem const& problem = {}) {
  FAIRLEAD_EXPECTS(problem.ranks >= 1 && problem.experts >= 1 && problem.largest_load >= 0 &&
                       problem.ranks * problem.largest_load < 2147483647,
                   "the check needs a rank, an expert and totals < 2^31", problem.ranks, problem.experts, problem.largest_load);
  for (int number = 0; number < problem.cases; ++number) {
    token_scheduler_problem const shape{.ranks = problem.ranks, .experts = problem.experts, .extra_slots = problem.extra_slots, .seed = problem.seed};
    placement const where = detail::random_placement(shape, static_cast<std::uint64_t>(number));
    matrix<count_t> load(problem.ranks, problem.experts);
    std::vector<count_t> shares(static_cast<std::size_t>(where.replicas()), 0);
    detail::random_load_and_shares(problem, number, where, load, shares);
    auto const told = [&](verdict const& found) { return verdict::broken(found.reason(), " (case ", number, ", seed ", problem.seed, ")"); };
    if (verdict const found = check_source_router_on(rule, load.view(), where, shares); !found) { return told(found); }
    // An expert without replica does not matter as long as it has no load.
    index_t const lost = number % problem.experts;
    placement const crippled = detail::without_expert(where, lost);
    auto const gone = static_cast<std::ptrdiff_t>(where.replica_offset(static_cast<expert_id>(lost)));
    shares.erase(shares.begin() + gone, shares.begin() + gone + static_cast<std::ptrdiff_t>(where.replicas(static_cast<expert_id>(lost)).size()));
    for (index_t source = 0; source < problem.ranks; ++source) { load(source, lost) = 0; }
    if (verdict const found = check_source_router_on(rule, load.view(), crippled, shares); !found) { return told(found); }
  }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
