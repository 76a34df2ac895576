// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of `execution_backend`.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/laws/verdict.hpp>

#include <atomic>
#include <stdexcept>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief What to check with.
struct execution_backend_options {
  index_t longest = 1000;  ///< indices of the longest loop
};

namespace detail {

/// Counts the calls of each index.
struct count_calls {
  std::atomic<int>* calls;
  index_t size;
  std::atomic<int>* outside;
  void operator()(index_t i) const noexcept {
    (i >= 0 && i < size ? calls[i] : *outside).fetch_add(1, std::memory_order_relaxed);
  }
};
/// Fails at one index.
struct throw_at {
  index_t where;
  void operator()(index_t i) const {
    if (i == where) { throw std::runtime_error("planted"); }
  }
};

}  // namespace detail

/// @brief Check loops and copies of a backend.
///
/// Any backend: concurrency is positive, copies between host and its memory keep every byte, zero bytes and null
/// pointers are legal, clearing clears what it is asked to and no more. A host backend also: each index of a loop is
/// called once, none outside, effects are visible after `wait()`, and an exception of a call reaches the caller.
/// @tparam Backend the model
/// @param on the backend
/// @param options sizes
/// @returns the first broken law
/// @complexity O(longest) calls; allocates
template <execution_backend Backend>
[[nodiscard]] verdict check_execution_backend(Backend const& on, execution_backend_options const& options = {}) {
  if (!(on.concurrency() >= 1)) { return verdict::broken("concurrency must be at least 1, is ", on.concurrency()); }
  index_t const size = options.longest;
  std::vector<unsigned char> from(static_cast<std::size_t>(size) + 2), back(from.size(), 0xEE);
  for (std::size_t i = 0; i < from.size(); ++i) { from[i] = static_cast<unsigned char>(1 + i % 250); }
  buffer<unsigned char, typename Backend::memory_space> first(size + 2), second(size + 2);
  std::size_t const all = from.size();
  on.from_host(first.data(), from.data(), all);
  on.copy(second.data(), first.data(), all);
  on.to_host(back.data(), second.data(), all);
  on.wait();
  if (back != from) { return verdict::broken("bytes changed on the way host, memory of the backend, copy, host"); }
  on.copy(nullptr, nullptr, 0);
  on.fill_zero(nullptr, 0);
  on.to_host(nullptr, nullptr, 0);
  on.from_host(nullptr, nullptr, 0);
  on.fill_zero(second.data() + 1, all - 2);
  on.to_host(back.data(), second.data(), all);
  on.wait();
  for (std::size_t i = 0; i < all; ++i) {
    bool const inside = i > 0 && i + 1 < all;
    if (back[i] != (inside ? 0 : from[i])) { return verdict::broken("fill_zero left or changed byte ", i, " wrongly"); }
  }
  if constexpr (host_backend<Backend>) {
    for (index_t const n : {index_t{0}, index_t{1}, index_t{2}, on.concurrency(), on.concurrency() + 1, size}) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(n) + 1);
      std::atomic<int> outside{0};
      on.for_each(n, detail::count_calls{calls.data(), n, &outside});
      on.wait();
      if (outside != 0) { return verdict::broken("a loop of ", n, " called an index outside"); }
      for (index_t i = 0; i < n; ++i) {
        int const count = calls[static_cast<std::size_t>(i)];
        if (count != 1) { return verdict::broken("a loop of ", n, " called index ", i, " ", count, " times"); }
      }
      if (n > 0) {
        bool caught = false;
        try {
          on.for_each(n, detail::throw_at{n - 1});
          on.wait();
        } catch (std::runtime_error const&) { caught = true; }
        if (!caught) { return verdict::broken("an exception in a loop of ", n, " did not reach the caller"); }
      }
    }
  }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
