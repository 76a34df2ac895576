// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Symmetric graphs, taken apart into perfect matchings.
#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <span>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// A regular graph on an even number of vertices as perfect matchings, `rows` of them: complete graphs while they fit,
/// then the remainder. `match` gives pair i of a row.
class graph_rows {
 public:
  /// @param vertices even, >= 2
  /// @param rows number of matchings, the degree
  /// @param shifts scratch that the object holds on to. @shape{vertices / 2}
  /// @param repeats scratch. @shape{vertices / 2}
  graph_rows(index_t vertices, index_t rows, std::span<index_t> shifts, std::span<index_t> repeats) noexcept
      : vertices_(vertices), whole_(rows / (vertices - 1) * (vertices - 1)), rest_(rows % (vertices - 1)), shifts_(shifts) {
    torus_ = vertices == 16 && rest_ == 4;
    index_t left = rest_;
    index_t part = vertices;
    while (left > part / 2 && part % 4 == 0) {  // both halves completely joined; go on inside them
      left -= part / 2;
      part /= 2;
    }
    if (left <= part / 2) { choose_shifts(part / 2, left, repeats); }
  }

  /// Pair i of a matching, 0 <= i < vertices / 2.
  [[nodiscard]] std::pair<index_t, index_t> match(index_t row, index_t i) const noexcept {
    if (row < whole_) { return round_robin(vertices_, row % (vertices_ - 1), i); }
    row -= whole_;
    if (torus_) { return torus(row, i); }
    index_t part = vertices_;
    index_t left = rest_;
    index_t base = 0;
    while (left > part / 2 && part % 4 == 0) {
      index_t const half = part / 2;
      if (row < half) { return {base + i, base + half + (i + row) % half}; }
      row -= half;
      left -= half;
      part = half;
      base += i / (half / 2) * half;
      i %= half / 2;
    }
    index_t const half = part / 2;
    if (left <= half) { return {base + i, base + half + (i + shifts_[static_cast<std::size_t>(row)]) % half}; }
    auto const [a, b] = round_robin(part, row, i);
    return {base + a, base + b};
  }

 private:
  /// Round `row` of the tournament in which everybody meets everybody.
  [[nodiscard]] static std::pair<index_t, index_t> round_robin(index_t vertices, index_t row, index_t i) noexcept {
    index_t const circle = vertices - 1;
    if (i == 0) { return {row, circle}; }
    return {(row + i) % circle, (row + circle - i) % circle};
  }

  /// Vertex 4 a + b of Z4 x Z4; rows 0 and 1 step in b from even and odd b, rows 2 and 3 in a.
  [[nodiscard]] static std::pair<index_t, index_t> torus(index_t row, index_t i) noexcept {
    index_t const along = 2 * (i % 2) + row % 2;
    index_t const across = i / 2;
    if (row < 2) { return {4 * across + along, 4 * across + (along + 1) % 4}; }
    return {4 * along + across, 4 * ((along + 1) % 4) + across};
  }

  /// Shifts of Z_n whose differences repeat as little as possible: each repeated difference is a cycle of four edges.
  void choose_shifts(index_t n, index_t count, std::span<index_t> repeats) noexcept {
    bool const few = 2 * count <= n;  // the differences of a set are as flat as those of its complement
    index_t const chosen = few ? count : n - count;
    std::fill_n(repeats.begin(), n, index_t{0});
    for (index_t k = 0; k < chosen; ++k) {
      index_t best = -1;
      index_t least = 0;
      for (index_t s = 0; s < n; ++s) {
        index_t cost = 0;
        for (index_t j = 0; j < k && cost >= 0; ++j) {
          index_t const other = shifts_[static_cast<std::size_t>(j)];
          if (other == s) { cost = -1; }
          else { cost += 2 * repeats[static_cast<std::size_t>((s - other + n) % n)] + (2 * (s - other + n) % n == 0 ? 2 : 1); }
        }
        if (cost >= 0 && (best < 0 || cost < least)) {
          best = s;
          least = cost;
        }
      }
      for (index_t j = 0; j < k; ++j) {
        index_t const off = (best - shifts_[static_cast<std::size_t>(j)] + n) % n;
        ++repeats[static_cast<std::size_t>(off)];
        ++repeats[static_cast<std::size_t>((n - off) % n)];
      }
      shifts_[static_cast<std::size_t>(k)] = best;
    }
    if (few) { return; }
    std::fill_n(repeats.begin(), n, index_t{0});
    for (index_t k = 0; k < chosen; ++k) { repeats[static_cast<std::size_t>(shifts_[static_cast<std::size_t>(k)])] = 1; }
    for (index_t s = 0, k = 0; s < n; ++s) {
      if (repeats[static_cast<std::size_t>(s)] == 0) { shifts_[static_cast<std::size_t>(k++)] = s; }
    }
  }

  index_t vertices_;
  index_t whole_;
  index_t rest_;
  bool torus_ = false;
  std::span<index_t> shifts_;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
