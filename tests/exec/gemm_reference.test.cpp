// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/exec/gemm_reference.hpp>
#include <fairlead/exec/serial.hpp>

#include "exec/gemm.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;
static_assert(fl::gemm_on<fl::gemm::reference, fl::serial, float> && fl::gemm_on<fl::gemm::reference, fl::serial, double>);

TEST_CASE("reference products equal a triple loop for all transposes, strides, sizes and factors", "[exec]") {
  CHECK(exec_test::all_products<float>(fl::gemm::reference{}, fl::serial{}) == "equal");
  CHECK(exec_test::all_products<double>(fl::gemm::reference{}, fl::serial{}) == "equal");
}

TEST_CASE("no bit of a reference product depends on how rows and columns are cut into calls", "[exec]") {
  index_t const m = 61, n = 83, k = 530;
  std::vector<float> a(static_cast<std::size_t>(m * k)), b(static_cast<std::size_t>(k * n));
  for (std::size_t i = 0; i < a.size(); ++i) { a[i] = static_cast<float>(fl::philox::normal(1, 1, i)); }
  for (std::size_t i = 0; i < b.size(); ++i) { b[i] = static_cast<float>(fl::philox::normal(1, 2, i)); }
  std::vector<float> whole(static_cast<std::size_t>(m * n)), cut(whole.size(), -1.0F);
  fl::gemm::reference const gemm;
  fl::serial const on;
  gemm.multiply(on, fl::transpose::no, fl::transpose::no, 1, {a.data(), m, k}, {b.data(), k, n}, 0,
                fl::matrix_view<float>{whole.data(), m, n});
  for (index_t const piece : {1, 7, 12, 20}) {
    for (index_t i = 0; i < m; i += piece) {
      for (index_t j = 0; j < n; j += 2 * piece + 1) {
        index_t const rows = std::min(piece, m - i), cols = std::min(2 * piece + 1, n - j);
        gemm.multiply(on, fl::transpose::no, fl::transpose::no, 1, {a.data() + i * k, rows, k}, {b.data() + j, k, cols, n},
                      0, fl::matrix_view<float>{cut.data() + i * n + j, rows, cols, n});
      }
    }
    CHECK(cut == whole);
  }
}

TEST_CASE("products of shapes that disagree are refused", "[exec]") {
  std::vector<float> x(64);
  fl::gemm::reference const gemm;
  auto const view = [&](index_t r, index_t c) { return fl::matrix_view<float>{x.data(), r, c}; };
  auto const call = [&](fl::transpose op, auto a, auto b, auto c) {
    gemm.multiply(fl::serial{}, op, fl::transpose::no, 1, a, b, 0, c);
  };
  CHECK_THROWS_AS(call(fl::transpose::no, view(2, 3), view(4, 2), view(2, 2)), fl::contract_violation);
  CHECK_THROWS_AS(call(fl::transpose::yes, view(2, 3), view(3, 2), view(2, 2)), fl::contract_violation);
  CHECK_THROWS_AS(call(fl::transpose::no, view(2, 3), view(3, 2), view(2, 3)), fl::contract_violation);
}
