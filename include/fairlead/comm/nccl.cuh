// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A communicator over NCCL: device memory, work queued on the stream of the backend.
#include <fairlead/cuda/memory.cuh>
#include <fairlead/comm/detail/nccl_state.cuh>
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/core/bfloat16.hpp>

#include <nccl.h>

#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace nccl {

/// @brief Collective work that was queued on a stream.
///
/// `wait()` never blocks the host: the stream orders what follows. Point-to-point operations are posted and queued
/// together at the first `wait()` (or destruction, or next collective): NCCL needs them in one group, else a ring of
/// sends would wait for itself.
class pending {
 public:
  /// An operation that is done.
  pending() noexcept = default;
  /// @param state the communicator whose posted messages must be queued
  explicit pending(std::shared_ptr<detail::communicator_state> state) noexcept : state_(std::move(state)) {}
  /// @brief Take over what `other` holds; it holds nothing afterwards.
  pending(pending&& other) noexcept = default;
  /// @brief Exchange with `other`.
  pending& operator=(pending&& other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  pending(pending const&) = delete;
  pending& operator=(pending const&) = delete;
  /// Queues what is posted; a failure appears at the next call of the communicator.
  ~pending() {
    try {
      wait();
    } catch (nccl_error const&) {  // NOLINT(bugprone-empty-catch): NCCL repeats an asynchronous failure
    }
  }
  /// @brief Make work submitted afterwards to the stream see the result; does not block the host.
  /// @throws nccl_error
  void wait() {
    if (auto const state = std::exchange(state_, nullptr)) { state->queue_posted(); }
  }

 private:
  std::shared_ptr<detail::communicator_state> state_;  // the communicator may go first
};
static_assert(pending_operation<pending>);

/// @brief Make the id that all ranks of a new communicator must be given, by whatever means they have.
/// @returns the id
/// @throws nccl_error
[[nodiscard]] inline ncclUniqueId make_id() {
  ncclUniqueId id{};
  detail::check(ncclGetUniqueId(&id), nullptr, "making a unique id");
  return id;
}

/// @brief The ranks of an NCCL communicator; a handle, whose last copy destroys it.
///
/// Every collective queues on the stream of `on`, which must belong to the device that was current when the
/// communicator was made. Sums of floating point numbers are the same bits on every rank, but NCCL chooses their order.
class communicator {
 public:
  using memory_space = device_space;  ///< sends from and receives into device memory

  /// @brief Join a new communicator on the current device.
  /// @param id the same on all ranks, from `make_id` of one of them
  /// @param rank this rank
  /// @param size number of ranks
  /// @throws nccl_error, cuda_error
  /// @collective all ranks, each with its own current device
  communicator(ncclUniqueId const& id, int rank, int size) : state_(std::make_shared<detail::communicator_state>()) {
    FAIRLEAD_EXPECTS(rank >= 0 && rank < size, "a rank lies in [0, size)", rank, size);
    detail::check(ncclCommInitRank(&state_->native, size, id, rank), nullptr, "joining a communicator");
    state_->finish();
  }
  /// @brief Take over an existing communicator.
  /// @param native a communicator of the current device; destroyed with this object
  /// @throws nccl_error, cuda_error
  explicit communicator(ncclComm_t native) : state_(std::make_shared<detail::communicator_state>()) {
    state_->native = native;
    state_->finish();
  }

  /// @returns this rank
  [[nodiscard]] index_t rank() const noexcept { return state_->rank; }
  /// @returns number of ranks
  [[nodiscard]] index_t size() const noexcept { return state_->size; }
  /// @returns the NCCL communicator
  [[nodiscard]] ncclComm_t native() const noexcept { return state_->native; }
  /// @brief Block the host until all ranks are here.
  /// @throws nccl_error, cuda_error
  void barrier() {
    state_->queue_posted();
    state_->barrier();
  }

  /// @brief Exchange pieces of different lengths; see `has_all_to_all_v`.
  /// @tparam Value trivially copyable
  /// @param on stream
  /// @param send pieces in rank order; device memory
  /// @param send_offsets in elements, host memory. @shape{ranks + 1}
  /// @param[out] receive pieces in rank order; device memory
  /// @param receive_offsets in elements, host memory. @shape{ranks + 1}
  /// @returns pending; no host synchronisation
  /// @complexity one NCCL group of up to 2 (ranks - 1) messages; the own piece is copied
  template <class Value, cuda_backend Backend>
    requires std::is_trivially_copyable_v<Value>
  pending all_to_all_v(Backend const& on, Value const* send, std::span<index_t const> send_offsets, Value* receive,
                       std::span<index_t const> receive_offsets) {
    FAIRLEAD_EXPECTS(static_cast<index_t>(send_offsets.size()) == size() + 1 && receive_offsets.size() == send_offsets.size(),
                     "offsets need ranks + 1 entries", send_offsets.size(), receive_offsets.size(), size());
    state_->queue_posted();
    auto const bytes = [](std::span<index_t const> offsets, std::size_t r) {
      FAIRLEAD_EXPECTS(offsets[r + 1] >= offsets[r], "offsets must not decrease", r, offsets[r], offsets[r + 1]);
      return static_cast<std::size_t>(offsets[r + 1] - offsets[r]) * sizeof(Value);
    };
    auto const self = static_cast<std::size_t>(rank());
    FAIRLEAD_EXPECTS(bytes(send_offsets, self) == bytes(receive_offsets, self),
                     "a rank must expect as much from itself as it sends itself", self);
    on.copy(receive + receive_offsets[self], send + send_offsets[self], bytes(send_offsets, self));
    detail::group group;
    for (std::size_t step = 1; step < static_cast<std::size_t>(size()); ++step) {  // staggered: no rank is everybody's first
      std::size_t const to = (self + step) % static_cast<std::size_t>(size());
      std::size_t const from = (self + static_cast<std::size_t>(size()) - step) % static_cast<std::size_t>(size());
      if (std::size_t const length = bytes(send_offsets, to); length != 0) {
        state_->check(ncclSend(send + send_offsets[to], length, ncclInt8, static_cast<int>(to), native(), on.native()), "sending");
      }
      if (std::size_t const length = bytes(receive_offsets, from); length != 0) {
        state_->check(ncclRecv(receive + receive_offsets[from], length, ncclInt8, static_cast<int>(from), native(), on.native()),
                      "receiving");
      }
    }
    group.end();
    return {};
  }

  /// @brief Gather equal pieces of all ranks; see `has_all_gather`.
  /// @param on stream
  /// @param send this rank's piece
  /// @param[out] receive @shape{ranks x send.size()}
  /// @returns pending; no host synchronisation
  template <class Value, cuda_backend Backend>
    requires std::is_trivially_copyable_v<Value>
  pending all_gather(Backend const& on, std::span<Value const> send, std::span<Value> receive) {
    FAIRLEAD_EXPECTS(receive.size() == send.size() * static_cast<std::size_t>(size()), "receive holds one piece a rank",
                     receive.size(), send.size());
    state_->queue_posted();
    if (!send.empty()) {
      state_->check(ncclAllGather(send.data(), receive.data(), send.size_bytes(), ncclInt8, native(), on.native()), "all_gather");
    }
    return {};
  }

  /// @brief Reduce in place over all ranks; see `has_all_reduce`.
  /// @param on stream
  /// @param[in,out] values values to reduce
  /// @param op how
  /// @returns pending; no host synchronisation
  template <detail::reducible Value, cuda_backend Backend>
  pending all_reduce(Backend const& on, std::span<Value> values, reduction op) {
    state_->queue_posted();
    if (!values.empty()) {
      state_->check(ncclAllReduce(values.data(), values.data(), values.size(), detail::type_of<Value>(),
                                  detail::native_reduction(op), native(), on.native()),
                    "all_reduce");
    }
    return {};
  }

  /// @brief Reduce and scatter equal pieces; see `has_reduce_scatter`.
  /// @param on stream
  /// @param send one piece a rank. @shape{ranks x receive.size()}
  /// @param[out] receive the reduction of this rank's piece
  /// @param op how
  /// @returns pending; no host synchronisation
  template <detail::reducible Value, cuda_backend Backend>
  pending reduce_scatter(Backend const& on, std::span<Value const> send, std::span<Value> receive, reduction op) {
    FAIRLEAD_EXPECTS(send.size() == receive.size() * static_cast<std::size_t>(size()), "send holds one piece a rank",
                     send.size(), receive.size());
    state_->queue_posted();
    if (!receive.empty()) {
      state_->check(ncclReduceScatter(send.data(), receive.data(), receive.size(), detail::type_of<Value>(),
                                      detail::native_reduction(op), native(), on.native()),
                    "reduce_scatter");
    }
    return {};
  }

  /// @brief Give everybody the values of one rank; see `has_broadcast`.
  /// @param on stream
  /// @param[in,out] values values
  /// @param root the rank that has them
  /// @returns pending; no host synchronisation
  template <class Value, cuda_backend Backend>
    requires std::is_trivially_copyable_v<Value>
  pending broadcast(Backend const& on, std::span<Value> values, index_t root) {
    FAIRLEAD_EXPECTS(root >= 0 && root < size(), "the root is a rank", root, size());
    state_->queue_posted();
    if (!values.empty()) {
      state_->check(ncclBroadcast(values.data(), values.data(), values.size_bytes(), ncclInt8, static_cast<int>(root), native(),
                                  on.native()),
                    "broadcast");
    }
    return {};
  }

  /// @brief Post a message to a rank; it is queued when one of the posted operations is waited for.
  /// @param on stream
  /// @param values what to send; untouched until `wait()`
  /// @param to receiver
  /// @returns pending; no host synchronisation
  template <class Value, cuda_backend Backend>
    requires std::is_trivially_copyable_v<Value>
  pending send(Backend const& on, std::span<Value const> values, index_t to) {
    FAIRLEAD_EXPECTS(to >= 0 && to < size(), "the receiver is a rank", to, size());
    state_->post({values.data(), nullptr, values.size_bytes(), static_cast<int>(to), on.native()});
    return pending(state_);
  }
  /// @brief Post the receipt of a message from a rank; it is queued when one of the posted operations is waited for.
  /// @param on stream
  /// @param[out] values what arrives
  /// @param from sender
  /// @returns pending; no host synchronisation
  template <class Value, cuda_backend Backend>
    requires std::is_trivially_copyable_v<Value>
  pending receive(Backend const& on, std::span<Value> values, index_t from) {
    FAIRLEAD_EXPECTS(from >= 0 && from < size(), "the sender is a rank", from, size());
    state_->post({nullptr, values.data(), values.size_bytes(), static_cast<int>(from), on.native()});
    return pending(state_);
  }

 private:
  std::shared_ptr<detail::communicator_state> state_;
};
static_assert(fairlead::communicator<communicator>);

/// @brief Run one thread a rank, each with its own device, in one process: for tests and single-node programs.
///
/// An exception of a rank is rethrown after all threads have ended; the communicators of a process cannot be rescued
/// from a rank that stops in the middle of a collective, so let ranks fail before they communicate.
/// @param ranks number of ranks, at most the number of devices
/// @param body called as `body(communicator&, rank)` on the thread of each rank, with device `rank` current
/// @throws nccl_error, cuda_error, or what `body` throws
template <class Body>
void run_ranks(int ranks, Body body) {
  FAIRLEAD_EXPECTS(ranks >= 1 && ranks <= cuda_device_count(), "NCCL needs a device a rank", ranks, cuda_device_count());
  ncclUniqueId const id = make_id();
  detail::run_threads(ranks, [&id, &body, ranks](int rank) {
    kernels::check(cudaSetDevice(rank), "choosing a device");
    communicator comm(id, rank, ranks);
    body(comm, rank);
  });
}

}  // namespace nccl
FAIRLEAD_NAMESPACE_END
