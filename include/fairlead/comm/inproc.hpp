// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Run ranks as threads of this process, and the communicator between them.
#include <fairlead/comm/detail/host_memory_only.hpp>
#include <fairlead/comm/detail/inproc_operation.hpp>

#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace inproc {

class world;

/// @brief The place of one rank thread in a world: a handle, cheap to copy, valid inside `world::run`.
///
/// Starting an operation posts pointers; waiting copies straight from the peers' buffers, one `memcpy` a message.
/// Nothing allocates. Reductions add in rank order. Every rank starts the same collectives in the same order; at
/// contract level 1 each operation's lengths, types, reductions and roots are compared (O(ranks)), and a misfit throws
/// on all ranks.
class communicator : private detail::host_memory_only {
 public:
  using memory_space = host_space;  ///< moves host memory

  /// @returns the number of this rank
  [[nodiscard]] index_t rank() const noexcept { return rank_; }
  /// @returns the number of ranks
  [[nodiscard]] index_t size() const noexcept { return state_->ranks(); }
  /// @brief Return when every rank has called it.
  /// @collective all ranks
  /// @throws aborted, contract_violation like every wait
  void barrier() const { start({.kind = collective::barrier}).wait(); }

  using detail::host_memory_only::all_gather;
  using detail::host_memory_only::all_reduce;
  using detail::host_memory_only::all_to_all_v;
  using detail::host_memory_only::broadcast;
  using detail::host_memory_only::receive;
  using detail::host_memory_only::reduce_scatter;
  using detail::host_memory_only::send;

  /// @brief Exchange a message between every pair of ranks.
  /// @tparam Value trivially copyable element
  /// @param on backend of host memory
  /// @param send elements; message to rank r at send_offsets[r]
  /// @param send_offsets copied. @shape{ranks + 1}
  /// @param[out] receive elements; message from rank r at receive_offsets[r]; does not overlap any rank's `send`
  /// @param receive_offsets copied. @shape{ranks + 1}
  /// @returns the started operation
  /// @throws contract_violation (level 1: shapes, level 2: order of offsets), aborted
  /// @complexity one copy of each message, at `wait()`; no allocation
  /// @collective all ranks
  template <host_backend Backend, class Value>
    requires std::is_trivially_copyable_v<Value>
  operation all_to_all_v([[maybe_unused]] Backend const& on, Value const* send, std::span<index_t const> send_offsets,
                         Value* receive, std::span<index_t const> receive_offsets) const {
    detail::expect_offsets(send_offsets, size(), send);
    detail::expect_offsets(receive_offsets, size(), receive);
    return start({.kind = collective::all_to_all_v, .element_bytes = sizeof(Value), .send = bytes(send),
                  .receive = bytes(receive)},
                 send_offsets, receive_offsets);
  }

  /// @brief Give every rank everybody's elements.
  /// @tparam Value trivially copyable element
  /// @param on backend of host memory
  /// @param send elements, as many on every rank; may lie at this rank's place in `receive`
  /// @param[out] receive @shape{ranks x send.size()}
  /// @returns the started operation
  /// @throws contract_violation (level 1), aborted
  /// @complexity one copy of the result, at `wait()`; no allocation
  /// @collective all ranks
  template <host_backend Backend, class Value>
    requires std::is_trivially_copyable_v<Value>
  operation all_gather([[maybe_unused]] Backend const& on, std::type_identity_t<std::span<Value const>> send,
                       std::span<Value> receive) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(receive.size()) == size() * static_cast<index_t>(send.size()),
                     "receive must hold ranks x send.size() elements", send.size(), receive.size(), size());
    return start({.kind = collective::all_gather, .element_bytes = sizeof(Value), .count = count(send),
                  .send = bytes(send.data()), .receive = bytes(receive.data())});
  }

  /// @brief Reduce elementwise over the ranks, in place.
  /// @tparam Value integer, float or double
  /// @param on backend of host memory
  /// @param[in,out] values as many on every rank
  /// @param op sum, maximum or minimum; integer sums wrap, NaN wins
  /// @returns the started operation
  /// @throws contract_violation (level 1), aborted
  /// @complexity each rank adds 1/ranks of the elements, then copies the rest; no allocation
  /// @determinism sums from rank 0 upwards: the same bits on every rank and in every run
  /// @collective all ranks
  template <host_backend Backend, detail::reducible Value>
  operation all_reduce([[maybe_unused]] Backend const& on, std::span<Value> values, reduction op) const {
    return start({.kind = collective::all_reduce, .type = detail::reduced_type_of<Value>(), .op = op,
                  .element_bytes = sizeof(Value), .count = count(values), .send = bytes(values.data()),
                  .receive = bytes(values.data())});
  }

  /// @brief Reduce elementwise over the ranks, and leave part r on rank r.
  /// @tparam Value integer, float or double
  /// @param on backend of host memory
  /// @param send @shape{ranks x receive.size()}
  /// @param[out] receive as many on every rank; does not overlap `send`
  /// @param op sum, maximum or minimum; integer sums wrap, NaN wins
  /// @returns the started operation
  /// @throws contract_violation (level 1), aborted
  /// @complexity each rank reads ranks x receive.size() elements; no allocation
  /// @determinism sums from rank 0 upwards: the same bits in every run
  /// @collective all ranks
  template <host_backend Backend, detail::reducible Value>
  operation reduce_scatter([[maybe_unused]] Backend const& on, std::type_identity_t<std::span<Value const>> send,
                           std::span<Value> receive, reduction op) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(send.size()) == size() * static_cast<index_t>(receive.size()),
                     "send must hold ranks x receive.size() elements", send.size(), receive.size(), size());
    return start({.kind = collective::reduce_scatter, .type = detail::reduced_type_of<Value>(), .op = op,
                  .element_bytes = sizeof(Value), .count = count(receive), .send = bytes(send.data()),
                  .receive = bytes(receive.data())});
  }

  /// @brief Give every rank the values of one.
  /// @tparam Value trivially copyable element
  /// @param on backend of host memory
  /// @param[in,out] values as many on every rank
  /// @param root whose values
  /// @returns the started operation
  /// @throws contract_violation (level 1), aborted
  /// @complexity one copy a rank, at `wait()`; no allocation
  /// @collective all ranks
  template <host_backend Backend, class Value>
    requires std::is_trivially_copyable_v<Value>
  operation broadcast([[maybe_unused]] Backend const& on, std::span<Value> values, index_t root) const {
    FAIRLEAD_EXPECTS(root >= 0 && root < size(), "the root must be a rank", root, size());
    return start({.kind = collective::broadcast, .element_bytes = sizeof(Value), .count = count(values), .root = root,
                  .send = bytes(values.data()), .receive = bytes(values.data())});
  }

  /// @brief Send a message; it completes when the receiver has it.
  /// @tparam Value trivially copyable element
  /// @param on backend of host memory
  /// @param values the message
  /// @param to receiving rank
  /// @returns the started operation
  /// @throws contract_violation (level 1), aborted
  /// @complexity no copy here, no allocation; with 16 messages under way to one rank, starting waits for the oldest
  template <host_backend Backend, class Value>
    requires std::is_trivially_copyable_v<Value>
  operation send([[maybe_unused]] Backend const& on, std::span<Value> values, index_t to) const {
    FAIRLEAD_EXPECTS(to >= 0 && to < size(), "the receiver must be a rank", to, size());
    auto const number = state_->start_send(rank_, to, bytes(values.data()), static_cast<index_t>(values.size_bytes()));
    return {state_, collective::send, number, rank_, to};
  }

  /// @brief Receive the next message of a rank.
  /// @tparam Value trivially copyable element
  /// @param on backend of host memory
  /// @param[out] values as long as the message
  /// @param from sending rank
  /// @returns the started operation
  /// @throws contract_violation (level 1), aborted
  /// @complexity one copy, at `wait()`; no allocation
  template <host_backend Backend, class Value>
    requires std::is_trivially_copyable_v<Value> && (!std::is_const_v<Value>)
  operation receive([[maybe_unused]] Backend const& on, std::span<Value> values, index_t from) const {
    FAIRLEAD_EXPECTS(from >= 0 && from < size(), "the sender must be a rank", from, size());
    auto const number =
        state_->start_receive(from, rank_, bytes(values.data()), static_cast<index_t>(values.size_bytes()));
    return {state_, collective::receive, number, rank_, from};
  }

 private:
  friend world;
  communicator(detail::inproc_state* state, index_t rank) noexcept : state_(state), rank_(rank) {}
  template <class Value>
  static std::byte* bytes(Value* data) noexcept { return reinterpret_cast<std::byte*>(data); }
  template <class Value>
  static std::byte const* bytes(Value const* data) noexcept { return reinterpret_cast<std::byte const*>(data); }
  template <class Value>
  static index_t count(std::span<Value> values) noexcept { return static_cast<index_t>(values.size()); }
  operation start(detail::inproc_post const& post, std::span<index_t const> send_offsets = {},
                  std::span<index_t const> receive_offsets = {}) const {
    return {state_, post.kind, state_->start(rank_, post, send_offsets, receive_offsets), rank_, post.root};
  }
  detail::inproc_state* state_;
  index_t rank_;
};
static_assert(fairlead::communicator<communicator>);

/// @brief Own what the ranks share, and run functions on all of them.
class world {
 public:
  /// @param ranks number of ranks, >= 1; may exceed the number of cores
  /// @param operations_in_flight collectives that a rank may have started and not yet waited for
  /// @throws contract_violation (level 1), std::bad_alloc
  /// @complexity space O(operations_in_flight x ranks^2)
  explicit world(index_t ranks, index_t operations_in_flight = 64) {
    FAIRLEAD_EXPECTS(ranks >= 1 && operations_in_flight >= 1, "a world needs at least one rank and one operation",
                     ranks, operations_in_flight);
    state_ = std::make_unique<detail::inproc_state>(ranks, operations_in_flight);
  }
  /// @returns the number of ranks
  [[nodiscard]] index_t size() const noexcept { return state_->ranks(); }

  /// @brief Call `body(communicator)` on one thread a rank, and wait for all of them.
  ///
  /// If a rank throws, the others get `aborted` from the collective they are in, or from the next one; so nothing
  /// hangs, and the world can be used again. Operations that a rank holds when it throws are not waited for, see
  /// `operation`. The same body is called by all threads.
  /// @param body callable with a `communicator`
  /// @returns a vector with the result of each rank, or nothing if body returns nothing
  /// @throws the exception of the lowest rank that threw anything but `aborted`
  /// @complexity starts `size()` threads
  template <class Body>
  auto run(Body&& body) {
    using result = std::invoke_result_t<Body&, communicator>;
    if constexpr (std::is_void_v<result>) {
      launch([&body](communicator comm) { body(comm); });
    } else {
      std::vector<std::optional<result>> parts(static_cast<std::size_t>(size()));
      launch([&](communicator comm) { parts[static_cast<std::size_t>(comm.rank())].emplace(body(comm)); });
      std::vector<result> results;
      results.reserve(parts.size());
      for (auto& part : parts) { results.push_back(std::move(*part)); }
      return results;
    }
  }

 private:
  template <class Work>
  void launch(Work const& work) {
    detail::inproc_state& state = *state_;
    state.reset();
    auto const ranks = static_cast<std::size_t>(size());
    std::vector<std::exception_ptr> causes(ranks);
    std::vector<std::exception_ptr> consequences(ranks);
    auto const rank_main = [&](index_t rank) {
      auto const r = static_cast<std::size_t>(rank);
      try {
        work(communicator(&state, rank));
        state.finish(rank);
        return;
      } catch (aborted const&) {
        consequences[r] = std::current_exception();
      } catch (...) {
        causes[r] = std::current_exception();
      }
      state.abort();
    };
    std::vector<std::thread> threads;
    threads.reserve(ranks);
    try {
      for (index_t rank = 0; rank < size(); ++rank) { threads.emplace_back(rank_main, rank); }
    } catch (...) {  // no more threads: the started ranks cannot go on
      state.abort();
      for (auto& thread : threads) { thread.join(); }
      throw;
    }
    for (auto& thread : threads) { thread.join(); }
    for (auto const* failures : {&causes, &consequences}) {
      for (auto const& failure : *failures) {
        if (failure) { std::rethrow_exception(failure); }
      }
    }
  }
  std::unique_ptr<detail::inproc_state> state_;
};

}  // namespace inproc

/// Every part is added from rank 0 upwards.
template <>
inline constexpr bool reduces_in_rank_order<inproc::communicator> = true;

FAIRLEAD_NAMESPACE_END
