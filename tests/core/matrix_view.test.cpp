// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/matrix_view.hpp>

#include <array>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

// What std::mdspan offers, for any strides.
template <class Value>
struct strided_array {
  Value* first;
  int rows, cols, row_stride, col_stride;
  [[nodiscard]] constexpr int extent(std::size_t i) const { return i == 0 ? rows : cols; }
  [[nodiscard]] constexpr int stride(std::size_t i) const { return i == 0 ? row_stride : col_stride; }
  [[nodiscard]] constexpr Value* data_handle() const { return first; }
};

constexpr int sum_of(fl::matrix_view<int const> view) {
  int sum = 0;
  for (index_t row = 0; row < view.rows(); ++row) {
    for (index_t col = 0; col < view.cols(); ++col) { sum += view(row, col); }
  }
  return sum;
}

constexpr bool works_in_constant_expressions() {
  std::array<int, 8> values{1, 2, 3, 99, 4, 5, 6, 99};
  fl::matrix_view<int> const view(values.data(), 2, 3, 4);
  view(1, 2) = 7;
  return sum_of(view) == 22 && view.row(1) == values.data() + 4 && !view.contiguous() && sum_of(view.rows(1, 1)) == 16;
}
static_assert(works_in_constant_expressions());

static_assert(std::is_trivially_copyable_v<fl::matrix_view<float>>);
static_assert(std::is_convertible_v<fl::matrix_view<int>, fl::matrix_view<int const>>);
static_assert(!std::is_convertible_v<fl::matrix_view<int const>, fl::matrix_view<int>>);
static_assert(!std::is_convertible_v<fl::matrix_view<int>, fl::matrix_view<long>>);
static_assert(std::is_convertible_v<strided_array<int>, fl::matrix_view<int const>>);
static_assert(!std::is_convertible_v<strided_array<int const>, fl::matrix_view<int>>);
static_assert(!std::is_convertible_v<std::vector<int>, fl::matrix_view<int>>);
static_assert(std::is_same_v<fl::matrix_view<int const>::value_type, int>);

}  // namespace

TEST_CASE("a matrix_view addresses rows by their stride", "[core][matrix_view]") {
  std::vector<int> values(20);
  for (std::size_t i = 0; i < values.size(); ++i) { values[i] = static_cast<int>(i); }
  fl::matrix_view<int> const view(values.data() + 1, 3, 4, 6);
  for (index_t row = 0; row < 3; ++row) {
    CHECK(view.row(row) == values.data() + 1 + 6 * row);
    for (index_t col = 0; col < 4; ++col) { CHECK(view(row, col) == 1 + 6 * row + col); }
  }
  CHECK(view.stride() == 6);
  CHECK_FALSE(view.contiguous());
  CHECK(view.rows(2, 1).contiguous());
  CHECK(fl::matrix_view<int>(values.data(), 5, 4).contiguous());
}

TEST_CASE("a matrix_view gives a block of its rows", "[core][matrix_view]") {
  std::vector<int> values(12, 1);
  fl::matrix_view<int> const view(values.data(), 4, 3);
  fl::matrix_view<int> const middle = view.rows(1, 2);
  CHECK(middle.rows() == 2);
  CHECK(middle.data() == values.data() + 3);
  CHECK(view.rows(4, 0).empty());
  CHECK(view.rows(0, 4).data() == view.data());
  CHECK_THROWS_AS(view.rows(3, 2), fl::contract_violation);
  CHECK_THROWS_AS(view.rows(-1, 2), fl::contract_violation);
  CHECK_THROWS_AS(view.rows(1, -1), fl::contract_violation);
}

TEST_CASE("an empty matrix_view needs no data", "[core][matrix_view]") {
  fl::matrix_view<float> const none;
  CHECK(none.empty());
  CHECK(none.rows() == 0);
  CHECK_NOTHROW(fl::matrix_view<float>(nullptr, 0, 5));
  CHECK_NOTHROW(fl::matrix_view<float>(nullptr, 5, 0));
  CHECK(fl::matrix_view<float>(nullptr, 0, 5).rows(0, 0).cols() == 5);
}

TEST_CASE("a matrix_view refuses sizes that cannot be", "[core][matrix_view][contract]") {
  int value = 0;
  CHECK_THROWS_AS(fl::matrix_view<int>(&value, -1, 1), fl::contract_violation);
  CHECK_THROWS_AS(fl::matrix_view<int>(&value, 1, -1), fl::contract_violation);
  CHECK_THROWS_AS(fl::matrix_view<int>(&value, 1, 2, 1), fl::contract_violation);
  CHECK_THROWS_AS(fl::matrix_view<int>(nullptr, 1, 1), fl::contract_violation);
}

TEST_CASE("a matrix_view takes an mdspan-like array with contiguous columns", "[core][matrix_view]") {
  std::vector<int> values{0, 1, 2, 3, 4, 5, 6, 7};
  fl::matrix_view<int const> const view = strided_array<int>{values.data(), 2, 3, 4, 1};
  CHECK(view.rows() == 2);
  CHECK(view.cols() == 3);
  CHECK(view.stride() == 4);
  CHECK(view(1, 2) == 6);
  CHECK_THROWS_AS(fl::matrix_view<int>(strided_array<int>{values.data(), 2, 3, 6, 2}), fl::contract_violation);
}

TEST_CASE("a matrix_view takes column-major arrays of one row or one column", "[core][matrix_view]") {
  std::vector<int> values{0, 1, 2, 3, 4, 5};
  fl::matrix_view<int> const row = strided_array<int>{values.data(), 1, 6, 1, 1};
  CHECK(row.cols() == 6);
  CHECK(row(0, 5) == 5);
  fl::matrix_view<int> const column = strided_array<int>{values.data(), 6, 1, 1, 6};
  CHECK(column.rows() == 6);
  CHECK(column(5, 0) == 5);
}

TEST_CASE("a matrix_view to write becomes one to read", "[core][matrix_view]") {
  std::vector<int> values{1, 2, 3, 4};
  fl::matrix_view<int> const view(values.data(), 2, 2);
  fl::matrix_view<int const> const reading = view;
  view(0, 1) = 9;
  CHECK(reading(0, 1) == 9);
  CHECK(reading.stride() == view.stride());
}
