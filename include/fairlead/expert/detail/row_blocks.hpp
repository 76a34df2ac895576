// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Cut groups of rows into pieces of work, and run pieces largest first.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/core/row_groups.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <atomic>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// @brief Some rows of one group.
struct row_block {
  index_t group;  ///< group number
  index_t first;  ///< first row
  index_t rows;   ///< number of rows, > 0
};

/// How many pieces of about `wanted` rows a group is cut into: sizes lie between 2/3 and 3/2 of `wanted`, so that no
/// piece is a sliver that wastes a matrix product.
[[nodiscard]] constexpr index_t blocks_of(index_t rows, index_t wanted) noexcept {
  return rows == 0 ? 0 : std::max<index_t>(1, (rows + wanted / 2) / wanted);
}
/// Rows before piece `block` of `blocks`.
[[nodiscard]] constexpr index_t block_begin(index_t rows, index_t blocks, index_t block) noexcept {
  return rows * block / blocks;
}
/// Most rows of a piece.
[[nodiscard]] constexpr index_t largest_block(index_t rows, index_t wanted) noexcept {
  return std::min(rows, wanted + wanted / 2 + 1);
}

/// @brief Cut every group by its own size alone (never by the number of threads), largest pieces first.
///
/// A piece that is started last can then delay the end by no more than the smallest piece takes.
/// @param wanted rows of a piece; 0 = whole groups
inline std::span<row_block> cut_rows(row_groups groups, index_t wanted, workspace& ws) {
  index_t count = 0;
  for (index_t const rows : groups.counts) { count += wanted == 0 ? (rows > 0 ? 1 : 0) : blocks_of(rows, wanted); }
  std::span<row_block> const result = ws.take<row_block>(count);
  index_t at = 0;
  for (index_t g = 0; g < groups.size(); ++g) {
    index_t const rows = groups.count(g);
    index_t const blocks = wanted == 0 ? (rows > 0 ? 1 : 0) : blocks_of(rows, wanted);
    for (index_t b = 0; b < blocks; ++b) {
      index_t const begin = block_begin(rows, blocks, b);
      result[static_cast<std::size_t>(at++)] = {g, groups.first(g) + begin, block_begin(rows, blocks, b + 1) - begin};
    }
  }
  std::sort(result.begin(), result.end(), [](row_block const& a, row_block const& b) {
    return a.rows != b.rows ? a.rows > b.rows : a.first < b.first;
  });
  return result;
}

/// @brief Call `work(worker, piece)` once for each 0 <= piece < pieces, in order of start, on up to `workers` workers.
///
/// A worker runs one piece at a time, so that it can own scratch memory: a backend's loop does not say which thread
/// runs an index. Which worker gets a piece is not defined; what a piece writes must not depend on it.
template <class Backend, class Work>
void run_pieces(Backend const& on, index_t workers, index_t pieces, Work const& work) {
  std::atomic<index_t> next{0};
  on.for_each(std::min(workers, pieces), [&](index_t worker) {
    for (index_t piece = next.fetch_add(1, std::memory_order_relaxed); piece < pieces;
         piece = next.fetch_add(1, std::memory_order_relaxed)) {
      work(worker, piece);
    }
  });
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
