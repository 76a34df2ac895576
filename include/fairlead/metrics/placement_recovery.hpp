// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What failures cost a placement: probability of recovery, and how many failures can lose an expert.
#include <fairlead/core/topology.hpp>
#include <fairlead/metrics/recovery.hpp>

FAIRLEAD_NAMESPACE_BEGIN
namespace metrics {

/// @brief Write the hosts of each expert of a placement as sets of units.
/// @param where the placement
/// @param unit_of_rank the unit that each rank fails with (its node, its rack); empty = each rank fails alone.
///        @shape{ranks}
/// @param units number of units
/// @param[out] sets @shape{experts x set_words(units)}
/// @throws contract_violation (level 1) on a shape mismatch, (level 2) on a unit out of range
/// @complexity O(replicas + experts words), no allocation
inline void host_units(placement const& where, std::span<index_t const> unit_of_rank, index_t units, matrix_view<std::uint64_t> sets) {
  FAIRLEAD_EXPECTS(unit_of_rank.empty() ? units == where.ranks() : static_cast<index_t>(unit_of_rank.size()) == where.ranks(),
                   "one unit a rank", unit_of_rank.size(), units, where.ranks());
  FAIRLEAD_EXPECTS(sets.rows() == where.experts() && sets.cols() == set_words(units), "one row of bits an expert", sets.rows(), sets.cols());
  for (index_t e = 0; e < where.experts(); ++e) {
    std::fill_n(sets.row(e), sets.cols(), std::uint64_t{0});
    for (replica const& one : where.replicas(static_cast<expert_id>(e))) {
      index_t const unit = unit_of_rank.empty() ? to_index(one.rank) : unit_of_rank[static_cast<std::size_t>(one.rank)];
      FAIRLEAD_EXPECTS_2(unit >= 0 && unit < units, "a rank belongs to an unknown unit", unit, units);
      sets(e, unit / 64) |= std::uint64_t{1} << static_cast<unsigned>(unit % 64);
    }
  }
}

/// @brief Scratch of `recovery_probability` and `min_failures_to_lose`.
/// @param where the placement
/// @param method how to compute
/// @returns bytes; enough for as many units as ranks
template <class Method = exact_recovery>
[[nodiscard]] std::size_t recovery_bytes(placement const& where, Method const& method = {}) noexcept {
  return workspace_bytes<std::uint64_t>(where.experts() * set_words(where.ranks())) + method.workspace_bytes(where.ranks(), where.experts());
}

/// @brief Compute the probability that every expert keeps a replica when only some units stay alive, all choices of them
///        being as likely.
/// @tparam Method `exact_recovery` or `sampled_recovery`
/// @param where the placement
/// @param alive units that stay
/// @param ws scratch, see `recovery_bytes`
/// @param method how to compute
/// @param unit_of_rank the unit that each rank fails with: racks or nodes for correlated failures; empty = each rank
///        alone. @shape{ranks}
/// @param units number of units, at most the number of ranks; not looked at if `unit_of_rank` is empty
/// @returns the probability, with an interval if it was sampled
/// @throws contract_violation (level 1) on a shape mismatch
/// @complexity that of the method, no allocation
/// @source{Lazarus, section 3.2}
template <class Method = exact_recovery>
[[nodiscard]] recovery recovery_probability(placement const& where, index_t alive, workspace& ws, Method const& method = {},
                                            std::span<index_t const> unit_of_rank = {}, index_t units = 0) {
  workspace::scope const scope(ws);
  index_t const size = unit_of_rank.empty() ? where.ranks() : units;
  FAIRLEAD_EXPECTS(size >= 0 && size <= where.ranks(), "there are at most as many units as ranks", size, where.ranks());
  index_t const words = set_words(size);
  matrix_view<std::uint64_t> const sets(ws.take<std::uint64_t>(where.experts() * words).data(), where.experts(), words);
  host_units(where, unit_of_rank, size, sets);
  return method.evaluate(sets, size, alive, ws);
}

/// @brief Compute how many units must fail, at the worst, before an expert loses its last replica.
/// @param where the placement
/// @param ws scratch, see `recovery_bytes`
/// @param unit_of_rank the unit that each rank fails with; empty = each rank alone. @shape{ranks}
/// @param units number of units; not looked at if `unit_of_rank` is empty
/// @returns the smallest number of distinct hosts of an expert: 0 if one is lost already, units + 1 without experts
/// @throws contract_violation (level 1) on a shape mismatch
/// @complexity O(replicas + experts words), no allocation
[[nodiscard]] inline index_t min_failures_to_lose(placement const& where, workspace& ws, std::span<index_t const> unit_of_rank = {},
                                                  index_t units = 0) {
  workspace::scope const scope(ws);
  index_t const size = unit_of_rank.empty() ? where.ranks() : units;
  FAIRLEAD_EXPECTS(size >= 0 && size <= where.ranks(), "there are at most as many units as ranks", size, where.ranks());
  index_t const words = set_words(size);
  matrix_view<std::uint64_t> const sets(ws.take<std::uint64_t>(where.experts() * words).data(), where.experts(), words);
  host_units(where, unit_of_rank, size, sets);
  index_t least = size + 1;
  for (index_t e = 0; e < where.experts(); ++e) {
    index_t hosts = 0;
    for (index_t w = 0; w < words; ++w) { hosts += std::popcount(sets(e, w)); }
    least = std::min(least, hosts);
  }
  return least;
}

}  // namespace metrics
FAIRLEAD_NAMESPACE_END
