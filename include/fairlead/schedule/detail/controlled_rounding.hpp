// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Round the table rows[i] * columns[j] / total to whole numbers that keep all sums.
#include <fairlead/core/load.hpp>
#include <fairlead/core/token_schedule.hpp>
#include <fairlead/core/workspace.hpp>

#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// The fractional table is a flow between rows and columns, so a flow in whole numbers with every count at a neighbour of
// its fraction exists. Rows are served one by one, each unit to the column that lacks most; when all columns that a row
// may use are full, an earlier row changes over along an augmenting path.
class controlled_rounding {
 public:
  controlled_rounding(index_t columns, workspace& ws)
      : need_(ws.take<count_t>(columns)), live_(ws.take<std::int32_t>(columns)), queue_(ws.take<std::int32_t>(columns)),
        from_column_(ws.take<std::int32_t>(columns)), from_row_(ws.take<std::int32_t>(columns)) {}
  [[nodiscard]] static std::size_t bytes(index_t columns) noexcept {
    return workspace_bytes<count_t>(columns) + 4 * workspace_bytes<std::int32_t>(columns);
  }

  // rows and columns have the same sum; cells of `out` with both > 0 hold 0 and get the counts.
  void spread(std::span<count_t const> rows, std::span<count_t const> columns, token_schedule_view out, index_t first) {
    total_ = 0;
    std::size_t live = 0;
    for (std::size_t k = 0; k < columns.size(); ++k) {
      if (columns[k] > 0) {
        live_[live++] = static_cast<std::int32_t>(k);
        total_ += columns[k];
      }
    }
    if (live == 0) { return; }
    if (live <= 2) {
      two(rows, columns, out, first, live);
      return;
    }
    rows_ = rows;
    columns_ = columns;
    out_ = out;
    first_ = first;
    count_ = live;
    for (std::size_t a = 0; a < live; ++a) { need_[a] = columns[static_cast<std::size_t>(live_[a])]; }
    for (std::size_t i = 0; i < rows.size(); ++i) {
      for (std::size_t a = 0; rows[i] > 0 && a < live; ++a) {
        auto const down = static_cast<count_t>(product(i, a) / total_);
        cell(i, a) = down;
        need_[a] -= down;
      }
    }
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (rows[i] == 0) { continue; }
      index_t left = rows[i];
      for (std::size_t a = 0; a < live; ++a) { left -= cell(i, a); }
      while (left > 0 && serve(i)) { --left; }
      FAIRLEAD_EXPECTS(left == 0, "rows and columns must have the same sum", i, left);
    }
  }

 private:
  // With two columns the second is what the first leaves; sums of the first are rounded as they grow.
  void two(std::span<count_t const> rows, std::span<count_t const> columns, token_schedule_view out, index_t first, std::size_t live) {
    auto const a = static_cast<std::size_t>(live_[0]);
    index_t sum = 0;
    index_t given = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (rows[i] == 0) { continue; }
      sum += rows[i];
      index_t const until = sum * columns[a] / total_;
      auto const here = static_cast<count_t>(until - given);
      given = until;
      out(static_cast<index_t>(i), first + live_[0]) = here;
      if (live == 2) { out(static_cast<index_t>(i), first + live_[1]) = rows[i] - here; }
    }
  }

  [[nodiscard]] index_t product(std::size_t i, std::size_t a) const noexcept {
    return index_t{rows_[i]} * columns_[static_cast<std::size_t>(live_[a])];
  }
  [[nodiscard]] count_t& cell(std::size_t i, std::size_t a) const noexcept { return out_(static_cast<index_t>(i), first_ + live_[a]); }
  [[nodiscard]] bool may_round_up(std::size_t i, std::size_t a) const noexcept {
    index_t const exact = product(i, a);
    return exact % total_ != 0 && cell(i, a) == exact / total_;
  }
  [[nodiscard]] bool is_rounded_up(std::size_t i, std::size_t a) const noexcept { return cell(i, a) > product(i, a) / total_; }

  // One more unit for row i.
  [[nodiscard]] bool serve(std::size_t i) {
    std::size_t best = count_;
    for (std::size_t a = 0; a < count_; ++a) {
      if (need_[a] > 0 && (best == count_ || need_[a] > need_[best]) && may_round_up(i, a)) { best = a; }
    }
    if (best != count_) {
      ++cell(i, best);
      --need_[best];
      return true;
    }
    // Breadth-first over columns: column a may be given up by an earlier row that can round another column up.
    for (std::size_t a = 0; a < count_; ++a) { from_column_[a] = -2; }
    std::size_t head = 0;
    std::size_t tail = 0;
    for (std::size_t a = 0; a < count_; ++a) {
      if (may_round_up(i, a)) {
        from_column_[a] = -1;
        from_row_[a] = static_cast<std::int32_t>(i);
        queue_[tail++] = static_cast<std::int32_t>(a);
      }
    }
    while (head < tail) {
      auto const a = static_cast<std::size_t>(queue_[head++]);
      for (std::size_t other = 0; other < i; ++other) {
        if (rows_[other] == 0 || !is_rounded_up(other, a)) { continue; }
        for (std::size_t b = 0; b < count_; ++b) {
          if (from_column_[b] != -2 || !may_round_up(other, b)) { continue; }
          from_column_[b] = static_cast<std::int32_t>(a);
          from_row_[b] = static_cast<std::int32_t>(other);
          if (need_[b] > 0) {
            shift(b);
            return true;
          }
          queue_[tail++] = static_cast<std::int32_t>(b);
        }
      }
    }
    return false;
  }

  void shift(std::size_t b) {
    --need_[b];
    for (;;) {
      auto const row = static_cast<std::size_t>(from_row_[b]);
      ++cell(row, b);
      if (from_column_[b] < 0) { return; }
      b = static_cast<std::size_t>(from_column_[b]);
      --cell(row, b);
    }
  }

  std::span<count_t> need_;
  std::span<std::int32_t> live_, queue_, from_column_, from_row_;
  std::span<count_t const> rows_, columns_;
  token_schedule_view out_;
  index_t total_ = 0;
  index_t first_ = 0;
  std::size_t count_ = 0;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
