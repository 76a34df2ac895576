// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Tables on the terminal: a number, the reference, the difference.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace drift_tables {

/// No reference is known.
inline constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

/// @brief One number of a table.
struct cell {
  double ours = 0.0;           ///< what this program computed
  double reference = unknown;  ///< what it is compared with
  double tolerance = 0.0;      ///< largest difference that --quick accepts; 0 = it is not judged
  double low = unknown;        ///< least value over seeds, if there were several
  double high = unknown;       ///< largest value over seeds
};

/// @brief Prints rows of three or four lines, and counts numbers that are off.
class table {
 public:
  /// @param title what it shows
  /// @param key what its first column means
  /// @param columns names of the columns
  /// @param digits behind the point
  table(std::string const& title, std::string const& key, std::vector<std::string> columns, int digits = 3)
      : columns_(std::move(columns)), digits_(digits) {
    std::printf("\n%s\n%-24s", title.c_str(), key.c_str());
    for (std::string const& column : columns_) { std::printf(" %*s", width(column), column.c_str()); }
    std::printf("\n");
  }
  /// @param label name of the row
  /// @param cells one a column
  void row(std::string const& label, std::vector<cell> const& cells) {
    line(
        label + "  ours", cells, [](cell const& one) { return one.ours; }, false);
    if (std::any_of(cells.begin(), cells.end(), [](cell const& one) { return !std::isnan(one.low); })) {
      line(
          "  least seed", cells, [](cell const& one) { return one.low; }, false);
      line(
          "  largest seed", cells, [](cell const& one) { return one.high; }, false);
    }
    if (std::any_of(cells.begin(), cells.end(), [](cell const& one) { return !std::isnan(one.reference); })) {
      line(
          "  reference", cells, [](cell const& one) { return one.reference; }, false);
      line(
          "  difference", cells, [](cell const& one) { return one.ours - one.reference; }, true);
    }
    for (std::size_t i = 0; i < cells.size(); ++i) {
      cell const& one = cells[i];
      if (one.tolerance > 0.0 && !(std::abs(one.ours - one.reference) <= one.tolerance)) {
        std::printf("  OFF: %s, %s: %.4f, not within %.4f of %.4f\n", label.c_str(), columns_[i].c_str(), one.ours,
                    one.tolerance, one.reference);
        ++off_;
      }
    }
    std::fflush(stdout);
  }
  /// @param holds what must be true of the table
  /// @param what says so in words
  void must(bool holds, std::string const& what) {
    if (!holds) { std::printf("  OFF: %s\n", what.c_str()), ++off_; }
  }
  /// @returns numbers that were off
  [[nodiscard]] int off() const { return off_; }

 private:
  static int width(std::string const& column) { return std::max(9, static_cast<int>(column.size())); }
  template <class Get>
  void line(std::string const& label, std::vector<cell> const& cells, Get get, bool sign) const {
    std::printf("%-24s", label.c_str());
    for (std::size_t i = 0; i < cells.size(); ++i) {
      double const value = get(cells[i]);
      if (std::isnan(value)) {
        std::printf(" %*s", width(columns_[i]), "-");
      } else {
        std::printf(sign ? " %+*.*f" : " %*.*f", width(columns_[i]), digits_, value);
      }
    }
    std::printf("\n");
  }
  std::vector<std::string> columns_;
  int digits_;
  int off_ = 0;
};

}  // namespace drift_tables
