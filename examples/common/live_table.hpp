// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Tables as text: aligned, refreshed in place on a terminal while a program runs, or as Markdown.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace examples {

/// @brief Rows of cells; the first row is the heading.
struct text_table {
  std::vector<std::vector<std::string>> rows;  ///< cells in UTF-8

  /// @param text in UTF-8
  /// @returns how many characters it shows
  [[nodiscard]] static std::size_t width(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
  }
  /// @returns aligned lines: the first column to the left, the others to the right
  [[nodiscard]] std::vector<std::string> lines() const {
    std::vector<std::size_t> widths;
    for (auto const& row : rows) {
      widths.resize(std::max(widths.size(), row.size()), 0);
      for (std::size_t i = 0; i < row.size(); ++i) { widths[i] = std::max(widths[i], width(row[i])); }
    }
    std::vector<std::string> made;
    for (auto const& row : rows) {
      std::string line;
      for (std::size_t i = 0; i < row.size(); ++i) {
        std::string const gap(widths[i] - width(row[i]), ' ');
        line += i == 0 ? row[i] + gap : "  " + gap + row[i];
      }
      made.push_back(line);
    }
    return made;
  }
  /// @returns the table in Markdown
  [[nodiscard]] std::string markdown() const {
    std::string text;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      for (auto const& cell : rows[r]) { text += "| " + cell + ' '; }
      text += "|\n";
      if (r > 0) { continue; }
      for (std::size_t i = 0; i < rows[r].size(); ++i) { text += "| --- "; }
      text += "|\n";
    }
    return text;
  }
};

/// @brief Lines at the end of the output that are drawn again and again, in place.
///
/// Plain control sequences, nothing else: move up, write, clear to the end of the line. Lines are cut at the width of the
/// terminal and at its height, since a wrapped or scrolled line cannot be drawn over. Not on a terminal, nothing is drawn.
class live_table {
 public:
  /// @param plain never draw, even on a terminal
  explicit live_table(bool plain) : terminal_(!plain && isatty(STDOUT_FILENO) != 0) {}
  live_table(live_table const&) = delete;
  live_table& operator=(live_table const&) = delete;
  ~live_table() { clear(); }

  /// @returns whether lines are drawn in place
  [[nodiscard]] bool live() const { return terminal_; }
  /// @returns whether the last picture is older than a tenth of a second
  [[nodiscard]] bool due() const { return terminal_ && std::chrono::steady_clock::now() - shown_ >= std::chrono::milliseconds(100); }
  /// @brief Draw the lines over the last ones.
  /// @param lines in UTF-8, without line ends
  void draw(std::vector<std::string> const& lines) {
    if (!terminal_) { return; }
    winsize size{};
    bool const known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 1;
    std::size_t const columns = known ? size.ws_col : 80;
    std::size_t const most = known ? size.ws_row - 1U : 23;
    std::size_t const count = std::min(lines.size(), most);
    std::string text = up();
    for (std::size_t i = 0; i < count; ++i) {
      // The last line says how far it is: a low terminal misses others.
      auto const& line = i + 1 == count ? lines.back() : lines[i];
      text += std::string(cut(line, columns)) + "\033[K\n";
    }
    text += "\033[J";
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    drawn_ = count;
    shown_ = std::chrono::steady_clock::now();
  }
  /// @brief Write lines that stay, in the place of what is drawn.
  /// @param lines without line ends
  void keep(std::vector<std::string> const& lines) {
    clear();
    for (auto const& line : lines) { std::printf("%s\n", line.c_str()); }
    std::fflush(stdout);
  }
  /// @brief Take away what is drawn.
  void clear() {
    if (drawn_ > 0) { std::printf("%s\033[J", up().c_str()); }
    std::fflush(stdout);
    drawn_ = 0;
  }

 private:
  [[nodiscard]] std::string up() const { return drawn_ > 0 ? "\033[" + std::to_string(drawn_) + "A\r" : std::string("\r"); }
  [[nodiscard]] static std::string_view cut(std::string_view line, std::size_t columns) {
    std::size_t end = 0;
    std::size_t seen = 0;
    for (; end < line.size(); ++end) {
      bool const begins = (static_cast<unsigned char>(line[end]) & 0xC0U) != 0x80U;
      if (begins && seen++ == columns) { break; }
    }
    return line.substr(0, end);
  }
  bool terminal_;
  std::size_t drawn_ = 0;
  std::chrono::steady_clock::time_point shown_{};
};

}  // namespace examples
