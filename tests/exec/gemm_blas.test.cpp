// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/exec/gemm_blas.hpp>
#include <fairlead/exec/serial.hpp>

#include "exec/gemm.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;
static_assert(fl::gemm_on<fl::gemm::blas, fl::serial, float> && fl::gemm_on<fl::gemm::blas, fl::serial, double>);

TEST_CASE("BLAS products equal a triple loop for all transposes, strides, sizes and factors", "[exec]") {
  CHECK(exec_test::all_products<float>(fl::gemm::blas{}, fl::serial{}) == "equal");
  CHECK(exec_test::all_products<double>(fl::gemm::blas{}, fl::serial{}) == "equal");
}

TEST_CASE("a size that CBLAS cannot take is refused before the library sees it", "[exec]") {
  fl::index_t const huge = fl::index_t{1} << 31;
  float one = 1.0F;
  fl::matrix_view<float const> const a{&one, 1, 1, huge}, b{&one, 1, 1};
  CHECK_THROWS_AS(fl::gemm::blas{}.multiply(fl::serial{}, fl::transpose::no, fl::transpose::no, 1, a, b, 0,
                                            fl::matrix_view<float>{&one, 1, 1}),
                  fl::contract_violation);
}
