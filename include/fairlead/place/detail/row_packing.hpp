// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Random tables with given numbers of replicas: experts into rows of slots, or replicas onto ranks with room.
#include <fairlead/place/detail/hosting_ranks.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Puts each of some counts, in descending order, into a row with room for it: depth-first, fullest row that fits first,
/// at most `limit` tries. `room` is used up, `row_of` filled. Rows with equal room count once, and equal counts go in
/// the order of their rows, so that no two branches mirror each other.
inline bool pack_rows(std::span<std::int32_t const> order, std::span<index_t const> counts, std::span<index_t> room,
                      std::span<std::int32_t> row_of, index_t& limit, std::size_t at = 0) {
  if (at == order.size()) { return true; }
  index_t const count = counts[static_cast<std::size_t>(order[at])];
  index_t above = count - 1;  // rooms up to here have been tried
  while (limit > 0) {
    std::size_t best = room.size();
    for (std::size_t row = 0; row < room.size(); ++row) {
      if (room[row] > above && (best == room.size() || room[row] < room[best])) { best = row; }
    }
    if (best == room.size()) { return false; }
    --limit;
    above = room[best];
    room[best] -= count;
    row_of[static_cast<std::size_t>(order[at])] = static_cast<std::int32_t>(best);
    if (pack_rows(order, counts, room, row_of, limit, at + 1)) { return true; }
    room[best] += count;
  }
  return false;
}

/// Gives each expert, in the order of `order`, its replicas on the ranks with the most free slots, ranks of equal room
/// at random. That rule finds distinct ranks for all whenever they exist (Gale, Ryser); where none is left, an expert
/// gets fewer. `free`, `sorted`, `taken` are scratch. @shape{free, sorted, taken: ranks}
inline void deal_onto_ranks(topology const& cluster, std::span<std::int32_t const> order, std::span<index_t const> counts,
                            std::span<std::int32_t> free, std::span<std::int32_t> sorted, std::span<std::int32_t> taken,
                            std::span<expert_id> slots, random_words& random) noexcept {
  for (std::size_t r = 0; r < sorted.size(); ++r) {
    free[r] = static_cast<std::int32_t>(cluster.slots(static_cast<index_t>(r)));
    sorted[r] = static_cast<std::int32_t>(r);
  }
  auto const room = [free](std::int32_t rank) { return free[static_cast<std::size_t>(rank)]; };
  std::sort(sorted.begin(), sorted.end(), [&room](std::int32_t a, std::int32_t b) { return room(a) != room(b) ? room(a) > room(b) : a < b; });
  std::size_t hosting = sorted.size();
  for (std::int32_t const expert : order) {
    while (hosting > 0 && room(sorted[hosting - 1]) == 0) { --hosting; }
    std::size_t const wanted = std::min(static_cast<std::size_t>(counts[static_cast<std::size_t>(expert)]), hosting);
    if (wanted == 0) { continue; }
    // Ranks with as much room as the last one that is needed: any of them will do.
    std::int32_t const edge = room(sorted[wanted - 1]);
    std::size_t first = wanted;
    while (first > 0 && room(sorted[first - 1]) == edge) { --first; }
    std::size_t last = wanted;
    while (last < hosting && room(sorted[last]) == edge) { ++last; }
    for (std::size_t i = first; i < wanted; ++i) {
      std::swap(sorted[i], sorted[i + static_cast<std::size_t>(random.below(static_cast<index_t>(last - i)))]);
    }
    for (std::size_t i = 0; i < wanted; ++i) {
      auto const rank = static_cast<std::size_t>(sorted[i]);
      auto const end = static_cast<std::size_t>(cluster.slot_offsets()[rank + 1]);
      slots[end - static_cast<std::size_t>(free[rank]--)] = static_cast<expert_id>(expert);
      taken[i] = sorted[i];
    }
    // Both parts are still in order of room: merge them.
    std::size_t a = 0;
    std::size_t b = wanted;
    for (std::size_t to = 0; a < wanted && to < hosting; ++to) {
      bool const later = b < hosting && room(sorted[b]) > room(taken[a]);
      sorted[to] = later ? sorted[b++] : taken[a++];
    }
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
