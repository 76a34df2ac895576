// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief One line for many runs of equal length: how far, how many are done, how long yet.
#include <fairlead/core/ids.hpp>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <string>

namespace examples {

/// @brief Progress of several runs at the same time; any thread may call it.
class runs_bar {
 public:
  /// @param runs number of runs
  /// @param steps steps of each
  /// @param plain lines even on a terminal
  runs_bar(fairlead::index_t runs, fairlead::index_t steps, bool plain)
      : runs_(runs), steps_(runs * steps), terminal_(!plain && isatty(STDOUT_FILENO) != 0) {}

  /// @brief A step of some run is done.
  void step() {
    std::lock_guard const one(mutex_);
    ++done_;
    double const now = seconds();
    double const share = static_cast<double>(done_) / static_cast<double>(steps_);
    // Terminal: ten pictures a second. File: a line every twentieth of the way.
    if (terminal_ ? now - shown_ < 0.1 && done_ < steps_ : share < next_share_) { return; }
    shown_ = now;
    while (next_share_ <= share) { next_share_ += 0.05; }
    show(now, share);
  }
  /// @brief A run is done.
  /// @param line what to say about it; empty = nothing
  void finish(std::string const& line) {
    std::lock_guard const one(mutex_);
    ++finished_;
    if (line.empty()) { return; }
    std::printf("%s%s%s\n", terminal_ ? "\r" : "", line.c_str(), terminal_ ? "\033[K" : "");
    std::fflush(stdout);
  }
  /// @brief End the line.
  void close() {
    if (terminal_) { std::printf("\n"); }
    std::fflush(stdout);
  }

 private:
  [[nodiscard]] double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  void show(double now, double share) const {
    constexpr int cells = 30;
    int const filled = static_cast<int>(std::clamp(share, 0.0, 1.0) * cells);
    std::string const bar = std::string(static_cast<std::size_t>(filled), '#') + std::string(static_cast<std::size_t>(cells - filled), '.');
    double const left = share > 0.0 ? now / share - now : 0.0;
    std::printf("%s[%s] %5.1f %%  runs %lld/%lld  %.0f s, about %.0f s left%s", terminal_ ? "\r" : "", bar.c_str(), 100.0 * share,
                static_cast<long long>(finished_), static_cast<long long>(runs_), now, left, terminal_ ? "\033[K" : "\n");
    std::fflush(stdout);
  }

  std::mutex mutex_;
  fairlead::index_t runs_;
  fairlead::index_t steps_;
  bool terminal_;
  fairlead::index_t done_ = 0;
  fairlead::index_t finished_ = 0;
  double shown_ = 0.0;
  double next_share_ = 0.05;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace examples
