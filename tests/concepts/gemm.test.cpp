// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/gemm.hpp>
#include <fairlead/exec/serial.hpp>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;
using fl::transpose;

namespace {

// One type, one backend: no more than the concept asks for.
struct minimal {
  void multiply(fl::serial const&, transpose op_a, transpose op_b, double alpha, fl::matrix_view<double const> a,
                fl::matrix_view<double const> b, double beta, fl::matrix_view<double> c) const {
    index_t const inner = op_a == transpose::no ? a.cols() : a.rows();
    for (index_t i = 0; i < c.rows(); ++i) {
      for (index_t j = 0; j < c.cols(); ++j) {
        double sum = 0.0;
        for (index_t p = 0; p < inner; ++p) {
          sum += (op_a == transpose::no ? a(i, p) : a(p, i)) * (op_b == transpose::no ? b(p, j) : b(j, p));
        }
        c(i, j) = alpha * sum + (beta == 0.0 ? 0.0 : beta * c(i, j));
      }
    }
  }
};
static_assert(fl::gemm_on<minimal, fl::serial, double>);
static_assert(!fl::gemm_on<minimal, int, double>, "an int is no backend");
static_assert(!fl::independent_of_shape<minimal>, "promises are stated, not inferred");

struct no_multiply {};
static_assert(!fl::gemm_on<no_multiply, fl::serial, double>);
struct returns_status {
  int multiply(fl::serial const&, transpose, transpose, double, fl::matrix_view<double const>,
               fl::matrix_view<double const>, double, fl::matrix_view<double>) const {
    return 0;
  }
};
static_assert(!fl::gemm_on<returns_status, fl::serial, double>);
struct not_const {
  void multiply(fl::serial const&, transpose, transpose, double, fl::matrix_view<double const>,
                fl::matrix_view<double const>, double, fl::matrix_view<double>) {}
};
static_assert(!fl::gemm_on<not_const, fl::serial, double>);
struct writes_factors {
  void multiply(fl::serial const&, transpose, transpose, double, fl::matrix_view<double>, fl::matrix_view<double>,
                double, fl::matrix_view<double>) const {}
};
static_assert(!fl::gemm_on<writes_factors, fl::serial, double>);

}  // namespace

TEST_CASE("the minimal product does its work through the concept alone", "[concepts]") {
  auto const through = [](fl::gemm_on<fl::serial, double> auto const& gemm) {
    double const a[2] = {2.0, 3.0}, b[2] = {5.0, 7.0};
    double c = 1.0;
    gemm.multiply(fl::serial{}, transpose::no, transpose::yes, 1.0, {a, 1, 2}, {b, 1, 2}, 10.0, {&c, 1, 1});
    return c;
  };
  CHECK(through(minimal{}) == 41.0);
}
