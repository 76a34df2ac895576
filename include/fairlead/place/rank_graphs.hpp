// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Fixed graphs that say whose experts a rank keeps copies of.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>

#include <array>
#include <concepts>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Says whose expert sits in each spare slot of a group of ranks.
///
/// Required of a model `graph`: `graph.ranks()` ranks of a group; `graph.columns()` spare slots of a rank; and
/// `graph.source(rank, column)`, the rank whose expert sits in that spare slot. Every column is a permutation without a
/// fixed point: each rank gives one expert and keeps one of another.
template <class Graph>
concept rank_graph = requires(Graph const& graph, index_t number) {
  { graph.ranks() } -> std::convertible_to<index_t>;
  { graph.columns() } -> std::convertible_to<index_t>;
  { graph.source(number, number) } -> std::convertible_to<index_t>;
};

/// @brief Check that every column of a graph is a permutation without a fixed point.
/// @param graph the graph
/// @returns whether it is
/// @complexity O(columns ranks^2), no allocation
template <rank_graph Graph>
[[nodiscard]] constexpr bool permutes_columns(Graph const& graph) {
  for (index_t column = 0; column < graph.columns(); ++column) {
    for (index_t rank = 0; rank < graph.ranks(); ++rank) {
      index_t const from = graph.source(rank, column);
      if (from < 0 || from >= graph.ranks() || from == rank) { return false; }
      for (index_t other = 0; other < rank; ++other) {
        if (graph.source(other, column) == from) { return false; }
      }
    }
  }
  return true;
}

/// @brief A ring: each rank keeps an expert of the one before it.
/// @source{LPLB, ring}
struct ring_graph {
  index_t size = 8;  ///< ranks, >= 2
  /// @returns ranks of a group
  [[nodiscard]] constexpr index_t ranks() const noexcept { return size; }
  /// @returns 1
  [[nodiscard]] constexpr index_t columns() const noexcept { return 1; }
  /// @param rank a rank
  /// @param column not looked at: there is one
  /// @returns the rank before it
  [[nodiscard]] constexpr index_t source(index_t rank, index_t column) const noexcept {
    (void)column;
    return (rank + size - 1) % size;
  }
};

/// @brief A torus of rows and columns: each rank keeps an expert of its neighbour in the row and one of that in the column.
/// @source{LPLB, 2-D torus}
struct torus_graph {
  index_t rows = 8;        ///< >= 2
  index_t row_ranks = 4;   ///< ranks of a row, >= 2
  /// @returns ranks of a group
  [[nodiscard]] constexpr index_t ranks() const noexcept { return rows * row_ranks; }
  /// @returns 2
  [[nodiscard]] constexpr index_t columns() const noexcept { return 2; }
  /// @param rank rank of (row, place in the row), row by row
  /// @param column 0: along the row, 1: across rows
  /// @returns the next rank in that direction
  [[nodiscard]] constexpr index_t source(index_t rank, index_t column) const noexcept {
    index_t const row = rank / row_ranks;
    index_t const place = rank % row_ranks;
    return column == 0 ? row * row_ranks + (place + 1) % row_ranks : (row + 1) % rows * row_ranks + place;
  }
};

/// @brief Eight ranks with two spare slots: two rings of four, and pairs across.
/// @source{LPLB, cube of 8 ranks x 2}
struct cube_graph {
  /// @returns 8
  [[nodiscard]] static constexpr index_t ranks() noexcept { return 8; }
  /// @returns 2
  [[nodiscard]] static constexpr index_t columns() noexcept { return 2; }
  /// @param rank a rank
  /// @param column 0: along its ring, 1: across
  /// @returns the rank whose expert it keeps
  [[nodiscard]] static constexpr index_t source(index_t rank, index_t column) noexcept {
    constexpr std::array<std::array<int, 8>, 2> table{{{3, 0, 1, 2, 7, 4, 5, 6}, {6, 7, 4, 5, 0, 1, 2, 3}}};
    return table[static_cast<std::size_t>(column)][static_cast<std::size_t>(rank)];
  }
};

/// @brief The four-dimensional cube on sixteen ranks: each of its 32 edges once.
///
/// Two bits of a rank run through a ring of four in Gray order, so that each column steps along edges of the cube. The
/// code's own table of this graph is not known here.
/// @source{LPLB, hypercube of 16 ranks x 2}
struct hypercube_graph {
  /// @returns 16
  [[nodiscard]] static constexpr index_t ranks() noexcept { return 16; }
  /// @returns 2
  [[nodiscard]] static constexpr index_t columns() noexcept { return 2; }
  /// @param rank a rank
  /// @param column 0: the lower two bits step, 1: the upper two
  /// @returns a rank that differs in one bit
  [[nodiscard]] static constexpr index_t source(index_t rank, index_t column) noexcept {
    constexpr std::array<index_t, 4> next{1, 3, 0, 2};  // 0 1 3 2 and back
    index_t const low = rank % 4;
    index_t const high = rank / 4;
    return column == 0 ? 4 * high + next[static_cast<std::size_t>(low)] : 4 * next[static_cast<std::size_t>(high)] + low;
  }
};

/// @brief A graph from a table of the caller.
struct table_graph {
  std::span<std::int32_t const> table;  ///< source of each (rank, column), row by row. @shape{ranks x width}
  index_t width = 1;                    ///< spare slots of a rank, >= 1
  /// @returns ranks of a group
  [[nodiscard]] constexpr index_t ranks() const noexcept { return static_cast<index_t>(table.size()) / width; }
  /// @returns spare slots of a rank
  [[nodiscard]] constexpr index_t columns() const noexcept { return width; }
  /// @param rank a rank
  /// @param column a spare slot
  /// @returns the rank whose expert it keeps
  [[nodiscard]] constexpr index_t source(index_t rank, index_t column) const noexcept {
    return table[static_cast<std::size_t>(rank * width + column)];
  }
};

static_assert(rank_graph<table_graph>);
static_assert(permutes_columns(cube_graph{}) && permutes_columns(hypercube_graph{}));
static_assert(permutes_columns(ring_graph{}) && permutes_columns(torus_graph{}));

FAIRLEAD_NAMESPACE_END
