// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The common body of communicator adaptors: pass every collective on, and let an observer see its traffic.
#include <fairlead/comm/traffic.hpp>
#include <fairlead/core/contract.hpp>

#include <span>
#include <type_traits>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// `observer.observe(kind, traffic, start)` calls start(), which returns the operation of the communicator underneath,
// and returns that operation or one of its own that holds it. Each member exists where the one underneath does.
template <communicator Comm, class Observer>
class observed {
 public:
  using memory_space = typename Comm::memory_space;  ///< that of the communicator underneath

  /// @returns the number of this rank
  [[nodiscard]] index_t rank() const { return comm_.rank(); }
  /// @returns the number of ranks
  [[nodiscard]] index_t size() const { return comm_.size(); }
  /// @returns the communicator underneath
  [[nodiscard]] Comm& base() noexcept { return comm_; }

  /// @brief Barrier of the communicator underneath.
  void barrier() {
    observer_.observe(collective::barrier, {}, [this] {
      comm_.barrier();
      return no_operation{};
    }).wait();
  }
  /// @brief Observed `all_to_all_v` of the communicator underneath.
  template <execution_backend Backend, class Value>
    requires has_all_to_all_v<Comm, Value, Backend>
  auto all_to_all_v(Backend const& on, Value const* send, std::span<index_t const> send_offsets, Value* receive,
                    std::span<index_t const> receive_offsets) {
    // The traffic reads the offsets before the communicator underneath looks at them.
    FAIRLEAD_EXPECTS(static_cast<index_t>(send_offsets.size()) == size() + 1 &&
                         static_cast<index_t>(receive_offsets.size()) == size() + 1,
                     "give one offset a rank and the end", send_offsets.size(), receive_offsets.size(), size());
    return observer_.observe(collective::all_to_all_v,
                             traffic_of_all_to_all(rank(), sizeof(Value), send_offsets, receive_offsets),
                             [&] { return comm_.all_to_all_v(on, send, send_offsets, receive, receive_offsets); });
  }
  /// @brief Observed `all_gather` of the communicator underneath.
  template <execution_backend Backend, class Value>
    requires has_all_gather<Comm, Value, Backend>
  auto all_gather(Backend const& on, std::type_identity_t<std::span<Value const>> send, std::span<Value> receive) {
    return observer_.observe(collective::all_gather, moved<Value>(collective::all_gather, send.size()),
                             [&] { return comm_.all_gather(on, send, receive); });
  }
  /// @brief Observed `all_reduce` of the communicator underneath.
  template <execution_backend Backend, class Value>
    requires has_all_reduce<Comm, Value, Backend>
  auto all_reduce(Backend const& on, std::span<Value> values, reduction op) {
    return observer_.observe(collective::all_reduce, moved<Value>(collective::all_reduce, values.size()),
                             [&] { return comm_.all_reduce(on, values, op); });
  }
  /// @brief Observed `reduce_scatter` of the communicator underneath.
  template <execution_backend Backend, class Value>
    requires has_reduce_scatter<Comm, Value, Backend>
  auto reduce_scatter(Backend const& on, std::type_identity_t<std::span<Value const>> send, std::span<Value> receive,
                      reduction op) {
    return observer_.observe(collective::reduce_scatter, moved<Value>(collective::reduce_scatter, receive.size()),
                             [&] { return comm_.reduce_scatter(on, send, receive, op); });
  }
  /// @brief Observed `broadcast` of the communicator underneath.
  template <execution_backend Backend, class Value>
    requires has_broadcast<Comm, Value, Backend>
  auto broadcast(Backend const& on, std::span<Value> values, index_t root) {
    return observer_.observe(collective::broadcast, moved<Value>(collective::broadcast, values.size(), root),
                             [&] { return comm_.broadcast(on, values, root); });
  }
  /// @brief Observed `send` of the communicator underneath.
  template <execution_backend Backend, class Value>
    requires has_point_to_point<Comm, std::remove_const_t<Value>, Backend>
  auto send(Backend const& on, std::span<Value> values, index_t to) {
    return observer_.observe(collective::send, moved<Value>(collective::send, values.size(), to),
                             [&] { return comm_.send(on, values, to); });
  }
  /// @brief Observed `receive` of the communicator underneath.
  template <execution_backend Backend, class Value>
    requires has_point_to_point<Comm, Value, Backend>
  auto receive(Backend const& on, std::span<Value> values, index_t from) {
    return observer_.observe(collective::receive, moved<Value>(collective::receive, values.size(), from),
                             [&] { return comm_.receive(on, values, from); });
  }

 protected:
  observed(Comm comm, Observer observer) : comm_(std::move(comm)), observer_(std::move(observer)) {}
  [[nodiscard]] Observer const& observer() const noexcept { return observer_; }

 private:
  struct no_operation {
    void wait() const noexcept {}
  };
  template <class Value>
  [[nodiscard]] traffic moved(collective kind, std::size_t count, index_t peer = 0) const {
    return traffic_of(kind, rank(), size(), static_cast<index_t>(count), sizeof(Value), peer);
  }
  Comm comm_;
  Observer observer_;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
