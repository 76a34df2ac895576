// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Whole experts whose products are BLAS's.
#include <fairlead/exec/gemm_blas.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/dense_ffn.hpp>
#include <fairlead/expert/gated_ffn.hpp>

#include "expert/reference.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;

namespace {
template <class Expert>
std::string against_plain_loops(Expert const& expert, bool gated, double tolerance) {
  expert_test::bank<Expert> bank(expert, {0, 7, 1, 0, 30}, 4);
  expert_test::exact<Expert> const exact(bank, {expert_test::silu, expert_test::silu_slope}, gated);
  bank.forward(fl::serial{});
  bank.backward(fl::serial{});
  return expert_test::compare(bank, exact, tolerance, true);
}
}  // namespace

TEST_CASE("a dense bank on BLAS equals plain loops in double", "[expert]") {
  using gemm = fl::gemm::blas;
  CHECK(against_plain_loops(fl::dense_ffn<float, fl::silu, gemm>{.width = 9, .hidden = 21}, false, 3e-5) == "equal");
  CHECK(against_plain_loops(fl::dense_ffn<double, fl::silu, gemm>{.width = 4, .hidden = 2500}, false, 1e-12) == "equal");
}

TEST_CASE("a gated bank on BLAS equals plain loops in double, with and without bias", "[expert]") {
  using gemm = fl::gemm::blas;
  CHECK(against_plain_loops(fl::gated_ffn<float, fl::silu, gemm>{.width = 9, .hidden = 21}, true, 3e-5) == "equal");
  CHECK(against_plain_loops(fl::gated_ffn<double, fl::silu, gemm>{.width = 5, .hidden = 33, .bias = true}, true, 1e-12) ==
        "equal");
}
