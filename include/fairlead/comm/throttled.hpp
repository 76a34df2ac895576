// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Make a fast communicator as slow as a network, to see what overlap is worth.
#include <fairlead/comm/detail/observed.hpp>
#include <fairlead/core/contract.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Cost of a link: a message of b bytes takes alpha + beta * b.
struct link_delay {
  double alpha_s = 0.0;           ///< start-up of a message @unit{s}
  double beta_s_per_byte = 0.0;   ///< inverse bandwidth @unit{s/byte}
};

/// @brief Tells the time and passes it; what `throttled` needs, so that tests need no real time.
template <class Clock>
concept throttle_clock = std::copyable<Clock> && requires(Clock const& clock, double seconds) {
  { clock.now_s() } -> std::convertible_to<double>;
  { clock.sleep_until_s(seconds) } -> std::same_as<void>;
};

/// @brief Real time.
struct wall_clock {
  /// @returns seconds since some fixed time @unit{s}
  [[nodiscard]] double now_s() const noexcept {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  /// @brief Let this thread sleep; the core is free for others.
  /// @param seconds on the scale of `now_s()` @unit{s}
  void sleep_until_s(double seconds) const {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds - now_s()));
  }
};
static_assert(throttle_clock<wall_clock>);

/// @brief An operation that ends no earlier than its delay says.
template <class Operation, throttle_clock Clock>
class throttled_operation {
 public:
  /// @param inner operation of the communicator underneath
  /// @param clock time
  /// @param deadline_s earliest end @unit{s}
  throttled_operation(Operation inner, Clock clock, double deadline_s)
      : inner_(std::move(inner)), clock_(std::move(clock)), deadline_s_(deadline_s) {}
  /// @brief Wait for the operation underneath, then for the deadline.
  void wait() {
    inner_.wait();
    if (clock_.now_s() < deadline_s_) { clock_.sleep_until_s(deadline_s_); }
  }

 private:
  Operation inner_;
  Clock clock_;
  double deadline_s_;
};

namespace detail {
template <class Clock>
struct throttle {
  link_delay delay;
  Clock clock;
  std::shared_ptr<double> link_free_s;

  template <class Start>
  auto observe(collective, traffic const& moved, Start start) const {
    // Full duplex: the busier direction counts.
    double const cost = delay.alpha_s * static_cast<double>(std::max(moved.messages_out, moved.messages_in)) +
                        delay.beta_s_per_byte * static_cast<double>(std::max(moved.bytes_out, moved.bytes_in));
    double const deadline = std::max(clock.now_s(), *link_free_s) + cost;
    *link_free_s = deadline;
    return throttled_operation<decltype(start()), Clock>(start(), clock, deadline);
  }
};
}  // namespace detail

/// @brief Pass everything on to another communicator, and delay it like a link of a given latency and bandwidth.
///
/// The deadline of an operation is fixed when it starts, so what is computed before `wait()` hides the delay. A rank has
/// one link: operations that are started while it is busy queue behind each other. Copies share the link.
/// @tparam Comm the communicator underneath
/// @tparam Clock time, replaceable for tests
template <communicator Comm, throttle_clock Clock = wall_clock>
class throttled : public detail::observed<Comm, detail::throttle<Clock>> {
 public:
  /// @param comm communicator underneath
  /// @param delay of the link
  /// @param clock time
  /// @throws contract_violation (level 1) on negative delays; std::bad_alloc
  throttled(Comm comm, link_delay delay, Clock clock = {})
      : detail::observed<Comm, detail::throttle<Clock>>(std::move(comm),
                                                        {delay, clock, std::make_shared<double>(clock.now_s())}) {
    FAIRLEAD_EXPECTS(delay.alpha_s >= 0 && delay.beta_s_per_byte >= 0, "delays must not be negative", delay.alpha_s,
                     delay.beta_s_per_byte);
  }
};

/// An adaptor does not change the order.
template <class Comm, class Clock>
inline constexpr bool reduces_in_rank_order<throttled<Comm, Clock>> = reduces_in_rank_order<Comm>;

FAIRLEAD_NAMESPACE_END
