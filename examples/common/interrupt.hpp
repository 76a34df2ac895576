// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Ctrl-C as a question that the training loop asks, so that all ranks stop after the same step.
#include <atomic>
#include <csignal>

namespace examples {

/// @brief Remembers that SIGINT or SIGTERM came. A second one ends the program at once.
class interrupt {
 public:
  /// @brief Start to listen.
  static void listen() {
    struct sigaction action {};
    action.sa_handler = [](int) { came_ = 1; };
    action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
  }
  /// @returns whether a signal came to this process
  static bool came() noexcept { return came_ != 0; }

 private:
  // Without locks: written by the handler, read by any thread.
  static inline std::atomic<int> came_ = 0;
  static_assert(std::atomic<int>::is_always_lock_free);
};

}  // namespace examples
