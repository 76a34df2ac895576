// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Which local expert each block of a block-aligned expert buffer belongs to.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/row_groups.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief List the expert of each block of rows, as tiled grouped products want it.
///
/// Block b covers rows [b * block, (b + 1) * block) of one group; the dispatcher's alignment must be a multiple of
/// `block`. Blocks after the last one get -1.
/// @param groups groups whose offsets are multiples of `block`
/// @param block rows a block, > 0
/// @param[out] slots local slot of each block, -1 in the tail. @shape{at least groups.rows() / block}
/// @returns number of blocks in use
/// @throws contract_violation (level 1) if `slots` is too short or (level 2) offsets are not aligned
/// @complexity O(groups + blocks), no allocation
inline index_t map_blocks(row_groups groups, index_t block, std::span<std::int32_t> slots) {
  FAIRLEAD_EXPECTS(block > 0, "a block has rows", block);
  index_t const blocks = groups.rows() / block;
  FAIRLEAD_EXPECTS(static_cast<index_t>(slots.size()) >= blocks, "one entry a block", slots.size(), blocks);
  for (index_t g = 0; g < groups.size(); ++g) {
    FAIRLEAD_EXPECTS_2(groups.first(g) % block == 0, "align the dispatcher to the block size", g, groups.first(g), block);
    index_t const first = groups.first(g) / block;
    index_t const end = (groups.first(g) + groups.count(g) + block - 1) / block;
    index_t const next = g + 1 < groups.size() ? groups.first(g + 1) / block : blocks;
    std::fill(slots.begin() + first, slots.begin() + end, static_cast<std::int32_t>(g));
    std::fill(slots.begin() + end, slots.begin() + next, -1);
  }
  std::fill(slots.begin() + blocks, slots.end(), -1);
  return blocks;
}

FAIRLEAD_NAMESPACE_END
