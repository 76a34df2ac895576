// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The rows of one exchange in flight.
#include <fairlead/core/buffer.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The two ends of the wire for rows of one exchange in flight, and the offsets it uses.
/// @tparam Value row element
/// @tparam Space memory space of the rows
template <class Value, memory_space Space>
struct wire_buffers {
  buffer<Value, Space> outer;      ///< rows sent, then rows returned. @shape{outer_rows x width}
  buffer<Value, Space> inner;      ///< rows received, then rows sent back. @shape{inner_rows x width}
  buffer<index_t> outer_elements;  ///< outer offsets in elements. @shape{ranks + 1}, host
  buffer<index_t> inner_elements;  ///< inner offsets in elements. @shape{ranks + 1}, host

  /// @brief Take the sizes of a plan.
  /// @param plan a finished plan
  /// @param width columns
  /// @returns whether memory was allocated
  template <class Plan>
  bool fit(Plan const& plan, index_t width) {
    bool grew = false;
    if (plan.ranks > 1) {
      grew = outer.resize(plan.outer_rows * width) || grew;
      grew = inner.resize(plan.inner_rows * width) || grew;
    }
    grew = outer_elements.resize(plan.ranks + 1) || grew;
    grew = inner_elements.resize(plan.ranks + 1) || grew;
    for (index_t r = 0; r <= plan.ranks; ++r) {
      outer_elements[r] = plan.outer_offsets[r] * width;
      inner_elements[r] = plan.inner_offsets[r] * width;
    }
    return grew;
  }
  /// @brief Make room for the worst case.
  /// @param ranks ranks
  /// @param outer_rows most rows sent
  /// @param inner_rows most rows received
  /// @param width columns
  void reserve(index_t ranks, index_t outer_rows, index_t inner_rows, index_t width) {
    if (ranks > 1) {
      outer.resize(outer_rows * width);
      inner.resize(inner_rows * width);
    }
    outer_elements.resize(ranks + 1);
    inner_elements.resize(ranks + 1);
  }
};

FAIRLEAD_NAMESPACE_END
