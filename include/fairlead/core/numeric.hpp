// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Elementary fp32 functions with the same bits on host and device: exp, log, sigmoid, softplus, normal.
///
/// Selection keys must not depend on a math library, because host and device libraries differ in the last bit and a
/// last bit moves a tie. Everything here is made of correctly rounded operations (add, multiply, divide, square root,
/// fused multiply-add) in a fixed order. A product that feeds a sum is written as a fused multiply-add, or is exact, so
/// that contraction by a compiler changes nothing. No branches: loops over arrays vectorise where the target has fused
/// multiply-add (on x86-64: -mfma, part of -march=haswell and later); elsewhere the same bits come more slowly.
/// The square root sets errno in C, which keeps compilers from vectorising it unless they run with -fno-math-errno.
#include <fairlead/core/config.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

FAIRLEAD_NAMESPACE_BEGIN
/// Elementary functions with host-device equality, at most 2 units in the last place from the exact value.
namespace numeric {

/// @brief The fp32 result of a * b + c, rounded once.
/// @param a factor
/// @param b factor
/// @param c summand
/// @returns a * b + c
/// @determinism exact: equal on host and device
[[nodiscard]] FAIRLEAD_HD inline float fused(float a, float b, float c) noexcept {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}
/// @brief The fp32 quotient, correctly rounded whatever the compiler's division mode.
/// @param a dividend
/// @param b divisor
/// @returns a / b
[[nodiscard]] FAIRLEAD_HD inline float quotient(float a, float b) noexcept {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}
/// @brief The fp32 square root, correctly rounded.
/// @param x any float
/// @returns its square root, NaN below zero
[[nodiscard]] FAIRLEAD_HD inline float square_root(float x) noexcept {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(x);
#else
  return std::sqrt(x);
#endif
}
/// @brief The sum of two numbers, never fused with the product that made one of them.
/// @param a summand
/// @param b summand
/// @returns a + b
[[nodiscard]] FAIRLEAD_HD inline float sum(float a, float b) noexcept {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

/// @brief The product of two numbers, never fused with a sum that takes it (on device; on the host keep it in memory).
/// @param a factor
/// @param b factor
/// @returns a * b
[[nodiscard]] FAIRLEAD_HD inline float product(float a, float b) noexcept {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

/// @brief e to the x, at most 2 ulp; subnormal results included, +inf above 88.73, NaN for NaN.
/// @param x any float
/// @returns exp(x)
/// @complexity O(1), about 20 operations
/// @determinism exact: equal on host and device
[[nodiscard]] FAIRLEAD_HD inline float exp(float x) noexcept {
  // Below -104 the result rounds to 0, above 89 to infinity; NaN passes both comparisons unchanged.
  x = x < -104.0F ? -104.0F : x;
  x = x > 89.0F ? 89.0F : x;
  // Adding 1.5 * 2^23 leaves round(x / ln 2) in the low bits.
  float const shifted = fused(x, 0x1.715476p+0F, 0x1.8p+23F);
  std::int32_t const n = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(0x1.8p+23F);
  float const whole = shifted - 0x1.8p+23F;
  float const high = fused(whole, -0x1.62e43p-1F, x);  // exact: the constant has 20 bits
  float const r = fused(whole, 0x1.05c61p-29F, high);
  float const lost = fused(whole, 0x1.05c61p-29F, high - r);
  float q = 0x1.a12516p-13F;
  q = fused(q, r, 0x1.6d434ep-10F);
  q = fused(q, r, 0x1.1110ep-7F);
  q = fused(q, r, 0x1.5554e8p-5F);
  q = fused(q, r, 0x1.555556p-3F);
  q = fused(q, r, 0.5F);
  q = r + fused(q * r, r, lost);  // e^r - 1
  // Two scale factors: 2^n alone has no fp32 form at both ends. The first product stays normal, so only the second
  // rounds, and only if the result is subnormal.
  std::int32_t const half = n >> 1;
  float const first = std::bit_cast<float>((half + 127) << 23);
  float const second = std::bit_cast<float>((n - half + 127) << 23);
  return fused(q, first, first) * second;
}

/// @brief Natural logarithm of 1 + y without loss for small y, at most 2 ulp.
/// @param y > -1
/// @returns log(1 + y); NaN for NaN
/// @pre -1 < y < 2^127
/// @determinism exact: equal on host and device
[[nodiscard]] FAIRLEAD_HD inline float log1p(float y) noexcept {
  float const u = 1.0F + y;
  // What the sum lost, exact (two-sum of the larger and the smaller summand).
  float const lost = y < 1.0F ? y - (u - 1.0F) : 1.0F - (u - y);
  // u = 2^n * m with m in [sqrt(1/2), sqrt(2)).
  std::int32_t const bits = std::bit_cast<std::int32_t>(u) - 0x3F3504F3;
  std::int32_t const n = bits >> 23;
  float const m = std::bit_cast<float>((bits & 0x007FFFFF) + 0x3F3504F3);
  float const r = fused(lost, std::bit_cast<float>((127 - n) << 23), m - 1.0F);
  float p = 0x1.1d8f6p-4F;
  p = fused(p, r, -0x1.d636dp-4F);
  p = fused(p, r, 0x1.dea2cp-4F);
  p = fused(p, r, -0x1.fcf4a8p-4F);
  p = fused(p, r, 0x1.23d214p-3F);
  p = fused(p, r, -0x1.555b4ap-3F);
  p = fused(p, r, 0x1.999d5ap-3F);
  p = fused(p, r, -0x1.fffffcp-3F);
  p = fused(p, r, 0x1.555554p-2F);
  p = fused(p, r, -0.5F);
  float const whole = static_cast<float>(n);
  float const fraction = fused(r * r, p, fused(whole, -0x1.05c61p-29F, r));
  float const result = fused(whole, 0x1.62e43p-1F, fraction);
  return y != y ? y : result;
}

/// @brief Logistic function 1 / (1 + exp(-x)); never overflows, keeps subnormal results.
/// @param x any float
/// @returns a number in [0, 1]; NaN for NaN
/// @determinism exact: equal on host and device
[[nodiscard]] FAIRLEAD_HD inline float sigmoid(float x) noexcept {
  // Selection by mask: three conditions on one sign would make compilers branch.
  std::int32_t const bits = std::bit_cast<std::int32_t>(x);
  std::int32_t const negative = bits >> 31;
  float const e = exp(std::bit_cast<float>(bits | std::numeric_limits<std::int32_t>::min()));
  float const d = sum(1.0F, e);
  std::int32_t const one = std::bit_cast<std::int32_t>(1.0F);
  float const s = quotient(std::bit_cast<float>((std::bit_cast<std::int32_t>(e) & negative) | (one & ~negative)), d);
  // One Newton step for what the sum lost; 1 / d is 1 - s on the negative side and s on the other.
  float const lost = e - (d - 1.0F);
  float const inverse = std::bit_cast<float>((std::bit_cast<std::int32_t>(1.0F - s) & negative) |
                                             (std::bit_cast<std::int32_t>(s) & ~negative));
  return fused(s * lost, -inverse, s);
}

/// @brief log(1 + exp(x)); about x for large x, exp(x) for small x.
/// @param x any float
/// @returns a number >= 0; NaN for NaN
/// @determinism exact: equal on host and device
[[nodiscard]] FAIRLEAD_HD inline float softplus(float x) noexcept {
  float const tail = log1p(exp(x < 0.0F ? x : -x));
  return sum(x > 0.0F ? x : 0.0F, tail);
}

/// @brief The square root of softplus.
/// @param x any float
/// @returns a number >= 0; NaN for NaN
/// @determinism exact: equal on host and device
[[nodiscard]] FAIRLEAD_HD inline float sqrt_softplus(float x) noexcept {
  // Far below zero softplus is exp(x), whose root keeps its precision where exp(x) itself is subnormal.
  float const root = square_root(softplus(x));
  return x < -20.0F ? exp(0.5F * x) : root;
}

/// @brief Derivative of `sqrt_softplus`.
/// @param x any float
/// @returns sigmoid(x) / (2 sqrt_softplus(x)); 0 where both vanish
/// @determinism exact: equal on host and device
[[nodiscard]] FAIRLEAD_HD inline float sqrt_softplus_derivative(float x) noexcept {
  float const root = sqrt_softplus(x);
  float const slope = quotient(sigmoid(x), 2.0F * (root > 0.0F ? root : 1.0F));
  return x < -20.0F ? 0.5F * root : slope;
}

/// @brief A standard normal number from two random words (Box-Muller), |result| < 5.8.
///
/// Unlike `philox::normal` it uses no math library, so that noisy routers choose the same experts on host and device.
/// @param radius_word random bits
/// @param angle_word random bits
/// @returns a number with mean 0 and variance 1
/// @determinism exact: equal on host and device
[[nodiscard]] FAIRLEAD_HD inline float normal(std::uint32_t radius_word, std::uint32_t angle_word) noexcept {
  float const u = (static_cast<float>(radius_word >> 9U) + 0.5F) * 0x1p-23F;  // exact, in (0, 1)
  float const radius = square_root(-2.0F * log1p(u - 1.0F));
  // Quarter turns by the two upper bits, then an eighth of a turn to either side.
  std::uint32_t const quarter = (angle_word + 0x20000000U) >> 30U;
  float const turn = static_cast<float>(static_cast<std::int32_t>(angle_word - (quarter << 30U)) >> 8) * 0x1p-24F;
  float const y = turn * turn;
  float s = 0x1.4bc85cp+5F;
  s = fused(s, y, -0x1.32ca9ep+6F);
  s = fused(s, y, 0x1.466bbap+6F);
  s = fused(s, y, -0x1.4abbcep+5F);
  s = fused(s, y, 0x1.921fb6p+2F) * turn;
  float c = 0x1.d9c2e8p+5F;
  c = fused(c, y, -0x1.55c57ap+6F);
  c = fused(c, y, 0x1.03c1dcp+6F);
  c = fused(c, y, -0x1.3bd3ccp+4F);
  c = fused(c, y, 1.0F);
  float const cosine = (quarter & 1U) != 0U ? s : c;
  bool const negative = quarter == 1U || quarter == 2U;
  return radius * (negative ? -cosine : cosine);
}

}  // namespace numeric
FAIRLEAD_NAMESPACE_END
