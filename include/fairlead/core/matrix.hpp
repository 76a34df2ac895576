// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A matrix that owns its elements on the host.
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/matrix_view.hpp>

#include <algorithm>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Own rows x cols contiguous values in host memory, zero at the start; move-only.
/// @tparam Value trivially copyable element
template <class Value>
class matrix {
 public:
  /// An empty matrix.
  matrix() noexcept = default;
  /// @param rows number of rows, >= 0
  /// @param cols number of columns, >= 0
  /// @throws std::bad_alloc; contract_violation (level 1) on a negative size
  matrix(index_t rows, index_t cols) : elements_(rows * cols), rows_(rows), cols_(cols) {
    FAIRLEAD_EXPECTS(rows >= 0 && cols >= 0, "sizes of a matrix must not be negative", rows, cols);
    std::fill_n(elements_.data(), elements_.size(), Value{});
  }
  /// @param other becomes empty
  matrix(matrix&& other) noexcept
      : elements_(std::move(other.elements_)),
        rows_(std::exchange(other.rows_, 0)),
        cols_(std::exchange(other.cols_, 0)) {}
  /// @param other becomes empty
  /// @returns this matrix
  matrix& operator=(matrix&& other) noexcept {
    if (this != &other) {
      elements_ = std::move(other.elements_);
      rows_ = std::exchange(other.rows_, 0);
      cols_ = std::exchange(other.cols_, 0);
    }
    return *this;
  }
  /// @returns number of rows
  [[nodiscard]] index_t rows() const noexcept { return rows_; }
  /// @returns number of columns
  [[nodiscard]] index_t cols() const noexcept { return cols_; }
  /// @returns first element
  [[nodiscard]] Value* data() noexcept { return elements_.data(); }
  /// @returns first element
  [[nodiscard]] Value const* data() const noexcept { return elements_.data(); }
  /// @returns all elements, row by row
  [[nodiscard]] std::span<Value> span() noexcept { return elements_.span(); }
  /// @returns all elements, row by row
  [[nodiscard]] std::span<Value const> span() const noexcept { return elements_.span(); }
  /// @returns a view of the whole matrix
  [[nodiscard]] matrix_view<Value> view() noexcept { return {elements_.data(), rows_, cols_}; }
  /// @returns a view of the whole matrix
  [[nodiscard]] matrix_view<Value const> view() const noexcept { return {elements_.data(), rows_, cols_}; }
  /// @param row row number
  /// @param col column number
  /// @returns the element
  [[nodiscard]] Value& operator()(index_t row, index_t col) noexcept { return elements_[row * cols_ + col]; }
  /// @param row row number
  /// @param col column number
  /// @returns the element
  [[nodiscard]] Value const& operator()(index_t row, index_t col) const noexcept { return elements_[row * cols_ + col]; }

 private:
  buffer<Value> elements_;
  index_t rows_ = 0;
  index_t cols_ = 0;
};

FAIRLEAD_NAMESPACE_END
