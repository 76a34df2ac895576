// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What a controller carries from slot to slot: token queues, virtual energy queues, tokens under way; and its report.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/matrix_view.hpp>

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The largest sizes that a state has to serve; memory is taken once for them.
struct queue_limits {
  index_t max_arrivals = 0;  ///< tokens of a slot, >= 0
  index_t max_waiting = 0;   ///< tokens of which a copy waits, at any time, arrivals included, >= 0
};

/// @brief What happened in a slot. Spans point into the state and hold until its next slot.
///
/// Throughput has three meanings that differ a lot: `copies`, `copies / fan_out` (`tokens_served()`), and tokens of which
/// every copy is served (`completed`). Name the one that you compare.
struct slot_report {
  index_t arrivals = 0;                        ///< tokens that arrived
  index_t admitted = 0;                        ///< tokens that were let in, the first ones
  index_t dropped = 0;                         ///< tokens that were not let in: `arrivals - admitted`
  index_t first_token = 0;                     ///< number of the first arrival, counted over all slots
  index_t fan_out = 1;                         ///< copies a token
  matrix_view<expert_id const> choice{};       ///< servers of the admitted tokens. @shape{admitted x fan_out}
  std::span<index_t const> sent{};             ///< copies sent to each server. @shape{servers}
  std::span<double const> served{};            ///< copies served by each server, fractions included. @shape{servers}
  std::span<double const> energy{};            ///< energy of each server. @unit{J} @shape{servers}
  std::span<index_t const> completed{};        ///< numbers of tokens whose last copy was served, by server, then in its order
  std::span<index_t const> delays{};           ///< slots from arrival to completion, 0 = the same. @shape{completed}
  double copies = 0.0;                         ///< sum of `served`
  double total_energy = 0.0;                   ///< sum of `energy`. @unit{J}
  double gate_mass = 0.0;                      ///< sum of the scores of what was chosen
  double utility = 0.0;                        ///< copies + mu gate_mass
  double lyapunov = 0.0;                       ///< half the squared queues after the slot
  double drift = 0.0;                          ///< how much that grew

  /// @returns copies served / fan_out: tokens, if copies of different tokens could be put together
  [[nodiscard]] constexpr double tokens_served() const noexcept { return copies / static_cast<double>(fan_out); }
  /// @returns number of the first dropped token; the `dropped` ones follow each other
  [[nodiscard]] constexpr index_t first_dropped() const noexcept { return first_token + admitted; }
};

/// @brief Queues of copies in order of arrival, virtual energy queues, and the tokens that are under way.
///
/// Backlogs are real numbers: service may end inside a copy, and the next slot goes on there. Copies are whole: one is done
/// when all of it is served, and a token when its last copy is. Read the spans, let the controller write.
struct queue_state {
  std::vector<double> backlog;           ///< Q: copies that wait, less the served part of the first. @shape{servers}
  std::vector<double> energy_debt;       ///< Z. @unit{J} @shape{servers}
  std::vector<double> progress;          ///< served part of the first copy, in [0, 1). @shape{servers}
  std::vector<index_t> waiting;          ///< whole copies in each queue. @shape{servers}
  std::vector<std::int32_t> head;        ///< first copy of each queue, -1 if empty. @shape{servers}
  std::vector<std::int32_t> tail;        ///< last copy of each queue. @shape{servers}
  std::vector<std::int32_t> next;        ///< copy behind a copy; copy = place x fan_out + k. @shape{max_waiting x fan_out}
  std::vector<std::int32_t> left;        ///< copies of a token that wait. @shape{max_waiting}
  std::vector<std::int32_t> free_place;  ///< places without a token, the last one is taken first. @shape{max_waiting}
  std::vector<index_t> token;            ///< number of the token of a place. @shape{max_waiting}
  std::vector<index_t> arrived;          ///< slot of its arrival. @shape{max_waiting}
  std::vector<expert_id> choice;         ///< choices of the last slot. @shape{max_arrivals x fan_out}
  std::vector<index_t> sent;             ///< of the last slot. @shape{servers}
  std::vector<double> served;            ///< of the last slot. @shape{servers}
  std::vector<double> energy;            ///< of the last slot. @shape{servers}
  std::vector<index_t> completed;        ///< of the last slot. @shape{max_waiting}
  std::vector<index_t> delays;           ///< of the last slot. @shape{max_waiting}
  index_t slot = 0;                      ///< slots passed
  index_t next_token = 0;                ///< tokens that arrived
  index_t under_way = 0;                 ///< tokens of which a copy waits
  index_t fan_out = 1;                   ///< copies a token

  /// No server.
  queue_state() = default;
  /// @brief Make empty queues.
  /// @param servers number of servers, >= 0
  /// @param copies_a_token K, >= 1
  /// @param limits the largest sizes to serve
  /// @throws contract_violation (level 1) on a negative size, or more than 2^31 copies; std::bad_alloc
  queue_state(index_t servers, index_t copies_a_token, queue_limits const& limits) : fan_out(copies_a_token) {
    FAIRLEAD_EXPECTS(servers >= 0 && limits.max_arrivals >= 0 && limits.max_waiting >= 0, "sizes must not be negative", servers,
                     limits.max_arrivals, limits.max_waiting);
    FAIRLEAD_EXPECTS(copies_a_token >= 1, "a token makes at least one copy", copies_a_token);
    FAIRLEAD_EXPECTS(limits.max_waiting <= std::numeric_limits<std::int32_t>::max() / copies_a_token,
                     "copies under way are numbered by 32 bits: lower max_waiting", limits.max_waiting, copies_a_token);
    auto const count = static_cast<std::size_t>(servers);
    auto const places = static_cast<std::size_t>(limits.max_waiting);
    auto const k = static_cast<std::size_t>(copies_a_token);
    backlog.assign(count, 0.0);
    energy_debt.assign(count, 0.0);
    progress.assign(count, 0.0);
    waiting.assign(count, 0);
    head.assign(count, -1);
    tail.assign(count, -1);
    next.assign(places * k, -1);
    left.assign(places, 0);
    free_place.resize(places);
    for (std::size_t p = 0; p < places; ++p) { free_place[p] = static_cast<std::int32_t>(places - 1 - p); }
    token.assign(places, 0);
    arrived.assign(places, 0);
    choice.assign(static_cast<std::size_t>(limits.max_arrivals) * k, expert_id::none);
    sent.assign(count, 0);
    served.assign(count, 0.0);
    energy.assign(count, 0.0);
    completed.assign(places, 0);
    delays.assign(places, 0);
  }

  /// @returns number of servers
  [[nodiscard]] index_t servers() const noexcept { return static_cast<index_t>(backlog.size()); }
  /// @returns most tokens of which a copy waits
  [[nodiscard]] index_t max_waiting() const noexcept { return static_cast<index_t>(left.size()); }
  /// @returns most tokens of a slot
  [[nodiscard]] index_t max_arrivals() const noexcept { return static_cast<index_t>(choice.size()) / fan_out; }
  /// @returns sum of all backlogs. @unit{copies}
  [[nodiscard]] double total_backlog() const noexcept {
    double sum = 0.0;
    for (double const own : backlog) { sum += own; }
    return sum;
  }
  /// @brief Half the squared queues.
  /// @param energy_weight w
  /// @returns (sum of Q^2 + w Z^2) / 2
  [[nodiscard]] double lyapunov(double energy_weight) const noexcept {
    double sum = 0.0;
    for (std::size_t j = 0; j < backlog.size(); ++j) {
      sum += backlog[j] * backlog[j] + energy_weight * energy_debt[j] * energy_debt[j];
    }
    return 0.5 * sum;
  }

  /// @brief Visit the arrays of the state, for `save_state` and `load_state`.
  /// @param self the state
  /// @param f called with a span of each array
  template <class Self, class Function>
  static void each_array(Self& self, Function&& f) {
    f(std::span(self.backlog));
    f(std::span(self.energy_debt));
    f(std::span(self.progress));
    f(std::span(self.waiting));
    f(std::span(self.head));
    f(std::span(self.tail));
    f(std::span(self.next));
    f(std::span(self.left));
    f(std::span(self.free_place));
    f(std::span(self.token));
    f(std::span(self.arrived));
    f(std::span(&self.slot, 1));
    f(std::span(&self.next_token, 1));
    f(std::span(&self.under_way, 1));
    f(std::span(&self.fan_out, 1));
  }
};

FAIRLEAD_NAMESPACE_END
