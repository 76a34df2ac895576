// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A row-major matrix that somebody else owns.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>

#include <concepts>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Anything that describes a two-dimensional row-major array the way `std::mdspan` does.
template <class Array, class Value>
concept mdspan_like = requires(Array const& array) {
  { array.extent(0) } -> std::convertible_to<index_t>;
  { array.extent(1) } -> std::convertible_to<index_t>;
  { array.stride(0) } -> std::convertible_to<index_t>;
  { array.stride(1) } -> std::convertible_to<index_t>;
  { array.data_handle() } -> std::convertible_to<Value*>;
};

/// @brief View rows x cols values with a row stride; the columns are contiguous.
///
/// Trivially copyable; refers to host or device memory alike. A `matrix_view<T>` converts to `matrix_view<T const>`.
/// @tparam Value element type, possibly const
template <class Value>
class matrix_view {
 public:
  using value_type = std::remove_cv_t<Value>;  ///< element type without const

  /// An empty view, 0 x 0.
  constexpr matrix_view() noexcept = default;

  /// @brief View contiguous rows.
  /// @param data first element; may be null when the view is empty
  /// @param rows number of rows, >= 0
  /// @param cols number of columns, >= 0
  FAIRLEAD_HD constexpr matrix_view(Value* data, index_t rows, index_t cols) : matrix_view(data, rows, cols, cols) {}

  /// @brief View rows that are `stride` elements apart.
  /// @param data first element; may be null when the view is empty
  /// @param rows number of rows, >= 0
  /// @param cols number of columns, >= 0
  /// @param stride distance of two rows in elements, >= cols
  /// @throws contract_violation (level 1) on negative sizes, stride < cols or a null pointer with elements
  FAIRLEAD_HD constexpr matrix_view(Value* data, index_t rows, index_t cols, index_t stride)
      : data_(data), rows_(rows), cols_(cols), stride_(stride) {
    FAIRLEAD_EXPECTS(rows >= 0 && cols >= 0, "sizes of a matrix_view must not be negative", rows, cols);
    FAIRLEAD_EXPECTS(stride >= cols, "the row stride must be at least the number of columns", stride, cols);
    FAIRLEAD_EXPECTS(data != nullptr || rows == 0 || cols == 0, "a matrix_view with elements needs data", rows, cols);
  }

  /// @brief Drop or keep const.
  /// @param other the view to convert
  template <class Other>
    requires(std::is_same_v<Other const, Value> && !std::is_same_v<Other, Value>)
  FAIRLEAD_HD constexpr matrix_view(matrix_view<Other> other) noexcept  // NOLINT(google-explicit-constructor)
      : data_(other.data()), rows_(other.rows()), cols_(other.cols()), stride_(other.stride()) {}

  /// @brief View an `std::mdspan`-like array whose last index is contiguous.
  /// @param array the array
  /// @throws contract_violation (level 1) if the columns are not contiguous
  template <mdspan_like<Value> Array>
  constexpr matrix_view(Array const& array)  // NOLINT(google-explicit-constructor)
      : matrix_view(array.data_handle(), static_cast<index_t>(array.extent(0)), static_cast<index_t>(array.extent(1)),
                    row_stride(array)) {
    FAIRLEAD_EXPECTS(array.stride(1) == 1 || array.extent(1) <= 1, "columns must be contiguous (row-major layout)");
  }

  /// @returns first element
  [[nodiscard]] FAIRLEAD_HD constexpr Value* data() const noexcept { return data_; }
  /// @returns number of rows
  [[nodiscard]] FAIRLEAD_HD constexpr index_t rows() const noexcept { return rows_; }
  /// @returns number of columns
  [[nodiscard]] FAIRLEAD_HD constexpr index_t cols() const noexcept { return cols_; }
  /// @returns distance of two rows in elements
  [[nodiscard]] FAIRLEAD_HD constexpr index_t stride() const noexcept { return stride_; }
  /// @returns whether there is no element
  [[nodiscard]] FAIRLEAD_HD constexpr bool empty() const noexcept { return rows_ == 0 || cols_ == 0; }
  /// @returns whether the rows follow each other without a gap
  [[nodiscard]] FAIRLEAD_HD constexpr bool contiguous() const noexcept { return stride_ == cols_ || rows_ <= 1; }
  /// @param row row number, 0 <= row < rows()
  /// @returns first element of the row
  [[nodiscard]] FAIRLEAD_HD constexpr Value* row(index_t row) const noexcept { return data_ + row * stride_; }
  /// @param row row number
  /// @param col column number
  /// @returns the element
  [[nodiscard]] FAIRLEAD_HD constexpr Value& operator()(index_t row, index_t col) const noexcept {
    return data_[row * stride_ + col];
  }
  /// @brief View some of the rows.
  /// @param first first row
  /// @param count number of rows
  /// @returns rows [first, first + count)
  /// @throws contract_violation (level 1) if the rows are not inside this view
  [[nodiscard]] FAIRLEAD_HD constexpr matrix_view rows(index_t first, index_t count) const {
    FAIRLEAD_EXPECTS(first >= 0 && count >= 0 && first + count <= rows_, "rows must lie inside the matrix", first,
                     count, rows_);
    return matrix_view(count == 0 ? data_ : row(first), count, cols_, stride_);
  }

 private:
  // The stride of a single row means nothing and may be smaller than the row (column-major layouts).
  template <class Array>
  [[nodiscard]] static constexpr index_t row_stride(Array const& array) {
    auto const cols = static_cast<index_t>(array.extent(1));
    return static_cast<index_t>(array.extent(0)) <= 1 ? cols : static_cast<index_t>(array.stride(0));
  }
  Value* data_ = nullptr;
  index_t rows_ = 0;
  index_t cols_ = 0;
  index_t stride_ = 0;
};

FAIRLEAD_NAMESPACE_END
