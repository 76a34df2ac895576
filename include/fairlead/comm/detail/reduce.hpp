// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Elementwise reductions over ranks in rank order: the one text behind every host communicator.
#include <fairlead/concepts/communicator.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Element types of reductions, as a value: operations in flight are stored without their type.
enum class reduced_type { i8, u8, i16, u16, i32, u32, i64, u64, f32, f64 };

template <class Value>
concept reducible = (std::integral<Value> && !std::same_as<Value, bool> && sizeof(Value) <= 8) ||
                    std::same_as<Value, float> || std::same_as<Value, double>;

template <reducible Value>
[[nodiscard]] constexpr reduced_type reduced_type_of() noexcept {
  if constexpr (std::same_as<Value, float>) {
    return reduced_type::f32;
  } else if constexpr (std::same_as<Value, double>) {
    return reduced_type::f64;
  } else {
    constexpr int width = sizeof(Value) == 1 ? 0 : sizeof(Value) == 2 ? 2 : sizeof(Value) == 4 ? 4 : 6;
    return static_cast<reduced_type>(width + (std::is_signed_v<Value> ? 0 : 1));
  }
}
static_assert(reduced_type_of<std::int8_t>() == reduced_type::i8 &&
              reduced_type_of<std::uint16_t>() == reduced_type::u16 &&
              reduced_type_of<std::int32_t>() == reduced_type::i32 &&
              reduced_type_of<std::uint64_t>() == reduced_type::u64);

struct add_numbers {
  template <class Value>
  [[nodiscard]] Value operator()(Value a, Value b) const noexcept {
    if constexpr (std::integral<Value>) {  // wraps, like every communicator does
      using bits = std::uint64_t;
      return static_cast<Value>(static_cast<bits>(a) + static_cast<bits>(b));
    } else {
      return a + b;
    }
  }
};
// A NaN on any rank is the result: a maximum that hides one would hide a diverged model.
struct larger_number {
  template <class Value>
  [[nodiscard]] Value operator()(Value a, Value b) const noexcept {
    if constexpr (std::floating_point<Value>) { return (a < b || b != b) && a == a ? b : a; }
    return a < b ? b : a;
  }
};
struct smaller_number {
  template <class Value>
  [[nodiscard]] Value operator()(Value a, Value b) const noexcept {
    if constexpr (std::floating_point<Value>) { return (b < a || b != b) && a == a ? b : a; }
    return b < a ? b : a;
  }
};

// Bytes are read with memcpy: the element type may be another one of the same width (long and long long).
template <class Value, class Combine>
void reduce_into(Value* sum, std::byte const* from, index_t count, Combine combine) noexcept {
  for (index_t i = 0; i < count; ++i) {
    Value value;
    std::memcpy(&value, from + static_cast<std::size_t>(i) * sizeof(Value), sizeof(Value));
    sum[i] = combine(sum[i], value);
  }
}

// `out` may be one of the sources: a block is summed aside before it is written.
template <class Value, class Source>
void reduce_as(reduction op, index_t ranks, Source const& source, std::byte* out, index_t count) noexcept {
  constexpr index_t block = 4096 / static_cast<index_t>(sizeof(Value));
  std::array<Value, static_cast<std::size_t>(block)> sum;
  for (index_t first = 0; first < count; first += block) {
    index_t const length = std::min(block, count - first);
    std::size_t const at = static_cast<std::size_t>(first) * sizeof(Value);
    std::size_t const bytes = static_cast<std::size_t>(length) * sizeof(Value);
    std::memcpy(sum.data(), source(0) + at, bytes);
    for (index_t rank = 1; rank < ranks; ++rank) {
      std::byte const* const from = source(rank) + at;
      switch (op) {
        case reduction::sum: reduce_into(sum.data(), from, length, add_numbers{}); break;
        case reduction::maximum: reduce_into(sum.data(), from, length, larger_number{}); break;
        case reduction::minimum: reduce_into(sum.data(), from, length, smaller_number{}); break;
      }
    }
    std::memcpy(out + at, sum.data(), bytes);
  }
}

/// `out[i] = source(0)[i] op source(1)[i] op ...`, evaluated from left to right.
template <class Source>
void reduce_in_rank_order(reduced_type type, reduction op, index_t ranks, Source const& source, std::byte* out,
                          index_t count) noexcept {
  switch (type) {
    case reduced_type::i8: return reduce_as<std::int8_t>(op, ranks, source, out, count);
    case reduced_type::u8: return reduce_as<std::uint8_t>(op, ranks, source, out, count);
    case reduced_type::i16: return reduce_as<std::int16_t>(op, ranks, source, out, count);
    case reduced_type::u16: return reduce_as<std::uint16_t>(op, ranks, source, out, count);
    case reduced_type::i32: return reduce_as<std::int32_t>(op, ranks, source, out, count);
    case reduced_type::u32: return reduce_as<std::uint32_t>(op, ranks, source, out, count);
    case reduced_type::i64: return reduce_as<std::int64_t>(op, ranks, source, out, count);
    case reduced_type::u64: return reduce_as<std::uint64_t>(op, ranks, source, out, count);
    case reduced_type::f32: return reduce_as<float>(op, ranks, source, out, count);
    case reduced_type::f64: return reduce_as<double>(op, ranks, source, out, count);
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
