// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Packing of replicas such that no rank holds two of one expert, where that can be.
#include <fairlead/place/detail/share_packing.hpp>
#include <fairlead/place/repeats.hpp>

#include <algorithm>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail::packing {

// Calls f(slot, item) for each placed replica.
template <class Function>
void for_each_placed(packing_scratch const& s, std::uint32_t ranks, Function const& f) {
  for (std::uint32_t b = 0; b < ranks; ++b) {
    for (std::uint32_t i = 0; i < s.fill[b]; ++i) { f(s.bins[b].first + i, s.placed[s.bins[b].first + i]); }
  }
}
[[nodiscard]] inline bool holds(packing_scratch const& s, std::uint32_t rank, std::uint32_t item) noexcept {
  std::uint32_t const* const first = s.placed + s.bins[rank].first;
  return std::find(first, first + s.fill[rank], item) != first + s.fill[rank];
}
// Load of a rank; `s.given` holds the weight of a replica by local number.
[[nodiscard]] inline std::uint64_t rank_sum(packing_scratch const& s, std::uint32_t rank) noexcept {
  std::uint64_t sum = 0;
  for (std::uint32_t i = 0; i < s.fill[rank]; ++i) { sum += s.given[s.placed[s.bins[rank].first + i]]; }
  return sum;
}
[[nodiscard]] inline std::uint64_t largest_sum(packing_scratch const& s, std::uint32_t ranks) noexcept {
  std::uint64_t largest = 0;
  for (std::uint32_t b = 0; b < ranks; ++b) { largest = std::max(largest, rank_sum(s, b)); }
  return largest;
}

// Swaps a second replica in slot `at` of `rank` for one of another rank such that neither rank then has a repeat more;
// among those the swap that leaves the lighter pair. Returns whether there is one.
inline bool swap_repeat(packing_scratch const& s, std::uint32_t ranks, std::uint32_t rank, std::uint32_t at) noexcept {
  std::uint32_t const item = s.placed[at];
  std::uint64_t const mine = s.tree[rank];
  std::uint32_t best = packing_scratch::nothing;
  std::uint32_t best_rank = 0;
  std::uint64_t best_sum = ~std::uint64_t{0};
  for (std::uint32_t other = 0; other < ranks; ++other) {
    if (other == rank || holds(s, other, item)) { continue; }
    for (std::uint32_t i = 0; i < s.fill[other]; ++i) {
      std::uint32_t const slot = s.bins[other].first + i;
      std::uint32_t const theirs = s.placed[slot];
      if (holds(s, rank, theirs)) { continue; }
      std::uint64_t const sum =
          std::max(mine - s.given[item] + s.given[theirs], s.tree[other] - s.given[theirs] + s.given[item]);
      if (sum < best_sum) {
        best_sum = sum;
        best = slot;
        best_rank = other;
      }
    }
  }
  if (best == packing_scratch::nothing) { return false; }
  std::uint64_t const theirs = s.given[s.placed[best]];
  s.tree[rank] = s.tree[rank] - s.given[item] + theirs;
  s.tree[best_rank] = s.tree[best_rank] - theirs + s.given[item];
  std::swap(s.placed[at], s.placed[best]);
  return true;
}

// Each replica of the list to the lightest rank with room that does not have its expert yet; to the lightest rank with
// room where all have it; then swaps. Sums of ranks stand in `s.tree`. Returns the largest.
inline std::uint64_t pack_distinct(packing_scratch const& s, std::uint32_t count, std::uint32_t ranks) {
  std::fill_n(s.fill, ranks, 0U);
  std::fill_n(s.tree, ranks, std::uint64_t{0});
  bool repeated = false;
  for (std::uint32_t i = 0; i < count; ++i) {
    std::uint32_t best = ranks;
    std::uint32_t any = ranks;
    for (std::uint32_t b = 0; b < ranks; ++b) {
      if (s.fill[b] == s.bins[b].room) { continue; }
      if (any == ranks || s.tree[b] < s.tree[any]) { any = b; }
      if ((best == ranks || s.tree[b] < s.tree[best]) && !holds(s, b, s.item[i])) { best = b; }
    }
    repeated = repeated || best == ranks;
    best = best == ranks ? any : best;
    s.placed[s.bins[best].first + s.fill[best]++] = s.item[i];
    s.tree[best] += s.weight[i];
  }
  for (std::uint32_t b = 0; b < ranks && repeated; ++b) {
    for (std::uint32_t i = 1; i < s.fill[b]; ++i) {
      std::uint32_t const at = s.bins[b].first + i;
      if (std::find(s.placed + s.bins[b].first, s.placed + at, s.placed[at]) != s.placed + at) {
        static_cast<void>(swap_repeat(s, ranks, b, at));
      }
    }
  }
  return *std::max_element(s.tree, s.tree + ranks);
}

// Takes out the replicas whose expert the rank has already; those behind move up. Returns whether there were any.
inline bool drop_repeats(packing_scratch const& s, std::uint32_t ranks) {
  bool dropped = false;
  for (std::uint32_t b = 0; b < ranks; ++b) {
    std::uint32_t* const first = s.placed + s.bins[b].first;
    std::uint32_t kept = 0;
    for (std::uint32_t i = 0; i < s.fill[b]; ++i) {
      if (std::find(first, first + kept, first[i]) == first + kept) { first[kept++] = first[i]; }
    }
    dropped = dropped || kept < s.fill[b];
    s.fill[b] = kept;
  }
  return dropped;
}

// A packing without repeats whatever the loads, if there is one: experts by descending number of replicas, each to the
// ranks with the most room left (Gale and Ryser). `replicas` by local number; `s.heap` takes the order of experts.
// Returns whether all found a place.
inline bool pack_any_distinct(packing_scratch const& s, std::uint32_t const* replicas, std::uint32_t n,
                              std::uint32_t ranks) {
  for (std::uint32_t i = 0; i < n; ++i) { s.heap[i] = i; }
  std::sort(s.heap, s.heap + n, [replicas](std::uint32_t a, std::uint32_t b) {
    return replicas[a] != replicas[b] ? replicas[a] > replicas[b] : a < b;
  });
  std::fill_n(s.fill, ranks, 0U);
  for (std::uint32_t i = 0; i < n; ++i) {
    std::uint32_t const item = s.heap[i];
    for (std::uint32_t r = 0; r < replicas[item]; ++r) {
      std::uint32_t best = ranks;
      for (std::uint32_t b = 0; b < ranks; ++b) {
        std::uint32_t const left = s.bins[b].room - s.fill[b];
        if (left > 0 && (best == ranks || left > s.bins[best].room - s.fill[best]) && !holds(s, b, item)) { best = b; }
      }
      if (best == ranks) { return false; }
      s.placed[s.bins[best].first + s.fill[best]++] = item;
    }
  }
  return true;
}

}  // namespace detail::packing
FAIRLEAD_NAMESPACE_END
