// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Replicate and pack as the reference of expert parallel load balancing states it, in fp32: with scans, and
/// with heaps.
#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <span>
#include <utility>
#include <vector>

namespace fl_bench {

using fairlead::index_t;

/// Plain packing on ranks with equal numbers of slots and nodes with equal numbers of ranks.
struct plain_packing {
  /// Expert of each slot, and the largest load of a rank.
  struct table {
    std::vector<int> slots;
    double value = 0.0;
  };
  bool heaps = false;  ///< heaps instead of scans

  /// Packs items by descending weight into bins of equal size; writes the items of each bin side by side.
  void pack(std::vector<float> const& weight, int bins, std::vector<int>& out) const {
    int const items = static_cast<int>(weight.size());
    int const room = items / bins;
    out.resize(weight.size());
    std::vector<int> order(weight.size());
    std::iota(order.begin(), order.end(), 0);
    if (room == 1) {
      out = order;
      return;
    }
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return weight[size(a)] > weight[size(b)]; });
    std::vector<int> fill(size(bins), 0);
    if (heaps) {
      using entry = std::pair<float, int>;
      std::priority_queue<entry, std::vector<entry>, std::greater<>> lightest;
      for (int b = 0; b < bins; ++b) { lightest.emplace(0.0F, b); }
      for (int const item : order) {
        auto const [sum, b] = lightest.top();
        lightest.pop();
        out[size(b * room + fill[size(b)]++)] = item;
        if (fill[size(b)] < room) { lightest.emplace(sum + weight[size(item)], b); }
      }
      return;
    }
    std::vector<float> sum(size(bins), 0.0F);
    for (int const item : order) {
      int best = -1;
      for (int b = 0; b < bins; ++b) {
        if (fill[size(b)] < room && (best < 0 || sum[size(b)] < sum[size(best)])) { best = b; }
      }
      out[size(best * room + fill[size(best)]++)] = item;
      sum[size(best)] += weight[size(item)];
    }
  }

  /// Gives replicas out one by one; returns the expert of each.
  std::vector<int> replicate(std::vector<float> const& weight, int slots, std::vector<int>& count) const {
    std::vector<int> who(weight.size());
    std::iota(who.begin(), who.end(), 0);
    count.assign(weight.size(), 1);
    if (heaps) {
      std::vector<std::pair<float, int>> entries;
      for (std::size_t e = 0; e < weight.size(); ++e) { entries.emplace_back(weight[e], -static_cast<int>(e)); }
      std::priority_queue<std::pair<float, int>> heap({}, std::move(entries));
      while (static_cast<int>(who.size()) < slots) {
        int const e = -heap.top().second;
        heap.pop();
        who.push_back(e);
        heap.emplace(weight[size(e)] / static_cast<float>(++count[size(e)]), -e);
      }
      return who;
    }
    while (static_cast<int>(who.size()) < slots) {
      std::size_t best = 0;
      float most = -1.0F;
      for (std::size_t e = 0; e < weight.size(); ++e) {
        float const share = weight[e] / static_cast<float>(count[e]);
        if (share > most) {
          most = share;
          best = e;
        }
      }
      ++count[best];
      who.push_back(static_cast<int>(best));
    }
    return who;
  }

  /// Plans one layer. One group is the global policy.
  table plan(std::span<index_t const> load, int slots, int ranks, int nodes, int groups) const {
    int const experts = static_cast<int>(load.size());
    if (groups % nodes != 0) { groups = nodes = 1; }
    std::vector<float> group_load(size(groups), 0.0F);
    for (int e = 0; e < experts; ++e) { group_load[size(e * groups / experts)] += static_cast<float>(load[size(e)]); }
    std::vector<int> homes;
    pack(group_load, nodes, homes);
    table made;
    int const per_node = slots / nodes;
    int const per_rank = slots / ranks;
    for (int node = 0; node < nodes; ++node) {
      std::vector<int> names;
      std::vector<float> weight;
      for (int i = 0; i < groups / nodes; ++i) {
        int const group = homes[size(node * (groups / nodes) + i)];
        for (int e = group * (experts / groups); e < (group + 1) * (experts / groups); ++e) {
          names.push_back(e);
          weight.push_back(static_cast<float>(load[size(e)]));
        }
      }
      std::vector<int> count;
      std::vector<int> const who = replicate(weight, per_node, count);
      std::vector<float> share;
      for (int const e : who) { share.push_back(weight[size(e)] / static_cast<float>(count[size(e)])); }
      std::vector<int> placed;
      pack(share, ranks / nodes, placed);
      for (int first = 0; first < per_node; first += per_rank) {
        double sum = 0.0;
        for (int slot = first; slot < first + per_rank; ++slot) {
          int const local = who[size(placed[size(slot)])];
          made.slots.push_back(names[size(local)]);
          sum += static_cast<double>(load[size(names[size(local)])]) / count[size(local)];
        }
        made.value = std::max(made.value, sum);
      }
    }
    return made;
  }

 private:
  static std::size_t size(int i) { return static_cast<std::size_t>(i); }
};

}  // namespace fl_bench
