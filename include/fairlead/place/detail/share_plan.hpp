// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Replicas and ranks of one part of a cluster, the steps that the packing planners share.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/place/detail/distinct_packing.hpp>
#include <fairlead/place/detail/share_packing.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail::packing {

// What came out of one part.
struct part_result {
  double value = 0.0;          // largest load of a rank
  double largest_share = 0.0;  // largest load of a replica
  std::uint32_t repeats = 0;   // slots whose expert the rank has already
};

// Lists the ranks first ... last - 1 that have slots. Returns how many.
inline std::uint32_t list_bins(topology const& cluster, index_t first, index_t last, bin* bins) {
  std::uint32_t count = 0;
  auto const offsets = cluster.slot_offsets();
  for (index_t rank = first; rank < last; ++rank) {
    auto const begin = static_cast<std::uint32_t>(offsets[static_cast<std::size_t>(rank)]);
    auto const end = static_cast<std::uint32_t>(offsets[static_cast<std::size_t>(rank) + 1]);
    if (end > begin) { bins[count++] = {begin, end - begin}; }
  }
  return count;
}

// Loads as unsigned numbers; their sum.
inline std::uint64_t copy_loads(std::span<index_t const> load, std::uint64_t* out) {
  std::uint64_t total = 0;
  std::uint64_t all = 0;
  for (std::size_t e = 0; e < load.size(); ++e) {
    out[e] = static_cast<std::uint64_t>(load[e]);
    total += out[e];
    all |= out[e] | total;
  }
  FAIRLEAD_EXPECTS_2(all < std::uint64_t{1} << 62U, "loads are not negative and their sum is below 2^62", total);
  return total;
}

// Local loads (`s.given`) to `s.load` and `s.order`, descending. Without any load each counts as one: numbers of
// replicas then differ by at most one. Returns the sum of what it wrote.
inline std::uint64_t sort_loads(packing_scratch const& s, std::uint32_t n, std::uint64_t total) {
  if (total == 0) {
    for (std::uint32_t i = 0; i < n; ++i) {
      s.order[i] = i;
      s.load[i] = 1;
    }
    return n;
  }
  sort_descending(s.given, n, s.order, s.sort);
  for (std::uint32_t i = 0; i < n; ++i) { s.load[i] = s.given[s.order[i]]; }
  return total;
}

// One replica a rank: no packing, replicas in the order of their numbers. Needs `s.load`, `s.order`, `s.replicas`.
inline void place_in_order(packing_scratch const& s, std::uint32_t n, std::uint32_t several) {
  for (std::uint32_t i = 0; i < n; ++i) { s.placed[s.bins[i].first] = i; }
  std::uint32_t count = 0;
  std::uint32_t* const at = s.item;  // (position, how many it had before) of each further replica
  for (std::uint32_t i = 0; i < several; ++i) {
    for (std::uint32_t had = 1; had < s.replicas[i]; ++had) {
      s.weight[count] = std::uint64_t{i} << 32U | had;
      ++count;
    }
  }
  std::sort(s.weight, s.weight + count, [&s](std::uint64_t a, std::uint64_t b) {
    auto const i = static_cast<std::uint32_t>(a >> 32U);
    auto const j = static_cast<std::uint32_t>(b >> 32U);
    wide const left = static_cast<wide>(s.load[i]) * static_cast<std::uint32_t>(b);
    wide const right = static_cast<wide>(s.load[j]) * static_cast<std::uint32_t>(a);
    return left != right ? left > right : s.order[i] < s.order[j];
  });
  for (std::uint32_t k = 0; k < count; ++k) { at[k] = s.order[s.weight[k] >> 32U]; }
  for (std::uint32_t k = 0; k < count; ++k) { s.placed[s.bins[n + k].first] = at[k]; }
}

// Replicates the experts of `s.given` [n] over the slots of `s.bins` [ranks] and packs them, into `s.placed`.
// `total` is the sum of the loads. There are at least as many slots as experts, at least one expert.
inline part_result plan_part(packing_scratch const& s, std::uint32_t n, std::uint32_t ranks, std::uint64_t total,
                             repeats_on_a_rank policy) {
  std::uint64_t slots = 0;
  std::uint32_t most_room = 0;
  for (std::uint32_t b = 0; b < ranks; ++b) {
    if (policy == repeats_on_a_rank::forbidden && s.bins[b].room > n) { s.bins[b].room = n; }
    slots += s.bins[b].room;
    most_room = std::max(most_room, s.bins[b].room);
  }
  bool const limited = policy == repeats_on_a_rank::forbidden ||
                       (policy == repeats_on_a_rank::avoided && slots <= std::uint64_t{n} * ranks);
  bool const empty = total == 0;
  total = sort_loads(s, n, total);
  std::uint32_t several = 0;
  share_counts const rule{s.load, s.order, n, s.replicas, s.heap, limited ? ranks : ~std::uint32_t{0}};
  slots -= rule.give(slots - n, several);
  int const rank_bits = std::countr_zero(std::bit_ceil(ranks));
  weight_unit const unit = make_shares(s.load, s.replicas, n, several, total, rank_bits, s.share);
  part_result result;
  std::uint64_t largest = 0;
  if (most_room == 1 && slots == ranks) {
    largest = *std::max_element(s.share, s.share + std::max(several, 1U));
    if (several < n) { largest = std::max(largest, s.share[several]); }
    place_in_order(s, n, several);
    std::fill_n(s.fill, ranks, 1U);
    result.largest_share = static_cast<double>(largest) * unit.load_of_one;
  } else {
    replica_list list{s, n, several};
    list.make();
    result.largest_share = static_cast<double>(s.weight[0]) * unit.load_of_one;
    if (policy == repeats_on_a_rank::allowed) {
      largest = pack_lightest(s, list.count, ranks);
    } else {
      for (std::uint32_t i = 0; i < n; ++i) {
        s.given[s.order[i]] = s.share[i];
      }  // by local number, as repairs need it
      largest = pack_distinct(s, list.count, ranks);
      if (policy == repeats_on_a_rank::forbidden && drop_repeats(s, ranks)) {
        // Fewer replicas now: other shares. Loads by local number are gone; sorted ones are not.
        for (std::uint32_t i = 0; i < n; ++i) { s.replicas[i] = 0; }
        for (std::uint32_t i = 0; i < n; ++i) { s.mark[s.order[i]] = i; }
        for_each_placed(s, ranks, [&s](std::uint32_t, std::uint32_t item) { ++s.replicas[s.mark[item]]; });
        weight_unit const other = make_shares(s.load, s.replicas, n, n, total, rank_bits, s.share);
        for (std::uint32_t i = 0; i < n; ++i) { s.given[s.order[i]] = s.share[i]; }
        largest = largest_sum(s, ranks);
        result.value = static_cast<double>(largest) * other.load_of_one;
        if (empty) { result = {}; }
        return result;
      }
    }
  }
  result.value = static_cast<double>(largest) * unit.load_of_one;
  if (empty) { result.value = result.largest_share = 0.0; }
  return result;
}

// Local numbers in `s.placed` to experts in `next`; counts slots whose expert the rank has already.
template <class Name>
std::uint32_t write_slots(packing_scratch const& s, std::uint32_t n, std::uint32_t ranks, std::span<expert_id> next,
                          Name const& name) {
  std::fill_n(s.mark, n, 0U);
  std::uint32_t repeats = 0;
  for (std::uint32_t b = 0; b < ranks; ++b) {
    bin const here = s.bins[b];
    for (std::uint32_t i = 0; i < s.fill[b]; ++i) {
      std::uint32_t const item = s.placed[here.first + i];
      repeats += s.mark[item] == b + 1 ? 1U : 0U;
      s.mark[item] = b + 1;
      next[here.first + i] = name(item);
    }
  }
  return repeats;
}

}  // namespace detail::packing
FAIRLEAD_NAMESPACE_END
