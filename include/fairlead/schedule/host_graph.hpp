// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The distinct hosts of each expert in the compact form that flow schedulers work on.
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Views of a compiled placement; made by `make_host_graph`, valid as long as the memory that it was made in.
///
/// A column is a replica in the order of `placement::replicas`, the order of the columns of a `token_schedule`. A second
/// replica of an expert on the same rank adds nothing to a flow: its rank is the number `ranks`, which stands for nobody.
struct host_graph_view {
  std::int32_t ranks = 0;                           ///< number of ranks
  std::int32_t experts = 0;                         ///< number of experts
  std::int32_t columns = 0;                         ///< number of replicas
  std::span<std::int32_t const> first;              ///< first column of each expert, and the end. @shape{experts + 1}
  std::span<std::int32_t const> rank;               ///< rank of each column, or `ranks`. @shape{columns}
  std::span<std::int32_t const> expert;             ///< expert of each column. @shape{columns}
  std::span<std::int32_t const> rank_first;         ///< first entry of each rank in `rank_columns`. @shape{ranks + 1}
  std::span<std::int32_t const> rank_columns;       ///< columns of each rank, ascending. @shape{columns}
  std::span<std::uint64_t const> rank_hosts;        ///< by entry of `rank_columns`: the hosts of its expert, one bit a rank; only with at most 64 ranks. @shape{columns or 0}
  std::span<std::int32_t const> by_degree;          ///< experts by ascending (number of columns, id). @shape{experts}
  std::span<std::int32_t const> degree_first;       ///< first entry of each number of columns in `by_degree`. @shape{most columns of an expert + 2}
  std::span<std::int32_t const> tree;               ///< a spanning forest, four numbers an edge. @shape{at most ranks, 4}
};

namespace detail {

// Breadth-first forest over ranks, written leaves first: (rank, parent, column at the rank, column at the parent).
// `queue`, `seen` @shape{ranks}, `expanded` @shape{experts}. Returns the number of edges.
inline std::int32_t span_ranks(host_graph_view const& graph, std::span<std::int32_t> queue, std::span<std::int32_t> seen,
                               std::span<std::int32_t> expanded, std::span<std::int32_t> tree) {
  std::fill(seen.begin(), seen.end(), 0);
  std::fill(expanded.begin(), expanded.end(), 0);
  std::int32_t edges = 0;
  for (std::int32_t root = 0; root < graph.ranks; ++root) {
    if (seen[static_cast<std::size_t>(root)] != 0) { continue; }
    seen[static_cast<std::size_t>(root)] = 1;
    std::int32_t tail = 0;
    queue[static_cast<std::size_t>(tail++)] = root;
    for (std::int32_t head = 0; head < tail; ++head) {
      auto const u = static_cast<std::size_t>(queue[static_cast<std::size_t>(head)]);
      for (auto k = graph.rank_first[u]; k < graph.rank_first[u + 1]; ++k) {
        std::int32_t const here = graph.rank_columns[static_cast<std::size_t>(k)];
        auto const e = static_cast<std::size_t>(graph.expert[static_cast<std::size_t>(here)]);
        if (expanded[e] != 0) { continue; }  // its hosts are all seen
        expanded[e] = 1;
        for (auto there = graph.first[e]; there < graph.first[e + 1]; ++there) {
          std::int32_t const v = graph.rank[static_cast<std::size_t>(there)];
          if (v == graph.ranks || seen[static_cast<std::size_t>(v)] != 0) { continue; }
          seen[static_cast<std::size_t>(v)] = 1;
          queue[static_cast<std::size_t>(tail++)] = v;
          std::int32_t* const edge = &tree[static_cast<std::size_t>(4 * edges++)];
          edge[0] = v, edge[1] = static_cast<std::int32_t>(u), edge[2] = there, edge[3] = here;
        }
      }
    }
  }
  // Parents come before children in the order of discovery: reversed, every rank is settled before its parent.
  for (std::int32_t low = 0, high = edges - 1; low < high; ++low, --high) {
    std::swap_ranges(&tree[static_cast<std::size_t>(4 * low)], &tree[static_cast<std::size_t>(4 * low)] + 4, &tree[static_cast<std::size_t>(4 * high)]);
  }
  return edges;
}

// Fill `rank_first` and `rank_columns` from `graph.rank`. @shape{ranks + 1}, @shape{columns}
inline void list_columns_of_ranks(host_graph_view const& graph, std::span<std::int32_t> rank_first, std::span<std::int32_t> rank_columns) {
  std::fill(rank_first.begin(), rank_first.end(), 0);
  for (std::int32_t const rank : graph.rank) {
    if (rank != graph.ranks) { ++rank_first[static_cast<std::size_t>(rank) + 1]; }
  }
  for (std::size_t r = 0; r < static_cast<std::size_t>(graph.ranks); ++r) { rank_first[r + 1] += rank_first[r]; }
  for (std::int32_t column = graph.columns - 1; column >= 0; --column) {  // fills each rank's part from its end
    std::int32_t const rank = graph.rank[static_cast<std::size_t>(column)];
    if (rank != graph.ranks) { rank_columns[static_cast<std::size_t>(--rank_first[static_cast<std::size_t>(rank) + 1])] = column; }
  }
  // Now entry r + 1 holds the start of r: shift back.
  for (std::size_t r = 0; r < static_cast<std::size_t>(graph.ranks); ++r) { rank_first[r] = rank_first[r + 1]; }
  std::int32_t live = 0;
  for (std::int32_t const rank : graph.rank) { live += rank != graph.ranks ? 1 : 0; }
  rank_first[static_cast<std::size_t>(graph.ranks)] = live;
}

// Fill `rank_hosts` from `graph.rank` and the lists of ranks. @shape{columns}
inline void list_hosts_of_ranks(host_graph_view const& graph, std::span<std::uint64_t> rank_hosts) {
  for (std::int32_t k = 0; k < graph.rank_first[static_cast<std::size_t>(graph.ranks)]; ++k) {
    auto const e = static_cast<std::size_t>(graph.expert[static_cast<std::size_t>(graph.rank_columns[static_cast<std::size_t>(k)])]);
    std::uint64_t hosts = 0;
    for (std::int32_t c = graph.first[e]; c < graph.first[e + 1]; ++c) {
      std::int32_t const rank = graph.rank[static_cast<std::size_t>(c)];
      hosts |= rank == graph.ranks ? 0 : std::uint64_t{1} << static_cast<unsigned>(rank);
    }
    rank_hosts[static_cast<std::size_t>(k)] = hosts;
  }
}

// Ranks whose sets fit one word.
inline constexpr std::int32_t word_ranks = 64;

}  // namespace detail

/// @brief Scratch that `make_host_graph` takes and keeps in use.
/// @param where the placement
/// @returns bytes
[[nodiscard]] inline std::size_t host_graph_bytes(placement const& where) noexcept {
  index_t const ranks = where.ranks();
  index_t const experts = where.experts();
  index_t const columns = where.replicas();
  return workspace_bytes<std::int32_t>(experts + 1) + 3 * workspace_bytes<std::int32_t>(columns) + 3 * workspace_bytes<std::int32_t>(ranks + 1) +
         2 * workspace_bytes<std::int32_t>(experts) + workspace_bytes<std::int32_t>(columns + 2) + workspace_bytes<std::int32_t>(4 * ranks) +
         workspace_bytes<std::uint64_t>(ranks <= detail::word_ranks ? columns : 0);
}

/// @brief Compile a placement.
/// @param where the placement
/// @param ws where the arrays go; they stay in use
/// @returns the graph
/// @throws contract_violation (level 1) if the placement has 2^31 replicas or more, or the workspace is too small
/// @complexity O(ranks + experts + replicas), no allocation
[[nodiscard]] inline host_graph_view make_host_graph(placement const& where, workspace& ws) {
  FAIRLEAD_EXPECTS(where.replicas() < INT32_MAX && where.ranks() < INT32_MAX && where.experts() < INT32_MAX,
                   "a host graph counts in 32 bits", where.replicas(), where.ranks(), where.experts());
  auto const ranks = static_cast<std::int32_t>(where.ranks());
  auto const experts = static_cast<std::int32_t>(where.experts());
  auto const columns = static_cast<std::int32_t>(where.replicas());
  auto const first = ws.take<std::int32_t>(experts + 1);
  auto const rank = ws.take<std::int32_t>(columns);
  auto const expert = ws.take<std::int32_t>(columns);
  auto const rank_columns = ws.take<std::int32_t>(columns);
  auto const rank_first = ws.take<std::int32_t>(ranks + 1);
  auto const queue = ws.take<std::int32_t>(ranks + 1);
  auto const seen = ws.take<std::int32_t>(ranks + 1);
  auto const expanded = ws.take<std::int32_t>(experts);
  auto const by_degree = ws.take<std::int32_t>(experts);
  auto const degree_first = ws.take<std::int32_t>(columns + 2);
  auto const tree = ws.take<std::int32_t>(4 * ranks);
  auto const rank_hosts = ws.take<std::uint64_t>(ranks <= detail::word_ranks ? columns : 0);
  std::int32_t most = 0;
  first[0] = 0;
  for (std::int32_t e = 0; e < experts; ++e) {
    auto const replicas = where.replicas(static_cast<expert_id>(e));
    std::int32_t column = first[static_cast<std::size_t>(e)];
    for (std::size_t i = 0; i < replicas.size(); ++i, ++column) {  // ascending by rank: a duplicate follows its twin
      bool const twin = i > 0 && replicas[i - 1].rank == replicas[i].rank;
      rank[static_cast<std::size_t>(column)] = twin ? ranks : static_cast<std::int32_t>(replicas[i].rank);
      expert[static_cast<std::size_t>(column)] = e;
    }
    first[static_cast<std::size_t>(e) + 1] = column;
    most = std::max(most, static_cast<std::int32_t>(replicas.size()));
  }
  auto const degrees = degree_first.first(static_cast<std::size_t>(most) + 2);
  std::fill(degrees.begin(), degrees.end(), 0);
  auto const degree = [&](std::size_t e) { return static_cast<std::size_t>(first[e + 1] - first[e]); };
  for (std::size_t e = 0; e < static_cast<std::size_t>(experts); ++e) { ++degrees[degree(e) + 1]; }
  for (std::size_t d = 1; d < degrees.size(); ++d) { degrees[d] += degrees[d - 1]; }
  for (std::size_t e = static_cast<std::size_t>(experts); e-- > 0;) { by_degree[static_cast<std::size_t>(--degrees[degree(e) + 1])] = static_cast<std::int32_t>(e); }
  for (std::size_t d = 0; d + 1 < degrees.size(); ++d) { degrees[d] = degrees[d + 1]; }
  degrees.back() = experts;
  host_graph_view graph{ranks, experts, columns, first, rank, expert, rank_first, rank_columns, rank_hosts, by_degree, degrees, {}};
  detail::list_columns_of_ranks(graph, rank_first, rank_columns);
  if (ranks <= detail::word_ranks) { detail::list_hosts_of_ranks(graph, rank_hosts); }
  std::int32_t const edges = detail::span_ranks(graph, queue.first(static_cast<std::size_t>(ranks)), seen.first(static_cast<std::size_t>(ranks)), expanded, tree);
  graph.tree = tree.first(static_cast<std::size_t>(4 * edges));
  return graph;
}

/// @brief Own a compiled placement: make it once a placement, use it every micro-batch.
class host_graph {
 public:
  /// @param where the placement
  /// @throws std::bad_alloc, and as `make_host_graph`
  /// @complexity as `make_host_graph`, allocates once
  explicit host_graph(placement const& where) : memory_(static_cast<index_t>(host_graph_bytes(where))) {
    workspace ws(memory_.span());
    view_ = make_host_graph(where, ws);
  }
  /// @returns views of the arrays, valid as long as this object
  [[nodiscard]] host_graph_view const& view() const noexcept { return view_; }

 private:
  buffer<std::byte> memory_;
  host_graph_view view_;
};

FAIRLEAD_NAMESPACE_END
