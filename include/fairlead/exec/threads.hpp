// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Run loops on several threads with OpenMP.
#ifndef _OPENMP
#  error "fairlead/exec/threads.hpp needs OpenMP: compile with -fopenmp, or link fairlead::openmp in CMake"
#endif
#include <fairlead/concepts/execution_backend.hpp>

#include <omp.h>

#include <cstring>
#include <exception>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The backend of an OpenMP team.
///
/// Integer results and every element that one call writes alone are the same bits at any number of threads: components
/// cut their work by fixed rules, and the schedule only decides who runs a piece.
struct threads {
  using memory_space = host_space;  ///< works on host memory
  int count = 0;                    ///< number of threads; 0 = what OpenMP would take

  /// @brief Call `f(i)` for 0 <= i < n on the team, pieces handed out as threads become free.
  /// @param n number of calls, >= 0; each should be worth some microseconds
  /// @param f function object; if calls throw, one of the exceptions is rethrown here after the loop
  template <class Function>
  void for_each(index_t n, Function f) const {
    int const team = static_cast<int>(concurrency());
    if (n <= 1 || team == 1) {
      for (index_t i = 0; i < n; ++i) { f(i); }
      return;
    }
    std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic, 1) num_threads(team) default(none) shared(n, f, failure)
    for (index_t i = 0; i < n; ++i) {
      // An exception must not leave an OpenMP region.
      try {
        f(i);
      } catch (...) {
#pragma omp critical(fairlead_threads_failure)
        failure = std::current_exception();
      }
    }
    if (failure) { std::rethrow_exception(failure); }
  }
  /// @returns number of threads of a loop
  [[nodiscard]] index_t concurrency() const noexcept { return count > 0 ? count : omp_get_max_threads(); }
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
  /// @brief Nothing to wait for: loops are done when they return.
  void wait() const noexcept {}
};
static_assert(execution_backend<threads>);

FAIRLEAD_NAMESPACE_END
