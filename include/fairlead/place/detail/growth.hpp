// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Private: hand out replicas one by one to whom a divisor rule prefers, without handing them out one by one.
#include <fairlead/core/workspace.hpp>
#include <fairlead/place/detail/counting.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail::replica_counts {

template <class Number>
[[nodiscard]] constexpr int sign_of_difference(Number a, Number b) noexcept {
  return (a > b ? 1 : 0) - (a < b ? 1 : 0);
}

// Compares a / b with c / d for b, d > 0 without products: by the digits of their continued fractions.
[[nodiscard]] constexpr int compare_quotients(unsigned_wide a, unsigned_wide b, unsigned_wide c, unsigned_wide d) noexcept {
  for (int sign = 1;; sign = -sign) {
    if (a / b != c / d) { return sign * sign_of_difference(a / b, c / d); }
    a %= b;
    c %= d;
    if (a == 0 || c == 0) { return sign * sign_of_difference(a, c); }
    std::swap(a, b);  // a / b < c / d exactly if b / a > d / c
    std::swap(c, d);
  }
}

// A divisor rule gives the next replica to the expert with the largest load / d(r), r the replicas that it has.
// - compare<narrow>(load, replicas, load, replicas): sign of the difference of two such quotients, exact; narrow: fits()
// - taken(x), most(x) for x = floor(steps load / t): at least and at most how many r >= 1 have load / d(r) >= t;
//   most(x) <= load / t

// d(r) = r, Adams: the smallest largest load of a replica.
struct by_replicas {
  static constexpr index_t steps = 1;
  static constexpr bool fits(index_t largest, index_t replicas) noexcept {
    return largest <= std::numeric_limits<index_t>::max() / (replicas + 1);
  }
  template <bool narrow>
  static constexpr int compare(index_t load_a, index_t a, index_t load_b, index_t b) noexcept {
    if constexpr (narrow) { return sign_of_difference(load_a * b, load_b * a); }
    return sign_of_difference(static_cast<wide>(load_a) * b, static_cast<wide>(load_b) * a);
  }
  static constexpr index_t taken(index_t x) noexcept { return x; }
  static constexpr index_t most(index_t x) noexcept { return x; }
};

// d(r) = r + 1/2, Webster: the nearest whole number of replicas.
struct by_half_steps {
  static constexpr index_t steps = 2;
  static constexpr bool fits(index_t largest, index_t replicas) noexcept {
    return largest <= std::numeric_limits<index_t>::max() / (2 * replicas + 3);
  }
  template <bool narrow>
  static constexpr int compare(index_t load_a, index_t a, index_t load_b, index_t b) noexcept {
    return by_replicas::compare<narrow>(load_a, 2 * a + 1, load_b, 2 * b + 1);
  }
  static constexpr index_t taken(index_t x) noexcept { return x > 0 ? (x - 1) / 2 : 0; }
  static constexpr index_t most(index_t x) noexcept { return taken(x); }
};

// d(r) = sqrt(r (r + 1)), Huntington and Hill: compared by squares.
struct by_geometric_mean {
  static constexpr index_t steps = 8;
  static constexpr bool fits(index_t largest, index_t replicas) noexcept { return by_replicas::fits(largest, replicas + 1); }
  template <bool narrow>
  static constexpr int compare(index_t load_a, index_t a, index_t load_b, index_t b) noexcept {
    auto const square_a = static_cast<unsigned_wide>(load_a) * static_cast<unsigned_wide>(load_a);
    auto const square_b = static_cast<unsigned_wide>(load_b) * static_cast<unsigned_wide>(load_b);
    auto const divisor_a = static_cast<unsigned_wide>(a * (a + 1));
    auto const divisor_b = static_cast<unsigned_wide>(b * (b + 1));
    if constexpr (narrow) { return sign_of_difference(square_a * divisor_b, square_b * divisor_a); }
    return compare_quotients(square_a, divisor_a, square_b, divisor_b);
  }
  // With y = load / t, r counts if r + 1/2 <= sqrt(y y + 1/4), which lies between y and y + 1/8 for y >= 1.
  static constexpr index_t taken(index_t x) noexcept { return x > 4 ? (x - 4) / 8 : 0; }
  static constexpr index_t most(index_t x) noexcept { return x > 3 ? (x - 3) / 8 : 0; }
};

inline constexpr index_t no_limit = 2 * most_slots;

struct candidate {
  index_t load;
  index_t replicas;
  index_t expert;
};

// Heap order: quotient descending, then expert ascending; experts without load take turns.
template <class Divisor, bool narrow>
struct preferred {
  [[nodiscard]] bool operator()(candidate const& a, candidate const& b) const noexcept {
    int const order = Divisor::template compare<narrow>(a.load, a.replicas, b.load, b.replicas);
    if (order != 0) { return order > 0; }
    return a.load == 0 && a.replicas != b.replicas ? a.replicas < b.replicas : a.expert < b.expert;
  }
};

// Puts `item` into the hole at `at`, and moves what is preferred to it up.
template <class Order>
void sink(std::span<candidate> heap, std::size_t at, candidate item, Order before) noexcept {
  for (;;) {
    std::size_t child = 2 * at + 1;
    if (child >= heap.size()) { break; }
    if (child + 1 < heap.size() && before(heap[child + 1], heap[child])) { ++child; }
    if (!before(heap[child], item)) { break; }
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = item;
}

template <class Order>
void build(std::span<candidate> heap, Order before) noexcept {
  for (std::size_t at = heap.size() / 2; at-- > 0;) { sink(heap, at, heap[at], before); }
}

template <class Order>
[[nodiscard]] index_t grow_in_order(std::span<candidate> heap, index_t budget, index_t limit, Order before) noexcept {
  // Who has reached the limit is put behind the heap.
  std::size_t open = 0;
  for (std::size_t i = 0; i < heap.size(); ++i) {
    if (heap[i].replicas < limit) { std::swap(heap[i], heap[open++]); }
  }
  heap = heap.first(open);
  build(heap, before);
  for (; budget > 0 && !heap.empty(); --budget) {
    candidate top = heap.front();
    ++top.replicas;
    if (top.replicas < limit) {
      sink(heap, 0, top, before);
    } else {
      candidate const last = heap.back();
      heap.back() = top;
      heap = heap.first(heap.size() - 1);
      if (!heap.empty()) { sink(heap, 0, last, before); }
    }
  }
  return budget;
}

// Hands out `budget` replicas, at most `limit` an expert; returns how many nobody could take. The order of `candidates`
// changes.
template <class Divisor>
[[nodiscard]] index_t grow(std::span<candidate> candidates, index_t budget, index_t limit = no_limit) noexcept {
  if (budget == 0) { return 0; }
  index_t largest = 0;
  index_t most = 0;
  for (candidate const& item : candidates) {
    largest = std::max(largest, item.load);
    most = std::max(most, item.replicas);
  }
  return Divisor::fits(largest, most + budget) ? grow_in_order(candidates, budget, limit, preferred<Divisor, true>{})
                                               : grow_in_order(candidates, budget, limit, preferred<Divisor, false>{});
}

inline void gather(std::span<index_t const> load, std::span<index_t const> replicas, std::span<candidate> candidates) noexcept {
  for (std::size_t e = 0; e < load.size(); ++e) { candidates[e] = {load[e], replicas[e], static_cast<index_t>(e)}; }
}
inline void scatter(std::span<candidate const> candidates, std::span<index_t> replicas) noexcept {
  for (candidate const& item : candidates) { replicas[static_cast<std::size_t>(item.expert)] = item.replicas; }
}

// Hands out `budget` replicas beyond one each, at most `limit` an expert in all; returns how many nobody could take.
// Equal to handing them out one by one, but only the last few go through a heap. All quotients at or above a threshold go
// first if they are not more than the budget: whoever comes next is then the best of the rest, as it would have been. A few
// passes lower that threshold. A second, lower one with at least `budget` quotients says who may still come: nobody below
// it. `trial` and `candidates` are scratch. @shape{experts}
template <class Divisor>
[[nodiscard]] index_t hand_out(std::span<index_t const> load, load_size size, index_t budget, index_t limit,
                               std::span<index_t> replicas, std::span<index_t> trial, std::span<candidate> candidates) noexcept {
  auto const experts = static_cast<index_t>(load.size());
  index_t const most_more = limit - 1;
  if (experts == 0 || most_more <= budget / experts) {
    std::fill(replicas.begin(), replicas.end(), limit);
    return budget - experts * most_more;
  }
  if (size.total == 0) {
    spread_evenly(experts + budget, replicas);
    return 0;
  }
  std::fill(replicas.begin(), replicas.end(), index_t{1});
  struct sums {
    index_t taken;
    index_t most;
  };
  auto const count = [&](index_t steps) {
    divide<false>(load, size, steps, trial.data(), nullptr);
    sums result{0, 0};
    for (index_t const x : trial) {
      result.taken += std::min(Divisor::taken(x), most_more);
      result.most += std::min(Divisor::most(x), most_more);
    }
    return result;
  };
  index_t left = budget;
  index_t base = 0;  // the steps that the counts are from
  bool bounded = false;
  index_t more = Divisor::steps * budget;
  for (int pass = 0; pass < 4 && left > experts / 16 && left > 0; ++pass) {
    sums const now = count(base + more);
    if (now.most > budget) {
      bounded = now.taken >= budget;
      break;
    }
    for (std::size_t e = 0; e < trial.size(); ++e) { replicas[e] = 1 + std::min(Divisor::taken(trial[e]), most_more); }
    base += more;
    left = budget - now.taken;
    if (now.most == budget) { break; }
    more = std::max<index_t>(Divisor::steps * (budget - now.most) * 7 / 8, 1);  // not all of the room: one too many is no use
  }
  if (left == 0) { return 0; }
  more = Divisor::steps * (2 * left + 4);
  for (int pass = 0; pass < 4 && !bounded; ++pass, more *= 3) { bounded = count(base + more).taken >= budget; }
  std::size_t open = 0;
  for (std::size_t e = 0; e < load.size(); ++e) {
    candidates[open] = {load[e], replicas[e], static_cast<index_t>(e)};
    index_t const most = bounded ? std::min(Divisor::most(trial[e]), most_more) : most_more;
    open += most >= replicas[e] ? 1U : 0U;
  }
  left = grow<Divisor>(candidates.first(open), left, limit);
  scatter(candidates.first(open), replicas);
  return left;
}

// The whole rule with at least one replica an expert.
template <class Divisor>
[[nodiscard]] report apportion_by(std::span<index_t const> load, index_t slots, std::span<index_t> replicas, workspace& ws) {
  start const begun = begin(load, slots, replicas);
  if (begun.settled) { return begun.ended; }
  workspace::scope const scope(ws);
  auto const experts = static_cast<index_t>(load.size());
  auto const trial = ws.take<index_t>(experts);
  auto const candidates = ws.take<candidate>(experts);
  (void)hand_out<Divisor>(load, begun.size, slots - experts, no_limit, replicas, trial, candidates);
  return {.value = largest_share(load, replicas)};
}
[[nodiscard]] constexpr std::size_t apportion_by_bytes(index_t experts) noexcept {
  return fairlead::workspace_bytes<index_t>(experts) + fairlead::workspace_bytes<candidate>(experts);
}

}  // namespace detail::replica_counts
FAIRLEAD_NAMESPACE_END
