// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The smallest of many keys of which one changes at a time.
#include <fairlead/core/ids.hpp>

#include <cstdint>
#include <limits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// Keys in blocks of eight, and above them the minima of the blocks, until one block is left. Eight, because their minimum
// is one or two vector operations and a node of eight ranks is then one block. Distinct keys carry who they belong to.
namespace minimum_tree {

inline constexpr index_t fan_out = 8;
inline constexpr std::uint64_t nothing = std::numeric_limits<std::uint64_t>::max();

[[nodiscard]] constexpr index_t padded(index_t keys) noexcept { return (keys + fan_out - 1) / fan_out * fan_out; }

// Words that a tree of so many keys takes; none for no keys.
[[nodiscard]] constexpr index_t words(index_t keys) noexcept {
  index_t width = padded(keys);
  index_t sum = width;
  while (width > fan_out) {
    width = padded(width / fan_out);
    sum += width;
  }
  return sum;
}

[[nodiscard]] inline std::uint64_t block_minimum(std::uint64_t const* keys) noexcept {
  std::uint64_t least = keys[0];
  for (index_t i = 1; i < fan_out; ++i) { least = keys[i] < least ? keys[i] : least; }
  return least;
}

// Fill in the keys behind the first `keys`, which the caller wrote, and the levels above.
inline void build(std::uint64_t* tree, index_t keys) noexcept {
  index_t width = padded(keys);
  for (index_t i = keys; i < width; ++i) { tree[i] = nothing; }
  while (width > fan_out) {
    std::uint64_t* const above = tree + width;
    index_t const blocks = width / fan_out;
    for (index_t b = 0; b < blocks; ++b) { above[b] = block_minimum(tree + b * fan_out); }
    width = padded(blocks);
    for (index_t b = blocks; b < width; ++b) { above[b] = nothing; }
    tree = above;
  }
}

// The smallest key of a block in which one key becomes another; the key is stored after the block was read, because reading
// eight keys at once just behind a store of one of them waits for that store.
inline std::uint64_t replace_in_block(std::uint64_t* keys, index_t at, std::uint64_t key) noexcept {
  std::uint64_t least = key;
  for (index_t i = 0; i < fan_out; ++i) {
    std::uint64_t const other = i == at ? key : keys[i];
    least = other < least ? other : least;
  }
  keys[at] = key;
  return least;
}

// Change one key; the smallest of all.
inline std::uint64_t update(std::uint64_t* tree, index_t keys, index_t at, std::uint64_t key) noexcept {
  index_t width = padded(keys);
  while (width > fan_out) {
    index_t const block = at / fan_out;
    key = replace_in_block(tree + block * fan_out, at % fan_out, key);
    tree += width;
    width = padded(width / fan_out);
    at = block;
  }
  return replace_in_block(tree, at, key);
}

// The smallest of all.
[[nodiscard]] inline std::uint64_t top(std::uint64_t const* tree, index_t keys) noexcept {
  index_t width = padded(keys);
  if (width == 0) { return nothing; }
  while (width > fan_out) {
    tree += width;
    width = padded(width / fan_out);
  }
  return block_minimum(tree);
}

}  // namespace minimum_tree
}  // namespace detail
FAIRLEAD_NAMESPACE_END
