// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Names of the collectives, and how much each moves: what counters, traces and delays share.
#include <fairlead/concepts/communicator.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The operations of a communicator.
enum class collective { all_to_all_v, all_gather, all_reduce, reduce_scatter, broadcast, send, receive, barrier };

/// Number of enumerators of `collective`.
inline constexpr index_t collectives = 8;

/// @brief Name a collective.
/// @param kind the collective
/// @returns its identifier
[[nodiscard]] constexpr char const* name_of(collective kind) noexcept {
  switch (kind) {
    case collective::all_to_all_v: return "all_to_all_v";
    case collective::all_gather: return "all_gather";
    case collective::all_reduce: return "all_reduce";
    case collective::reduce_scatter: return "reduce_scatter";
    case collective::broadcast: return "broadcast";
    case collective::send: return "send";
    case collective::receive: return "receive";
    case collective::barrier: return "barrier";
  }
  return "?";
}

/// @brief Bytes and messages between one rank and the other ranks; what a rank sends to itself is not traffic.
///
/// The numbers are those of the direct algorithm (every pair of ranks exchanges what it must, reductions are a
/// reduce-scatter followed by an all-gather), whatever the communicator below does: they compare algorithms, not
/// communicators. Empty messages do not count.
struct traffic {
  index_t messages_out = 0;  ///< messages that leave this rank
  index_t bytes_out = 0;     ///< bytes that leave this rank @unit{bytes}
  index_t messages_in = 0;   ///< messages that arrive
  index_t bytes_in = 0;      ///< bytes that arrive @unit{bytes}

  /// @brief Add a message that leaves.
  /// @param bytes its size
  constexpr void out(index_t bytes) noexcept {
    messages_out += bytes > 0 ? 1 : 0;
    bytes_out += bytes;
  }
  /// @brief Add a message that arrives.
  /// @param bytes its size
  constexpr void in(index_t bytes) noexcept {
    messages_in += bytes > 0 ? 1 : 0;
    bytes_in += bytes;
  }
  /// @brief Add other traffic.
  constexpr traffic& operator+=(traffic const& other) noexcept {
    messages_out += other.messages_out;
    bytes_out += other.bytes_out;
    messages_in += other.messages_in;
    bytes_in += other.bytes_in;
    return *this;
  }
  /// Equal in all numbers.
  friend constexpr bool operator==(traffic const&, traffic const&) noexcept = default;
};

/// @brief First element of a rank's part when `count` elements are cut into `ranks` nearly equal parts.
/// @param count number of elements, >= 0
/// @param ranks number of parts, >= 1
/// @param rank part number in [0, ranks]; `ranks` gives the end
/// @returns element number; parts differ by at most one element, longer ones first
/// @complexity O(1)
[[nodiscard]] constexpr index_t part_begin(index_t count, index_t ranks, index_t rank) noexcept {
  return count / ranks * rank + std::min(rank, count % ranks);
}

/// @brief Traffic of an all_to_all_v.
/// @param rank this rank
/// @param element_bytes size of an element @unit{bytes}
/// @param send_offsets @shape{ranks + 1}
/// @param receive_offsets @shape{ranks + 1}
/// @returns what this rank exchanges
/// @complexity O(ranks), no allocation
[[nodiscard]] constexpr traffic traffic_of_all_to_all(index_t rank, index_t element_bytes,
                                                      std::span<index_t const> send_offsets,
                                                      std::span<index_t const> receive_offsets) noexcept {
  traffic sum;
  for (std::size_t peer = 0; peer + 1 < send_offsets.size(); ++peer) {
    if (static_cast<index_t>(peer) == rank) { continue; }
    sum.out((send_offsets[peer + 1] - send_offsets[peer]) * element_bytes);
    sum.in((receive_offsets[peer + 1] - receive_offsets[peer]) * element_bytes);
  }
  return sum;
}

/// @brief Traffic of a collective other than all_to_all_v.
/// @param kind which
/// @param rank this rank
/// @param ranks number of ranks
/// @param count elements: all_gather `send`, all_reduce and broadcast `values`, reduce_scatter `receive`, send, receive
/// @param element_bytes size of an element @unit{bytes}
/// @param peer root of a broadcast, other side of send and receive
/// @returns what this rank exchanges
/// @complexity O(ranks), no allocation
[[nodiscard]] constexpr traffic traffic_of(collective kind, index_t rank, index_t ranks, index_t count,
                                           index_t element_bytes, index_t peer = 0) noexcept {
  traffic sum;
  index_t const bytes = count * element_bytes;
  for (index_t other = 0; other < ranks; ++other) {
    if (other == rank) { continue; }
    switch (kind) {
      case collective::all_gather:
      case collective::reduce_scatter:
        sum.out(bytes);
        sum.in(bytes);
        break;
      case collective::all_reduce: {
        index_t const mine = part_begin(count, ranks, rank + 1) - part_begin(count, ranks, rank);
        index_t const theirs = part_begin(count, ranks, other + 1) - part_begin(count, ranks, other);
        sum.out(theirs * element_bytes);  // to its owner, to be added
        sum.in(theirs * element_bytes);   // the sum, from its owner
        sum.out(mine * element_bytes);
        sum.in(mine * element_bytes);
        break;
      }
      case collective::broadcast:
        if (rank == peer) { sum.out(bytes); }
        if (other == peer) { sum.in(bytes); }
        break;
      case collective::send:
        if (other == peer) { sum.out(bytes); }
        break;
      case collective::receive:
        if (other == peer) { sum.in(bytes); }
        break;
      case collective::all_to_all_v:
      case collective::barrier: break;
    }
  }
  return sum;
}

FAIRLEAD_NAMESPACE_END
