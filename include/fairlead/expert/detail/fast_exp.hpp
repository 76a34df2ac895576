// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief An fp32 exponential that compilers vectorise.
#include <fairlead/core/config.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// @brief x bounded to [-limit, limit]; NaN becomes a limit in fp32 on the host.
template <class Value>
[[nodiscard]] FAIRLEAD_HD inline Value bound_magnitude(Value x, Value limit) noexcept {
#if !defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<Value, float>) {
    // As integers: a comparison of floats with a constant becomes a branch, because the compiler sees that what
    // follows is constant on that path; and a branch stops vectorisation.
    std::int32_t const bits = std::bit_cast<std::int32_t>(x);
    std::int32_t const magnitude = std::min(bits & 0x7FFFFFFF, std::bit_cast<std::int32_t>(limit));
    return std::bit_cast<float>(magnitude | (bits & ~0x7FFFFFFF));
  }
#endif
  Value const upper = x > limit ? limit : x;
  return upper < -limit ? -limit : upper;
}

/// @brief |x|, by clearing the sign.
[[nodiscard]] FAIRLEAD_HD inline float magnitude(float x) noexcept {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFU);
}

/// @brief |x|, at most `limit`; NaN becomes the limit on the host.
[[nodiscard]] FAIRLEAD_HD inline float bounded_magnitude(float x, float limit) noexcept {
#if defined(__CUDA_ARCH__)
  return fminf(fabsf(x), limit);
#else
  return std::bit_cast<float>(std::min(std::bit_cast<std::int32_t>(x) & 0x7FFFFFFF, std::bit_cast<std::int32_t>(limit)));
#endif
}

/// @brief x >= 0 with the sign of another number.
[[nodiscard]] FAIRLEAD_HD inline float with_sign_of(float x, float sign) noexcept {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) ^ (std::bit_cast<std::uint32_t>(sign) & 0x80000000U));
}

/// @brief e^x: within 2 ulp in fp32 on the host, the library's function otherwise.
///
/// Below -87.7 it gives 0, above 88 it saturates at e^88: activations need neither subnormals nor infinity. NaN
/// gives some number: activations multiply by x itself. Unlike `numeric::exp` it asks for no fused multiply-add, so that it is fast on every target; its last bit may
/// differ between targets.
template <class Value>
[[nodiscard]] FAIRLEAD_HD inline Value fast_exp(Value x) noexcept {
#if !defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<Value, float>) {
    float const bounded = bound_magnitude(x, 88.0F);
    // Adding 1.5 * 2^23 rounds to an integer in the low mantissa bits; no rounding instruction is needed, so that the
    // loop vectorises on every target.
    std::int32_t const n =
        std::bit_cast<std::int32_t>(bounded * 1.44269504089F + 12582912.0F) - std::bit_cast<std::int32_t>(12582912.0F);
    float const k = static_cast<float>(n);
    // ln 2 in two parts: the first has trailing zeros, so that k times it is exact.
    float const r = (bounded - k * 0.693359375F) + k * 2.12194440e-4F;
    float p = 0.0013941108434F;
    p = p * r + 0.00837512639815F;
    p = p * r + 0.0416663528968F;
    p = p * r + 0.166664155147F;
    p = p * r + 0.500000004712F;
    p = p * r + 1.0F;
    p = p * r + 1.0F;
    // At the lower bound n is -127 and the factor is 0: no selection is needed, which would become a branch.
    return p * std::bit_cast<float>((n + 127) << 23);
  }
#endif
  using std::exp;
  return exp(x);
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
