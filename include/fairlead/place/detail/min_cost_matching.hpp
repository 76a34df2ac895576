// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Exact matching of rows and columns of a square matrix with least cost, in integers.
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

[[nodiscard]] inline std::size_t min_cost_matching_bytes(index_t n) noexcept {
  return 7 * workspace_bytes<std::int32_t>(n);
}

// Match each row of cost @shape{n x n} to a column of its own with the least sum: shortest augmenting paths over
// reduced costs, O(n^3), after a start from column and row minima. |cost| x n < 2^28. Ties: lowest column first. The
// inner loops run over all columns without a branch, so that they vectorise: a column whose distance is final cannot
// get closer.
inline void min_cost_matching(std::int32_t const* cost, index_t n, std::span<std::int32_t> column_of, workspace& ws) {
  workspace::scope const undo(ws);
  std::int32_t* const row_of = ws.take<std::int32_t>(n).data();
  std::int32_t* const row_price = ws.take<std::int32_t>(n).data();
  std::int32_t* const column_price = ws.take<std::int32_t>(n).data();
  std::int32_t* const distance = ws.take<std::int32_t>(n).data();
  std::int32_t* const from = ws.take<std::int32_t>(n).data();
  std::int32_t* const closed = ws.take<std::int32_t>(n).data();  // 0, or a number that no distance reaches
  std::int32_t* const finished = ws.take<std::int32_t>(n).data();
  constexpr std::int32_t far = 1 << 29;
  auto const size = static_cast<std::size_t>(n);
  std::fill_n(row_of, size, -1);
  std::fill(column_of.begin(), column_of.end(), -1);
  std::copy_n(cost, size, column_price);
  for (std::size_t i = 1; i < size; ++i) {
    std::int32_t const* const row = cost + i * size;
    for (std::size_t j = 0; j < size; ++j) { column_price[j] = std::min(column_price[j], row[j]); }
  }
  for (std::size_t i = 0; i < size; ++i) {
    std::int32_t const* const row = cost + i * size;
    std::int32_t least = std::numeric_limits<std::int32_t>::max();
    for (std::size_t j = 0; j < size; ++j) { least = std::min(least, row[j] - column_price[j]); }
    row_price[i] = least;
    for (std::size_t j = 0; j < size; ++j) {
      if (row_of[j] < 0 && row[j] - column_price[j] == least) {
        row_of[j] = static_cast<std::int32_t>(i);
        column_of[i] = static_cast<std::int32_t>(j);
        break;
      }
    }
  }
  for (std::size_t root = 0; root < size; ++root) {
    if (column_of[root] >= 0) { continue; }
    std::fill_n(closed, size, 0);
    std::fill_n(distance, size, far - 1);
    std::fill_n(from, size, -1);
    std::size_t done = 0;
    std::size_t i = root;
    std::int32_t reached = 0;  // distance of row i
    std::size_t target = 0;
    for (;;) {
      std::int32_t const* const row = cost + i * size;
      std::int32_t const base = reached - row_price[i];
      std::int32_t least = std::numeric_limits<std::int32_t>::max();
      for (std::size_t j = 0; j < size; ++j) {
        std::int32_t const through = base + row[j] - column_price[j];
        bool const closer = through < distance[j];
        distance[j] = closer ? through : distance[j];
        from[j] = closer ? static_cast<std::int32_t>(i) : from[j];
        least = std::min(least, distance[j] + closed[j]);
      }
      target = 0;
      while (distance[target] + closed[target] != least) { ++target; }
      reached = least;
      if (row_of[target] < 0) { break; }
      closed[target] = far;
      finished[done++] = static_cast<std::int32_t>(target);
      i = static_cast<std::size_t>(row_of[target]);
    }
    // Prices such that all arcs of the tree become tight.
    row_price[root] += reached;
    for (std::size_t k = 0; k < done; ++k) {
      auto const j = static_cast<std::size_t>(finished[k]);
      row_price[row_of[j]] += reached - distance[j];
      column_price[j] -= reached - distance[j];
    }
    for (std::size_t j = target;;) {
      auto const owner = static_cast<std::size_t>(from[j]);
      row_of[j] = static_cast<std::int32_t>(owner);
      std::int32_t const next = column_of[owner];
      column_of[owner] = static_cast<std::int32_t>(j);
      if (owner == root) { break; }
      j = static_cast<std::size_t>(next);
    }
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
