// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The communicator of a program that has one rank.
#include <fairlead/comm/detail/host_memory_only.hpp>
#include <fairlead/comm/detail/reduce.hpp>

#include <cstring>
#include <span>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Be the only rank: collectives are local copies, without threads and without state.
///
/// For single-rank programs and microbenchmarks; host memory only. There is no other rank to send to: `send` and
/// `receive` exist so that code which loops over its peers compiles, and throw if they are called.
struct alone : private detail::host_memory_only {
  using memory_space = host_space;  ///< moves host memory

  /// @brief An operation that was complete when it started.
  struct finished {
    /// @brief Nothing to wait for.
    void wait() noexcept {}
  };

  /// @returns 0
  [[nodiscard]] constexpr index_t rank() const noexcept { return 0; }
  /// @returns 1
  [[nodiscard]] constexpr index_t size() const noexcept { return 1; }
  /// @brief Nobody to wait for.
  void barrier() const noexcept {}

  using detail::host_memory_only::all_gather;
  using detail::host_memory_only::all_reduce;
  using detail::host_memory_only::all_to_all_v;
  using detail::host_memory_only::broadcast;
  using detail::host_memory_only::receive;
  using detail::host_memory_only::reduce_scatter;
  using detail::host_memory_only::send;

  /// @brief Copy the one message.
  /// @param on backend of host memory
  /// @param send elements
  /// @param send_offsets @shape{2}
  /// @param[out] receive elements
  /// @param receive_offsets @shape{2}, as far apart as `send_offsets`
  /// @returns a finished operation
  /// @throws contract_violation (level 1) on offsets that do not fit
  template <host_backend Backend, class Value>
  finished all_to_all_v([[maybe_unused]] Backend const& on, Value const* send, std::span<index_t const> send_offsets,
                        Value* receive, std::span<index_t const> receive_offsets) const {
    detail::expect_offsets(send_offsets, 1, send);
    detail::expect_offsets(receive_offsets, 1, receive);
    index_t const count = send_offsets[1] - send_offsets[0];
    FAIRLEAD_EXPECTS(count == receive_offsets[1] - receive_offsets[0],
                     "what a rank sends must be as long as what the receiver expects", count,
                     receive_offsets[1] - receive_offsets[0]);
    if (count > 0) {
      std::memcpy(receive + receive_offsets[0], send + send_offsets[0], static_cast<std::size_t>(count) * sizeof(Value));
    }
    return {};
  }
  /// @brief Copy `send` to `receive`.
  /// @param on backend of host memory
  /// @param send elements
  /// @param[out] receive as many elements; may be the same memory
  /// @returns a finished operation
  template <host_backend Backend, class Value>
  finished all_gather([[maybe_unused]] Backend const& on, std::type_identity_t<std::span<Value const>> send,
                      std::span<Value> receive) const {
    FAIRLEAD_EXPECTS(send.size() == receive.size(), "receive must hold ranks x send.size() elements", send.size(),
                     receive.size());
    if (!send.empty()) { std::memmove(receive.data(), send.data(), send.size_bytes()); }
    return {};
  }
  /// @brief Leave the values as they are: they are the reduction over one rank.
  /// @returns a finished operation
  template <host_backend Backend, detail::reducible Value>
  finished all_reduce([[maybe_unused]] Backend const& on, std::span<Value>, reduction) const noexcept {
    return {};
  }
  /// @brief Copy `send` to `receive`.
  /// @param on backend of host memory
  /// @param send elements
  /// @param[out] receive as many elements
  /// @returns a finished operation
  template <host_backend Backend, detail::reducible Value>
  finished reduce_scatter(Backend const& on, std::type_identity_t<std::span<Value const>> send,
                          std::span<Value> receive, reduction) const {
    return all_gather(on, send, receive);
  }
  /// @brief Leave the values as they are.
  /// @param on backend of host memory
  /// @param root 0
  /// @returns a finished operation
  template <host_backend Backend, class Value>
  finished broadcast([[maybe_unused]] Backend const& on, std::span<Value>, index_t root) const {
    FAIRLEAD_EXPECTS(root == 0, "the only rank is rank 0", root);
    return {};
  }
  /// @brief Refuse: there is no other rank.
  /// @param on backend of host memory
  /// @param to the other rank
  /// @throws contract_violation (level 1)
  template <host_backend Backend, class Value>
  finished send([[maybe_unused]] Backend const& on, std::span<Value>, [[maybe_unused]] index_t to) const {
    FAIRLEAD_EXPECTS(false, "a single rank has nobody to send to", to);
    return {};
  }
  /// @brief Refuse: there is no other rank.
  /// @param on backend of host memory
  /// @param from the other rank
  /// @throws contract_violation (level 1)
  template <host_backend Backend, class Value>
  finished receive([[maybe_unused]] Backend const& on, std::span<Value>, [[maybe_unused]] index_t from) const {
    FAIRLEAD_EXPECTS(false, "a single rank has nobody to receive from", from);
    return {};
  }
};
static_assert(communicator<alone>);

/// One rank adds in any order.
template <>
inline constexpr bool reduces_in_rank_order<alone> = true;

FAIRLEAD_NAMESPACE_END
