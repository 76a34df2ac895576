// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Cut tokens into runs by a rule that knows nothing of threads, so that sums and scratch do not either.
#include <fairlead/core/ids.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief At most 64 runs of at least 256 tokens: enough for any host, few enough to hold scratch for each.
///
/// Floating-point sums that are formed per run and then added in run order are the same bits at any number of threads.
struct token_runs {
  index_t tokens = 0;  ///< number of tokens, >= 0

  /// @returns number of runs, 0 for no tokens
  [[nodiscard]] constexpr index_t count() const noexcept {
    index_t const wanted = (tokens + 255) / 256;
    return wanted < 64 ? wanted : 64;
  }
  /// @param run run number, 0 <= run <= count()
  /// @returns first token of the run; `tokens` for run == count()
  [[nodiscard]] constexpr index_t first(index_t run) const noexcept {
    index_t const runs = count();
    return runs == 0 ? 0 : run * (tokens / runs) + (run < tokens % runs ? run : tokens % runs);
  }
};

FAIRLEAD_NAMESPACE_END
