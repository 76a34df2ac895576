// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Run an elementwise update over the blocks of a layout in pieces.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/parameters.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>

// A square root sets errno in C, and that keeps g++ from vectorising a loop that holds one.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#  define FAIRLEAD_DETAIL_NO_ERRNO [[gnu::optimize("no-math-errno")]]
#else
#  define FAIRLEAD_DETAIL_NO_ERRNO
#endif

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// @brief Square root. The built-in on g++: `std::sqrt` is not inlined into a function with other options.
template <class Value>
[[nodiscard, gnu::always_inline]] FAIRLEAD_DETAIL_NO_ERRNO inline Value square_root(Value x) noexcept {
#if defined(__GNUC__) && !defined(__clang__)
  if constexpr (std::is_same_v<Value, float>) { return __builtin_sqrtf(x); }
  if constexpr (std::is_same_v<Value, double>) { return __builtin_sqrt(x); }
#endif
  using std::sqrt;
  return sqrt(x);
}

/// Elements of a piece: long enough to pay for a thread's attention.
inline constexpr index_t optimizer_piece = 16384;

/// @brief Call `update(first, last, decays)` on disjoint ranges that cover the layout.
template <class Backend, class Update>
void for_each_range(Backend const& on, parameter_layout const& layout, Update const& update) {
  index_t const pieces = (layout.size() + optimizer_piece - 1) / optimizer_piece;
  on.for_each(pieces, [&](index_t piece) {
    index_t const begin = piece * optimizer_piece;
    index_t const end = std::min(begin + optimizer_piece, layout.size());
    for (parameter_block const& block : layout.blocks()) {
      index_t const first = std::max(begin, block.offset);
      index_t const last = std::min(end, block.offset + block.size());
      if (first < last) { update(first, last, block.decays); }
    }
  });
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
