// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Run everything on the calling thread.
#include <fairlead/concepts/execution_backend.hpp>

#include <cstring>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The backend of one thread: the reference for all others.
struct serial {
  using memory_space = host_space;  ///< works on host memory

  /// @brief Call `f(0) ... f(n - 1)` in order.
  /// @param n number of calls, >= 0
  /// @param f function object
  template <class Function>
  void for_each(index_t n, Function f) const {
    for (index_t i = 0; i < n; ++i) { f(i); }
  }
  /// @returns 1
  [[nodiscard]] constexpr index_t concurrency() const noexcept { return 1; }
  /// @brief Copy bytes that do not overlap.
  void copy(void* to, void const* from, std::size_t bytes) const noexcept {
    if (bytes != 0) { std::memcpy(to, from, bytes); }
  }
  /// @brief Clear bytes.
  void fill_zero(void* to, std::size_t bytes) const noexcept {
    if (bytes != 0) { std::memset(to, 0, bytes); }
  }
  /// @brief Same as `copy`: this backend works on host memory.
  void to_host(void* to, void const* from, std::size_t bytes) const noexcept { copy(to, from, bytes); }
  /// @brief Same as `copy`: this backend works on host memory.
  void from_host(void* to, void const* from, std::size_t bytes) const noexcept { copy(to, from, bytes); }
  /// @brief Nothing to wait for.
  void wait() const noexcept {}
};
static_assert(execution_backend<serial>);

FAIRLEAD_NAMESPACE_END
