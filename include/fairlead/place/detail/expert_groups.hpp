// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Groups of consecutive experts, their loads, and their packing to nodes by descending load.
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail::packing {

// Group g has the experts group_begin(g) ... group_begin(g + 1) - 1.
[[nodiscard]] constexpr index_t group_begin(index_t group, index_t groups, index_t experts) noexcept {
  return group * experts / groups;
}

// Nodes that have slots, numbered without gaps, and the groups on each.
struct group_scratch {
  std::uint64_t* load;   // [groups]
  std::uint32_t* order;  // [groups] by descending load
  std::uint32_t* list;   // [nodes x groups] groups of each node in the order in which they came
  std::uint32_t* held;   // [nodes] number of them
  std::uint64_t* sum;    // [nodes] their load
  index_t* room;         // [nodes] slots
  index_t* hosts;        // [nodes] ranks that have slots
  index_t* first_rank;   // [nodes]
  index_t* last_rank;    // [nodes] and one more

  static std::size_t bytes(index_t groups, index_t nodes) {
    return fairlead::workspace_bytes<std::uint64_t>(groups) + fairlead::workspace_bytes<std::uint32_t>(groups) +
           fairlead::workspace_bytes<std::uint32_t>(groups * nodes) + fairlead::workspace_bytes<std::uint32_t>(nodes) +
           fairlead::workspace_bytes<std::uint64_t>(nodes) + 4 * fairlead::workspace_bytes<index_t>(nodes);
  }
  group_scratch(index_t groups, index_t nodes, workspace& ws)
      : load(ws.take<std::uint64_t>(groups).data()),
        order(ws.take<std::uint32_t>(groups).data()),
        list(ws.take<std::uint32_t>(groups * nodes).data()),
        held(ws.take<std::uint32_t>(nodes).data()),
        sum(ws.take<std::uint64_t>(nodes).data()),
        room(ws.take<index_t>(nodes).data()),
        hosts(ws.take<index_t>(nodes).data()),
        first_rank(ws.take<index_t>(nodes).data()),
        last_rank(ws.take<index_t>(nodes).data()) {}
};

// Nodes that have slots. Returns how many.
inline std::uint32_t list_nodes(topology const& cluster, group_scratch const& g) {
  std::uint32_t nodes = 0;
  for (index_t node = 0; node < cluster.nodes(); ++node) {
    index_t const first = cluster.node_offsets()[static_cast<std::size_t>(node)];
    index_t const last = cluster.node_offsets()[static_cast<std::size_t>(node) + 1];
    index_t const slots = cluster.slot_offsets()[static_cast<std::size_t>(last)] -
                          cluster.slot_offsets()[static_cast<std::size_t>(first)];
    if (slots == 0) { continue; }
    g.room[nodes] = slots;
    g.first_rank[nodes] = first;
    g.last_rank[nodes] = last;
    g.hosts[nodes] = 0;
    for (index_t rank = first; rank < last; ++rank) { g.hosts[nodes] += cluster.slots(rank) > 0 ? 1 : 0; }
    ++nodes;
  }
  return nodes;
}

inline void sum_groups(std::span<index_t const> load, index_t groups, group_scratch const& g) {
  auto const experts = static_cast<index_t>(load.size());
  for (index_t group = 0; group < groups; ++group) {
    g.order[group] = static_cast<std::uint32_t>(group);
    g.load[group] = 0;
    for (index_t e = group_begin(group, groups, experts); e < group_begin(group + 1, groups, experts); ++e) {
      g.load[group] += static_cast<std::uint64_t>(load[static_cast<std::size_t>(e)]);
    }
  }
}

inline void sort_groups(group_scratch const& g, index_t groups) {
  std::sort(g.order, g.order + groups,
            [&g](std::uint32_t a, std::uint32_t b) { return g.load[a] != g.load[b] ? g.load[a] > g.load[b] : a < b; });
}

// groups / nodes groups to each node: by descending load to the lightest node that has fewer, ties to the lowest; one
// each: group i to node i. Returns whether the experts fit the slots of the nodes.
inline bool pack_groups(group_scratch const& g, index_t experts, index_t groups, std::uint32_t nodes) {
  index_t const each = groups / nodes;
  std::fill_n(g.held, nodes, 0U);
  std::fill_n(g.sum, nodes, std::uint64_t{0});
  if (each > 1) { sort_groups(g, groups); }
  for (index_t i = 0; i < groups; ++i) {
    std::uint32_t best = nodes;
    if (each == 1) { best = static_cast<std::uint32_t>(i); }
    for (std::uint32_t node = 0; node < nodes && each > 1; ++node) {
      if (g.held[node] < each && (best == nodes || g.sum[node] < g.sum[best])) { best = node; }
    }
    g.list[best * groups + g.held[best]++] = g.order[i];
    g.sum[best] += g.load[g.order[i]];
  }
  for (std::uint32_t node = 0; node < nodes; ++node) {
    index_t size = 0;
    for (std::uint32_t i = 0; i < g.held[node]; ++i) {
      index_t const group = g.list[node * groups + i];
      size += group_begin(group + 1, groups, experts) - group_begin(group, groups, experts);
    }
    if (size > g.room[node]) { return false; }
  }
  return true;
}

}  // namespace detail::packing
FAIRLEAD_NAMESPACE_END
