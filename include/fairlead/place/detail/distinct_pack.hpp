// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Private: put replicas on distinct ranks, heavy ones first, each on the least loaded rank with room.
#include <fairlead/place/detail/slot_table.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

inline std::size_t distinct_pack_bytes(topology const& cluster, index_t experts) {
  return 2 * workspace_bytes<std::int32_t>(experts) + workspace_bytes<index_t>(cluster.ranks()) +
         workspace_bytes<std::int32_t>(cluster.ranks());
}

// load[e] / replicas[e] is the weight of a replica. `replicas` sums to at most the slots, and none exceeds the number
// of ranks with slots. Where no rank without the expert has room, a replica that sits elsewhere makes room; where that
// fails too the replica is left out, and its slot goes to the expert with the heaviest share that is not on that rank.
inline void distinct_pack(topology const& cluster, std::span<index_t const> load,
                          std::span<std::int32_t const> replicas, std::span<expert_id> slots, workspace& ws) {
  workspace::scope const scope(ws);
  auto const experts = static_cast<index_t>(load.size());
  auto const order = ws.take<std::int32_t>(experts);
  auto const placed = ws.take<std::int32_t>(experts);
  auto const rank_load = ws.take<index_t>(cluster.ranks());
  auto const used = ws.take<std::int32_t>(cluster.ranks());
  auto const offsets = cluster.slot_offsets();
  std::fill(slots.begin(), slots.end(), expert_id::none);
  std::fill(placed.begin(), placed.end(), 0);
  std::fill(rank_load.begin(), rank_load.end(), 0);
  std::fill(used.begin(), used.end(), 0);
  for (std::size_t e = 0; e < load.size(); ++e) { order[e] = static_cast<std::int32_t>(e); }
  auto const heavier = [&](std::int32_t a, std::int32_t b) {
    auto const left =
        static_cast<slot_wide>(load[static_cast<std::size_t>(a)]) * std::max(replicas[static_cast<std::size_t>(b)], 1);
    auto const right =
        static_cast<slot_wide>(load[static_cast<std::size_t>(b)]) * std::max(replicas[static_cast<std::size_t>(a)], 1);
    return left != right ? left > right : a < b;
  };
  std::sort(order.begin(), order.end(), heavier);
  auto const put = [&](index_t rank, std::size_t e, index_t weight) {
    auto const r = static_cast<std::size_t>(rank);
    slots[static_cast<std::size_t>(offsets[r] + used[r]++)] = static_cast<expert_id>(e);
    rank_load[r] += weight;
    ++placed[e];
  };
  auto const room = [&](index_t rank) { return used[static_cast<std::size_t>(rank)] < cluster.slots(rank); };
  // Some rank j with room hosts the expert already; another rank i gives one of its replicas to j.
  auto const make_room = [&](std::size_t e, index_t weight) {
    auto const mine = static_cast<expert_id>(e);
    for (index_t j = 0; j < cluster.ranks(); ++j) {
      if (!room(j)) { continue; }
      for (index_t i = 0; i < cluster.ranks(); ++i) {
        if (i == j || used[static_cast<std::size_t>(i)] == 0 || hosts_expert(cluster, slots, i, mine)) { continue; }
        for (index_t slot = offsets[static_cast<std::size_t>(i)];
             slot < offsets[static_cast<std::size_t>(i)] + used[static_cast<std::size_t>(i)]; ++slot) {
          expert_id const guest = slots[static_cast<std::size_t>(slot)];
          if (hosts_expert(cluster, slots, j, guest)) { continue; }
          auto const g = static_cast<std::size_t>(guest);
          index_t const moved = load[g] / std::max(replicas[g], 1);
          slots[static_cast<std::size_t>(slot)] = mine;
          rank_load[static_cast<std::size_t>(i)] += weight - moved;
          ++placed[e];
          --placed[g];
          put(j, g, moved);
          return true;
        }
      }
    }
    return false;
  };
  for (std::int32_t const chosen : order) {
    auto const e = static_cast<std::size_t>(chosen);
    index_t const weight = load[e] / std::max(replicas[e], 1);
    for (std::int32_t k = 0; k < replicas[e]; ++k) {
      index_t best = -1;
      for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
        if (!room(rank) ||
            (best >= 0 && rank_load[static_cast<std::size_t>(rank)] >= rank_load[static_cast<std::size_t>(best)])) {
          continue;
        }
        if (!hosts_expert(cluster, slots, rank, static_cast<expert_id>(e))) { best = rank; }
      }
      if (best >= 0) {
        put(best, e, weight);
      } else if (!make_room(e, weight)) {
        break;
      }
    }
  }
  // What is left is on ranks that host all experts with replicas to spare.
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    while (room(rank)) {
      index_t best = -1;
      for (index_t e = 0; e < experts; ++e) {
        auto const i = static_cast<std::size_t>(e);
        if (hosts_expert(cluster, slots, rank, static_cast<expert_id>(e))) { continue; }
        auto const b = static_cast<std::size_t>(best < 0 ? 0 : best);
        if (best < 0 || static_cast<slot_wide>(load[i]) * placed[b] > static_cast<slot_wide>(load[b]) * placed[i]) {
          best = e;
        }
      }
      if (best < 0) { break; }
      put(rank, static_cast<std::size_t>(best),
          load[static_cast<std::size_t>(best)] / (placed[static_cast<std::size_t>(best)] + 1));
    }
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
