// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The packing of groups to nodes whose heaviest node is lightest: branch and bound, with a cap.
#include <fairlead/place/detail/expert_groups.hpp>
#include <fairlead/place/detail/share_counts.hpp>

#include <algorithm>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail::packing {

// Load of a node over the number of its ranks that have slots.
struct rank_mean {
  std::uint64_t load = 0;
  std::uint64_t ranks = 1;
  [[nodiscard]] friend bool operator<(rank_mean a, rank_mean b) noexcept {
    return static_cast<wide>(a.load) * b.ranks < static_cast<wide>(b.load) * a.ranks;
  }
  [[nodiscard]] double value() const noexcept { return static_cast<double>(load) / static_cast<double>(ranks); }
};

// Depth first over the groups by descending load, each to every node that it fits and that is not as good as one tried
// before; starts from the greedy packing and ends at the lower bound, when all is tried, or after `limit` steps.
struct group_search {
  group_scratch const& g;  // load, hosts; order is sorted here
  index_t groups;
  std::uint32_t nodes;
  index_t experts;
  std::uint32_t* home;  // [groups] node of the i-th group by load, of the branch at hand
  std::uint32_t* best;  // [groups] of the best packing
  index_t* used;        // [nodes] experts on each node
  index_t const* cap;   // [nodes] how many experts it may get
  rank_mean best_mean{~std::uint64_t{0}, 1};
  bool found = false;
  bool proved = false;  // best_mean is the optimum
  index_t steps = 0;

  [[nodiscard]] index_t size(index_t i) const noexcept {
    index_t const group = g.order[i];
    return group_begin(group + 1, groups, experts) - group_begin(group, groups, experts);
  }
  [[nodiscard]] std::uint64_t load(index_t i) const noexcept { return g.load[g.order[i]]; }
  [[nodiscard]] rank_mean with(std::uint32_t node, index_t i) const noexcept {
    return {g.sum[node] + load(i), static_cast<std::uint64_t>(g.hosts[node])};
  }
  void put(std::uint32_t node, index_t i) const noexcept {
    g.sum[node] += load(i);
    used[node] += size(i);
  }
  void take(std::uint32_t node, index_t i) const noexcept {
    g.sum[node] -= load(i);
    used[node] -= size(i);
  }
  // No packing is lighter: the mean; the largest group; two of the nodes + 1 largest groups, which share a node.
  [[nodiscard]] rank_mean lower_bound() const noexcept {
    rank_mean all{0, 0};
    std::uint64_t most = 0;
    for (std::uint32_t node = 0; node < nodes; ++node) {
      all.ranks += static_cast<std::uint64_t>(g.hosts[node]);
      most = std::max(most, static_cast<std::uint64_t>(g.hosts[node]));
    }
    for (index_t i = 0; i < groups; ++i) { all.load += load(i); }
    all = std::max(all, rank_mean{load(0), most});
    return groups > nodes ? std::max(all, rank_mean{load(nodes - 1) + load(nodes), most}) : all;
  }
  void clear() const noexcept {
    std::fill_n(g.sum, nodes, std::uint64_t{0});
    std::fill_n(used, nodes, index_t{0});
  }
  void keep(std::uint32_t const* homes) noexcept {
    std::copy_n(homes, groups, best);
    best_mean = {};
    for (std::uint32_t node = 0; node < nodes; ++node) {
      best_mean = std::max(best_mean, rank_mean{g.sum[node], static_cast<std::uint64_t>(g.hosts[node])});
    }
    found = true;
  }
  // Each group where it leaves the lightest node; of equal ones the node with the fewest experts, then the lowest.
  bool greedy() noexcept {
    clear();
    for (index_t i = 0; i < groups; ++i) {
      std::uint32_t to = nodes;
      for (std::uint32_t node = 0; node < nodes; ++node) {
        if (used[node] + size(i) > cap[node]) { continue; }
        if (to == nodes || with(node, i) < with(to, i) || (!(with(to, i) < with(node, i)) && used[node] < used[to])) {
          to = node;
        }
      }
      if (to == nodes) { return false; }
      home[i] = to;
      put(to, i);
    }
    keep(home);
    return true;
  }
  // Whether an earlier node is in the same state, so that this one need not be tried.
  [[nodiscard]] bool seen(std::uint32_t node) const noexcept {
    for (std::uint32_t other = 0; other < node; ++other) {
      if (g.sum[other] == g.sum[node] && g.hosts[other] == g.hosts[node] &&
          cap[other] - used[other] == cap[node] - used[node]) {
        return true;
      }
    }
    return false;
  }
  void search(index_t limit) {
    sort_groups(g, groups);
    rank_mean const least = lower_bound();
    static_cast<void>(greedy());
    proved = found && !(least < best_mean);
    if (proved) { return; }
    clear();
    index_t depth = 0;
    std::uint32_t next = 0;  // the first node that the group at `depth` has not tried
    while (true) {
      std::uint32_t node = next;
      while (node < nodes && (used[node] + size(depth) > cap[node] || !(with(node, depth) < best_mean) || seen(node))) {
        ++node;
      }
      if (node == nodes || steps == limit) {
        if (steps == limit) { break; }
        if (depth == 0) {
          proved = found;
          break;
        }
        --depth;
        take(home[depth], depth);
        next = home[depth] + 1;
        continue;
      }
      ++steps;
      home[depth] = node;
      put(node, depth);
      if (depth + 1 < groups) {
        ++depth;
        next = 0;
        continue;
      }
      keep(home);
      if (!(least < best_mean)) {
        proved = true;
        break;
      }
      take(node, depth);
      next = node + 1;
    }
  }
  // The best packing to g.list, g.held, g.sum.
  void write() const noexcept {
    clear();
    std::fill_n(g.held, nodes, 0U);
    for (index_t i = 0; i < groups; ++i) {
      std::uint32_t const node = best[i];
      g.list[node * groups + g.held[node]++] = g.order[i];
      put(node, i);
    }
  }
};

}  // namespace detail::packing
FAIRLEAD_NAMESPACE_END
