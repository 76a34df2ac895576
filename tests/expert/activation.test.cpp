// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/expert/activation.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include "expert/reference.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;

namespace {

struct errors {
  double value = 0.0;       // relative to the exact value, where that is not tiny
  double derivative = 0.0;  // absolute: derivatives are of the order of 1
};
template <class Activation, class Value>
errors worst(expert_test::scalar_function exact) {
  errors result;
  for (int i = -90000; i <= 90000; ++i) {
    Value const x = static_cast<Value>(i) * static_cast<Value>(1.0 / 3011.0);
    double const point = static_cast<double>(x);
    auto const both = Activation::value_and_derivative(x);
    if (both.value != Activation::value(x)) { result.value = 1.0; }
    double const value = exact.value(point);
    result.value = std::max(result.value, std::abs(static_cast<double>(both.value) - value) / std::max(std::abs(value), 1e-4));
    result.derivative = std::max(result.derivative, std::abs(static_cast<double>(both.derivative) - exact.derivative(point)));
  }
  return result;
}

}  // namespace

TEST_CASE("fp32 activations and derivatives are exact to some units in the last place", "[expert]") {
  errors const relu = worst<fl::relu, float>({expert_test::relu, expert_test::relu_slope});
  CHECK(relu.value == 0.0);
  CHECK(relu.derivative == 0.0);
  errors const gelu = worst<fl::gelu, float>({expert_test::gelu, expert_test::gelu_slope});
  CHECK(gelu.value < 1e-6);
  CHECK(gelu.derivative < 5e-7);
  errors const gelu_tanh = worst<fl::gelu_tanh, float>({expert_test::gelu_tanh, expert_test::gelu_tanh_slope});
  CHECK(gelu_tanh.value < 3e-6);
  CHECK(gelu_tanh.derivative < 3e-6);
  errors const silu = worst<fl::silu, float>({expert_test::silu, expert_test::silu_slope});
  CHECK(silu.value < 4e-7);
  CHECK(silu.derivative < 3e-6);
}

TEST_CASE("double activations are exact to double rounding", "[expert]") {
  CHECK(worst<fl::gelu, double>({expert_test::gelu, expert_test::gelu_slope}).value < 1e-11);
  CHECK(worst<fl::gelu_tanh, double>({expert_test::gelu_tanh, expert_test::gelu_tanh_slope}).value < 1e-11);
  CHECK(worst<fl::silu, double>({expert_test::silu, expert_test::silu_slope}).value < 1e-13);
}

TEST_CASE("activations of huge arguments stay finite and NaN stays NaN", "[expert]") {
  CHECK(fl::gelu::value(std::numeric_limits<float>::infinity()) == std::numeric_limits<float>::infinity());
  auto const check = []<class Activation>(Activation) {
    for (float const x : {-1e37F, -1e10F, -200.0F, -90.0F, 90.0F, 200.0F, 1e10F, 1e37F}) {
      auto const both = Activation::value_and_derivative(x);
      CHECK(std::abs(both.value - std::max(x, 0.0F)) < 1.0F);
      CHECK(std::abs(both.derivative - (x > 0.0F ? 1.0F : 0.0F)) < 1.0F);
    }
    CHECK(std::isnan(Activation::value(std::numeric_limits<float>::quiet_NaN())));
    CHECK(Activation::value(0.0F) == 0.0F);
  };
  check(fl::relu{});
  check(fl::gelu{});
  check(fl::gelu_tanh{});
  check(fl::silu{});
}
