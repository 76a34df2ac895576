// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Replicas counted per unit that fails as a whole, and their way from there into slots.
#include <fairlead/place/detail/hosting_ranks.hpp>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief What fails as a whole.
enum class failure_domain {
  automatic,  ///< a node if several nodes have slots, else a rank
  rank,       ///< a rank
  node        ///< a node
};

namespace detail {

/// Exact products of loads and counts.
__extension__ using wide_product = __int128;

/// The units of a cluster that have slots, numbered in order, and how many replicas of each expert each holds.
struct unit_layout {
  index_t experts = 0;
  index_t units = 0;
  std::span<std::int32_t> unit_of_rank;  ///< -1: no slots. @shape{ranks}
  std::span<std::int32_t> room;          ///< slots of each unit. @shape{units}
  std::span<std::int32_t> free;          ///< of these, not in use. @shape{units}
  std::span<std::int32_t> held;          ///< replicas of each expert in each unit. @shape{units x experts}

  [[nodiscard]] std::int32_t& at(index_t unit, index_t expert) const noexcept {
    return held[static_cast<std::size_t>(unit * experts + expert)];
  }
  void put(index_t unit, index_t expert) const noexcept {
    ++at(unit, expert);
    --free[static_cast<std::size_t>(unit)];
  }
  void clear() const noexcept {
    std::fill(held.begin(), held.end(), 0);
    std::copy(room.begin(), room.end(), free.begin());
  }
};

[[nodiscard]] inline std::size_t unit_layout_bytes(index_t ranks, index_t experts) noexcept {
  return 3 * workspace_bytes<std::int32_t>(ranks) + workspace_bytes<std::int32_t>(ranks * experts);
}

[[nodiscard]] inline unit_layout make_unit_layout(topology const& cluster, index_t experts, failure_domain domain, workspace& ws) {
  unit_layout made;
  made.experts = experts;
  index_t const ranks = cluster.ranks();
  made.unit_of_rank = ws.take<std::int32_t>(ranks);
  made.room = ws.take<std::int32_t>(ranks);
  bool const by_node = domain == failure_domain::node || (domain == failure_domain::automatic && nodes_with_slots(cluster) > 1);
  index_t last_node = -1;
  for (index_t rank = 0; rank < ranks; ++rank) {
    auto const r = static_cast<std::size_t>(rank);
    made.unit_of_rank[r] = -1;
    if (cluster.slots(rank) == 0) { continue; }
    if (!by_node || made.units == 0 || cluster.node_of(rank) != last_node) {
      made.room[static_cast<std::size_t>(made.units++)] = 0;
      last_node = cluster.node_of(rank);
    }
    made.unit_of_rank[r] = static_cast<std::int32_t>(made.units - 1);
    made.room[static_cast<std::size_t>(made.units - 1)] += static_cast<std::int32_t>(cluster.slots(rank));
  }
  made.room = made.room.first(static_cast<std::size_t>(made.units));
  made.free = ws.take<std::int32_t>(ranks).first(static_cast<std::size_t>(made.units));
  made.held = ws.take<std::int32_t>(ranks * experts).first(static_cast<std::size_t>(made.units * experts));
  made.clear();
  return made;
}

/// Each expert's replicas on the units with the most free slots, round after round; experts with many replicas first.
/// `order` and `turn` are scratch. @shape{order: experts} @shape{turn: ranks}
inline void spread_over_units(unit_layout const& layout, std::span<index_t const> replicas, std::span<std::int32_t> order,
                              std::span<std::int32_t> turn) {
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [replicas](std::int32_t a, std::int32_t b) {
    index_t const x = replicas[static_cast<std::size_t>(a)];
    index_t const y = replicas[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  auto const units = turn.first(static_cast<std::size_t>(layout.units));
  std::span<std::int32_t const> const free = layout.free;
  for (std::int32_t const expert : order) {
    for (index_t left = replicas[static_cast<std::size_t>(expert)]; left > 0;) {
      std::iota(units.begin(), units.end(), 0);
      std::sort(units.begin(), units.end(), [free](std::int32_t a, std::int32_t b) {
        std::int32_t const x = free[static_cast<std::size_t>(a)];
        std::int32_t const y = free[static_cast<std::size_t>(b)];
        return x != y ? x > y : a < b;
      });
      for (std::size_t i = 0; i < units.size() && left > 0 && free[static_cast<std::size_t>(units[i])] > 0; ++i, --left) {
        layout.put(units[i], expert);
      }
    }
  }
}

/// Groups of experts of like popularity on groups of units without overlap, then the rest wherever there is room.
/// `order` and `need` are scratch. @shape{order, need: experts} @shape{turn: ranks}
inline void overlap_in_groups(unit_layout const& layout, std::span<index_t const> load, std::span<index_t const> replicas,
                              std::span<std::int32_t> order, std::span<std::int32_t> turn, std::span<index_t> need) {
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    auto const x = static_cast<std::size_t>(a);
    auto const y = static_cast<std::size_t>(b);
    if (replicas[x] != replicas[y]) { return replicas[x] < replicas[y]; }
    return load[x] != load[y] ? load[x] < load[y] : a < b;
  });
  auto const units = turn.first(static_cast<std::size_t>(layout.units));
  std::iota(units.begin(), units.end(), 0);
  std::sort(units.begin(), units.end(), [&layout](std::int32_t a, std::int32_t b) {
    std::int32_t const x = layout.room[static_cast<std::size_t>(a)];
    std::int32_t const y = layout.room[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  index_t const slots = std::accumulate(layout.room.begin(), layout.room.end(), index_t{0});
  auto const width = static_cast<std::size_t>(layout.units == 0 ? 1 : slots / layout.units);
  std::copy(replicas.begin(), replicas.end(), need.begin());
  std::size_t first = 0;
  while (first < order.size() && replicas[static_cast<std::size_t>(order[first])] == 0) { ++first; }
  std::size_t next_unit = 0;
  for (; first < order.size(); first += width) {
    std::size_t const last = std::min(first + width, order.size());
    auto const wanted = static_cast<std::size_t>(replicas[static_cast<std::size_t>(order[first])]);
    std::size_t const end = std::min(next_unit + wanted, units.size());
    for (; next_unit < end; ++next_unit) {
      std::int32_t const unit = units[next_unit];
      for (std::size_t i = first; i < last && layout.free[static_cast<std::size_t>(unit)] > 0; ++i) {
        layout.put(unit, order[i]);
        --need[static_cast<std::size_t>(order[i])];
      }
    }
  }
  // The experts that lack most first; each replica where the expert is not yet, with the most room.
  std::sort(order.begin(), order.end(), [need](std::int32_t a, std::int32_t b) {
    index_t const x = need[static_cast<std::size_t>(a)];
    index_t const y = need[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (std::int32_t const expert : order) {
    for (index_t& left = need[static_cast<std::size_t>(expert)]; left > 0; --left) {
      index_t best = -1;
      for (index_t unit = 0; unit < layout.units; ++unit) {
        if (layout.free[static_cast<std::size_t>(unit)] == 0) { continue; }
        if (best < 0) { best = unit; continue; }
        bool const held_here = layout.at(unit, expert) > 0;
        bool const held_best = layout.at(best, expert) > 0;
        if (held_here != held_best ? held_best : layout.free[static_cast<std::size_t>(unit)] > layout.free[static_cast<std::size_t>(best)]) {
          best = unit;
        }
      }
      layout.put(best, expert);
    }
  }
}

/// Writes the slots of a layout: inside a unit, experts by load a replica, each on the rank without it that has the most
/// free slots. `order`, `free` are scratch. @shape{order: experts} @shape{free: ranks}
inline void fill_slots(topology const& cluster, unit_layout const& layout, std::span<index_t const> load, std::span<index_t const> replicas,
                       std::span<expert_id> slots, std::span<std::int32_t> order, std::span<std::int32_t> free) {
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    auto const x = static_cast<std::size_t>(a);
    auto const y = static_cast<std::size_t>(b);
    // Experts without a replica have no slot to fill; a zero count would only make this no order.
    wide_product const left = wide_product{load[x]} * std::max<index_t>(replicas[y], 1);
    wide_product const right = wide_product{load[y]} * std::max<index_t>(replicas[x], 1);
    return left != right ? left > right : a < b;
  });
  std::fill(slots.begin(), slots.end(), expert_id::none);
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    free[static_cast<std::size_t>(rank)] = static_cast<std::int32_t>(cluster.slots(rank));
  }
  auto const resident = [&](index_t rank) {  // the part of its slots that is in use
    auto const begin = static_cast<std::size_t>(cluster.slot_offsets()[static_cast<std::size_t>(rank)]);
    return slots.subspan(begin, static_cast<std::size_t>(cluster.slots(rank) - free[static_cast<std::size_t>(rank)]));
  };
  index_t first = 0;
  for (index_t unit = 0; unit < layout.units; ++unit) {
    while (layout.unit_of_rank[static_cast<std::size_t>(first)] < unit) { ++first; }
    for (std::int32_t const expert : order) {
      for (std::int32_t left = layout.at(unit, expert); left > 0; --left) {
        index_t best = -1;
        bool best_has = false;
        for (index_t rank = first; rank < cluster.ranks() && layout.unit_of_rank[static_cast<std::size_t>(rank)] <= unit; ++rank) {
          if (layout.unit_of_rank[static_cast<std::size_t>(rank)] < 0 || free[static_cast<std::size_t>(rank)] == 0) { continue; }
          auto const mine = resident(rank);
          bool const has = std::find(mine.begin(), mine.end(), static_cast<expert_id>(expert)) != mine.end();
          if (best < 0 || (has != best_has ? best_has : free[static_cast<std::size_t>(rank)] > free[static_cast<std::size_t>(best)])) {
            best = rank;
            best_has = has;
          }
        }
        auto const end = static_cast<std::size_t>(cluster.slot_offsets()[static_cast<std::size_t>(best) + 1]);
        slots[end - static_cast<std::size_t>(free[static_cast<std::size_t>(best)]--)] = static_cast<expert_id>(expert);
      }
    }
  }
}

/// Number of replicas in all, or -1 if they exceed the slots.
[[nodiscard]] inline index_t fitting_replicas(topology const& cluster, std::span<index_t const> replicas) noexcept {
  index_t sum = 0;
  for (index_t const count : replicas) {
    if (count > cluster.slots() - sum) { return -1; }
    sum += count;
  }
  return sum;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
