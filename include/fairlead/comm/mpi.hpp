// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The communicator over MPI ranks, for host memory.
#include <fairlead/comm/detail/host_memory_only.hpp>
#include <fairlead/comm/detail/mpi_state.hpp>

#include <exception>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN
namespace mpi {

/// @brief Initialise MPI for the life of this object, unless somebody else already has.
///
/// If it ends because of an exception, it calls `MPI_Abort`: the other ranks would wait for this one forever.
class session {
 public:
  /// @brief Initialise with MPI_THREAD_FUNNELED.
  /// @throws mpi_error
  session() : session(nullptr, nullptr) {}
  /// @brief Initialise with the arguments of `main`.
  /// @param argc address of main's argument, may be null
  /// @param argv address of main's argument, may be null
  /// @throws mpi_error
  session(int* argc, char*** argv) : exceptions_(std::uncaught_exceptions()) {
    int initialized = 0;
    detail::check_mpi(MPI_Initialized(&initialized), "MPI_Initialized");
    if (initialized != 0) { return; }
    int provided = 0;
    detail::check_mpi(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
    owner_ = true;
  }
  session(session const&) = delete;
  session& operator=(session const&) = delete;
  ~session() {
    if (!owner_) { return; }
    if (std::uncaught_exceptions() > exceptions_) { MPI_Abort(MPI_COMM_WORLD, 1); }
    MPI_Finalize();
  }
  /// @returns whether this object initialised MPI and will finalise it
  [[nodiscard]] bool owner() const noexcept { return owner_; }

 private:
  int exceptions_;
  bool owner_ = false;
};

/// @brief A collective that this rank started.
///
/// Ranks may wait in different orders. The destructor waits and drops errors. But when it runs because of an exception,
/// it waits no longer than a second: the other ranks might be waiting for what this rank will never start. An operation
/// that is then left under way may still read and write its buffers, and its communicator can start nothing more; let
/// the exception reach `session`, which aborts all ranks.
class operation {
 public:
  /// @brief Take over what `other` holds; it holds nothing afterwards.
  operation(operation&& other) noexcept
      : state_(std::move(other.state_)), index_(other.index_), exceptions_(std::uncaught_exceptions()) {}
  /// @brief Take over what `other` holds.
  operation& operator=(operation&& other) noexcept {
    if (this != &other) {
      finish();
      state_ = std::move(other.state_);
      index_ = other.index_;
    }
    return *this;
  }
  operation(operation const&) = delete;
  operation& operator=(operation const&) = delete;
  ~operation() { finish(); }

  /// @brief Return when the result is there and the buffers of this rank are free. A second call does nothing.
  /// @throws mpi_error, also when a message is longer than its receiver expects
  /// @throws contract_violation (level 1) when a message is shorter
  void wait() {
    auto const state = std::exchange(state_, nullptr);
    if (state) { state->wait(index_); }
  }

 private:
  friend class communicator;
  operation(std::shared_ptr<detail::mpi_state> state, std::size_t index) noexcept
      : state_(std::move(state)), index_(index), exceptions_(std::uncaught_exceptions()) {}
  void finish() noexcept {
    try {
      if (state_ && std::uncaught_exceptions() > exceptions_) {
        std::exchange(state_, nullptr)->wait_briefly(index_);
        return;
      }
      wait();
    } catch (...) {  // whoever wants to know calls wait()
    }
  }
  std::shared_ptr<detail::mpi_state> state_;
  std::size_t index_;
  int exceptions_;  // under way when this object was made; more of them in the destructor mean unwinding
};
static_assert(pending_operation<operation>);

/// @brief This process among the ranks of an MPI communicator: a handle, cheap to copy; copies share everything.
///
/// The MPI communicator is duplicated, so that messages do not mix with other libraries'. Messages travel in pieces of
/// at most `mpi_options::piece_bytes`, so that lengths beyond 2^31 bytes work. Reductions exchange the parts, add them
/// here in rank order, and gather the sums: the same bits as `inproc` with as many ranks. After the first operations of
/// a kind and size nothing allocates but MPI itself. Use from one thread.
class communicator : private detail::host_memory_only {
 public:
  using memory_space = host_space;  ///< moves host memory

  /// @param parent MPI communicator whose ranks take part
  /// @param options sizes
  /// @throws mpi_error; contract_violation (level 1) if MPI is not initialised
  /// @collective all ranks of `parent`
  explicit communicator(MPI_Comm parent = MPI_COMM_WORLD, mpi_options options = {})
      : state_(std::make_shared<detail::mpi_state>(parent, options)) {}

  /// @returns the number of this rank
  [[nodiscard]] index_t rank() const noexcept { return state_->rank(); }
  /// @returns the number of ranks
  [[nodiscard]] index_t size() const noexcept { return state_->ranks(); }
  /// @brief Return when every rank has called it; moves the data of operations in flight meanwhile.
  /// @throws mpi_error
  /// @collective all ranks
  void barrier() const { start(state_->start_barrier()).wait(); }

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
  /// @param send_offsets @shape{ranks + 1}
  /// @param[out] receive elements; message from rank r at receive_offsets[r]; does not overlap `send`
  /// @param receive_offsets @shape{ranks + 1}
  /// @returns the started operation
  /// @throws contract_violation (level 1: shapes; level 2: order; level 3: lengths of all ranks), mpi_error
  /// @collective all ranks
  template <host_backend Backend, class Value>
    requires std::is_trivially_copyable_v<Value>
  operation all_to_all_v([[maybe_unused]] Backend const& on, Value const* send, std::span<index_t const> send_offsets,
                         Value* receive, std::span<index_t const> receive_offsets) const {
    detail::expect_offsets(send_offsets, size(), send);
    detail::expect_offsets(receive_offsets, size(), receive);
    return start(
        state_->start_all_to_all(bytes(send), send_offsets, bytes(receive), receive_offsets, sizeof(Value)));
  }
  /// @brief Give every rank everybody's elements.
  /// @tparam Value trivially copyable element
  /// @param on backend of host memory
  /// @param send elements, as many on every rank; may lie at this rank's place in `receive`
  /// @param[out] receive @shape{ranks x send.size()}
  /// @returns the started operation
  /// @throws contract_violation (level 1; level 3: lengths of all ranks), mpi_error
  /// @collective all ranks
  template <host_backend Backend, class Value>
    requires std::is_trivially_copyable_v<Value>
  operation all_gather([[maybe_unused]] Backend const& on, std::type_identity_t<std::span<Value const>> send,
                       std::span<Value> receive) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(receive.size()) == size() * static_cast<index_t>(send.size()),
                     "receive must hold ranks x send.size() elements", send.size(), receive.size(), size());
    return start(state_->start_all_gather(bytes(send.data()), bytes(receive.data()),
                                          static_cast<index_t>(send.size_bytes())));
  }
  /// @brief Reduce elementwise over the ranks, in place.
  /// @tparam Value integer, float or double
  /// @param on backend of host memory
  /// @param[in,out] values as many on every rank
  /// @param op sum, maximum or minimum; integer sums wrap, NaN wins
  /// @returns the started operation
  /// @throws contract_violation (level 3: lengths of all ranks), mpi_error
  /// @determinism sums from rank 0 upwards: the same bits on every rank and in every run
  /// @collective all ranks
  template <host_backend Backend, detail::reducible Value>
  operation all_reduce([[maybe_unused]] Backend const& on, std::span<Value> values, reduction op) const {
    return start(state_->start_all_reduce(bytes(values.data()), static_cast<index_t>(values.size()), sizeof(Value),
                                          detail::reduced_type_of<Value>(), op));
  }
  /// @brief Reduce elementwise over the ranks, and leave part r on rank r.
  /// @tparam Value integer, float or double
  /// @param on backend of host memory
  /// @param send @shape{ranks x receive.size()}
  /// @param[out] receive as many on every rank; does not overlap `send`
  /// @param op sum, maximum or minimum; integer sums wrap, NaN wins
  /// @returns the started operation
  /// @throws contract_violation (level 1; level 3: lengths of all ranks), mpi_error
  /// @determinism sums from rank 0 upwards: the same bits in every run
  /// @collective all ranks
  template <host_backend Backend, detail::reducible Value>
  operation reduce_scatter([[maybe_unused]] Backend const& on, std::type_identity_t<std::span<Value const>> send,
                           std::span<Value> receive, reduction op) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(send.size()) == size() * static_cast<index_t>(receive.size()),
                     "send must hold ranks x receive.size() elements", send.size(), receive.size(), size());
    return start(state_->start_reduce_scatter(bytes(send.data()), bytes(receive.data()),
                                              static_cast<index_t>(receive.size()), sizeof(Value),
                                              detail::reduced_type_of<Value>(), op));
  }
  /// @brief Give every rank the values of one.
  /// @tparam Value trivially copyable element
  /// @param on backend of host memory
  /// @param[in,out] values as many on every rank
  /// @param root whose values
  /// @returns the started operation
  /// @throws contract_violation (level 1; level 3: lengths of all ranks), mpi_error
  /// @collective all ranks
  template <host_backend Backend, class Value>
    requires std::is_trivially_copyable_v<Value>
  operation broadcast([[maybe_unused]] Backend const& on, std::span<Value> values, index_t root) const {
    FAIRLEAD_EXPECTS(root >= 0 && root < size(), "the root must be a rank", root, size());
    return start(state_->start_broadcast(bytes(values.data()), static_cast<index_t>(values.size_bytes()), root));
  }
  /// @brief Send a message.
  /// @tparam Value trivially copyable element
  /// @param on backend of host memory
  /// @param values the message
  /// @param to receiving rank
  /// @returns the started operation
  /// @throws contract_violation (level 1), mpi_error
  template <host_backend Backend, class Value>
    requires std::is_trivially_copyable_v<Value>
  operation send([[maybe_unused]] Backend const& on, std::span<Value> values, index_t to) const {
    FAIRLEAD_EXPECTS(to >= 0 && to < size(), "the receiver must be a rank", to, size());
    return start(state_->start_send(bytes(values.data()), static_cast<index_t>(values.size_bytes()), to));
  }
  /// @brief Receive the next message of a rank.
  /// @tparam Value trivially copyable element
  /// @param on backend of host memory
  /// @param[out] values as long as the message
  /// @param from sending rank
  /// @returns the started operation
  /// @throws contract_violation (level 1), mpi_error
  template <host_backend Backend, class Value>
    requires std::is_trivially_copyable_v<Value> && (!std::is_const_v<Value>)
  operation receive([[maybe_unused]] Backend const& on, std::span<Value> values, index_t from) const {
    FAIRLEAD_EXPECTS(from >= 0 && from < size(), "the sender must be a rank", from, size());
    return start(state_->start_receive(bytes(values.data()), static_cast<index_t>(values.size_bytes()), from));
  }

 private:
  template <class Value>
  static std::byte* bytes(Value* data) noexcept { return reinterpret_cast<std::byte*>(data); }
  template <class Value>
  static std::byte const* bytes(Value const* data) noexcept { return reinterpret_cast<std::byte const*>(data); }
  operation start(std::size_t index) const { return {state_, index}; }
  std::shared_ptr<detail::mpi_state> state_;
};
static_assert(fairlead::communicator<communicator>);

}  // namespace mpi

/// Every part is added from rank 0 upwards.
template <>
inline constexpr bool reduces_in_rank_order<mpi::communicator> = true;

FAIRLEAD_NAMESPACE_END
