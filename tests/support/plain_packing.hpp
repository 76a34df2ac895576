// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Replicate and pack as plain scans over whole-number fractions: the oracle of the packing planners.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace fl_test {

__extension__ using wide_t = __int128;

// One load a replica as a fraction over a common denominator of all numbers up to the largest number of replicas that
// occurs: exact as long as it fits 127 bits.
struct plain_packing {
  std::vector<std::int64_t> load;  // local order decides ties

  struct replicas_t {
    std::vector<int> expert;  // of each replica: first one each, then as they are given out
    std::vector<int> count;
  };
  replicas_t replicate(int slots) const {
    replicas_t made;
    int const n = static_cast<int>(load.size());
    made.count.assign(load.size(), 1);
    for (int e = 0; e < n; ++e) { made.expert.push_back(e); }
    while (static_cast<int>(made.expert.size()) < slots) {
      int best = 0;
      for (int e = 1; e < n; ++e) {
        auto const a = static_cast<std::size_t>(e);
        auto const b = static_cast<std::size_t>(best);
        if (static_cast<wide_t>(load[a]) * made.count[b] > static_cast<wide_t>(load[b]) * made.count[a]) { best = e; }
      }
      ++made.count[static_cast<std::size_t>(best)];
      made.expert.push_back(best);
    }
    return made;
  }

  // Items by descending weight, ties by number, to the lightest pack with room, ties to the lowest. rooms: items of
  // each pack. Returns the items of each pack in the order in which they came.
  static std::vector<std::vector<int>> pack(std::vector<wide_t> const& weight, std::vector<int> const& rooms) {
    std::vector<std::vector<int>> packs(rooms.size());
    bool const one_each = std::all_of(rooms.begin(), rooms.end(), [](int room) { return room <= 1; });
    if (one_each && std::accumulate(rooms.begin(), rooms.end(), 0) == static_cast<int>(weight.size())) {
      int item = 0;
      for (std::size_t p = 0; p < rooms.size(); ++p) {
        if (rooms[p] == 1) { packs[p].push_back(item++); }
      }
      return packs;
    }
    std::vector<int> order(weight.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return weight[static_cast<std::size_t>(a)] > weight[static_cast<std::size_t>(b)];
    });
    std::vector<wide_t> sums(rooms.size(), 0);
    for (int const item : order) {
      std::size_t best = rooms.size();
      for (std::size_t p = 0; p < rooms.size(); ++p) {
        if (static_cast<int>(packs[p].size()) < rooms[p] && (best == rooms.size() || sums[p] < sums[best])) {
          best = p;
        }
      }
      packs[best].push_back(item);
      sums[best] += weight[static_cast<std::size_t>(item)];
    }
    return packs;
  }

  // The local numbers of experts in each slot, rank after rank.
  std::vector<std::vector<int>> place(std::vector<int> const& rooms) const {
    replicas_t const made = replicate(std::accumulate(rooms.begin(), rooms.end(), 0));
    wide_t common = 1;
    for (int const count : made.count) {
      common = common / std::gcd<std::int64_t>(static_cast<std::int64_t>(common), count) * count;
    }
    std::vector<wide_t> weight;
    for (int const e : made.expert) {
      weight.push_back(load[static_cast<std::size_t>(e)] * (common / made.count[static_cast<std::size_t>(e)]));
    }
    auto packs = pack(weight, rooms);
    for (auto& one : packs) {
      for (int& item : one) { item = made.expert[static_cast<std::size_t>(item)]; }
    }
    return packs;
  }
};

}  // namespace fl_test
