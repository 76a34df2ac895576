// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Initial values that `parameter_layout` does not name: orthogonal rows, and blocks set by name.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/core/parameters.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <string_view>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Turn random values into orthogonal rows of length `gain`, or orthogonal columns where there are more rows than
/// columns (host memory).
///
/// From independent normal values it makes a uniformly random set of directions: the centroids of routers start this way,
/// so that no expert begins as a copy of another.
/// @param[in,out] values linearly independent rows (or columns). @shape{rows x cols}
/// @param gain length of each of them, finite and positive
/// @throws contract_violation (level 1) on a gain that is not, or vectors that depend on each other
/// @complexity O(rows x cols x min(rows, cols)), no allocation
/// @determinism sums in double, in order
/// @source{saxe2014; BASE and StableMoE code, gain 0.1}
template <class Value>
void orthogonalise(matrix_view<Value> values, double gain = 1.0) {
  FAIRLEAD_EXPECTS(std::isfinite(gain) && gain > 0.0, "the gain must be finite and positive", gain);
  bool const by_rows = values.rows() <= values.cols();
  index_t const vectors = by_rows ? values.rows() : values.cols();
  index_t const length = by_rows ? values.cols() : values.rows();
  auto const at = [&](index_t vector, index_t i) -> Value& { return by_rows ? values(vector, i) : values(i, vector); };
  auto const dot = [&](index_t a, index_t b) {
    double sum = 0.0;
    for (index_t i = 0; i < length; ++i) { sum += static_cast<double>(at(a, i)) * static_cast<double>(at(b, i)); }
    return sum;
  };
  for (index_t v = 0; v < vectors; ++v) {
    double const before = std::sqrt(dot(v, v));
    for (int pass = 0; pass < 2; ++pass) {  // the second takes away what rounding left of the first
      for (index_t u = 0; u < v; ++u) {
        double const share = dot(u, v);
        for (index_t i = 0; i < length; ++i) {
          at(v, i) = static_cast<Value>(static_cast<double>(at(v, i)) - share * static_cast<double>(at(u, i)));
        }
      }
      double const norm = std::sqrt(dot(v, v));
      FAIRLEAD_EXPECTS(norm > 1e-6 * before, "the vectors depend on each other: start from random values", v, norm, before);
      for (index_t i = 0; i < length; ++i) { at(v, i) = static_cast<Value>(static_cast<double>(at(v, i)) / norm); }
    }
  }
  for (index_t v = 0; v < vectors; ++v) {
    for (index_t i = 0; i < length; ++i) { at(v, i) = static_cast<Value>(gain * static_cast<double>(at(v, i))); }
  }
}

/// @brief View one block of a component's parameters by its name: `named_block(layout, "down", values)`.
/// @param layout the component's layout
/// @param name name of a block
/// @param values the component's parameters, host memory or not. @shape{layout.size()}
/// @returns the block
/// @throws contract_violation (level 1) if there is no such block or `values` has another size
/// @complexity O(blocks), no allocation
template <class Value>
[[nodiscard]] matrix_view<Value> named_block(parameter_layout const& layout, std::string_view name, std::span<Value> values) {
  FAIRLEAD_EXPECTS(static_cast<index_t>(values.size()) == layout.size(), "one value a parameter", values.size(), layout.size());
  auto const blocks = layout.blocks();
  auto const found = std::find_if(blocks.begin(), blocks.end(), [name](parameter_block const& b) { return name == b.name; });
  FAIRLEAD_EXPECTS(found != blocks.end(), "the layout has no block of this name", name);
  return {values.data() + found->offset, found->rows, found->cols};
}

/// @brief Set every element of a matrix: `fill(named_block(layout, "down", values), 0.0F)` starts a residual layer as the
/// identity (host memory).
/// @param[out] values the matrix
/// @param value what each element becomes
template <class Value>
void fill(matrix_view<Value> values, Value value) {
  for (index_t row = 0; row < values.rows(); ++row) { std::fill_n(values.row(row), values.cols(), value); }
}

FAIRLEAD_NAMESPACE_END
