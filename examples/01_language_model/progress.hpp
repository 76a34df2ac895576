// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A line that tells how training goes: updated in place on a terminal, printed now and then into a file.
#include <fairlead/core/ids.hpp>

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

namespace language_model {
namespace fl = fairlead;
using fl::index_t;

/// @brief What happened in one training step, over all ranks; one row of curves.csv.
struct step_numbers {
  index_t step = 0;        ///< steps done
  double seconds = 0.0;    ///< training time so far
  double loss = 0.0;       ///< mean -log p of the batch
  double imbalance = 1.0;  ///< most copies of an expert over the mean
  double dropped = 0.0;    ///< share of the copies that found no room
};

/// @brief Prints progress of one training.
class progress {
 public:
  /// @param name what is trained
  /// @param steps steps in all
  /// @param batch tokens of a step
  /// @param on whether to print at all
  /// @param plain lines even on a terminal
  progress(std::string name, index_t steps, index_t batch, bool on, bool plain)
      : name_(std::move(name)), steps_(steps), batch_(batch), on_(on), terminal_(!plain && isatty(STDOUT_FILENO) != 0) {}

  /// @brief Show a step. The loss shown is a running mean.
  /// @param now the step's numbers
  /// @param share done, 0 to 1 (steps or time, whichever is further)
  void show(step_numbers const& now, double share) {
    mean_loss_ = now.step <= 1 ? now.loss : 0.95 * mean_loss_ + 0.05 * now.loss;
    if (now.step <= 1) { first_ = now.seconds; }  // the clock is read inside a step: rates count from the first reading
    bool const last = share >= 1.0;
    // Terminal: ten pictures a second. File: a line every tenth of the way.
    bool const due = terminal_ ? now.seconds - shown_ >= 0.1 : share >= next_share_;
    if (!on_ || (!due && !last && now.step != 1)) { return; }
    shown_ = now.seconds;
    while (next_share_ <= share) { next_share_ += 0.1; }
    constexpr int cells = 24;
    int const filled = static_cast<int>(std::clamp(share, 0.0, 1.0) * cells);
    std::string const bar = std::string(static_cast<std::size_t>(filled), '#') + std::string(static_cast<std::size_t>(cells - filled), '.');
    double const rate = now.seconds > first_ ? static_cast<double>((now.step - 1) * batch_) / (now.seconds - first_) : 0.0;
    std::printf("%s%-9s [%s] step %lld/%lld  loss %.3f  %.0f tokens/s  load max/mean %.2f  dropped %.1f%%%s",
                terminal_ ? "\r" : "", name_.c_str(), bar.c_str(), static_cast<long long>(now.step),
                static_cast<long long>(steps_), mean_loss_, rate, now.imbalance, 100.0 * now.dropped,
                terminal_ ? "\033[K" : "\n");
    std::fflush(stdout);
    open_ = terminal_;
  }
  /// @brief End the line.
  void close() {
    if (on_ && open_) { std::printf("\n"); }
    std::fflush(stdout);
    open_ = false;
  }

 private:
  std::string name_;
  index_t steps_;
  index_t batch_;
  bool on_;
  bool terminal_;
  bool open_ = false;
  double shown_ = 0.0;
  double first_ = 0.0;
  double next_share_ = 0.1;
  double mean_loss_ = 0.0;
};

}  // namespace language_model
