// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The pending object of `inproc::communicator`.
#include <fairlead/comm/detail/inproc_state.hpp>

#include <cstdint>
#include <exception>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN
namespace inproc {

class communicator;

/// @brief A collective that this rank started.
///
/// Waiting also moves the data of the rank's other operations, so ranks may wait in any order. The destructor waits and
/// drops errors. But when it runs because of an exception it does not wait: the other ranks might be waiting for what
/// this rank will never start. It aborts the world (as if the exception had left the body already, even if it is caught
/// on the way) and returns when no rank reads or writes this rank's buffers any more.
class operation {
 public:
  operation(operation&& other) noexcept
      : state_(std::exchange(other.state_, nullptr)),
        number_(other.number_),
        rank_(other.rank_),
        peer_(other.peer_),
        kind_(other.kind_),
        exceptions_(std::uncaught_exceptions()) {}
  operation& operator=(operation&& other) noexcept {
    if (this != &other) {
      finish();
      state_ = std::exchange(other.state_, nullptr);
      number_ = other.number_;
      rank_ = other.rank_;
      peer_ = other.peer_;
      kind_ = other.kind_;
    }
    return *this;
  }
  operation(operation const&) = delete;
  operation& operator=(operation const&) = delete;
  ~operation() { finish(); }

  /// @brief Return when the result is there and the buffers of this rank are free. A second call does nothing.
  /// @throws aborted if another rank threw
  /// @throws contract_violation (level 1), on all ranks, if the ranks' collectives do not fit each other
  void wait() {
    detail::inproc_state* const state = std::exchange(state_, nullptr);
    if (state == nullptr) { return; }
    switch (kind_) {
      case collective::send: return state->wait_send(rank_, peer_, number_);
      case collective::receive: return state->wait_receive(peer_, rank_, number_);
      default: return state->wait(rank_, number_);
    }
  }

 private:
  friend communicator;
  operation(detail::inproc_state* state, collective kind, std::int64_t number, index_t rank, index_t peer) noexcept
      : state_(state),
        number_(number),
        rank_(rank),
        peer_(peer),
        kind_(kind),
        exceptions_(std::uncaught_exceptions()) {}
  void finish() noexcept {
    if (state_ != nullptr && std::uncaught_exceptions() > exceptions_) {
      std::exchange(state_, nullptr)->abandon();
      return;
    }
    try {
      wait();
    } catch (...) {  // whoever wants to know calls wait()
    }
  }
  detail::inproc_state* state_;
  std::int64_t number_;
  index_t rank_;
  index_t peer_;
  collective kind_;
  int exceptions_;  // under way when this object was made; more of them in the destructor mean unwinding
};
static_assert(pending_operation<operation>);

}  // namespace inproc
FAIRLEAD_NAMESPACE_END
