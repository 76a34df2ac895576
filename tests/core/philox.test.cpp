// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/philox.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using words = std::array<std::uint32_t, 4>;

// Known answers of Random123 1.14, file kat_vectors, philox4x32 with 10 rounds.
static_assert(fl::philox::block({0, 0, 0, 0}, {0, 0}) == words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
static_assert(fl::philox::block({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
              words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
static_assert(fl::philox::block({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
              words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});

// draw() puts the index in the lower counter half, the stream in the upper one, the seed in the key.
static_assert(fl::philox::draw(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88) ==
              words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});

static_assert(fl::philox::to_uniform(0) == 0x1p-24F);
static_assert(fl::philox::to_uniform(0xFFFFFFFF) == 1.0F - 0x1p-24F);
static_assert(fl::philox::to_uniform(0x80000000) > 0.5F && fl::philox::to_uniform(0x7FFFFFFF) < 0.5F);
static_assert(fl::philox::below(0xFFFFFFFF, 7) == 6 && fl::philox::below(0, 7) == 0 && fl::philox::below(123, 1) == 0);

namespace {

// A second text of one round, as the paper writes it, iterated with a bumped key.
words reference_block(words counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    auto const product = [](std::uint64_t a, std::uint64_t b) { return a * b; };
    std::uint64_t const left = product(0xD2511F53, counter[0]);
    std::uint64_t const right = product(0xCD9E8D57, counter[2]);
    counter = {static_cast<std::uint32_t>(right >> 32U) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(right),
               static_cast<std::uint32_t>(left >> 32U) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(left)};
    key = {key[0] + 0x9E3779B9U, key[1] + 0xBB67AE85U};
  }
  return counter;
}

}  // namespace

TEST_CASE("philox equals a second text of the paper at many counters", "[core][philox]") {
  words counter{1, 2, 3, 4};
  for (int i = 0; i < 1000; ++i) {
    std::array<std::uint32_t, 2> const key{counter[3] * 7U, counter[1] ^ 0xABCDU};
    words const next = fl::philox::block(counter, key);
    REQUIRE(next == reference_block(counter, key));
    counter = next;
  }
}

TEST_CASE("philox gives each seed, stream and index its own words", "[core][philox]") {
  std::set<words> seen;
  std::size_t draws = 0;
  for (std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 32U, std::uint64_t{1} << 63U}) {
    for (std::uint64_t stream : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 32U, std::uint64_t{1} << 63U}) {
      for (std::uint64_t index = 0; index < 64; ++index) {
        seen.insert(fl::philox::draw(seed, stream, index));
        seen.insert(fl::philox::draw(seed, stream, index << 32U | 0xF0000000U));
        draws += 2;
      }
    }
  }
  CHECK(seen.size() == draws);
}

TEST_CASE("uniform numbers fill (0, 1) evenly", "[core][philox]") {
  constexpr int draws = 1 << 16;
  constexpr int bins = 64;
  std::array<int, bins> counts{};
  double sum = 0.0;
  double lag = 0.0;
  float previous = 0.5F;
  for (std::uint64_t i = 0; i < draws; ++i) {
    float const number = fl::philox::uniform(17, 3, i);
    REQUIRE(number > 0.0F);
    REQUIRE(number < 1.0F);
    ++counts[static_cast<std::size_t>(number * bins)];
    sum += static_cast<double>(number);
    lag += (static_cast<double>(number) - 0.5) * (static_cast<double>(previous) - 0.5);
    previous = number;
  }
  double chi_square = 0.0;
  for (int const count : counts) {
    double const off = count - static_cast<double>(draws) / bins;
    chi_square += off * off / (static_cast<double>(draws) / bins);
  }
  // 63 degrees of freedom: below 110 with probability 0.9998; the draw is fixed, so this never flickers.
  CHECK(chi_square < 110.0);
  CHECK(std::abs(sum / draws - 0.5) < 5.0 * std::sqrt(1.0 / 12.0 / draws));
  CHECK(std::abs(lag / draws) < 5.0 / 12.0 / std::sqrt(static_cast<double>(draws)));
}

TEST_CASE("normal numbers have the moments of the normal distribution", "[core][philox]") {
  constexpr int draws = 1 << 16;
  double sum = 0.0, squares = 0.0, fourth = 0.0;
  int beyond_two = 0;
  for (std::uint64_t i = 0; i < draws; ++i) {
    double const number = fl::philox::normal(5, 9, i);
    REQUIRE(std::isfinite(number));
    sum += number;
    squares += number * number;
    fourth += number * number * number * number;
    beyond_two += std::abs(number) > 2.0 ? 1 : 0;
  }
  double const error = 5.0 / std::sqrt(static_cast<double>(draws));
  CHECK(std::abs(sum / draws) < error);
  CHECK(std::abs(squares / draws - 1.0) < error * std::sqrt(2.0));
  CHECK(std::abs(fourth / draws - 3.0) < error * std::sqrt(96.0));
  CHECK(std::abs(static_cast<double>(beyond_two) / draws - 0.0455) < 0.005);
}

TEST_CASE("bounded draws are even and inside the bound", "[core][philox]") {
  for (std::uint32_t const bound : {1U, 2U, 3U, 10U, 1000U}) {
    std::vector<int> counts(bound, 0);
    constexpr std::uint64_t draws = 20000;
    for (std::uint64_t i = 0; i < draws; ++i) {
      std::uint32_t const number = fl::philox::below(fl::philox::draw(1, bound, i)[1], bound);
      REQUIRE(number < bound);
      ++counts[number];
    }
    double const mean = static_cast<double>(draws) / bound;
    for (int const count : counts) { CHECK(std::abs(count - mean) < 6.0 * std::sqrt(mean) + 1.0); }
  }
}
