// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that runs index loops in one memory space.
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/ids.hpp>

#include <concepts>
#include <cstddef>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {
/// A named function object as `for_each` takes it: trivially copyable, callable on host and device.
struct index_probe {
  FAIRLEAD_HD void operator()(index_t) const noexcept {}
};
}  // namespace detail

/// @brief Says in which memory space it works.
template <class Backend>
concept has_memory_space = memory_space<typename Backend::memory_space>;

/// @brief Runs independent index loops and moves memory.
///
/// Why not `std::execution`: a backend also names a memory space, and a stream-ordered one returns before the work is
/// done. Required of a model `on`:
/// - `on.for_each(n, f)` calls `f(i)` once for each 0 <= i < n, in any order, possibly concurrently. `f` is a trivially
///   copyable function object (for device backends: `FAIRLEAD_HD`), its effects are visible after `on.wait()`.
/// - `on.concurrency()` is the number of calls that may run at the same time, >= 1: loops are cut into that many parts.
/// - `on.copy(to, from, bytes)` copies inside the memory space; `on.fill_zero(to, bytes)` clears.
/// - `on.to_host(to, from, bytes)` and `on.from_host(to, from, bytes)` cross between host memory and the memory space.
///   Like everything else they may be asynchronous: `on.wait()` makes the result visible.
/// - `on.wait()` returns when all work submitted so far is done.
///
/// All members are const: a backend is a handle. None allocates after its first use.
template <class Backend>
concept execution_backend =
    has_memory_space<Backend> && std::copyable<Backend> &&
    requires(Backend const& on, index_t n, detail::index_probe f, void* to, void const* from, std::size_t bytes) {
      { on.for_each(n, f) } -> std::same_as<void>;
      { on.concurrency() } -> std::convertible_to<index_t>;
      { on.copy(to, from, bytes) } -> std::same_as<void>;
      { on.fill_zero(to, bytes) } -> std::same_as<void>;
      { on.to_host(to, from, bytes) } -> std::same_as<void>;
      { on.from_host(to, from, bytes) } -> std::same_as<void>;
      { on.wait() } -> std::same_as<void>;
    };

/// @brief A backend whose loops work on host memory and are done when `for_each` returns.
template <class Backend>
concept host_backend = execution_backend<Backend> && std::same_as<typename Backend::memory_space, host_space>;

/// @brief A backend whose loops work on other than host memory.
template <class Backend>
concept device_backend = execution_backend<Backend> && !std::same_as<typename Backend::memory_space, host_space>;

namespace detail {
template <class Function>
struct element_block {
  static constexpr index_t elements = 4096;
  Function f;
  index_t n;
  void operator()(index_t block) const {
    index_t const end = n < (block + 1) * elements ? n : (block + 1) * elements;
    for (index_t i = block * elements; i < end; ++i) { f(i); }
  }
};
}  // namespace detail

/// @brief Run a loop whose body is worth a few instructions only: hosts get blocks of indices, devices single ones.
/// @param on backend
/// @param n number of calls
/// @param f trivially copyable function object, `FAIRLEAD_HD` for device backends
template <execution_backend Backend, class Function>
void for_each_element(Backend const& on, index_t n, Function f) {
  if constexpr (host_backend<Backend>) {
    using block = detail::element_block<Function>;
    on.for_each((n + block::elements - 1) / block::elements, block{f, n});
  } else {
    on.for_each(n, f);
  }
}

/// @brief Opt-in: work is queued in order on a stream, and calls return before it is done.
template <class Backend>
inline constexpr bool stream_ordered = false;

FAIRLEAD_NAMESPACE_END
