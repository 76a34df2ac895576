// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Independent runs on several threads.
#include "interrupt.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace examples {

/// @brief Do `work(0)` to `work(count - 1)`, some at a time, each once; after Ctrl-C no further one is begun.
/// @param count how many
/// @param threads at a time, >= 1
/// @param work called with a number; its first exception ends the rest, and is thrown again once all have returned
template <class Work>
void side_by_side(std::size_t count, std::ptrdiff_t threads, Work const& work) {
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  auto const loop = [&] {
    for (std::size_t i = next++; i < count; i = next++) {
      if (interrupt::came()) { return; }
      try {
        work(i);
      } catch (...) {
        std::lock_guard const one(mutex);
        if (!failure) { failure = std::current_exception(); }
        next = count;
      }
    }
  };
  {
    std::vector<std::jthread> all;
    for (std::ptrdiff_t t = 0; t < std::min(threads, static_cast<std::ptrdiff_t>(count)); ++t) { all.emplace_back(loop); }
  }
  if (failure) { std::rethrow_exception(failure); }
}

}  // namespace examples
