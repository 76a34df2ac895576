// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Walk the sources and the replicas of one expert together.
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/schedule/detail/shares.hpp>

#include <algorithm>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// What is left of the sources and of the replicas of one expert.
class merge_walk {
 public:
  merge_walk(placement const& where, workspace& ws)
      : sources_(ws.take<count_t>(where.ranks())), replicas_(ws.take<count_t>(where.replicas())) {}
  [[nodiscard]] static std::size_t bytes(placement const& where) noexcept {
    return workspace_bytes<count_t>(where.ranks()) + workspace_bytes<count_t>(where.replicas());
  }

  // Starts an expert; false if there is nothing to route.
  [[nodiscard]] bool begin(load_view load, placement const& where, std::span<count_t const> shares, index_t e) noexcept {
    hosts_ = where.replicas(static_cast<expert_id>(e));
    column_ = where.replica_offset(static_cast<expert_id>(e));
    count_t const* const share = shares.data() + column_;
    bool any = false;
    for (std::size_t k = 0; k < hosts_.size(); ++k) {
      replicas_[k] = share[k];
      any = any || share[k] != 0;
    }
    if (!any) { return false; }
    count_t const* at = load.data() + e;
    for (count_t& source : sources_) {
      source = *at;
      at += load.stride();
    }
    return true;
  }

  // Each replica takes what its own rank has. Returns how many copies.
  index_t keep_local(token_schedule_view out) noexcept {
    index_t local = 0;
    for (std::size_t k = 0; k < hosts_.size(); ++k) {
      local += give(out, to_index(hosts_[k].rank), k);
    }
    return local;
  }

  // Sources and replicas of the same node. Replicas are sorted by rank and nodes are consecutive ranks.
  index_t keep_on_node(token_schedule_view out, topology const& cluster) noexcept {
    index_t moved = 0;
    auto const nodes = cluster.node_offsets();
    for (std::size_t k = 0; k < hosts_.size();) {
      auto const node = static_cast<std::size_t>(cluster.node_of(to_index(hosts_[k].rank)));
      index_t source = nodes[node];
      while (k < hosts_.size() && to_index(hosts_[k].rank) < nodes[node + 1]) {
        while (replicas_[k] > 0 && source < nodes[node + 1]) {
          moved += give(out, source, k);
          source += sources_[static_cast<std::size_t>(source)] == 0 ? 1 : 0;
        }
        ++k;
      }
    }
    return moved;
  }

  // Everything that is left, sources from `start` on.
  void fill(token_schedule_view out, index_t start) noexcept {
    auto const ranks = static_cast<index_t>(sources_.size());
    index_t source = start;
    for (std::size_t k = 0; k < hosts_.size(); ++k) {
      index_t walked = 0;
      while (replicas_[k] > 0 && walked <= ranks) {
        (void)give(out, source, k);
        if (sources_[static_cast<std::size_t>(source)] == 0) {
          source = source + 1 == ranks ? 0 : source + 1;
          ++walked;
        }
      }
    }
  }

  // Copies left, for routers with a rule of their own.
  [[nodiscard]] std::span<count_t> sources() noexcept { return sources_; }
  [[nodiscard]] std::span<count_t> replicas() noexcept { return replicas_.first(hosts_.size()); }
  [[nodiscard]] index_t column() const noexcept { return column_; }

 private:
  count_t give(token_schedule_view out, index_t source, std::size_t k) noexcept {
    count_t& from = sources_[static_cast<std::size_t>(source)];
    count_t const amount = std::min(from, replicas_[k]);
    if (amount > 0) {
      out(source, column_ + static_cast<index_t>(k)) += amount;
      from -= amount;
      replicas_[k] -= amount;
    }
    return amount;
  }

  std::span<count_t> sources_;
  std::span<count_t> replicas_;
  std::span<replica const> hosts_;
  index_t column_ = 0;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
