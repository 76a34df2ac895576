// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concepts of something that moves data between ranks: one for each collective.
#include <fairlead/concepts/execution_backend.hpp>

#include <concepts>
#include <span>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief How values of several ranks become one.
enum class reduction { sum, maximum, minimum };

/// @brief A collective that was started.
///
/// `wait()` returns when work submitted afterwards to the backend that started it sees the result (host communicators:
/// when the result is there; stream-ordered ones need `on.wait()` before the host looks). Send buffers must stay
/// untouched until then, and `wait()` returns only when they may be reused. Destroying an operation waits for it.
template <class Pending>
concept pending_operation = std::movable<Pending> && requires(Pending& operation) {
  { operation.wait() } -> std::same_as<void>;
};

/// @brief Knows its place among the ranks.
///
/// A communicator is used by one thread at a time. Every rank starts the same collectives in the same order.
template <class Comm>
concept communicator = has_memory_space<Comm> && requires(Comm& comm) {
  { comm.rank() } -> std::convertible_to<index_t>;
  { comm.size() } -> std::convertible_to<index_t>;
  { comm.barrier() } -> std::same_as<void>;
};

/// @brief `comm.all_to_all_v(on, send, send_offsets, receive, receive_offsets)`: rank r gets elements
/// [send_offsets[r], send_offsets[r + 1]) of `send`, and elements from rank r arrive at receive_offsets[r]. Offsets are
/// in elements, host memory, @shape{ranks + 1}; what r sends to s must be as long as what s expects. Empty messages
/// are legal; 64-bit lengths work.
template <class Comm, class Value, class Backend>
concept has_all_to_all_v =
    communicator<Comm> && requires(Comm& comm, Backend const& on, Value const* send, std::span<index_t const> offsets,
                                   Value* receive) {
      { comm.all_to_all_v(on, send, offsets, receive, offsets) } -> pending_operation;
    };

/// @brief `comm.all_gather(on, send, receive)`: receive @shape{ranks x send.size()}, in rank order.
template <class Comm, class Value, class Backend>
concept has_all_gather =
    communicator<Comm> &&
    requires(Comm& comm, Backend const& on, std::span<Value const> send, std::span<Value> receive) {
      { comm.all_gather(on, send, receive) } -> pending_operation;
    };

/// @brief `comm.all_reduce(on, values, op)` in place. Integers are exact. Floating point sums are the same bits on
/// every rank and in every run with that number of ranks; host communicators add in rank order.
template <class Comm, class Value, class Backend>
concept has_all_reduce =
    communicator<Comm> && requires(Comm& comm, Backend const& on, std::span<Value> values, reduction op) {
      { comm.all_reduce(on, values, op) } -> pending_operation;
    };

/// @brief `comm.reduce_scatter(on, send, receive, op)`: send @shape{ranks x receive.size()}; rank r receives the
/// reduction of everybody's part r, with the rules of `all_reduce`.
template <class Comm, class Value, class Backend>
concept has_reduce_scatter =
    communicator<Comm> && requires(Comm& comm, Backend const& on, std::span<Value const> send, std::span<Value> receive,
                                   reduction op) {
      { comm.reduce_scatter(on, send, receive, op) } -> pending_operation;
    };

/// @brief `comm.broadcast(on, values, root)`: everybody gets the values of rank `root`.
template <class Comm, class Value, class Backend>
concept has_broadcast =
    communicator<Comm> && requires(Comm& comm, Backend const& on, std::span<Value> values, index_t root) {
      { comm.broadcast(on, values, root) } -> pending_operation;
    };

/// @brief `comm.send(on, values, to)` and `comm.receive(on, values, from)`; messages between two ranks arrive in order,
/// and a send may complete only when its receive was started.
template <class Comm, class Value, class Backend>
concept has_point_to_point =
    communicator<Comm> && requires(Comm& comm, Backend const& on, std::span<Value const> out, std::span<Value> in,
                                   index_t peer) {
      { comm.send(on, out, peer) } -> pending_operation;
      { comm.receive(on, in, peer) } -> pending_operation;
    };

/// @brief Opt-in statement: floating point reductions add in rank order, so that equal inputs give equal bits with
/// every communicator that says so.
template <class Comm>
inline constexpr bool reduces_in_rank_order = false;

FAIRLEAD_NAMESPACE_END
