// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Replicas with equal shares, as one sorted list of whole-number weights, packed into ranks.
#include <fairlead/place/detail/share_counts.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail::packing {

// A rank that has slots.
struct bin {
  std::uint32_t first;  // its first slot
  std::uint32_t room;   // number of its slots
};

// The scratch of one packing problem of up to `experts` experts, `slots` slots and `bins` ranks.
struct packing_scratch {
  sort_scratch sort;
  std::uint64_t* given;     // [experts] loads by local number
  std::uint64_t* load;      // [experts] loads, descending
  std::uint32_t* order;     // [experts] local numbers by descending load
  std::uint32_t* replicas;  // [experts] in that order
  std::uint32_t* heap;      // [experts]
  std::uint64_t* share;     // [experts] weight of a replica, in that order
  std::uint32_t* item;      // [slots] local number of the expert of each replica, by descending weight
  std::uint64_t* weight;    // [slots] weight of each replica
  std::uint64_t* tree;      // [2 * power of two >= bins]
  bin* bins;                // [bins]
  std::uint32_t* fill;      // [bins]
  std::uint32_t* mark;      // [experts]
  std::uint32_t* placed;    // [slots] local number of the expert in each slot of the cluster, or `nothing`
  static constexpr std::uint32_t nothing = ~std::uint32_t{0};

  static index_t leaves(index_t bins) {
    return static_cast<index_t>(std::bit_ceil(static_cast<std::uint64_t>(std::max<index_t>(bins, 1))));
  }
  static std::size_t bytes(index_t experts, index_t slots, index_t bins) {
    return sort_scratch::bytes(experts) + 3 * fairlead::workspace_bytes<std::uint64_t>(experts) +
           4 * fairlead::workspace_bytes<std::uint32_t>(experts) + 2 * fairlead::workspace_bytes<std::uint32_t>(slots) +
           fairlead::workspace_bytes<std::uint64_t>(slots) +
           fairlead::workspace_bytes<std::uint64_t>(2 * leaves(bins)) + fairlead::workspace_bytes<bin>(bins) +
           fairlead::workspace_bytes<std::uint32_t>(bins);
  }
  packing_scratch(index_t experts, index_t slots, index_t ranks, workspace& ws)
      : sort(experts, ws),
        given(ws.take<std::uint64_t>(experts).data()),
        load(ws.take<std::uint64_t>(experts).data()),
        order(ws.take<std::uint32_t>(experts).data()),
        replicas(ws.take<std::uint32_t>(experts).data()),
        heap(ws.take<std::uint32_t>(experts).data()),
        share(ws.take<std::uint64_t>(experts).data()),
        item(ws.take<std::uint32_t>(slots).data()),
        weight(ws.take<std::uint64_t>(slots).data()),
        tree(ws.take<std::uint64_t>(2 * leaves(ranks)).data()),
        bins(ws.take<bin>(ranks).data()),
        fill(ws.take<std::uint32_t>(ranks).data()),
        mark(ws.take<std::uint32_t>(experts).data()),
        placed(ws.take<std::uint32_t>(slots).data()) {}
};

// How whole-number weights stand for loads: weight = load * scale.
struct weight_unit {
  double load_of_one = 0.0;  // 1 / scale
  bool exact = true;         // quotients are whole numbers in this unit
};

// Weights of the replicas of experts, all divided by the same number: whole numbers where a common multiple of the
// numbers of replicas leaves room for sums below 2^(62 - spare_bits), else rounded down to as many bits as fit. loads,
// replicas, share: [n], `total` the sum of loads, `several` the experts that may have more than one replica.
inline weight_unit make_shares(std::uint64_t const* loads, std::uint32_t const* replicas, std::uint32_t n,
                               std::uint32_t several, std::uint64_t total, int spare_bits, std::uint64_t* share) {
  std::uint64_t const room = std::uint64_t{1} << (62 - spare_bits);
  // Numbers of replicas up to 63 as a set; least common multiple of all.
  std::uint64_t seen = 0;
  std::uint64_t multiple = 1;
  bool fits = true;
  auto const include = [&](std::uint64_t count) {
    std::uint64_t const factor = count / std::gcd(multiple, count);
    fits = fits && multiple <= room / factor;
    multiple *= fits ? factor : 1;
  };
  for (std::uint32_t i = 0; i < several; ++i) {
    if (replicas[i] < 64) {
      seen |= std::uint64_t{1} << replicas[i];
    } else if (fits) {
      include(replicas[i]);
    }
  }
  for (std::uint64_t rest = seen & ~std::uint64_t{3}; rest != 0 && fits; rest &= rest - 1) {
    include(static_cast<std::uint64_t>(std::countr_zero(rest)));
  }
  std::uint64_t divisor = 1;
  if (!fits || total > room / multiple) {
    // The same weights for proportional loads.
    divisor = 0;
    for (std::uint32_t i = 0; i < n && divisor != 1; ++i) { divisor = std::gcd(divisor, loads[i]); }
    divisor = std::max<std::uint64_t>(divisor, 1);
    total /= divisor;
    fits = fits && total <= room / multiple;
  }
  if (fits) {
    for (std::uint32_t i = 0; i < several; ++i) {
      share[i] = loads[i] / divisor * (multiple / std::max(replicas[i], 1U));
    }
    if (divisor == 1) {
      for (std::uint32_t i = several; i < n; ++i) { share[i] = loads[i] * multiple; }
    } else {
      for (std::uint32_t i = several; i < n; ++i) { share[i] = loads[i] / divisor * multiple; }
    }
    return {static_cast<double>(divisor) / static_cast<double>(multiple), true};
  }
  int const left = std::countl_zero(total) - spare_bits - 2;  // total * 2^left < 2^(62 - spare_bits)
  for (std::uint32_t i = 0; i < n; ++i) {
    std::uint64_t const load = loads[i] / divisor;
    std::uint64_t const count = std::max(replicas[i], 1U);
    share[i] =
        left >= 0 ? static_cast<std::uint64_t>((static_cast<wide>(load) << left) / count) : (load / count) >> -left;
  }
  double const unit = static_cast<double>(divisor);
  return {left >= 0 ? unit / static_cast<double>(std::uint64_t{1} << left)
                    : unit * static_cast<double>(std::uint64_t{1} << -left),
          false};
}

// The replicas of sorted experts in the order in which they are packed: weight descending, then the number that EPLB
// gives a replica (first replicas by number of the expert, then the others as they were given out).
struct replica_list {
  packing_scratch const& s;
  std::uint32_t n;
  std::uint32_t several;  // experts of the sorted list that have more than one replica come first
  std::uint32_t count = 0;

  void emit(std::uint32_t at) noexcept {
    for (std::uint32_t r = s.replicas[at]; r > 0; --r) {
      s.item[count] = s.order[at];
      s.weight[count++] = s.share[at];
    }
  }
  [[nodiscard]] bool tied(std::uint32_t a, std::uint32_t b) const noexcept {
    return s.share[a] == s.share[b] && equal_share(s.load[a], s.replicas[a], s.load[b], s.replicas[b]);
  }
  // A class of experts with the same load a replica: positions first[0 ... size).
  void emit_class(std::uint32_t* first, std::uint32_t size) noexcept {
    if (size == 1) { return emit(*first); }
    std::sort(first, first + size, [this](std::uint32_t a, std::uint32_t b) { return s.order[a] < s.order[b]; });
    std::uint64_t const weight = s.share[*first];
    auto const one = [&](std::uint32_t at) {
      s.item[count] = s.order[at];
      s.weight[count++] = weight;
    };
    std::uint32_t most = 1;
    bool equal = true;
    for (std::uint32_t i = 0; i < size; ++i) {
      one(first[i]);
      most = std::max(most, s.replicas[first[i]]);
      equal = equal && s.replicas[first[i]] == s.replicas[*first];
    }
    if (equal) {
      for (std::uint32_t r = 1; r < most; ++r) {
        for (std::uint32_t i = 0; i < size; ++i) { one(first[i]); }
      }
      return;
    }
    // The j-th further replica of an expert was given out at load / j, here in the ratio of replicas / j.
    for (std::uint32_t i = 0; i < size; ++i) { s.mark[s.order[first[i]]] = 1; }
    while (true) {
      std::uint32_t best = n;
      for (std::uint32_t i = 0; i < size; ++i) {
        std::uint32_t const at = first[i];
        if (s.mark[s.order[at]] >= s.replicas[at]) { continue; }
        if (best == n || std::uint64_t{s.replicas[at]} * s.mark[s.order[best]] >
                             std::uint64_t{s.replicas[best]} * s.mark[s.order[at]]) {
          best = at;
        }
      }
      if (best == n) { return; }
      ++s.mark[s.order[best]];
      one(best);
    }
  }
  void make() noexcept {
    // The replicated ones by weight, merged with the others, which are sorted already.
    std::uint32_t* const head = s.heap;
    for (std::uint32_t i = 0; i < several; ++i) { head[i] = i; }
    auto const before = [this](std::uint32_t a, std::uint32_t b) {
      if (s.share[a] != s.share[b]) { return s.share[a] > s.share[b]; }
      wide const left = static_cast<wide>(s.load[a]) * s.replicas[b];
      wide const right = static_cast<wide>(s.load[b]) * s.replicas[a];
      return left != right ? left > right : s.order[a] < s.order[b];
    };
    std::sort(head, head + several, before);
    std::uint32_t a = 0;
    std::uint32_t b = several;
    std::uint32_t* const tie = s.sort.now;
    while (a < several || b < n) {
      bool const from_head = a < several && (b == n || before(head[a], b));
      std::uint32_t const at = from_head ? head[a++] : b++;
      bool const more = (a < several && tied(head[a], at)) || (b < n && tied(b, at));
      if (!more) {
        emit(at);
        continue;
      }
      std::uint32_t size = 0;
      tie[size++] = at;
      while (a < several && tied(head[a], at)) { tie[size++] = head[a++]; }
      while (b < n && tied(b, at)) { tie[size++] = b++; }
      emit_class(tie, size);
    }
  }
};

// Each replica of a list to the lightest rank with room, ties to the lowest rank. Weights leave the bits that name a
// rank free at the top. Returns the largest sum.
inline std::uint64_t pack_lightest(packing_scratch const& s, std::uint32_t count, std::uint32_t ranks) {
  std::uint32_t const* const item = s.item;
  std::uint64_t const* const weight = s.weight;
  bin const* const bins = s.bins;
  std::uint64_t* const tree = s.tree;
  std::uint32_t* const fill = s.fill;
  // A winner tree of (sum, rank) in one word. The way up from a leaf is known before its values are.
  auto const leaves = static_cast<std::uint32_t>(std::bit_ceil(std::max(ranks, 1U)));
  int const rank_bits = std::countr_zero(leaves);
  constexpr std::uint64_t full = ~std::uint64_t{0};
  for (std::uint32_t b = 0; b < leaves; ++b) { tree[leaves + b] = b < ranks && bins[b].room > 0 ? b : full; }
  for (std::uint32_t node = leaves; --node > 0;) { tree[node] = std::min(tree[2 * node], tree[2 * node + 1]); }
  std::fill_n(fill, ranks, 0U);
  std::uint64_t best = tree[1];
  std::uint64_t largest = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    auto const rank = static_cast<std::uint32_t>(best) & (leaves - 1);
    std::uint64_t const grown = best + (weight[i] << rank_bits);
    s.placed[bins[rank].first + fill[rank]++] = item[i];
    largest = std::max(largest, grown);
    best = fill[rank] == bins[rank].room ? full : grown;
    std::uint32_t node = leaves + rank;
    tree[node] = best;
    for (; node > 1; tree[node] = best) {
      best = std::min(best, tree[node ^ 1U]);
      node >>= 1U;
    }
  }
  return largest >> rank_bits;
}

}  // namespace detail::packing
FAIRLEAD_NAMESPACE_END
