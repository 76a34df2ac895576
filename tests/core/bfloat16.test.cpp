// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/bfloat16.hpp>
#include <fairlead/core/philox.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "support/catch.hpp"

namespace fl = fairlead;

static_assert(static_cast<float>(fl::bfloat16(1.0F)) == 1.0F && fl::bfloat16(1.0F).bits == 0x3F80);
static_assert(fl::bfloat16(-2.5F).bits == 0xC020);
static_assert(fl::bfloat16{}.bits == 0);
static_assert(fl::bfloat16(-0.0F).bits == 0x8000);
static_assert(!std::is_convertible_v<float, fl::bfloat16>, "losing bits must be asked for");
static_assert(std::is_convertible_v<fl::bfloat16, float>);
static_assert(fl::bfloat16(std::bit_cast<float>(0x3F808000U)).bits == 0x3F80, "tie to even: down");
static_assert(fl::bfloat16(std::bit_cast<float>(0x3F818000U)).bits == 0x3F82, "tie to even: up");
static_assert(fl::bfloat16(std::bit_cast<float>(0x3F808001U)).bits == 0x3F81);
static_assert(fl::bfloat16(std::numeric_limits<float>::max()).bits == 0x7F80, "beyond the largest: infinity");

namespace {

fl::bfloat16 pattern(std::uint32_t bits) {
  fl::bfloat16 value;
  value.bits = static_cast<std::uint16_t>(bits);
  return value;
}

// Value of a finite pattern in exact arithmetic; exponent 255 counts as the number after the largest one.
double exact(std::uint32_t magnitude) {
  auto const exponent = static_cast<int>(magnitude >> 7U);
  auto const fraction = static_cast<double>(magnitude & 0x7FU);
  return exponent == 0 ? std::ldexp(fraction, -133) : std::ldexp(128.0 + fraction, exponent - 134);
}

// Nearest pattern by comparing distances in double precision, where every candidate and midpoint is exact.
std::uint16_t nearest(float value) {
  double const size = std::abs(static_cast<double>(value));
  std::uint32_t low = 0, high = 0x7F80;
  while (high - low > 1) {
    std::uint32_t const middle = (low + high) / 2;
    (exact(middle) <= size ? low : high) = middle;
  }
  double const below = size - exact(low), above = exact(high) - size;
  std::uint32_t const chosen = below != above ? (below < above ? low : high) : (low % 2 == 0 ? low : high);
  return static_cast<std::uint16_t>(chosen | (std::signbit(value) ? 0x8000U : 0U));
}

}  // namespace

TEST_CASE("every bfloat16 pattern survives the way through fp32", "[core][bfloat16]") {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    float const value = pattern(bits);
    if (std::isnan(value)) {
      // NaN stays NaN, with its sign; a signalling one becomes quiet.
      std::uint16_t const back = fl::bfloat16(value).bits;
      wrong += (back | 0x40U) == (bits | 0x40U) && std::isnan(static_cast<float>(pattern(back))) ? 0 : 1;
    } else {
      wrong += fl::bfloat16(value).bits == bits ? 0 : 1;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("every bfloat16 pattern means what the format says", "[core][bfloat16]") {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x7F80; ++bits) {
    wrong += static_cast<double>(static_cast<float>(pattern(bits))) == exact(bits) ? 0 : 1;
    wrong += static_cast<double>(static_cast<float>(pattern(bits | 0x8000U))) == -exact(bits) ? 0 : 1;
  }
  CHECK(wrong == 0);
  CHECK(static_cast<float>(pattern(0x7F80)) == std::numeric_limits<float>::infinity());
}

TEST_CASE("bfloat16 rounds to nearest even like an oracle in double precision", "[core][bfloat16]") {
  int wrong = 0;
  for (std::uint64_t i = 0; i < 200000; ++i) {
    std::uint32_t bits = fl::philox::draw(2, 1, i)[0];
    if (i % 3 == 1) { bits = (bits & 0xFFFF0000U) | 0x8000U; }                              // ties
    if (i % 3 == 2) { bits = (bits & 0xFFFF0000U) | (0x7FFFU + 2U * (bits & 1U)); }         // next to ties
    auto const value = std::bit_cast<float>(bits);
    if (std::isnan(value) || std::isinf(value)) { continue; }
    wrong += fl::bfloat16(value).bits == nearest(value) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("every NaN of fp32 stays a NaN in bfloat16", "[core][bfloat16]") {
  for (std::uint32_t const payload : {1U, 0x7FFFU, 0x8000U, 0xFFFFU, 0x3FFFFFU, 0x400000U, 0x7FFFFFU}) {
    for (std::uint32_t const sign : {0U, 0x80000000U}) {
      auto const value = std::bit_cast<float>(sign | 0x7F800000U | payload);
      fl::bfloat16 const stored(value);
      CHECK(std::isnan(static_cast<float>(stored)));
      CHECK((stored.bits >> 15U) == (sign >> 31U));
    }
  }
  CHECK(fl::bfloat16(-std::numeric_limits<float>::infinity()).bits == 0xFF80);
}
