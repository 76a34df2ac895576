// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/initial_values.hpp>
#include <fairlead/core/matrix.hpp>

#include "support/catch.hpp"

#include <cmath>

namespace fl = fairlead;
using fl::index_t;

namespace {

template <class Value>
fl::matrix<Value> normal(index_t rows, index_t cols) {
  fl::matrix<Value> made(rows, cols);
  for (index_t i = 0; i < rows * cols; ++i) { made.data()[i] = static_cast<Value>(fl::philox::normal(3, 1, static_cast<std::uint64_t>(i))); }
  return made;
}

// Largest distance of M M^T (or M^T M where there are more rows) from gain^2 times the identity.
template <class Value>
double distance(fl::matrix<Value> const& m, double gain) {
  bool const by_rows = m.rows() <= m.cols();
  index_t const vectors = by_rows ? m.rows() : m.cols(), length = by_rows ? m.cols() : m.rows();
  double worst = 0.0;
  for (index_t a = 0; a < vectors; ++a) {
    for (index_t b = 0; b < vectors; ++b) {
      double sum = 0.0;
      for (index_t i = 0; i < length; ++i) {
        sum += static_cast<double>(by_rows ? m(a, i) : m(i, a)) * static_cast<double>(by_rows ? m(b, i) : m(i, b));
      }
      worst = std::max(worst, std::abs(sum - (a == b ? gain * gain : 0.0)));
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("Random rows become orthogonal rows of the given length, tall matrices orthogonal columns") {
  auto wide = normal<float>(8, 33);
  fl::orthogonalise(wide.view(), 0.1);
  CHECK(distance(wide, 0.1) < 1e-8);
  auto square = normal<double>(16, 16);
  fl::orthogonalise(square.view());
  CHECK(distance(square, 1.0) < 1e-12);
  auto tall = normal<float>(40, 6);
  fl::orthogonalise(tall.view(), 2.0);
  CHECK(distance(tall, 2.0) < 1e-5);
  fl::matrix<float> empty(0, 5);
  fl::orthogonalise(empty.view());
}

TEST_CASE("The first row keeps its direction") {
  auto const before = normal<double>(4, 9);
  auto after = normal<double>(4, 9);
  fl::orthogonalise(after.view(), 3.0);
  double norm = 0.0;
  for (index_t i = 0; i < 9; ++i) { norm += before(0, i) * before(0, i); }
  for (index_t i = 0; i < 9; ++i) { CHECK(after(0, i) == Approx(3.0 * before(0, i) / std::sqrt(norm))); }
}

TEST_CASE("Rows that depend on each other and a gain that is no length are refused") {
  fl::matrix<float> zero(2, 3);
  CHECK_THROWS_AS(fl::orthogonalise(zero.view()), fl::contract_violation);
  auto twice = normal<float>(2, 3);
  for (index_t i = 0; i < 3; ++i) { twice(1, i) = 2.0F * twice(0, i); }
  CHECK_THROWS_AS(fl::orthogonalise(twice.view()), fl::contract_violation);
  auto fine = normal<float>(2, 3);
  CHECK_THROWS_AS(fl::orthogonalise(fine.view(), 0.0), fl::contract_violation);
}

TEST_CASE("A block is found by its name and nothing else is touched") {
  fl::parameter_layout layout;
  layout.add("up", 2, 3, 1.0).add("bias", 1, 2, 0.0).add("down", 3, 2, 1.0);
  std::vector<float> values(14, 7.0F);
  auto const down = fl::named_block(layout, "down", std::span<float>(values));
  CHECK(down.rows() == 3);
  CHECK(down.cols() == 2);
  fl::fill(down, 0.0F);
  for (std::size_t i = 0; i < 14; ++i) { CHECK(values[i] == (i < 8 ? 7.0F : 0.0F)); }
  CHECK_THROWS_AS(fl::named_block(layout, "gate", std::span<float>(values)), fl::contract_violation);
}
