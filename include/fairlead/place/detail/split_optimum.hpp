// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Private: the smallest largest load of a rank when experts split freely over hosts, for the inner loop of a
/// search.
#include <fairlead/place/detail/slot_table.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

struct split_scratch {
  std::span<std::int32_t> first_edge;    // experts + 1
  std::span<std::int32_t> edge_rank;     // slots
  std::span<std::int32_t> edge_of_slot;  // slots
  std::span<index_t> share;              // slots: load of an edge
  std::span<std::int32_t> by_load;       // ranks
  std::span<index_t> rank_load;          // ranks
  std::span<std::int32_t> queue;         // ranks
  std::span<std::int32_t> parent_edge;   // ranks
  std::span<std::int32_t> entry_edge;    // ranks
  std::span<std::uint8_t> seen;          // ranks
  std::span<std::int32_t> order;         // experts
  std::span<std::int32_t> last_rank;     // experts
  std::span<index_t> key;                // experts

  static std::size_t bytes(topology const& cluster, index_t experts) {
    index_t const slots = cluster.slots();
    index_t const ranks = cluster.ranks();
    return workspace_bytes<std::int32_t>(experts + 1) + 2 * workspace_bytes<std::int32_t>(slots) +
           workspace_bytes<index_t>(slots) + 4 * workspace_bytes<std::int32_t>(ranks) +
           workspace_bytes<index_t>(ranks) + workspace_bytes<std::uint8_t>(ranks) +
           2 * workspace_bytes<std::int32_t>(experts) + workspace_bytes<index_t>(experts);
  }
  split_scratch(topology const& cluster, index_t experts, workspace& ws)
      : first_edge(ws.take<std::int32_t>(experts + 1)),
        edge_rank(ws.take<std::int32_t>(cluster.slots())),
        edge_of_slot(ws.take<std::int32_t>(cluster.slots())),
        share(ws.take<index_t>(cluster.slots())),
        by_load(ws.take<std::int32_t>(cluster.ranks())),
        rank_load(ws.take<index_t>(cluster.ranks())),
        queue(ws.take<std::int32_t>(cluster.ranks())),
        parent_edge(ws.take<std::int32_t>(cluster.ranks())),
        entry_edge(ws.take<std::int32_t>(cluster.ranks())),
        seen(ws.take<std::uint8_t>(cluster.ranks())),
        order(ws.take<std::int32_t>(experts)),
        last_rank(ws.take<std::int32_t>(experts)),
        key(ws.take<index_t>(experts)) {}
};

// Edges expert -> distinct rank in rank order; a second slot of an expert on a rank shares the edge of the first.
inline void list_hosts(topology const& cluster, std::span<expert_id const> slots, split_scratch& s) {
  auto const offsets = cluster.slot_offsets();
  std::fill(s.first_edge.begin(), s.first_edge.end(), 0);
  std::fill(s.last_rank.begin(), s.last_rank.end(), -1);
  for (int pass = 0; pass < 2; ++pass) {
    for (std::int32_t rank = 0; rank < static_cast<std::int32_t>(cluster.ranks()); ++rank) {
      auto const last = static_cast<std::size_t>(offsets[static_cast<std::size_t>(rank) + 1]);
      for (auto slot = static_cast<std::size_t>(offsets[static_cast<std::size_t>(rank)]); slot < last; ++slot) {
        if (slots[slot] == expert_id::none) { continue; }
        auto const expert = static_cast<std::size_t>(slots[slot]);
        if (s.last_rank[expert] != rank) {
          s.last_rank[expert] = rank;
          if (pass == 0) {
            ++s.first_edge[expert + 1];
          } else {  // order[] counts the edges written so far
            s.edge_rank[static_cast<std::size_t>(s.first_edge[expert] + s.order[expert]++)] = rank;
          }
        }
        if (pass == 1) { s.edge_of_slot[slot] = s.first_edge[expert] + s.order[expert] - 1; }
      }
    }
    if (pass == 0) {
      for (std::size_t e = 0; e + 1 < s.first_edge.size(); ++e) { s.first_edge[e + 1] += s.first_edge[e]; }
      std::fill(s.last_rank.begin(), s.last_rank.end(), -1);
      std::fill(s.order.begin(), s.order.end(), 0);
    }
  }
}

// Pour each expert into its least loaded hosts up to a common level: experts with one host first, then large shares
// first.
inline void pour(std::span<index_t const> totals, split_scratch& s) {
  std::fill(s.rank_load.begin(), s.rank_load.end(), 0);
  auto const hosts_of = [&s](std::int32_t e) {
    return s.first_edge[static_cast<std::size_t>(e) + 1] - s.first_edge[static_cast<std::size_t>(e)];
  };
  std::int32_t used = 0;
  for (std::int32_t e = 0; e < static_cast<std::int32_t>(totals.size()); ++e) {
    for (std::int32_t k = s.first_edge[static_cast<std::size_t>(e)]; k < s.first_edge[static_cast<std::size_t>(e) + 1];
         ++k) {
      s.share[static_cast<std::size_t>(k)] = 0;
    }
    std::int32_t const hosts = hosts_of(e);
    index_t const total = totals[static_cast<std::size_t>(e)];
    if (hosts == 0 || total == 0) { continue; }
    if (hosts == 1) {  // no choice, so no order among them
      auto const edge = static_cast<std::size_t>(s.first_edge[static_cast<std::size_t>(e)]);
      s.share[edge] = total;
      s.rank_load[static_cast<std::size_t>(s.edge_rank[edge])] += total;
      continue;
    }
    s.key[static_cast<std::size_t>(e)] = total / hosts;
    s.order[static_cast<std::size_t>(used++)] = e;
  }
  // Any order is correct; this one leaves little to correct. Floored shares are enough for it.
  std::sort(s.order.begin(), s.order.begin() + used, [&](std::int32_t a, std::int32_t b) {
    index_t const share_a = s.key[static_cast<std::size_t>(a)];
    index_t const share_b = s.key[static_cast<std::size_t>(b)];
    return share_a != share_b ? share_a > share_b : a < b;
  });
  for (std::int32_t i = 0; i < used; ++i) {
    auto const e = static_cast<std::size_t>(s.order[static_cast<std::size_t>(i)]);
    std::int32_t const first = s.first_edge[e];
    std::int32_t const hosts = s.first_edge[e + 1] - first;
    auto const load_of = [&](std::int32_t k) {
      return s.rank_load[static_cast<std::size_t>(s.edge_rank[static_cast<std::size_t>(k)])];
    };
    for (std::int32_t k = 0; k < hosts; ++k) { s.by_load[static_cast<std::size_t>(k)] = first + k; }
    std::sort(s.by_load.begin(), s.by_load.begin() + hosts, [&](std::int32_t a, std::int32_t b) {
      return load_of(a) != load_of(b) ? load_of(a) < load_of(b) : a < b;
    });
    // Rise from host to host while the load suffices; no product of a load and a count has to fit 64 bits.
    index_t left = totals[e];
    index_t height = load_of(s.by_load[0]);
    std::int32_t wet = 1;
    for (; wet < hosts; ++wet) {
      index_t const next = load_of(s.by_load[static_cast<std::size_t>(wet)]);
      slot_wide const rise = static_cast<slot_wide>(next - height) * wet;
      if (rise >= left) { break; }
      left -= static_cast<index_t>(rise);
      height = next;
    }
    index_t const level = height + left / wet;
    index_t const higher = left % wet;
    for (std::int32_t k = 0; k < wet; ++k) {
      auto const edge = static_cast<std::size_t>(s.by_load[static_cast<std::size_t>(k)]);
      auto const rank = static_cast<std::size_t>(s.edge_rank[edge]);
      s.share[edge] = level + (k < higher ? 1 : 0) - s.rank_load[rank];
      s.rank_load[rank] += s.share[edge];
    }
  }
}

// Shortest path of transfers from an overloaded rank to one below `level`; the ranks reached stay marked in `seen`.
inline std::int32_t find_room(topology const& cluster, std::span<expert_id const> slots, std::int32_t from,
                              index_t level, split_scratch& s) {
  auto const offsets = cluster.slot_offsets();
  std::fill(s.seen.begin(), s.seen.end(), std::uint8_t{0});
  s.seen[static_cast<std::size_t>(from)] = 1;
  s.queue[0] = from;
  std::size_t queued = 1;
  for (std::size_t head = 0; head < queued; ++head) {
    auto const rank = static_cast<std::size_t>(s.queue[head]);
    for (auto slot = static_cast<std::size_t>(offsets[rank]); slot < static_cast<std::size_t>(offsets[rank + 1]);
         ++slot) {
      if (slots[slot] == expert_id::none) { continue; }
      std::int32_t const edge = s.edge_of_slot[slot];
      if (s.share[static_cast<std::size_t>(edge)] <= 0) { continue; }
      auto const e = static_cast<std::size_t>(slots[slot]);
      for (std::int32_t k = s.first_edge[e]; k < s.first_edge[e + 1]; ++k) {
        auto const to = static_cast<std::size_t>(s.edge_rank[static_cast<std::size_t>(k)]);
        if (s.seen[to] != 0) { continue; }
        s.seen[to] = 1;
        s.parent_edge[to] = edge;
        s.entry_edge[to] = k;  // the edge into `to`; parent_edge is the same expert on the rank before
        if (s.rank_load[to] < level) { return static_cast<std::int32_t>(to); }
        s.queue[queued++] = static_cast<std::int32_t>(to);
      }
    }
  }
  return -1;
}

struct split_answer {
  index_t largest;  // optimum, an integer
  bool crowded;     // whether a set of ranks, marked in `seen`, forces more than the rounded mean
};

// Raise the level to the density of the closed set whenever no path leads out of it.
inline split_answer split_optimum(topology const& cluster, std::span<index_t const> totals,
                                  std::span<expert_id const> slots, index_t hosts, split_scratch& s) {
  list_hosts(cluster, slots, s);
  pour(totals, s);
  index_t total = 0;
  for (index_t const load : s.rank_load) { total += load; }
  if (hosts == 0 || total == 0) { return {0, false}; }
  index_t level = (total + hosts - 1) / hosts;
  bool crowded = false;
  auto const ranks = static_cast<std::int32_t>(cluster.ranks());
  for (std::int32_t rank = 0; rank < ranks; ++rank) {
    while (s.rank_load[static_cast<std::size_t>(rank)] > level) {
      std::int32_t const room = find_room(cluster, slots, rank, level, s);
      if (room < 0) {  // closed: everything on these ranks has all of its hosts among them
        index_t inside = 0;
        index_t members = 0;
        for (std::size_t r = 0; r < s.seen.size(); ++r) {
          if (s.seen[r] != 0) { inside += s.rank_load[r], ++members; }
        }
        level = (inside + members - 1) / members;
        crowded = true;
        // by_load is free now: remember the set, since later searches overwrite the marks.
        for (std::size_t r = 0; r < s.seen.size(); ++r) { s.by_load[r] = s.seen[r]; }
        continue;
      }
      index_t moved = std::min(s.rank_load[static_cast<std::size_t>(rank)] - level,
                               level - s.rank_load[static_cast<std::size_t>(room)]);
      for (std::int32_t at = room; at != rank;) {
        std::int32_t const edge = s.parent_edge[static_cast<std::size_t>(at)];
        moved = std::min(moved, s.share[static_cast<std::size_t>(edge)]);
        at = s.edge_rank[static_cast<std::size_t>(edge)];
      }
      for (std::int32_t at = room; at != rank;) {
        auto const edge = static_cast<std::size_t>(s.parent_edge[static_cast<std::size_t>(at)]);
        s.share[edge] -= moved;
        s.share[static_cast<std::size_t>(s.entry_edge[static_cast<std::size_t>(at)])] += moved;
        at = s.edge_rank[edge];
      }
      s.rank_load[static_cast<std::size_t>(rank)] -= moved;
      s.rank_load[static_cast<std::size_t>(room)] += moved;
    }
  }
  if (crowded) {
    for (std::size_t r = 0; r < s.seen.size(); ++r) { s.seen[r] = static_cast<std::uint8_t>(s.by_load[r]); }
  }
  return {level, crowded};
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
