// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Replicas and ranks of one node together: numbers of replicas tried by packing them, then exchanged by pairs.
#include <fairlead/place/detail/pair_exchange.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail::packing {

// The search on one node. Experts are positions in the order of descending load; loads are whole numbers whose sum
// leaves the bits that name a rank free. A replica weighs load / replicas, rounded down.
struct node_search {
  packing_scratch const& s;  // load, order [n]; bins [ranks]; scratch: replicas, heap, share, item, weight, tree, fill
  std::uint32_t n;
  std::uint32_t ranks;
  std::uint32_t slots;
  std::uint64_t* sum;            // [ranks]
  std::uint32_t* by_weight;      // [n]
  std::uint32_t* best_placed;    // [slots of the cluster]
  std::uint32_t* best_replicas;  // [n]
  std::uint64_t best = ~std::uint64_t{0};
  std::uint64_t least_share = 0;  // the smallest possible largest weight of a replica: no packing is lighter

  // Experts that weigh more than `threshold` get just as many replicas as bring them below it; the others share what is
  // left by the greedy rule. Returns whether the slots suffice.
  bool count(std::uint64_t threshold) const noexcept {
    std::uint32_t heavy = 0;
    std::uint64_t used = 0;
    for (; heavy < n && s.load[heavy] > threshold; ++heavy) {
      std::uint64_t const needed = (s.load[heavy] - 1) / threshold + 1;
      if (needed > slots - used) { return false; }
      s.replicas[heavy] = static_cast<std::uint32_t>(needed);
      used += needed;
    }
    if (used + (n - heavy) > slots || (heavy == n && used < slots)) { return false; }
    std::uint32_t several = 0;
    share_counts const rule{s.load + heavy, s.order + heavy, n - heavy, s.replicas + heavy, s.heap, ~std::uint32_t{0}};
    return rule.give(slots - used - (n - heavy), several) == 0;
  }

  // Packs by descending weight. Returns the largest sum.
  std::uint64_t pack() const noexcept {
    for (std::uint32_t i = 0; i < n; ++i) { s.share[i] = s.load[i] / s.replicas[i]; }
    for (std::uint32_t i = 0; i < n; ++i) {
      std::uint32_t at = i;
      for (; at > 0 && s.share[by_weight[at - 1]] < s.share[i]; --at) { by_weight[at] = by_weight[at - 1]; }
      by_weight[at] = i;
    }
    std::uint32_t filled = 0;
    for (std::uint32_t k = 0; k < n; ++k) {
      std::uint32_t const at = by_weight[k];
      for (std::uint32_t r = s.replicas[at]; r > 0; --r) {
        s.item[filled] = at;
        s.weight[filled++] = s.share[at];
      }
    }
    return pack_lightest(s, filled, ranks);
  }

  void keep(std::uint64_t value) {
    best = value;
    std::copy_n(s.replicas, n, best_replicas);
    for (std::uint32_t b = 0; b < ranks; ++b) {
      std::copy_n(s.placed + s.bins[b].first, s.bins[b].room, best_placed + s.bins[b].first);
    }
  }
  bool attempt(std::uint64_t threshold, std::uint64_t goal, std::uint32_t limit) {
    if (!count(threshold)) { return false; }
    static_cast<void>(pack());
    std::uint64_t const value = exchange_pairs(s, ranks, s.share, sum, goal, limit);
    if (value < best) { keep(value); }
    return true;
  }
  // One replica from a replicated expert to another of the heavy ones, from the best numbers so far; each improvement
  // is taken. Returns how many it packed, at most `left`.
  index_t shift_replicas(std::uint64_t goal, index_t left, std::uint32_t limit) {
    index_t packed = 0;
    for (bool better = left > 0; better;) {
      better = false;
      std::uint32_t several = 0;
      while (several < n && best_replicas[several] > 1) { ++several; }
      std::uint32_t const heavy = std::min(n, several + 2);
      for (std::uint32_t from = 0; from < several && !better; ++from) {
        for (std::uint32_t to = 0; to < heavy && !better; ++to) {
          if (to == from || best_replicas[from] == 1) { continue; }
          if (packed == left) { return packed; }
          std::copy_n(best_replicas, n, s.replicas);
          --s.replicas[from];
          ++s.replicas[to];
          ++packed;
          static_cast<void>(pack());
          std::uint64_t const value = exchange_pairs(s, ranks, s.share, sum, goal, limit);
          if (value >= best) { continue; }
          keep(value);
          better = true;
          if (best <= goal) { return packed; }
        }
      }
    }
    return packed;
  }
  // Tries the greedy numbers, then up to `attempts` others by thresholds and by single replicas, until one reaches
  // `goal`. Returns how many it packed; `best` is what it reached.
  index_t run(std::uint64_t goal, index_t attempts, std::uint32_t limit) {
    static_cast<void>(count(~std::uint64_t{0} >> 2U));
    for (std::uint32_t i = 0; i < n; ++i) { least_share = std::max(least_share, s.load[i] / s.replicas[i]); }
    goal = std::max(goal, least_share);
    static_cast<void>(pack());
    keep(exchange_pairs(s, ranks, s.share, sum, goal, limit));
    index_t packed = 1;
    // From a bit below the goal down to where the slots run out, as most good ones are there; then those above.
    auto const part = [&](std::uint64_t of_32) {
      return attempt(std::max<std::uint64_t>(goal / 32 * of_32, 1), goal, limit);
    };
    for (std::uint64_t i = 27; i > 0 && packed <= attempts && best > goal && part(i); --i) { ++packed; }
    for (std::uint64_t i = 28; i <= 32 && packed <= attempts && best > goal && part(i); ++i) { ++packed; }
    if (best > goal) { packed += shift_replicas(goal, attempts + 1 - packed, limit); }
    return packed;
  }
};

}  // namespace detail::packing
FAIRLEAD_NAMESPACE_END
