// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A peer: a layout solver that scans all ranks for each replica and fills a tensor of all copies, written anew from
/// the published algorithm.
///
/// For benches only. Tokens are conserved (the published code counts remainders twice) and full nodes are left out of the
/// comparison of nodes, so that its cost can be compared.
#include <fairlead/cluster/pair_sum_cost.hpp>
#include <fairlead/core/load.hpp>
#include <fairlead/core/topology.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace fl_bench {

/// @brief Holds the tensor of all copies; at least one rank, even nodes.
class dense_layout {
 public:
  /// @param cluster the cluster; outlives this
  /// @param experts number of experts
  dense_layout(fairlead::topology const& cluster, fairlead::index_t experts)
      : cluster_(cluster), experts_(static_cast<std::size_t>(experts)), ranks_(static_cast<std::size_t>(cluster.ranks())) {}

  /// @brief Place by the published loop: for each replica, all nodes, then all ranks.
  /// @param totals copies an expert
  /// @param replicas replicas an expert, at least one; they fit
  /// @param[out] slots the table
  void place(std::span<fairlead::index_t const> totals, std::span<fairlead::index_t const> replicas,
             std::span<fairlead::expert_id> slots) {
    using fairlead::index_t;
    items_.clear();
    for (std::size_t e = 0; e < experts_; ++e) {
      double const share = static_cast<double>(totals[e]) / static_cast<double>(replicas[e]);
      for (index_t k = 0; k < replicas[e]; ++k) { items_.push_back({share, e}); }
    }
    std::stable_sort(items_.begin(), items_.end(), [](item const& a, item const& b) { return a.share > b.share; });
    auto const nodes = static_cast<std::size_t>(cluster_.nodes());
    held_.assign(nodes * experts_, 0);
    load_.assign(ranks_, 0.0);
    used_.assign(ranks_, 0);
    room_.assign(nodes, 0);
    for (std::size_t rank = 0; rank < ranks_; ++rank) {
      auto const r = static_cast<index_t>(rank);
      room_[static_cast<std::size_t>(cluster_.node_of(r))] += cluster_.slots(r);
    }
    std::fill(slots.begin(), slots.end(), fairlead::expert_id::none);
    for (item const& now : items_) {
      index_t fewest = std::numeric_limits<index_t>::max();
      for (std::size_t node = 0; node < nodes; ++node) {
        if (room_[node] > 0) { fewest = std::min(fewest, held_[node * experts_ + now.expert]); }
      }
      std::size_t best = ranks_;
      for (std::size_t rank = 0; rank < ranks_; ++rank) {
        auto const r = static_cast<index_t>(rank);
        if (used_[rank] == cluster_.slots(r)) { continue; }
        auto const node = static_cast<std::size_t>(cluster_.node_of(r));
        if (held_[node * experts_ + now.expert] != fewest) { continue; }
        if (best == ranks_ || load_[rank] < load_[best]) { best = rank; }
      }
      slots[static_cast<std::size_t>(cluster_.slot_offsets()[best] + used_[best]++)] =
          static_cast<fairlead::expert_id>(now.expert);
      load_[best] += now.share;
      auto const chosen = static_cast<std::size_t>(cluster_.node_of(static_cast<index_t>(best)));
      ++held_[chosen * experts_ + now.expert];
      --room_[chosen];
    }
  }

  /// @brief The cost of a table from the tensor of copies source x expert x destination.
  /// @param model what copies cost
  /// @param copies copies a source and expert
  /// @param slots the table
  /// @returns the time of a step. @unit{s}
  double cost(fairlead::pair_sum_cost const& model, fairlead::matrix_view<fairlead::index_t const> copies,
              std::span<fairlead::expert_id const> slots) {
    using fairlead::index_t;
    sent_.assign(ranks_ * experts_ * ranks_, 0.0);
    hosts_.assign(experts_, {});
    for (std::size_t rank = 0; rank < ranks_; ++rank) {
      for (index_t s = cluster_.slot_offsets()[rank]; s < cluster_.slot_offsets()[rank + 1]; ++s) {
        auto const expert = slots[static_cast<std::size_t>(s)];
        if (expert != fairlead::expert_id::none) { hosts_[static_cast<std::size_t>(expert)].push_back(rank); }
      }
    }
    for (std::size_t source = 0; source < ranks_; ++source) {
      auto const node = static_cast<std::size_t>(cluster_.node_of(static_cast<index_t>(source)));
      auto const first = static_cast<std::size_t>(cluster_.node_offsets()[node]);
      auto const end = static_cast<std::size_t>(cluster_.node_offsets()[node + 1]);
      for (std::size_t e = 0; e < experts_; ++e) {
        auto const& all = hosts_[e];
        auto begin = std::lower_bound(all.begin(), all.end(), first);
        auto stop = std::lower_bound(begin, all.end(), end);
        if (begin == stop) {
          begin = all.begin();
          stop = all.end();
        }
        auto const size = static_cast<std::size_t>(stop - begin);
        auto const count = static_cast<std::size_t>(copies(static_cast<index_t>(source), static_cast<index_t>(e)));
        double* const row = sent_.data() + (source * experts_ + e) * ranks_;
        for (std::size_t k = 0; k < size; ++k) {
          std::size_t const turn = (k + size - source % size) % size;
          row[begin[static_cast<std::ptrdiff_t>(k)]] += static_cast<double>(count / size + (turn < count % size ? 1 : 0));
        }
      }
    }
    load_.assign(ranks_, 0.0);
    double same_node = 0.0;
    double other_node = 0.0;
    for (std::size_t source = 0; source < ranks_; ++source) {
      auto const node = cluster_.node_of(static_cast<index_t>(source));
      auto const first = static_cast<std::size_t>(cluster_.node_offsets()[static_cast<std::size_t>(node)]);
      auto const end = static_cast<std::size_t>(cluster_.node_offsets()[static_cast<std::size_t>(node) + 1]);
      for (std::size_t e = 0; e < experts_; ++e) {
        double const* const row = sent_.data() + (source * experts_ + e) * ranks_;
        double everywhere = 0.0;
        double near = 0.0;
        for (std::size_t rank = 0; rank < ranks_; ++rank) {
          load_[rank] += row[rank];
          everywhere += row[rank];
        }
        for (std::size_t rank = first; rank < end; ++rank) { near += row[rank]; }
        same_node += near - row[source];
        other_node += everywhere - near;
      }
    }
    return model.cost_of(same_node, other_node, *std::max_element(load_.begin(), load_.end())).total_s();
  }

 private:
  struct item {
    double share;
    std::size_t expert;
  };
  fairlead::topology const& cluster_;
  std::size_t experts_;
  std::size_t ranks_;
  std::vector<item> items_;
  std::vector<fairlead::index_t> held_;
  std::vector<fairlead::index_t> used_;
  std::vector<fairlead::index_t> room_;
  std::vector<double> load_;
  std::vector<double> sent_;
  std::vector<std::vector<std::size_t>> hosts_;
};

}  // namespace fl_bench
