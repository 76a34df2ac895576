// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Record when each collective of a rank was started and waited for.
#include <fairlead/comm/detail/observed.hpp>

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief One line of a trace; seconds since the trace began.
struct traced_event {
  collective kind{};       ///< which collective
  traffic moved;           ///< between this rank and the others
  double started_s = 0.0;  ///< when it was started @unit{s}
  double waited_s = 0.0;   ///< when `wait()` was called; 0 if never @unit{s}
  double ended_s = 0.0;    ///< when `wait()` returned; 0 if never @unit{s}
};

namespace detail {
struct trace_log {
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
  std::vector<traced_event> events;
  std::size_t cleared = 0;  // how often; lines of earlier traces are gone
  [[nodiscard]] double now_s() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
};
}  // namespace detail

/// @brief An operation whose end is recorded.
template <class Operation>
class traced_operation {
 public:
  /// @param inner operation of the communicator underneath
  /// @param log the trace
  /// @param line its line there
  traced_operation(Operation inner, std::shared_ptr<detail::trace_log> log, std::size_t line)
      : inner_(std::move(inner)), log_(std::move(log)), line_(line), cleared_(log_->cleared) {}
  /// @brief Wait for the operation underneath, and note when.
  void wait() {
    double const called = log_->now_s();
    inner_.wait();
    if (cleared_ == log_->cleared) {  // else the line is gone, or another operation's
      log_->events[line_].waited_s = called;
      log_->events[line_].ended_s = log_->now_s();
    }
  }

 private:
  Operation inner_;
  std::shared_ptr<detail::trace_log> log_;
  std::size_t line_;
  std::size_t cleared_;
};

namespace detail {
struct tracing {
  std::shared_ptr<trace_log> log;
  template <class Start>
  auto observe(collective kind, traffic const& moved, Start start) const {
    double const now = log->now_s();
    log->events.push_back({kind, moved, now, 0.0, 0.0});
    return traced_operation<decltype(start())>(start(), log, log->events.size() - 1);
  }
};
}  // namespace detail

/// @brief Pass everything on to another communicator, and keep a trace.
///
/// Copies share the trace. It grows: reserve what a run needs where allocation matters.
/// @tparam Comm the communicator underneath
template <communicator Comm>
class traced : public detail::observed<Comm, detail::tracing> {
 public:
  /// @param comm communicator underneath
  /// @param reserve number of events that need no further allocation
  /// @throws std::bad_alloc
  explicit traced(Comm comm, std::size_t reserve = 1024)
      : detail::observed<Comm, detail::tracing>(std::move(comm), {std::make_shared<detail::trace_log>()}) {
    this->observer().log->events.reserve(reserve);
  }
  /// @returns what happened so far, in order of starting; valid until the next operation
  [[nodiscard]] std::span<traced_event const> events() const noexcept { return this->observer().log->events; }
  /// @brief Forget all events, also those of operations that have not been waited for.
  void clear() noexcept {
    this->observer().log->events.clear();
    ++this->observer().log->cleared;
  }
};

/// An adaptor does not change the order.
template <class Comm>
inline constexpr bool reduces_in_rank_order<traced<Comm>> = reduces_in_rank_order<Comm>;

FAIRLEAD_NAMESPACE_END
