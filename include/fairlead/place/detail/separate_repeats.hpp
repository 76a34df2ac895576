// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Private: move second replicas of a rank elsewhere, along chains of replicas that make room for each other.
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// A slot table whose replicas change places; numbers of replicas and empty slots stay.
class repeat_separator {
 public:
  [[nodiscard]] static std::size_t bytes(topology const& cluster, index_t experts) noexcept {
    return fairlead::workspace_bytes<std::int32_t>(experts) + fairlead::workspace_bytes<index_t>(experts) +
           4 * fairlead::workspace_bytes<index_t>(cluster.ranks());
  }
  repeat_separator(topology const& cluster, std::span<index_t const> load, std::span<expert_id> slots, bool inside_node,
                   workspace& ws)
      : cluster_(cluster),
        slots_(slots),
        inside_node_(inside_node),
        replicas_(ws.take<std::int32_t>(static_cast<index_t>(load.size()))),
        share_(ws.take<index_t>(static_cast<index_t>(load.size()))),
        rank_load_(ws.take<index_t>(cluster.ranks())),
        from_slot_(ws.take<index_t>(cluster.ranks())),
        from_rank_(ws.take<index_t>(cluster.ranks())),
        queue_(ws.take<index_t>(cluster.ranks())) {
    std::fill(replicas_.begin(), replicas_.end(), 0);
    for (expert_id const e : slots_) {
      if (e != expert_id::none) { ++replicas_[static_cast<std::size_t>(e)]; }
    }
    // Shares in fixed point, in units of the greatest common divisor: proportional loads then compare alike.
    std::uint64_t total = 0;
    std::uint64_t unit = 0;
    for (std::size_t e = 0; e < load.size(); ++e) {
      total += replicas_[e] > 0 ? static_cast<std::uint64_t>(load[e]) : 0;
      unit = std::gcd(unit, static_cast<std::uint64_t>(load[e]));
    }
    unit = std::max<std::uint64_t>(unit, 1);
    int const shift = std::max(0, 62 - static_cast<int>(std::bit_width(total / unit)));
    for (std::size_t e = 0; e < load.size(); ++e) {
      auto const count = static_cast<std::uint64_t>(replicas_[e]);
      share_[e] = count == 0 ? 0 : static_cast<index_t>((static_cast<std::uint64_t>(load[e]) / unit << shift) / count);
    }
    for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
      index_t sum = 0;
      for (index_t slot = begin(rank); slot < end(rank); ++slot) { sum += weight(slot); }
      rank_load_[static_cast<std::size_t>(rank)] = sum;
    }
  }

  // Returns how many slots still hold an expert that their rank has in an earlier slot.
  index_t run() noexcept {
    index_t left = 0;
    for (index_t rank = 0; rank < cluster_.ranks(); ++rank) {
      for (index_t slot = begin(rank) + 1; slot < end(rank); ++slot) {
        expert_id const e = at(slot);
        bool const second = e != expert_id::none && find(begin(rank), slot, e) < slot;
        if (second && !exchange(rank, slot) && !chain(rank, slot)) { ++left; }
      }
    }
    return left;
  }

 private:
  [[nodiscard]] index_t begin(index_t rank) const noexcept { return cluster_.slot_offsets()[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] index_t end(index_t rank) const noexcept { return begin(rank + 1); }
  [[nodiscard]] expert_id at(index_t slot) const noexcept { return slots_[static_cast<std::size_t>(slot)]; }
  [[nodiscard]] index_t weight(index_t slot) const noexcept {
    return at(slot) == expert_id::none ? 0 : share_[static_cast<std::size_t>(at(slot))];
  }
  [[nodiscard]] index_t find(index_t first, index_t last, expert_id e) const noexcept {
    while (first < last && at(first) != e) { ++first; }
    return first;
  }
  [[nodiscard]] bool holds(index_t rank, expert_id e) const noexcept { return find(begin(rank), end(rank), e) < end(rank); }
  [[nodiscard]] bool reachable(index_t rank, index_t other) const noexcept {
    return !inside_node_ || cluster_.node_of(rank) == cluster_.node_of(other);
  }
  // What sits in two slots of two ranks changes places.
  void swap(index_t rank, index_t slot, index_t other, index_t other_slot) noexcept {
    index_t const change = weight(other_slot) - weight(slot);
    rank_load_[static_cast<std::size_t>(rank)] += change;
    rank_load_[static_cast<std::size_t>(other)] -= change;
    std::swap(slots_[static_cast<std::size_t>(slot)], slots_[static_cast<std::size_t>(other_slot)]);
  }

  // With a replica or an empty slot of one other rank: the exchange that leaves the lighter pair, ties to the lowest slot.
  bool exchange(index_t rank, index_t slot) noexcept {
    index_t best = -1;
    index_t best_rank = -1;
    index_t best_load = 0;
    for (index_t other = 0; other < cluster_.ranks(); ++other) {
      if (other == rank || !reachable(rank, other) || holds(other, at(slot))) { continue; }
      for (index_t theirs = begin(other); theirs < end(other); ++theirs) {
        if (at(theirs) != expert_id::none && holds(rank, at(theirs))) { continue; }
        index_t const change = weight(theirs) - weight(slot);
        index_t const heavier = std::max(rank_load_[static_cast<std::size_t>(rank)] + change,
                                         rank_load_[static_cast<std::size_t>(other)] - change);
        if (best < 0 || heavier < best_load) {
          best = theirs;
          best_rank = other;
          best_load = heavier;
        }
      }
    }
    if (best >= 0) { swap(rank, slot, best_rank, best); }
    return best >= 0;
  }

  // Breadth first over ranks: a replica goes where its expert is not, where another one leaves for where its is not, until
  // one finds an empty slot or the slot that the first one left. If any table of these numbers is without repeats, such a
  // chain starts at every repeat: the differences between the two tables contain one.
  bool chain(index_t rank, index_t slot) noexcept {
    std::fill(from_rank_.begin(), from_rank_.end(), index_t{-1});
    index_t queued = 0;
    auto const offer = [&](index_t from, index_t item) {
      for (index_t to = 0; to < cluster_.ranks(); ++to) {
        auto const t = static_cast<std::size_t>(to);
        if (to == rank || from_rank_[t] >= 0 || begin(to) == end(to) || !reachable(rank, to) || holds(to, at(item))) { continue; }
        from_rank_[t] = from;
        from_slot_[t] = item;
        queue_[static_cast<std::size_t>(queued++)] = to;
      }
    };
    offer(rank, slot);
    for (index_t next = 0; next < queued; ++next) {
      index_t const here = queue_[static_cast<std::size_t>(next)];
      for (index_t item = begin(here); item < end(here); ++item) {
        if (at(item) == expert_id::none || !holds(rank, at(item))) {
          // Backwards: each swap brings the replica of the rank before to the slot that is free to take it.
          index_t to = here;
          for (index_t free = item; to != rank;) {
            index_t const before = from_rank_[static_cast<std::size_t>(to)];
            index_t const theirs = from_slot_[static_cast<std::size_t>(to)];
            swap(before, theirs, to, free);
            free = theirs;
            to = before;
          }
          return true;
        }
        offer(here, item);
      }
    }
    return false;
  }

  topology const& cluster_;
  std::span<expert_id> slots_;
  bool inside_node_;
  std::span<std::int32_t> replicas_;  // of each expert
  std::span<index_t> share_;          // load of one replica, in fixed point
  std::span<index_t> rank_load_;
  std::span<index_t> from_slot_;  // what comes to a rank
  std::span<index_t> from_rank_;  // and from where; -1: not reached
  std::span<index_t> queue_;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
