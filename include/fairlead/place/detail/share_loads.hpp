// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Private: rank loads under equal shares, in integers: a share is load x 1024 / replicas, rounded down.
#include <fairlead/place/detail/distinct_pack.hpp>
#include <fairlead/place/detail/slot_table.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

struct share_loads {
  std::span<std::int32_t> replicas;  // experts
  std::span<index_t> rank_load;      // ranks
  std::span<std::int32_t> rank_of;   // slots

  index_t fraction;                  // of a copy, the unit of shares

  static std::size_t bytes(topology const& cluster, index_t experts) {
    return workspace_bytes<std::int32_t>(experts) + workspace_bytes<index_t>(cluster.ranks()) +
           workspace_bytes<std::int32_t>(cluster.slots());
  }
  share_loads(topology const& cluster, std::span<index_t const> load, workspace& ws)
      : replicas(ws.take<std::int32_t>(static_cast<index_t>(load.size()))),
        rank_load(ws.take<index_t>(cluster.ranks())),
        rank_of(ws.take<std::int32_t>(cluster.slots())),
        fraction(share_fraction(load)) {
    fill_rank_of_slot(cluster, rank_of);
  }

  [[nodiscard]] index_t share(index_t load, std::int32_t count) const {
    return count == 0 ? 0 : load * fraction / count;
  }

  void measure(std::span<index_t const> load, std::span<expert_id const> slots) {
    count_replicas(slots, replicas);
    std::fill(rank_load.begin(), rank_load.end(), 0);
    for (std::size_t slot = 0; slot < slots.size(); ++slot) {
      if (slots[slot] == expert_id::none) { continue; }
      auto const e = static_cast<std::size_t>(slots[slot]);
      rank_load[static_cast<std::size_t>(rank_of[slot])] += share(load[e], replicas[e]);
    }
  }
  [[nodiscard]] index_t largest() const {
    return rank_load.empty() ? 0 : *std::max_element(rank_load.begin(), rank_load.end());
  }
};

// The largest load of a rank as a number of copies, for reports.
inline double largest_share_load(topology const& cluster, std::span<index_t const> load,
                                 std::span<expert_id const> slots, std::span<std::int32_t> replicas) {
  count_replicas(slots, replicas);
  auto const offsets = cluster.slot_offsets();
  double largest = 0.0;
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    double sum = 0.0;
    for (index_t slot = offsets[static_cast<std::size_t>(rank)]; slot < offsets[static_cast<std::size_t>(rank) + 1];
         ++slot) {
      expert_id const e = slots[static_cast<std::size_t>(slot)];
      if (e != expert_id::none) {
        sum += static_cast<double>(load[static_cast<std::size_t>(e)]) / replicas[static_cast<std::size_t>(e)];
      }
    }
    largest = std::max(largest, sum);
  }
  return largest;
}

inline double mean_rank_load(topology const& cluster, std::span<index_t const> load) {
  double sum = 0.0;
  for (index_t const l : load) { sum += static_cast<double>(l); }
  return sum / static_cast<double>(std::max<index_t>(cluster.hosting_ranks(), 1));
}

// A table to begin with when there is none to start from: equally many replicas each, on distinct ranks where possible.
inline void even_table(topology const& cluster, std::span<index_t const> load, std::span<std::int32_t> replicas,
                       std::span<expert_id> slots, workspace& ws) {
  auto const experts = static_cast<index_t>(load.size());
  index_t const hosts = cluster.hosting_ranks();
  for (index_t e = 0; e < experts; ++e) {
    replicas[static_cast<std::size_t>(e)] =
        static_cast<std::int32_t>(std::min(hosts, cluster.slots() / experts + (e < cluster.slots() % experts ? 1 : 0)));
  }
  distinct_pack(cluster, load, replicas, slots, ws);
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
