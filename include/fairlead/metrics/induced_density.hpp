// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How well a placement can be balanced at all: the densest set of ranks, exactly.
#include <fairlead/core/placement.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/metrics/detail/densest_block.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace metrics {

/// @brief A set of ranks and the load that no other rank can take: an exact fraction with its proof.
struct density {
  fairlead::status status = fairlead::status::ok;  ///< how it was found; `unsupported`: too many ranks
  index_t load = 0;                                ///< load of the experts that are hosted only inside the set
  index_t ranks = 1;                               ///< size of the set; at least 1, so that the quotient exists
  std::uint64_t set = 0;                           ///< the ranks: bit r stands for rank r
  /// @returns load / ranks
  [[nodiscard]] constexpr double value() const noexcept { return static_cast<double>(load) / static_cast<double>(ranks); }
  /// @returns the value rounded up: the least possible largest load of a rank, in whole copies
  [[nodiscard]] constexpr index_t ceiling() const noexcept { return (load + ranks - 1) / ranks; }
};

/// @brief Compare two densities without rounding.
/// @param a a density
/// @param b another
/// @returns whether `a` is larger; exact for all loads and ranks
[[nodiscard]] constexpr bool denser(density const& a, density const& b) noexcept {
  __extension__ typedef __int128 wide;  // NOLINT(modernize-use-using): the extension marker needs typedef
  return static_cast<wide>(a.load) * b.ranks > static_cast<wide>(b.load) * a.ranks;
}

/// @brief Compute which ranks host an expert, as bits.
/// @param slot_offsets first slot of each rank, and the end. @shape{ranks + 1}
/// @param slots expert of each slot, or none. @shape{slots}
/// @param[out] hosts bit r of entry e: rank r hosts expert e. @shape{experts}
/// @throws contract_violation (level 1) beyond 64 ranks
/// @complexity O(slots + experts), no allocation
inline void host_masks(std::span<index_t const> slot_offsets, std::span<expert_id const> slots, std::span<std::uint64_t> hosts) {
  FAIRLEAD_EXPECTS(slot_offsets.size() <= 65, "a word holds sets of at most 64 ranks", slot_offsets.size());
  std::fill(hosts.begin(), hosts.end(), std::uint64_t{0});
  for (std::size_t rank = 0; rank + 1 < slot_offsets.size(); ++rank) {
    for (index_t slot = slot_offsets[rank]; slot < slot_offsets[rank + 1]; ++slot) {
      expert_id const expert = slots[static_cast<std::size_t>(slot)];
      if (expert != expert_id::none) { hosts[static_cast<std::size_t>(expert)] |= std::uint64_t{1} << rank; }
    }
  }
}

/// @brief Find the densest set of ranks by looking at all sets.
///
/// The density of a set S of ranks is the load of the experts whose replicas all sit inside S, divided by |S|. The
/// largest density over all sets is the optimal largest load of a rank when every replica may take any share of its
/// expert's load; the integral optimum is that rounded up. It judges a placement without splitting a single token.
///
/// Only ranks that host an expert with load are counted. The 2^n sets are gone through in blocks of 4096 whose table
/// fits the first-level cache: sums over subsets of (ranks found * load - load found * ranks) make a better set show as
/// a positive entry (Dinkelbach's rule for quotients), so that there is one comparison and no division a set.
/// Beyond `max_ranks` use an exact flow solver, whose certificate is the same set.
/// @source{2511.16947, Eq. 3}
struct enumerated_density {
  /// Hosting ranks that are accepted: about a second of work.
  static constexpr index_t max_ranks = 30;
  /// Ranks of a block.
  static constexpr int block_ranks = 12;

  /// @brief Find the densest set.
  /// @param hosts ranks of each expert as bits. @shape{experts}
  /// @param totals load of each expert, >= 0. @shape{experts}
  /// @param ws scratch, see `workspace_bytes`
  /// @param stop_above give up as soon as a set is denser than this; the result is then such a set, not the densest.
  ///        For searches that want less than the best they have
  /// @returns the densest set. No load gives 0. `status::lost_expert` if an expert with load has no rank,
  ///          `status::unsupported` beyond `max_ranks` hosting ranks
  /// @pre the sum of `totals` times the ranks is below 2^62 (level 2)
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(2^n n + 2^(n - 12) experts) for n hosting ranks, no allocation
  /// @determinism exact integers; of sets of equal density the first in order of `start`, then of bits
  [[nodiscard]] density evaluate(std::span<std::uint64_t const> hosts, std::span<index_t const> totals, workspace& ws,
                                 density const* stop_above = nullptr) const {
    FAIRLEAD_EXPECTS(hosts.size() == totals.size(), "one set of ranks and one load an expert", hosts.size(), totals.size());
    workspace::scope const scope(ws);
    std::uint64_t used = 0;
    index_t sum = 0;
    for (std::size_t e = 0; e < totals.size(); ++e) {
      if (totals[e] == 0) { continue; }
      if (hosts[e] == 0) { return {.status = status::lost_expert, .load = totals[e]}; }
      used |= hosts[e];
      sum += totals[e];
    }
    index_t const ranks = std::popcount(used);
    FAIRLEAD_EXPECTS_2(sum >= 0 && (ranks == 0 || sum < (index_t{1} << 62U) / ranks), "loads must leave room for their sums", sum, ranks);
    if (sum == 0) { return {}; }
    if (ranks > max_ranks) { return {.status = status::unsupported}; }

    // Sets that are likely to be dense make most others show as worse at once: all ranks, and each expert's own.
    density best{.load = sum, .ranks = ranks, .set = used};
    std::span<detail::weighted_set> const sets = ws.take<detail::weighted_set>(static_cast<index_t>(totals.size()));
    std::size_t count = 0;
    for (std::size_t e = 0; e < totals.size(); ++e) {
      if (totals[e] == 0) { continue; }
      density const own{.load = totals[e], .ranks = std::popcount(hosts[e]), .set = hosts[e]};
      if (denser(own, best)) { best = own; }
      sets[count++] = {detail::gather_bits(hosts[e], used), totals[e]};
    }
    if (stop_above != nullptr && denser(best, *stop_above)) {
      best.load = 0;  // other experts may be confined to the same ranks
      for (std::size_t e = 0; e < totals.size(); ++e) { best.load += (hosts[e] & ~best.set) == 0 ? totals[e] : 0; }
      return best;
    }
    // A search that only asks "above the limit?" may start from the limit and never prices the sets below it.
    bool const limited = stop_above != nullptr;
    density const start = limited ? *stop_above : best;
    bool const narrow = sum < std::numeric_limits<std::int32_t>::max() / (start.ranks + ranks) &&
                        start.load < std::numeric_limits<std::int32_t>::max() / (ranks + 1);
    if (narrow) { return search<std::int32_t>(best, limited ? stop_above : nullptr, used, sets.first(count), ws); }
    return search<std::int64_t>(best, limited ? stop_above : nullptr, used, sets.first(count), ws);
  }

  /// @brief Scratch of one evaluation.
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] static constexpr std::size_t workspace_bytes(index_t experts) noexcept {
    return fairlead::workspace_bytes<detail::weighted_set>(experts) +
           fairlead::workspace_bytes<std::int64_t>(index_t{1} << static_cast<unsigned>(block_ranks));
  }

 private:
  template <class Value>
  [[nodiscard]] static density search(density best, density const* stop_above, std::uint64_t used,
                                      std::span<detail::weighted_set const> sets, workspace& ws) {
    int const ranks = std::popcount(used);
    int const bits = std::min(ranks, block_ranks);
    std::span<Value> const table = ws.take<Value>(index_t{1} << static_cast<unsigned>(bits));
    density beat = stop_above != nullptr ? *stop_above : best;
    std::uint32_t const blocks = std::uint32_t{1} << static_cast<unsigned>(ranks - bits);
    for (std::uint32_t high = 0; high < blocks; ++high) {
      while (true) {
        std::uint32_t low = 0;
        index_t const outside = beat.load * std::popcount(high);
        auto const gain =
            static_cast<std::int64_t>(detail::largest_in_block<Value>(table, bits, high, beat.ranks, beat.load, outside, sets, low));
        if (gain <= outside) { break; }
        index_t const size = std::popcount(high) + std::popcount(low);
        beat = {.load = (gain - outside + beat.load * size) / beat.ranks,
                .ranks = size,
                .set = detail::scatter_bits((high << static_cast<unsigned>(bits)) | low, used)};
        best = beat;
        if (stop_above != nullptr) { return best; }
      }
    }
    // With a limit that nothing exceeds, the value of the best set is known to be at most the limit, not which it is.
    if (stop_above != nullptr) { return search<Value>(best, nullptr, used, sets, ws); }
    return best;
  }
};

/// @brief Scratch of `induced_density`.
/// @param experts number of experts
/// @returns bytes
[[nodiscard]] constexpr std::size_t induced_density_bytes(index_t experts) noexcept {
  return workspace_bytes<std::uint64_t>(experts) + enumerated_density::workspace_bytes(experts);
}

/// @brief Find the densest set of ranks of a placement.
/// @param where the placement, at most 64 ranks
/// @param totals load of each expert, >= 0. @shape{experts}
/// @param ws scratch, see `induced_density_bytes`
/// @returns as `enumerated_density::evaluate`
/// @throws contract_violation (level 1) on a shape mismatch or beyond 64 ranks
/// @complexity as `enumerated_density::evaluate`
[[nodiscard]] inline density induced_density(placement const& where, std::span<index_t const> totals, workspace& ws) {
  FAIRLEAD_EXPECTS(where.ranks() <= 64, "a word holds sets of at most 64 ranks", where.ranks());
  workspace::scope const scope(ws);
  std::span<std::uint64_t> const hosts = ws.take<std::uint64_t>(where.experts());
  for (index_t e = 0; e < where.experts(); ++e) {
    std::uint64_t mask = 0;
    for (replica const& one : where.replicas(static_cast<expert_id>(e))) {
      mask |= std::uint64_t{1} << static_cast<unsigned>(to_index(one.rank));
    }
    hosts[static_cast<std::size_t>(e)] = mask;
  }
  return enumerated_density{}.evaluate(hosts, totals, ws);
}

}  // namespace metrics
FAIRLEAD_NAMESPACE_END
