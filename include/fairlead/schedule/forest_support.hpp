// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Make a split sparse: no cycle of experts and ranks, the same load on every rank.
#include <fairlead/core/report.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/schedule/detail/shares.hpp>
#include <fairlead/schedule/host_graph.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Scratch that `forest_support` takes.
/// @param nodes ranks and experts together
/// @returns bytes
[[nodiscard]] inline std::size_t forest_support_bytes(index_t nodes) noexcept { return 2 * workspace_bytes<std::int32_t>(nodes); }
/// @brief Scratch that `forest_support` takes.
/// @param graph the placement
/// @returns bytes
[[nodiscard]] inline std::size_t forest_support_bytes(host_graph_view const& graph) noexcept {
  return forest_support_bytes(static_cast<index_t>(graph.ranks) + graph.experts);
}

/// @brief Cancel cycles of positive shares until they form a forest over experts and ranks.
///
/// A split that comes from augmenting paths may give many experts a little on many ranks. Copies can be moved around a cycle
/// expert - rank - expert - ... without changing any rank's load or any expert's total; each cycle loses at least one
/// positive share. At the end at most experts + ranks - 1 shares are positive, as in a basic solution of the linear program:
/// fewer fragments, fewer small products.
/// @param graph the placement
/// @param[in,out] shares copies a replica, >= 0; zero where the graph names nobody. @shape{graph.columns}
/// @param ws scratch, `forest_support_bytes(graph)`
/// @returns `status::ok`; `iterations` = cycles cancelled, `value` = positive shares left
/// @throws contract_violation (level 1) on a shape mismatch
/// @complexity O(replicas x (ranks + experts)), no allocation
/// @determinism exact: columns in ascending order
/// @source{2511.16947, MicroMoE, LPP 1} - its LP solver returns a basic solution; the cancelling is this library's
inline report forest_support(host_graph_view const& graph, std::span<count_t> shares, workspace& ws) {
  FAIRLEAD_EXPECTS(static_cast<index_t>(shares.size()) == graph.columns, "one share a replica of the placement", shares.size(), graph.columns);
  workspace::scope const scope(ws);
  // Rooted trees over ranks (0 ... ranks - 1) and experts (behind them): parent, and the column of the edge to it.
  index_t const nodes = static_cast<index_t>(graph.ranks) + graph.experts;
  auto const parent = ws.take<std::int32_t>(nodes);
  auto const column_up = ws.take<std::int32_t>(nodes);
  std::fill(parent.begin(), parent.end(), -1);
  std::fill(column_up.begin(), column_up.end(), -1);
  auto const at = [](std::int32_t node) { return static_cast<std::size_t>(node); };
  auto const measure = [&](std::int32_t node) {  // depth of a node by walking up
    std::int32_t steps = 0;
    for (; parent[at(node)] >= 0; node = parent[at(node)]) { ++steps; }
    return steps;
  };
  // Make `node` the root of its tree.
  auto const evert = [&](std::int32_t node) {
    std::int32_t above = -1;
    std::int32_t through = -1;
    while (node >= 0) {
      std::int32_t const next = parent[at(node)];
      std::int32_t const edge = column_up[at(node)];
      parent[at(node)] = above, column_up[at(node)] = through;
      above = node, through = edge, node = next;
    }
  };
  report result;
  for (std::int32_t column = 0; column < graph.columns; ++column) {
    std::int32_t const rank = graph.rank[at(column)];
    if (rank == graph.ranks || shares[at(column)] == 0) { continue; }
    std::int32_t const expert = graph.ranks + graph.expert[at(column)];
    // Walk both ends up to where they meet; if they do not, the edge joins two trees.
    std::int32_t a = expert, b = rank;
    for (std::int32_t up = measure(a), other = measure(b); up != other;) {
      if (up > other) { a = parent[at(a)], --up; } else { b = parent[at(b)], --other; }
    }
    while (a != b && parent[at(a)] >= 0) { a = parent[at(a)], b = parent[at(b)]; }
    if (a != b) {
      evert(rank);
      parent[at(rank)] = expert;
      column_up[at(rank)] = column;
      continue;
    }
    std::int32_t const top = a;
    // The shares of the cycle change by the same amount, with alternating signs. Those that fall when the new edge's share
    // grows: on the expert's path the edges climbed from an expert, on the rank's path those climbed from a rank.
    auto const visit = [&](auto const& use) {
      for (std::int32_t node = expert; node != top; node = parent[at(node)]) { use(column_up[at(node)], node >= graph.ranks); }
      for (std::int32_t node = rank; node != top; node = parent[at(node)]) { use(column_up[at(node)], node < graph.ranks); }
    };
    // Empty the new edge as far as the cycle allows: the shares that fall with it end at zero.
    count_t amount = shares[at(column)];
    visit([&](std::int32_t edge, bool falls_with_new) {
      if (!falls_with_new) { amount = std::min(amount, shares[at(edge)]); }
    });
    visit([&](std::int32_t edge, bool falls_with_new) {
      shares[at(edge)] = static_cast<count_t>(shares[at(edge)] + (falls_with_new ? amount : -amount));
    });
    shares[at(column)] = static_cast<count_t>(shares[at(column)] - amount);
    ++result.iterations;
    // Edges of the tree that became zero leave it.
    for (std::int32_t end : {expert, rank}) {
      for (std::int32_t node = end; node != top;) {
        std::int32_t const next = parent[at(node)];
        if (shares[at(column_up[at(node)])] == 0) { parent[at(node)] = -1, column_up[at(node)] = -1; }
        node = next;
      }
    }
    if (shares[at(column)] != 0) {  // a tree edge was emptied instead: the new one takes its place
      evert(rank);
      parent[at(rank)] = expert;
      column_up[at(rank)] = column;
    }
  }
  index_t positive = 0;
  for (count_t const share : shares) { positive += share > 0 ? 1 : 0; }
  result.value = static_cast<double>(positive);
  return result;
}

FAIRLEAD_NAMESPACE_END
