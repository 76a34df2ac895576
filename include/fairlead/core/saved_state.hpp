// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Write a state (bias, duals, averages) to bytes and read it back, array by array.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {
struct array_probe {
  template <class Value>
  void operator()(std::span<Value>) const noexcept {}
};
}  // namespace detail

/// @brief A state that names its arrays: `State::each_array(state, f)` calls `f(std::span)` for each of them, in an order
/// that is part of its format. Spans are of const values if `state` is const.
template <class State>
concept has_state_arrays = requires(State& state, State const& fixed, detail::array_probe f) {
  State::each_array(state, f);
  State::each_array(fixed, f);
};

namespace detail {
// Counts, writes, compares and reads share one walk, so that they cannot disagree about the format: each array is its
// length in bytes (64 bits), then its bytes.
struct count_arrays {
  std::size_t bytes = 0;
  template <class Value>
  void operator()(std::span<Value const> values) {
    static_assert(std::is_trivially_copyable_v<Value>, "a state is saved byte by byte: give arrays of plain values");
    bytes += sizeof(std::uint64_t) + values.size_bytes();
  }
};
struct write_arrays {
  std::byte* to;
  template <class Value>
  void operator()(std::span<Value const> values) {
    std::uint64_t const bytes = values.size_bytes();
    std::memcpy(to, &bytes, sizeof bytes);
    if (bytes != 0) { std::memcpy(to + sizeof bytes, values.data(), bytes); }
    to += sizeof bytes + bytes;
  }
};
struct compare_arrays {
  std::byte const* from;
  template <class Value>
  void operator()(std::span<Value const> values) {
    std::uint64_t bytes = 0;
    std::memcpy(&bytes, from, sizeof bytes);
    FAIRLEAD_EXPECTS(bytes == values.size_bytes(), "the saved state has arrays of other lengths: was it made for as many experts?",
                     bytes, values.size_bytes());
    from += sizeof bytes + bytes;
  }
};
struct read_arrays {
  std::byte const* from;
  template <class Value>
  void operator()(std::span<Value> values) {
    if (!values.empty()) { std::memcpy(values.data(), from + sizeof(std::uint64_t), values.size_bytes()); }
    from += sizeof(std::uint64_t) + values.size_bytes();
  }
};
}  // namespace detail

/// @brief How many bytes `save_state` writes.
/// @tparam State names its arrays
/// @param state the state
/// @returns bytes
/// @complexity O(arrays), no allocation
template <has_state_arrays State>
[[nodiscard]] std::size_t saved_bytes(State const& state) {
  detail::count_arrays counter;
  State::each_array(state, counter);
  return counter.bytes;
}
/// @brief Write a state to bytes: for each array its length in bytes (64 bits), then its bytes, in this machine's order.
/// @tparam State names its arrays
/// @param state the state
/// @param[out] to @shape{saved_bytes(state)}
/// @throws contract_violation (level 1) on a wrong size
/// @complexity O(bytes), no allocation
template <has_state_arrays State>
void save_state(State const& state, std::span<std::byte> to) {
  FAIRLEAD_EXPECTS(to.size() == saved_bytes(state), "give saved_bytes(state) bytes", to.size(), saved_bytes(state));
  State::each_array(state, detail::write_arrays{to.data()});
}
/// @brief Read back what `save_state` wrote, into a state made for the same sizes.
///
/// What comes next is then the same, bit for bit, as if the state had never left.
/// @tparam State names its arrays
/// @param[in,out] state what `make_state` returned; untouched if this throws
/// @param from what was saved. @shape{saved_bytes(state)}
/// @throws contract_violation (level 1) if the sizes differ
/// @complexity O(bytes), no allocation
template <has_state_arrays State>
void load_state(State& state, std::span<std::byte const> from) {
  FAIRLEAD_EXPECTS(from.size() == saved_bytes(state), "the saved state has another size: was it made for as many experts?",
                   from.size(), saved_bytes(state));
  State::each_array(static_cast<State const&>(state), detail::compare_arrays{from.data()});
  State::each_array(state, detail::read_arrays{from.data()});
}

FAIRLEAD_NAMESPACE_END
