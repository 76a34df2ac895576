// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief First in, first out: copies enter the queues of a `queue_state` and leave them when they are served.
#include <fairlead/edge/queue_state.hpp>

#include <algorithm>
#include <cmath>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Append the copies of one token. There must be a free place.
inline void enqueue_token(queue_state& state, index_t token, expert_id const* row) {
  index_t const place = state.free_place[static_cast<std::size_t>(state.max_waiting() - state.under_way - 1)];
  ++state.under_way;
  auto const at = static_cast<std::size_t>(place);
  state.token[at] = token;
  state.arrived[at] = state.slot;
  state.left[at] = static_cast<std::int32_t>(state.fan_out);
  for (index_t k = 0; k < state.fan_out; ++k) {
    auto const copy = static_cast<std::int32_t>(place * state.fan_out + k);
    auto const server = static_cast<std::size_t>(row[k]);
    state.next[static_cast<std::size_t>(copy)] = -1;
    if (state.head[server] < 0) {
      state.head[server] = copy;
    } else {
      state.next[static_cast<std::size_t>(state.tail[server])] = copy;
    }
    state.tail[server] = copy;
    ++state.waiting[server];
  }
}

/// Remove whole copies from the front of a queue; returns the number of completed tokens including `completed`.
inline index_t dequeue_copies(queue_state& state, std::size_t server, index_t copies, index_t completed) {
  for (; copies > 0; --copies) {
    std::int32_t const copy = state.head[server];
    state.head[server] = state.next[static_cast<std::size_t>(copy)];
    --state.waiting[server];
    auto const place = static_cast<std::size_t>(copy / static_cast<std::int32_t>(state.fan_out));
    if (--state.left[place] > 0) { continue; }
    state.completed[static_cast<std::size_t>(completed)] = state.token[place];
    state.delays[static_cast<std::size_t>(completed)] = state.slot - state.arrived[place];
    ++completed;
    --state.under_way;
    state.free_place[static_cast<std::size_t>(state.max_waiting() - state.under_way - 1)] = static_cast<std::int32_t>(place);
  }
  if (state.head[server] < 0) { state.tail[server] = -1; }
  return completed;
}

/// What is left of a copy when it counts as served: sums of parts end that far beside whole numbers, ten tenths for one.
inline constexpr double nothing_left = 1e-12;

/// Serve `service` of `available` copies of a queue; the copies in it are the available ones.
inline index_t serve_queue(queue_state& state, std::size_t server, double service, double available, index_t completed) {
  index_t whole = state.waiting[server];
  double part = 0.0;
  if (service < available) {
    double const reached = state.progress[server] + service;
    double const done = std::floor(reached + nothing_left);
    // Rounding may reach the end of the queue where exact numbers stay below it.
    if (done < static_cast<double>(whole)) {
      whole = static_cast<index_t>(done);
      part = std::max(reached - done, 0.0);
    }
  }
  completed = dequeue_copies(state, server, whole, completed);
  state.progress[server] = state.waiting[server] == 0 ? 0.0 : part;
  return completed;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
