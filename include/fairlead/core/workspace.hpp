// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Scratch memory that the caller owns: a bump arena whose size is known up front.
#include <fairlead/core/buffer.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Bytes that `workspace::take<Value>(count)` uses up, alignment included.
/// @tparam Value element type
/// @param count number of elements
/// @returns bytes, a multiple of `buffer_alignment`
/// @complexity O(1)
template <class Value>
[[nodiscard]] constexpr std::size_t workspace_bytes(index_t count) noexcept {
  std::size_t const bytes = static_cast<std::size_t>(count) * sizeof(Value);
  return (bytes + buffer_alignment - 1) / buffer_alignment * buffer_alignment;
}

/// @brief Hand out scratch arrays from a block of memory, and take them back by rewinding.
///
/// A component says what it needs (`workspace_bytes(...)` member), the caller provides at least that much, and the
/// call itself allocates nothing. Blocks are uninitialised and aligned to `buffer_alignment`. Works on device memory:
/// only addresses are handled.
class workspace {
 public:
  /// A workspace without memory, for components that need none.
  workspace() noexcept = default;
  /// @param block memory aligned to `buffer_alignment`
  /// @throws contract_violation (level 1) if the block is not aligned
  explicit workspace(std::span<std::byte> block) : begin_(block.data()), size_(block.size()) {
    FAIRLEAD_EXPECTS(reinterpret_cast<std::uintptr_t>(begin_) % buffer_alignment == 0,
                     "workspace memory must be aligned to fairlead::buffer_alignment");
  }

  /// @brief Take an uninitialised array.
  /// @tparam Value element type
  /// @param count number of elements, >= 0
  /// @returns the array, valid until the workspace is rewound past it
  /// @throws contract_violation (level 1) if the memory does not suffice
  /// @complexity O(1), never allocates
  template <class Value>
  [[nodiscard]] std::span<Value> take(index_t count) {
    static_assert(alignof(Value) <= buffer_alignment && std::is_trivially_destructible_v<Value>,
                  "a workspace holds plain values only: it neither constructs nor destroys them");
    std::size_t const bytes = workspace_bytes<Value>(count);
    // The division guards against a count whose size in bytes overflows.
    FAIRLEAD_EXPECTS(count >= 0 && static_cast<std::size_t>(count) <= (size_ - used_) / sizeof(Value) &&
                         bytes <= size_ - used_,
                     "the workspace is too small: reserve what workspace_bytes() of the component says", count, bytes,
                     size_ - used_);
    std::byte* const block = begin_ + used_;
    used_ += bytes;
    return {reinterpret_cast<Value*>(block), static_cast<std::size_t>(count)};
  }

  /// @returns bytes in use
  [[nodiscard]] std::size_t used() const noexcept { return used_; }
  /// @returns bytes in all
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// @brief Give back everything taken since `mark`.
  /// @param mark what `used()` returned earlier
  void rewind(std::size_t mark) noexcept { used_ = mark; }

  /// @brief Rewind at the end of a block of code.
  class scope {
   public:
    /// @param ws the workspace to rewind
    explicit scope(workspace& ws) noexcept : ws_(ws), mark_(ws.used()) {}
    scope(scope const&) = delete;
    scope& operator=(scope const&) = delete;
    ~scope() { ws_.rewind(mark_); }

   private:
    workspace& ws_;
    std::size_t mark_;
  };

 private:
  std::byte* begin_ = nullptr;
  std::size_t size_ = 0;
  std::size_t used_ = 0;
};

/// @brief Own the memory of a workspace.
/// @tparam Space where the memory lives
template <memory_space Space = host_space>
class arena {
 public:
  /// An arena without memory.
  arena() noexcept = default;
  /// @param bytes size in bytes
  /// @throws std::bad_alloc, or what the memory space throws
  explicit arena(std::size_t bytes) { reserve(bytes); }
  /// @brief Make sure that at least `bytes` are there. Workspaces handed out before become invalid when it grows.
  /// @param bytes size in bytes
  /// @returns whether memory was allocated
  bool reserve(std::size_t bytes) {
    return static_cast<index_t>(bytes) > memory_.size() && memory_.resize(static_cast<index_t>(bytes));
  }
  /// @returns a fresh workspace over all of the memory
  [[nodiscard]] workspace view() { return workspace(memory_.span()); }
  /// @returns bytes owned
  [[nodiscard]] std::size_t size() const noexcept { return static_cast<std::size_t>(memory_.size()); }

 private:
  buffer<std::byte, Space> memory_;
};

FAIRLEAD_NAMESPACE_END
