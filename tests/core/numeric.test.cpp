// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/numeric.hpp>
#include <fairlead/core/philox.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "support/catch.hpp"

namespace fl = fairlead;
namespace numeric = fairlead::numeric;

namespace {

constexpr float infinite = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

// Distance in units of the last place that an fp32 number of the exact size has.
double ulps(float got, double exact) {
  if (std::isnan(exact)) { return std::isnan(got) ? 0.0 : 1e9; }
  if (std::isinf(static_cast<float>(exact))) { return got == static_cast<float>(exact) ? 0.0 : 1e9; }
  int exponent = 0;
  std::frexp(exact, &exponent);
  return std::abs(static_cast<double>(got) - exact) / std::ldexp(1.0, std::max(exponent - 24, -149));
}

struct sweep_result {
  double worst_ulps = 0.0;
  std::uint64_t hash = 0xCBF29CE484222325ULL;  // FNV-1a over the result patterns
};

// Numbers of every exponent and both signs between two bounds.
template <class Function, class Exact>
sweep_result sweep(Function function, Exact exact, float least, float most) {
  sweep_result result;
  for (std::uint64_t bits = 0; bits < 0x100000000ULL; bits += 9973) {
    auto const x = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (!(x >= least && x <= most)) { continue; }
    float const y = function(x);
    result.worst_ulps = std::max(result.worst_ulps, ulps(y, exact(static_cast<double>(x))));
    result.hash = (result.hash ^ std::bit_cast<std::uint32_t>(y)) * 0x100000001B3ULL;
  }
  return result;
}

double exact_softplus(double x) { return x > 40.0 ? x : std::log1p(std::exp(x)); }

}  // namespace

// The hashes hold every result bit of a sweep: they must not change with compiler, flags or target.
TEST_CASE("elementary functions stay within 2 ulp and give the same bits everywhere", "[core][numeric]") {
  auto const exp = sweep([](float x) { return numeric::exp(x); }, [](double x) { return std::exp(x); }, -200.0F, 200.0F);
  CHECK(exp.worst_ulps <= 2.0);
  CHECK(exp.hash == 0xEF998BDA37BE9779ULL);
  auto const log1p =
      sweep([](float x) { return numeric::log1p(x); }, [](double x) { return std::log1p(x); }, -0.999F, 1e38F);
  CHECK(log1p.worst_ulps <= 2.0);
  CHECK(log1p.hash == 0x183953C25E8AC8C8ULL);
  auto const sigmoid = sweep([](float x) { return numeric::sigmoid(x); },
                             [](double x) { return 1.0 / (1.0 + std::exp(-x)); }, -1e38F, 1e38F);
  CHECK(sigmoid.worst_ulps <= 2.0);
  CHECK(sigmoid.hash == 0xB49381C478F74968ULL);
  auto const softplus = sweep([](float x) { return numeric::softplus(x); }, exact_softplus, -1e38F, 1e38F);
  CHECK(softplus.worst_ulps <= 2.0);
  CHECK(softplus.hash == 0xE1711B6D1DBD7F05ULL);
  auto const root = sweep([](float x) { return numeric::sqrt_softplus(x); },
                          [](double x) { return std::sqrt(exact_softplus(x)); }, -1e38F, 1e38F);
  CHECK(root.worst_ulps <= 2.0);
  CHECK(root.hash == 0x8CA3004DD3B46CDDULL);
}

TEST_CASE("elementary functions treat the ends and NaN as documented", "[core][numeric]") {
  CHECK(numeric::exp(0.0F) == 1.0F);
  CHECK(numeric::exp(-infinite) == 0.0F);
  CHECK(numeric::exp(infinite) == infinite);
  CHECK(numeric::exp(-103.0F) > 0.0F);  // subnormal
  CHECK(numeric::exp(-104.0F) == 0.0F);
  CHECK(numeric::exp(88.72F) < infinite);
  CHECK(numeric::exp(88.73F) == infinite);
  CHECK(numeric::log1p(0.0F) == 0.0F);
  CHECK(numeric::log1p(0x1p-126F) == 0x1p-126F);
  CHECK(numeric::sigmoid(0.0F) == 0.5F);
  CHECK(numeric::sigmoid(-0.0F) == 0.5F);
  CHECK(numeric::sigmoid(infinite) == 1.0F);
  CHECK(numeric::sigmoid(-infinite) == 0.0F);
  CHECK(numeric::softplus(-infinite) == 0.0F);
  CHECK(numeric::softplus(1000.0F) == 1000.0F);
  CHECK(numeric::sqrt_softplus(-infinite) == 0.0F);
  CHECK(std::isnan(numeric::exp(not_a_number)));
  CHECK(std::isnan(numeric::log1p(not_a_number)));
  CHECK(std::isnan(numeric::sigmoid(not_a_number)));
  CHECK(std::isnan(numeric::softplus(not_a_number)));
  CHECK(std::isnan(numeric::sqrt_softplus(not_a_number)));
}

TEST_CASE("the sigmoid never decreases where routers use it", "[core][numeric]") {
  int falls = 0;
  float previous = 0.0F;
  for (int i = -40000; i <= 40000; ++i) {
    float const now = numeric::sigmoid(static_cast<float>(i) * 0x1p-10F);
    // Two results that are both within 2 ulp may fall by their last bits, no more.
    falls += now < previous * (1.0F - 0x1p-21F) ? 1 : 0;
    previous = now;
  }
  CHECK(falls == 0);
}

TEST_CASE("the derivative of the square root of softplus equals a difference quotient", "[core][numeric]") {
  for (double x = -30.0; x < 30.0; x += 0.37) {
    double const h = 1e-5;
    double const quotient = (std::sqrt(exact_softplus(x + h)) - std::sqrt(exact_softplus(x - h))) / (2.0 * h);
    CHECK(static_cast<double>(numeric::sqrt_softplus_derivative(static_cast<float>(x))) ==
          Approx(quotient).epsilon(1e-5));
  }
}

TEST_CASE("normal numbers without a math library have the right moments and bound", "[core][numeric]") {
  constexpr int draws = 1 << 16;
  double sum = 0.0, squares = 0.0, fourth = 0.0;
  int positive = 0;
  for (std::uint64_t i = 0; i < draws; ++i) {
    auto const words = fl::philox::draw(11, 3, i);
    float const number = numeric::normal(words[0], words[1]);
    REQUIRE(std::abs(number) < 5.8F);
    double const wide = static_cast<double>(number);
    sum += wide;
    squares += wide * wide;
    fourth += wide * wide * wide * wide;
    positive += number > 0.0F ? 1 : 0;
  }
  double const error = 5.0 / std::sqrt(static_cast<double>(draws));
  CHECK(std::abs(sum / draws) < error);
  CHECK(std::abs(squares / draws - 1.0) < error * std::sqrt(2.0));
  CHECK(std::abs(fourth / draws - 3.0) < error * std::sqrt(96.0));
  CHECK(std::abs(static_cast<double>(positive) / draws - 0.5) < error / 2.0);
}

TEST_CASE("normal numbers equal the Box-Muller formula in double precision", "[core][numeric]") {
  double worst = 0.0;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    auto words = fl::philox::draw(12, 3, i);
    if (i == 0) { words = {0, 0, 0, 0}; }
    if (i == 1) { words = {0xFFFFFFFFU, 0xFFFFFFFFU, 0, 0}; }
    if (i < 34 && i >= 2) { words[1] = static_cast<std::uint32_t>((i - 2) << 27U); }  // every 32nd of a turn
    double const u = (static_cast<double>(words[0] >> 9U) + 0.5) * 0x1p-23;
    double const turn = static_cast<double>(words[1]) * 0x1p-32;
    double const exact = std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586476925 * turn);
    double const got = static_cast<double>(numeric::normal(words[0], words[1]));
    worst = std::max(worst, std::abs(got - exact));
  }
  // 5.8 x (24 bits of the angle + a few ulp).
  CHECK(worst < 6e-6);
}
