// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The exact part of the min-max split: augmenting paths between ranks, and cuts that raise the cap.
#include <fairlead/core/load.hpp>
#include <fairlead/schedule/host_graph.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// The same cap for every rank.
template <class Sum>
struct even_cap {
  Sum lambda;
  [[nodiscard]] Sum operator()(std::int32_t) const noexcept { return lambda; }
  // `reached` is closed and carries `sum`, which stays there whatever the split. The mean, rounded up, is a bound.
  void raise(std::span<std::int32_t const> reached, std::int64_t sum) noexcept {
    auto const size = static_cast<std::int64_t>(reached.size());
    lambda = static_cast<Sum>((sum + size - 1) / size);
  }
};

// Caps floor(speed * numerator / denominator).
struct weighted_cap {
  std::int64_t const* speed;
  std::int64_t numerator;
  std::int64_t denominator;
  [[nodiscard]] std::int64_t operator()(std::int32_t rank) const noexcept {
    __extension__ using wide = __int128;
    return static_cast<std::int64_t>(static_cast<wide>(numerator) * speed[rank] / denominator);
  }
  // The least value at which the caps of the closed set hold `sum`: its mean load a unit of speed, then one value after the
  // other at which one of its caps grows. With fractions the mean alone can return the same cut for ever.
  void raise(std::span<std::int32_t const> reached, std::int64_t sum) noexcept {
    __extension__ using wide = __int128;
    for (;;) {
      std::int64_t room = 0;
      std::int64_t weight = 0;
      std::int64_t next = 0;
      std::int64_t next_speed = 0;
      for (std::int32_t const rank : reached) {
        std::int64_t const here = (*this)(rank);
        room += here;
        weight += speed[rank];
        if (next_speed == 0 || static_cast<wide>(here + 1) * next_speed < static_cast<wide>(next) * speed[rank]) { next = here + 1, next_speed = speed[rank]; }
      }
      if (room >= sum) { return; }
      bool const mean = static_cast<wide>(sum) * next_speed > static_cast<wide>(next) * weight;
      numerator = mean ? sum : next;
      denominator = mean ? weight : next_speed;
    }
  }
};

// Scratch of `augment`.
struct augment_scratch {
  std::span<std::int32_t> queue;          // ranks reached. @shape{ranks}
  std::span<std::int32_t> rank_seen;      // number of the search that reached a rank. @shape{ranks}
  std::span<std::int32_t> expert_seen;    // the same of an expert. @shape{experts}
  std::span<std::int32_t> into;           // column through which a rank was reached. @shape{ranks}
  std::span<std::int32_t> out_of;         // column that gives up copies for it. @shape{ranks}
  std::span<std::int32_t> cut;            // the last closed set. @shape{ranks}
};

struct augment_counts {
  std::int64_t searches = 0;
  std::int64_t paths = 0;
  std::int64_t raises = 0;
  std::int64_t cut_load = 0;  // what it carries
  std::int32_t cut_size = 0;  // entries of `cut`; 0 if the cap never rose
};

// Bring every rank to its cap: shortest paths from the most crowded rank to the nearest one with room; where none is reached
// the cap rises to what the closed set proves. With `until_raise` it then returns, whether or not ranks are still above.
template <class Sum, class Cap>
inline void augment(host_graph_view const& graph, count_t* share, Sum* load, Cap& cap, augment_scratch const& scratch, bool until_raise,
                    augment_counts& counts) noexcept {
  std::int32_t const* const rank_of = graph.rank.data();
  std::int32_t* const queue = scratch.queue.data();
  std::int32_t stamp = 0;
  std::fill(scratch.rank_seen.begin(), scratch.rank_seen.end(), 0);
  std::fill(scratch.expert_seen.begin(), scratch.expert_seen.end(), 0);
  for (;;) {
    // The most crowded rank first: its cut, if it has one, raises the cap most, and others then need no search.
    std::int32_t source = 0;
    Sum excess = 0;
    for (std::int32_t rank = 0; rank < graph.ranks; ++rank) {
      Sum const over = load[rank] - cap(rank);
      source = over > excess ? rank : source;
      excess = std::max(excess, over);
    }
    if (excess <= 0) { return; }
    for (bool done = false; !done; done = load[source] <= cap(source)) {
      if (stamp == INT32_MAX) {  // the stamps are used up: begin again
        std::fill(scratch.rank_seen.begin(), scratch.rank_seen.end(), 0);
        std::fill(scratch.expert_seen.begin(), scratch.expert_seen.end(), 0);
        stamp = 0;
      }
      ++counts.searches, ++stamp;
      std::int32_t tail = 0;
      std::int32_t sink = -1;
      queue[tail++] = source;
      scratch.rank_seen[static_cast<std::size_t>(source)] = stamp;
      for (std::int32_t head = 0; head < tail && sink < 0; ++head) {
        auto const u = static_cast<std::size_t>(queue[head]);
        for (std::int32_t k = graph.rank_first[u]; k < graph.rank_first[u + 1] && sink < 0; ++k) {
          std::int32_t const from = graph.rank_columns[static_cast<std::size_t>(k)];
          if (share[from] == 0) { continue; }
          auto const e = static_cast<std::size_t>(graph.expert[static_cast<std::size_t>(from)]);
          if (scratch.expert_seen[e] == stamp) { continue; }  // all its hosts are reached
          scratch.expert_seen[e] = stamp;
          for (std::int32_t to = graph.first[e]; to < graph.first[e + 1]; ++to) {
            std::int32_t const v = rank_of[to];
            if (v == graph.ranks || scratch.rank_seen[static_cast<std::size_t>(v)] == stamp) { continue; }
            scratch.rank_seen[static_cast<std::size_t>(v)] = stamp;
            scratch.into[static_cast<std::size_t>(v)] = to;
            scratch.out_of[static_cast<std::size_t>(v)] = from;
            queue[tail++] = v;
            if (load[v] < cap(v)) {
              sink = v;
              break;
            }
          }
        }
      }
      if (sink < 0) {
        counts.cut_load = 0;
        for (std::int32_t i = 0; i < tail; ++i) { counts.cut_load += load[queue[i]]; }
        counts.cut_size = tail;
        std::copy(queue, queue + tail, scratch.cut.begin());
        cap.raise({queue, static_cast<std::size_t>(tail)}, counts.cut_load);
        ++counts.raises;
        if (until_raise) { return; }
        continue;
      }
      Sum amount = std::min<Sum>(load[source] - cap(source), cap(sink) - load[sink]);
      for (std::int32_t v = sink; v != source;) {
        std::int32_t const from = scratch.out_of[static_cast<std::size_t>(v)];
        amount = std::min<Sum>(amount, share[from]);
        v = rank_of[from];
      }
      for (std::int32_t v = sink; v != source;) {
        std::int32_t const from = scratch.out_of[static_cast<std::size_t>(v)];
        share[from] = static_cast<count_t>(share[from] - amount);
        std::int32_t const to = scratch.into[static_cast<std::size_t>(v)];
        share[to] = static_cast<count_t>(share[to] + amount);
        v = rank_of[from];
      }
      load[source] -= amount;
      load[sink] += amount;
      ++counts.paths;
    }
  }
}

// One pass of all crowded ranks at once: a breadth-first forest from the ranks with room, backwards along shares, then every
// rank, farthest first, passes what it has above its cap one hop on. A rank with room may end above its cap. Returns the sum
// above caps afterwards. Nothing is certified here; it only leaves `augment` less to do.
template <class Sum, class Cap>
inline std::int64_t drain_towards_room(host_graph_view const& graph, count_t* share, Sum* load, Cap const& cap, augment_scratch const& scratch) noexcept {
  std::int32_t const* const rank_of = graph.rank.data();
  std::int32_t* const queue = scratch.queue.data();
  std::fill(scratch.rank_seen.begin(), scratch.rank_seen.end(), 0);
  std::fill(scratch.expert_seen.begin(), scratch.expert_seen.end(), 0);
  std::int32_t tail = 0;
  for (std::int32_t rank = 0; rank < graph.ranks; ++rank) {
    if (load[rank] < cap(rank)) {
      scratch.rank_seen[static_cast<std::size_t>(rank)] = 1;
      queue[tail++] = rank;
    }
  }
  std::int32_t const roots = tail;
  for (std::int32_t head = 0; head < tail; ++head) {
    auto const v = static_cast<std::size_t>(queue[head]);
    for (std::int32_t k = graph.rank_first[v]; k < graph.rank_first[v + 1]; ++k) {
      std::int32_t const to = graph.rank_columns[static_cast<std::size_t>(k)];
      auto const e = static_cast<std::size_t>(graph.expert[static_cast<std::size_t>(to)]);
      if (scratch.expert_seen[e] != 0) { continue; }
      scratch.expert_seen[e] = 1;
      for (std::int32_t from = graph.first[e]; from < graph.first[e + 1]; ++from) {
        std::int32_t const u = rank_of[from];
        if (share[from] == 0 || u == graph.ranks || scratch.rank_seen[static_cast<std::size_t>(u)] != 0) { continue; }
        scratch.rank_seen[static_cast<std::size_t>(u)] = 1;
        scratch.into[static_cast<std::size_t>(u)] = to;
        scratch.out_of[static_cast<std::size_t>(u)] = from;
        queue[tail++] = u;
      }
    }
  }
  while (tail > roots) {
    std::int32_t const u = queue[--tail];
    Sum const above = load[u] - cap(u);
    if (above <= 0) { continue; }
    std::int32_t const from = scratch.out_of[static_cast<std::size_t>(u)];
    std::int32_t const to = scratch.into[static_cast<std::size_t>(u)];
    Sum const amount = std::min<Sum>(above, share[from]);
    share[from] = static_cast<count_t>(share[from] - amount);
    share[to] = static_cast<count_t>(share[to] + amount);
    load[u] -= amount;
    load[rank_of[to]] += amount;
  }
  std::int64_t excess = 0;
  for (std::int32_t rank = 0; rank < graph.ranks; ++rank) { excess += std::max<std::int64_t>(0, load[rank] - cap(rank)); }
  return excess;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
