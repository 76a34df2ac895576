// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Memory spaces and the move-only array that lives in one.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>
#include <fairlead/core/matrix_view.hpp>

#include <concepts>
#include <cstddef>
#include <cstring>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// Alignment in bytes of every buffer and of every workspace block: a cache line, and the widest vector register.
inline constexpr std::size_t buffer_alignment = 64;

/// @brief A place where memory is allocated: `host_space` here, `device_space` in `exec/cuda_stream.cuh`.
template <class Space>
concept memory_space = requires(std::size_t bytes, void* block) {
  { Space::allocate(bytes) } -> std::same_as<void*>;
  { Space::deallocate(block, bytes) };
};

/// @brief Ordinary memory of the process.
struct host_space {
  /// @param bytes size in bytes, > 0
  /// @returns a block aligned to `buffer_alignment`
  /// @throws std::bad_alloc
  [[nodiscard]] static void* allocate(std::size_t bytes) {
    return ::operator new(bytes, std::align_val_t{buffer_alignment});
  }
  /// @param block what `allocate` returned
  /// @param bytes its size
  static void deallocate(void* block, std::size_t bytes) noexcept {
    ::operator delete(block, bytes, std::align_val_t{buffer_alignment});
  }
};

/// @brief Own an uninitialised array of trivial values in a memory space.
///
/// Capacity only grows: a buffer that has reached its working size never allocates again.
/// @tparam Value trivially copyable element
/// @tparam Space where the elements live
template <class Value, memory_space Space = host_space>
  requires std::is_trivially_copyable_v<Value>
class buffer {
 public:
  using value_type = Value;    ///< element type
  using memory_space = Space;  ///< where the elements live

  /// An empty buffer; allocates nothing.
  buffer() noexcept = default;
  /// @param size number of (uninitialised) elements
  /// @throws std::bad_alloc, or what the memory space throws
  explicit buffer(index_t size) { resize(size); }
  /// @param other becomes empty
  buffer(buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  /// @param other becomes empty
  /// @returns this buffer
  buffer& operator=(buffer&& other) noexcept {
    if (this != &other) {
      release();
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
      capacity_ = std::exchange(other.capacity_, 0);
    }
    return *this;
  }
  buffer(buffer const&) = delete;
  buffer& operator=(buffer const&) = delete;
  ~buffer() { release(); }

  /// @brief Make room for `size` elements; the content is lost when the buffer has to grow.
  /// @param size number of elements, >= 0
  /// @returns whether memory was allocated
  /// @throws std::bad_alloc, or what the memory space throws
  /// @complexity O(1) below the capacity
  bool resize(index_t size) {
    FAIRLEAD_EXPECTS(size >= 0, "a buffer size must not be negative", size);
    bool const grows = size > capacity_;
    if (grows) {
      release();
      data_ = static_cast<Value*>(Space::allocate(static_cast<std::size_t>(size) * sizeof(Value)));
      capacity_ = size;
    }
    size_ = size;
    return grows;
  }

  /// @returns first element, or null
  [[nodiscard]] Value* data() noexcept { return data_; }
  /// @returns first element, or null
  [[nodiscard]] Value const* data() const noexcept { return data_; }
  /// @returns number of elements
  [[nodiscard]] index_t size() const noexcept { return size_; }
  /// @returns number of elements that fit without allocation
  [[nodiscard]] index_t capacity() const noexcept { return capacity_; }
  /// @returns the elements
  [[nodiscard]] std::span<Value> span() noexcept { return {data_, static_cast<std::size_t>(size_)}; }
  /// @returns the elements
  [[nodiscard]] std::span<Value const> span() const noexcept { return {data_, static_cast<std::size_t>(size_)}; }
  /// @param i element number
  /// @returns the element (host memory only)
  [[nodiscard]] Value& operator[](index_t i) noexcept { return data_[i]; }
  /// @param i element number
  /// @returns the element (host memory only)
  [[nodiscard]] Value const& operator[](index_t i) const noexcept { return data_[i]; }
  /// @param rows number of rows
  /// @param cols number of columns, rows x cols <= size()
  /// @returns the first rows x cols elements as a matrix
  [[nodiscard]] matrix_view<Value> as_matrix(index_t rows, index_t cols) {
    FAIRLEAD_EXPECTS(rows * cols <= size_, "the buffer is smaller than the matrix", rows, cols, size_);
    return {data_, rows, cols};
  }
  /// @param rows number of rows
  /// @param cols number of columns, rows x cols <= size()
  /// @returns the first rows x cols elements as a matrix
  [[nodiscard]] matrix_view<Value const> as_matrix(index_t rows, index_t cols) const {
    FAIRLEAD_EXPECTS(rows * cols <= size_, "the buffer is smaller than the matrix", rows, cols, size_);
    return {data_, rows, cols};
  }

 private:
  void release() noexcept {
    if (data_ != nullptr) { Space::deallocate(data_, static_cast<std::size_t>(capacity_) * sizeof(Value)); }
    data_ = nullptr;
    capacity_ = 0;
    size_ = 0;
  }
  Value* data_ = nullptr;
  index_t size_ = 0;
  index_t capacity_ = 0;
};

FAIRLEAD_NAMESPACE_END
