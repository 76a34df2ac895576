// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Run an elementwise update over the blocks of a layout in pieces.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/parameters.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Elements of a piece: long enough to pay for a thread's attention.
inline constexpr index_t optimizer_piece = 16384;

/// @brief Call `update(first, last, decays)` on disjoint ranges that cover the layout but for frozen blocks.
template <class Backend, class Update>
void for_each_range(Backend const& on, parameter_layout const& layout, Update const& update) {
  index_t const pieces = (layout.size() + optimizer_piece - 1) / optimizer_piece;
  on.for_each(pieces, [&](index_t piece) {
    index_t const begin = piece * optimizer_piece;
    index_t const end = std::min(begin + optimizer_piece, layout.size());
    for (parameter_block const& block : layout.blocks()) {
      index_t const first = std::max(begin, block.offset);
      index_t const last = std::min(end, block.offset + block.size());
      if (first < last && !block.frozen) { update(first, last, block.decays); }
    }
  });
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
