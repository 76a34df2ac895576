// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Even out rank loads two hosts at a time: the cheap part of the exact min-max split.
#include <fairlead/core/load.hpp>
#include <fairlead/schedule/host_graph.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// How much should move from rank b to rank a so that both are equally busy, before limits. Even speeds.
template <class Sum>
struct even_pull {
  FAIRLEAD_HD Sum operator()(Sum load_a, Sum load_b, std::int32_t, std::int32_t) const noexcept { return (load_b - load_a) >> 1; }
};

// The same for speeds. @shape{ranks + 1}; the last entry belongs to nobody and is 1.
struct weighted_pull {
  std::int64_t const* speed;
  std::int64_t operator()(std::int64_t load_a, std::int64_t load_b, std::int32_t a, std::int32_t b) const noexcept {
    return (load_b * speed[a] - load_a * speed[b]) / (speed[a] + speed[b]);
  }
};

// Move copies of one expert between its columns a and b; never below zero. Branch-free where Pull is.
template <class Sum, class Pull>
inline void exchange_pair(count_t& share_a, count_t& share_b, Sum& load_a, Sum& load_b, Sum pull) noexcept {
  pull = std::max(pull, static_cast<Sum>(-share_a));
  pull = std::min(pull, static_cast<Sum>(share_b));
  share_a = static_cast<count_t>(share_a + pull);
  share_b = static_cast<count_t>(share_b - pull);
  load_a += pull;
  load_b -= pull;
}

// One expert with two columns.
template <class Sum, class Pull>
inline void even_out_two(count_t* share, std::int32_t const* rank, Sum* load, Pull const& pull) noexcept {
  Sum a = load[rank[0]];
  Sum b = load[rank[1]];
  exchange_pair<Sum, Pull>(share[0], share[1], a, b, pull(a, b, rank[0], rank[1]));
  load[rank[0]] = a;
  load[rank[1]] = b;
}

// One expert with four columns: a butterfly of pairs, which is an exact mean when no limit binds. Two columns may be
// nobody's (the same entry of `load`): both hold no share, so what is written there does not matter.
template <class Sum, class Pull>
inline void even_out_four(count_t* share, std::int32_t const* rank, Sum* load, Pull const& pull) noexcept {
  count_t s0 = share[0], s1 = share[1], s2 = share[2], s3 = share[3];
  std::int32_t const r0 = rank[0], r1 = rank[1], r2 = rank[2], r3 = rank[3];
  Sum a = load[r0], b = load[r1], c = load[r2], d = load[r3];
  exchange_pair<Sum, Pull>(s0, s1, a, b, pull(a, b, r0, r1));
  exchange_pair<Sum, Pull>(s2, s3, c, d, pull(c, d, r2, r3));
  exchange_pair<Sum, Pull>(s0, s2, a, c, pull(a, c, r0, r2));
  exchange_pair<Sum, Pull>(s1, s3, b, d, pull(b, d, r1, r3));
  share[0] = s0, share[1] = s1, share[2] = s2, share[3] = s3;
  load[r0] = a, load[r1] = b, load[r2] = c, load[r3] = d;
}

// One expert with any number of columns: the butterfly with strides 1, 2, 4, ...
template <class Sum, class Pull>
inline void even_out_many(count_t* share, std::int32_t const* rank, std::int32_t degree, Sum* load, Pull const& pull) noexcept {
  for (std::int32_t stride = 1; stride < degree; stride *= 2) {
    for (std::int32_t i = 0; i + stride < degree; ++i) {
      if ((i & stride) != 0) { continue; }
      exchange_pair<Sum, Pull>(share[i], share[i + stride], load[rank[i]], load[rank[i + stride]],
                               pull(load[rank[i]], load[rank[i + stride]], rank[i], rank[i + stride]));
    }
  }
}

// Visit the experts of at least two columns, fewest columns first; `prepare(expert, first column)` runs before each.
template <class Sum, class Pull, class Prepare>
inline void sweep(host_graph_view const& graph, count_t* share, Sum* load, Pull const& pull, Prepare const& prepare) noexcept {
  std::int32_t const* const rank = graph.rank.data();
  auto const degrees = static_cast<std::int32_t>(graph.degree_first.size()) - 1;
  for (std::int32_t degree = 1; degree < degrees; ++degree) {
    std::int32_t const* expert = graph.by_degree.data() + graph.degree_first[static_cast<std::size_t>(degree)];
    std::int32_t const* const end = graph.by_degree.data() + graph.degree_first[static_cast<std::size_t>(degree) + 1];
    if (degree == 2) {
      for (; expert != end; ++expert) {
        std::int32_t const column = graph.first[static_cast<std::size_t>(*expert)];
        prepare(*expert, column, degree);
        even_out_two<Sum>(share + column, rank + column, load, pull);
      }
    } else if (degree == 4) {
      for (; expert != end; ++expert) {
        std::int32_t const column = graph.first[static_cast<std::size_t>(*expert)];
        prepare(*expert, column, degree);
        even_out_four<Sum>(share + column, rank + column, load, pull);
      }
    } else {
      for (; expert != end; ++expert) {
        std::int32_t const column = graph.first[static_cast<std::size_t>(*expert)];
        prepare(*expert, column, degree);
        even_out_many<Sum>(share + column, rank + column, degree, load, pull);
      }
    }
  }
}

// One pass over a spanning forest, leaves first: every rank but the roots is brought to `target` as far as the shares of
// the edge's expert allow. Exact in one pass when none of them binds: then only the roots can be off.
template <class Sum>
inline void settle_tree(host_graph_view const& graph, count_t* share, Sum* load, Sum target) noexcept {
  for (std::size_t i = 0; i < graph.tree.size(); i += 4) {
    std::int32_t const* const edge = &graph.tree[i];
    exchange_pair<Sum, even_pull<Sum>>(share[edge[3]], share[edge[2]], load[edge[1]], load[edge[0]], load[edge[0]] - target);
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
