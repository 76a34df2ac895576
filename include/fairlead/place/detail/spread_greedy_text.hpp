// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How `spread_greedy` works.
#include <fairlead/place/spread_greedy.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// Ranks by (load, id) in each node, and what changes when a replica goes to one.
struct spread_state {
  topology const& cluster;
  std::uint64_t* trees;      // a minimum_tree of the ranks of each node; full ranks are `nothing`
  std::uint64_t* tops;       // smallest key of each node; the lowest level of a minimum_tree of the nodes
  index_t const* bases;      // where the tree of a node begins
  std::int32_t* next_slot;   // first free slot of each rank
  std::int32_t const* end;   // the slot behind its last
  std::int32_t* last;        // expert that came last
  expert_id* slots;
  std::uint64_t rank_mask;
  std::uint64_t highest = 0;  // largest (load, id) so far
  index_t repeats = 0;

  // One replica to the least loaded rank of a node that has a free slot.
  void place(index_t node, std::int32_t expert, std::uint64_t weight) noexcept {
    std::uint64_t const key = tops[node];
    auto const rank = static_cast<index_t>(key & rank_mask);
    std::int32_t const slot = next_slot[rank]++;
    slots[slot] = static_cast<expert_id>(expert);
    repeats += last[rank] == expert ? 1 : 0;
    last[rank] = expert;
    std::uint64_t const heavier = key + weight;
    highest = std::max(highest, heavier);
    auto const first = cluster.node_offsets().data() + node;
    tops[node] = minimum_tree::update(trees + bases[node], first[1] - first[0], rank - first[0],
                                      slot + 1 == end[rank] ? minimum_tree::nothing : heavier);
  }

  // All replicas of an expert. `hosts` counts the nodes that have slots; `picks` has room for the nodes.
  void place_all(std::int32_t expert, index_t replicas, std::uint64_t weight, index_t hosts, full_node_rule rule,
                 std::uint64_t* picks) {
    index_t const nodes = cluster.nodes();
    while (replicas > 0) {
      index_t open = 0;
      for (index_t node = 0; node < nodes; ++node) { open += tops[node] != minimum_tree::nothing ? 1 : 0; }
      if (replicas < open) {  // the round does not reach all: the nodes whose least loaded rank comes first
        std::uint64_t* last_pick = picks;
        for (index_t node = 0; node < nodes; ++node) {
          if (tops[node] != minimum_tree::nothing) { *last_pick++ = tops[node]; }
        }
        std::nth_element(picks, picks + replicas, last_pick);
        for (index_t i = 0; i < replicas; ++i) {
          place(cluster.node_of(static_cast<index_t>(picks[i] & rank_mask)), expert, weight);
        }
        return;
      }
      for (index_t node = 0; node < nodes; ++node) {
        if (tops[node] != minimum_tree::nothing) { place(node, expert, weight); }
      }
      replicas -= open;
      // A full node has fewer replicas of the expert from now on, and nobody else has as few.
      if (open < hosts && rule == full_node_rule::any_rank) { break; }
    }
    if (replicas == 0) { return; }
    minimum_tree::build(tops, nodes);
    std::uint64_t key = minimum_tree::top(tops, nodes);
    for (; replicas > 0; --replicas) {
      index_t const node = cluster.node_of(static_cast<index_t>(key & rank_mask));
      place(node, expert, weight);
      key = minimum_tree::update(tops, nodes, node, tops[node]);
    }
  }
};

}  // namespace detail

inline report spread_greedy::assign(topology const& cluster, std::span<index_t const> load,
                                    std::span<index_t const> replicas, std::span<expert_id> slots, workspace& ws) const {
  FAIRLEAD_EXPECTS(load.size() == replicas.size(), "one load and one number of replicas an expert", load.size(),
                   replicas.size());
  FAIRLEAD_EXPECTS(static_cast<index_t>(slots.size()) == cluster.slots(), "one entry a slot of the cluster", slots.size(),
                   cluster.slots());
  FAIRLEAD_EXPECTS(cluster.slots() <= std::numeric_limits<std::int32_t>::max(), "the number of slots must be below 2^31",
                   cluster.slots());
  std::fill(slots.begin(), slots.end(), expert_id::none);
  index_t wanted = 0;
  std::uint64_t total = 0;
  std::uint64_t unit = 0;  // greatest common divisor: loads times a constant then give the same numbers below
  for (std::size_t e = 0; e < load.size(); ++e) {
    FAIRLEAD_EXPECTS_2(load[e] >= 0 && replicas[e] >= 0, "loads and numbers of replicas must not be negative", e, load[e],
                       replicas[e]);
    wanted += replicas[e];
    total += replicas[e] > 0 ? static_cast<std::uint64_t>(load[e]) : 0;  // what goes nowhere must not cost precision
    if (unit != 1) { unit = std::gcd(unit, static_cast<std::uint64_t>(load[e])); }
  }
  if (wanted > cluster.slots()) { return {.status = status::infeasible}; }
  if (wanted == 0) { return {}; }
  if (unit == 0) { unit = 1; }

  namespace tree = detail::minimum_tree;
  workspace::scope const scope(ws);
  index_t const nodes = cluster.nodes();
  index_t const ranks = cluster.ranks();
  auto const order = ws.take<std::int32_t>(static_cast<index_t>(load.size()));
  auto const trees = ws.take<std::uint64_t>(tree_words(cluster));
  auto const tops = ws.take<std::uint64_t>(tree::words(nodes));
  auto const picks = ws.take<std::uint64_t>(nodes);
  auto const bases = ws.take<index_t>(nodes);
  auto const next_slot = ws.take<std::int32_t>(ranks);
  auto const end = ws.take<std::int32_t>(ranks);
  auto const last = ws.take<std::int32_t>(ranks);

  auto const slot_offsets = cluster.slot_offsets();
  auto const node_offsets = cluster.node_offsets();
  index_t host_nodes = 0;
  index_t host_ranks = 0;
  index_t base = 0;
  for (index_t node = 0; node < nodes; ++node) {
    auto const n = static_cast<std::size_t>(node);
    index_t const first = node_offsets[n];
    index_t const size = node_offsets[n + 1] - first;
    bases[n] = base;
    index_t hosting = 0;
    for (index_t i = 0; i < size; ++i) {
      auto const r = static_cast<std::size_t>(first + i);
      next_slot[r] = static_cast<std::int32_t>(slot_offsets[r]);
      end[r] = static_cast<std::int32_t>(slot_offsets[r + 1]);
      last[r] = -1;
      bool const hosts = next_slot[r] < end[r];
      hosting += hosts ? 1 : 0;
      trees[static_cast<std::size_t>(base + i)] = hosts ? r : tree::nothing;
    }
    tree::build(trees.data() + base, size);
    tops[n] = size == 0 ? tree::nothing : tree::top(trees.data() + base, size);
    base += tree::words(size);
    host_nodes += hosting > 0 ? 1 : 0;
    host_ranks += hosting;
  }

  // Load in the high bits, rank in the low ones; the whole load on one rank stays below `nothing`.
  auto const rank_bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(ranks - 1)));
  int const shift = 63 - rank_bits - static_cast<int>(std::bit_width(total / unit));
  auto const weight_of = [&](std::size_t e) {
    auto const count = static_cast<std::uint64_t>(replicas[e]);
    std::uint64_t const amount = static_cast<std::uint64_t>(load[e]) / unit;
    return shift >= 0 ? (amount << shift) / count : (amount / count) >> -shift;
  };
  std::size_t placed = 0;
  for (std::size_t e = 0; e < load.size(); ++e) {
    if (replicas[e] > 0) { order[placed++] = static_cast<std::int32_t>(e); }
  }
  std::sort(order.begin(), order.begin() + static_cast<index_t>(placed), detail::larger_share_first{load, replicas});

  detail::spread_state state{cluster,    trees.data(), tops.data(),  bases.data(),
                             next_slot.data(), end.data(), last.data(), slots.data(),
                             (std::uint64_t{1} << rank_bits) - 1};
  std::uint64_t weight_sum = 0;
  std::uint64_t largest = 0;
  for (std::size_t i = 0; i < placed; ++i) {
    auto const e = static_cast<std::size_t>(order[i]);
    std::uint64_t const weight = weight_of(e);
    weight_sum += weight * static_cast<std::uint64_t>(replicas[e]);
    largest = std::max(largest, weight);
    state.place_all(order[i], replicas[e], weight << rank_bits, host_nodes, full_nodes, picks.data());
  }
  double const scale = std::ldexp(static_cast<double>(unit), -shift);
  return {.iterations = state.repeats,
          .value = static_cast<double>(state.highest >> rank_bits) * scale,
          .bound = std::max(static_cast<double>(weight_sum) / static_cast<double>(host_ranks), static_cast<double>(largest)) * scale};
}

FAIRLEAD_NAMESPACE_END
