// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/order.hpp>
#include <fairlead/core/philox.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

// Golden values of the total order: key descending, id ascending.
static_assert(fl::packed_key(1.0F, 3) == 0x0000BF800000FFFCULL);
static_assert(fl::packed_key(-1.0F, 3) == 0x0000407FFFFFFFFCULL);
static_assert(fl::packed_key(-infinity, 5) == 0x0000007FFFFFFFFAULL);
static_assert(fl::ordered_bits(not_a_number) == 0 && fl::ordered_bits(-not_a_number) == 0);
static_assert(fl::ordered_bits(-0.0F) == fl::ordered_bits(0.0F));
static_assert(fl::ordered_bits(infinity) == 0xFF800000U);
static_assert(fl::packed_key(-0.0F, 2) < fl::packed_key(0.0F, 1) && fl::packed_key(0.0F, 2) < fl::packed_key(-0.0F, 1));
static_assert(fl::packed_id(fl::packed_key(0.5F, 0)) == 0 && fl::packed_id(fl::packed_key(not_a_number, 65535)) == 65535);
static_assert(fl::is_candidate(infinity) && fl::is_candidate(-3.0e38F) && !fl::is_candidate(-infinity) &&
              !fl::is_candidate(not_a_number));

// The order in words: numbers before NaN, larger numbers first, zeros equal, then the smaller id.
bool said_in_words(float a, std::int32_t id_a, float b, std::int32_t id_b) {
  if (std::isnan(a) != std::isnan(b)) { return std::isnan(b); }
  if (!std::isnan(a) && a != b) { return a > b; }
  return id_a < id_b;
}

std::vector<float> awkward_keys() {
  std::vector<float> keys{0.0F,
                          -0.0F,
                          1.0F,
                          -1.0F,
                          infinity,
                          -infinity,
                          not_a_number,
                          -not_a_number,
                          std::bit_cast<float>(0x7F800001U),
                          std::bit_cast<float>(0xFFFFFFFFU),
                          std::numeric_limits<float>::max(),
                          std::numeric_limits<float>::lowest(),
                          std::numeric_limits<float>::min(),
                          -std::numeric_limits<float>::min(),
                          std::numeric_limits<float>::denorm_min(),
                          -std::numeric_limits<float>::denorm_min(),
                          std::nextafter(1.0F, 2.0F)};
  for (std::uint64_t i = 0; i < 40; ++i) { keys.push_back(std::bit_cast<float>(fl::philox::draw(3, 0, i)[0])); }
  return keys;
}

}  // namespace

TEST_CASE("packed keys, comes_before and the order in words agree", "[core][order]") {
  auto const keys = awkward_keys();
  for (float const a : keys) {
    for (float const b : keys) {
      for (std::int32_t const id_a : {0, 1, 511, 65535}) {
        for (std::int32_t const id_b : {0, 1, 511, 65535}) {
          bool const expected = said_in_words(a, id_a, b, id_b);
          REQUIRE(fl::comes_before(a, id_a, b, id_b) == expected);
          REQUIRE((fl::packed_key(a, id_a) > fl::packed_key(b, id_b)) == expected);
        }
      }
    }
  }
}

TEST_CASE("the order of all fp32 exponents is monotone", "[core][order]") {
  // Walk the positive and negative patterns in steps that touch every exponent.
  std::uint32_t previous = fl::ordered_bits(0.0F);
  int wrong = 0;
  for (std::uint32_t bits = 0x1000U; bits <= 0x7F800000U; bits += 0x1000U) {
    std::uint32_t const now = fl::ordered_bits(std::bit_cast<float>(bits));
    std::uint32_t const mirrored = fl::ordered_bits(std::bit_cast<float>(bits | 0x80000000U));
    wrong += now > previous && mirrored < fl::ordered_bits(0.0F) && mirrored > fl::ordered_bits(not_a_number) ? 0 : 1;
    previous = now;
  }
  CHECK(wrong == 0);
}

TEST_CASE("sorting by packed keys equals a stable sort by key", "[core][order]") {
  std::vector<float> const keys = awkward_keys();
  std::vector<std::int32_t> expected(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) { expected[i] = static_cast<std::int32_t>(i); }
  // Insertion sort: stable, and plain enough to be an oracle.
  for (std::size_t i = 1; i < expected.size(); ++i) {
    for (std::size_t j = i; j > 0; --j) {
      float const left = keys[static_cast<std::size_t>(expected[j - 1])];
      float const right = keys[static_cast<std::size_t>(expected[j])];
      if (!(std::isnan(left) ? !std::isnan(right) : right > left)) { break; }
      std::swap(expected[j - 1], expected[j]);
    }
  }
  std::vector<std::uint64_t> packed;
  for (std::size_t i = 0; i < keys.size(); ++i) { packed.push_back(fl::packed_key(keys[i], static_cast<std::int32_t>(i))); }
  std::sort(packed.rbegin(), packed.rend());
  for (std::size_t i = 0; i < keys.size(); ++i) { CHECK(fl::packed_id(packed[i]) == expected[i]); }
}
