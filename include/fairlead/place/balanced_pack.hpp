// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Pack replicas whose numbers are given: by descending load, each to the lightest rank with room.
#include <fairlead/concepts/slot_assigner.hpp>
#include <fairlead/place/detail/pair_exchange.hpp>
#include <fairlead/place/detail/share_plan.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Assign replicas to ranks by the longest-processing-time rule with a limit of slots on each rank.
///
/// The second half of `global_pack`, for numbers of replicas from another rule. Near-optimal when there are many
/// replicas a rank; with two or three a rank a rule that looks ahead can be better. Nodes are not looked at. Where
/// slots are left over they are the last ones of their rank.
///
/// report: `bound` is the larger of the mean load of ranks that have slots and the largest load of a replica;
/// `iterations` the number of slots whose expert the rank has already. With `repeats_on_a_rank::forbidden` it is
/// infeasible exactly if no table without repeats exists: if the rule and swaps leave a repeat, places are found
/// without regard to loads.
/// @source{EPLB, balanced_packing}
struct balanced_pack {
  /// Whether a rank may hold two replicas of one expert.
  repeats_on_a_rank repeats = repeats_on_a_rank::allowed;
  /// Exchanges of a replica of the heaviest rank for a lighter one of another, at most; only where repeats are allowed.
  index_t exchanges = 0;

  /// @brief Decide on which rank each replica sits.
  /// @param cluster the cluster
  /// @param load loads. @shape{experts} @unit{copies}
  /// @param replicas number of replicas of each expert. @shape{experts}
  /// @param[out] slots expert of each slot. @shape{cluster.slots()}
  /// @param ws scratch of `workspace_bytes(cluster, experts)`
  /// @returns how it ended
  /// @pre shapes fit, fewer than 2^31 slots, exchanges not negative (level 1); loads and numbers are not negative,
  /// loads add up to less than 2^62
  ///      (level 2)
  /// @complexity O(experts log experts + slots log ranks + exchanges x slots x slots of a rank), no allocation;
  /// `repeats`
  ///             other than allowed: up to O(slots x slots)
  /// @determinism exact: equal on every rank
  report assign(topology const& cluster, std::span<index_t const> load, std::span<index_t const> replicas,
                std::span<expert_id> slots, workspace& ws) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(slots.size()) == cluster.slots() && cluster.slots() < INT32_MAX,
                     "the table needs a place for each slot", slots.size(), cluster.slots());
    FAIRLEAD_EXPECTS(load.size() == replicas.size(), "there is one number of replicas an expert", load.size(),
                     replicas.size());
    FAIRLEAD_EXPECTS(exchanges >= 0, "the number of exchanges must not be negative", exchanges);
    std::fill(slots.begin(), slots.end(), expert_id::none);
    index_t sum = 0;
    for (index_t const count : replicas) {
      FAIRLEAD_EXPECTS_2(count >= 0, "numbers of replicas must not be negative", count);
      sum += std::min(count, cluster.slots() + 1);
    }
    if (sum > cluster.slots()) { return {status::infeasible, 0, 0.0, 0.0}; }
    if (sum == 0) { return {}; }
    workspace::scope const rewind(ws);
    auto const experts = static_cast<index_t>(load.size());
    detail::packing::packing_scratch const s(experts, cluster.slots(), cluster.ranks(), ws);
    // Experts that have a replica, as a list that needs no order yet; all may have several.
    std::uint32_t n = 0;
    std::uint64_t total = 0;
    for (std::size_t e = 0; e < load.size(); ++e) {
      if (replicas[e] == 0) { continue; }
      s.load[n] = static_cast<std::uint64_t>(load[e]);
      s.order[n] = static_cast<std::uint32_t>(e);
      s.replicas[n] = static_cast<std::uint32_t>(replicas[e]);
      total += s.load[n++];
    }
    FAIRLEAD_EXPECTS_2(
        std::all_of(s.load, s.load + n, [](std::uint64_t entry) { return entry < std::uint64_t{1} << 62U; }) &&
            total < std::uint64_t{1} << 62U,
        "loads are not negative and their sum is below 2^62", total);
    std::uint32_t const ranks = detail::packing::list_bins(cluster, 0, cluster.ranks(), s.bins);
    auto const unit =
        detail::packing::make_shares(s.load, s.replicas, n, n, total, std::countr_zero(std::bit_ceil(ranks)), s.share);
    detail::packing::replica_list list{s, n, n};
    list.make();
    std::uint64_t largest = 0;
    if (repeats == repeats_on_a_rank::allowed) {
      std::uint64_t const heaviest = s.weight[0];
      largest = detail::packing::pack_lightest(s, list.count, ranks);
      if (exchanges > 0) {
        for (std::uint32_t i = 0; i < n; ++i) { s.given[s.order[i]] = s.share[i]; }
        std::uint64_t const goal =
            std::max(heaviest, std::accumulate(s.weight, s.weight + list.count, std::uint64_t{0}) / ranks);
        largest =
            detail::packing::exchange_pairs(s, ranks, s.given, s.tree, goal, static_cast<std::uint64_t>(exchanges));
        s.weight[0] = heaviest;
      }
    } else {
      for (std::uint32_t i = 0; i < n; ++i) { s.given[s.order[i]] = s.share[i]; }
      largest = detail::packing::pack_distinct(s, list.count, ranks);
    }
    auto const name = [](std::uint32_t item) { return static_cast<expert_id>(item); };
    auto const all = static_cast<std::uint32_t>(experts);
    std::uint32_t repeated = detail::packing::write_slots(s, all, ranks, slots, name);
    if (repeats == repeats_on_a_rank::forbidden && repeated > 0) {
      std::fill(slots.begin(), slots.end(), expert_id::none);
      std::uint32_t* const count = s.item;  // by expert; there are at least as many slots as experts with a replica
      std::uint32_t* const who = s.sort.then;
      for (std::uint32_t i = 0; i < n; ++i) {
        count[i] = s.replicas[i];
        who[i] = s.order[i];
      }
      if (!detail::packing::pack_any_distinct(s, count, n, ranks)) { return {status::infeasible, 0, 0.0, 0.0}; }
      for (std::uint32_t i = 0; i < n; ++i) { s.given[i] = s.share[i]; }
      largest = detail::packing::largest_sum(s, ranks);
      repeated = detail::packing::write_slots(s, all, ranks, slots,
                                              [who](std::uint32_t item) { return static_cast<expert_id>(who[item]); });
    }
    double const value = static_cast<double>(largest) * unit.load_of_one;
    double const heaviest = static_cast<double>(s.weight[0]) * unit.load_of_one;
    return {status::ok, static_cast<index_t>(repeated), value,
            std::min(value, std::max(heaviest, static_cast<double>(total) / static_cast<double>(ranks)))};
  }

  /// @brief Scratch that `assign` takes.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  /// @complexity O(1)
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return detail::packing::packing_scratch::bytes(experts, cluster.slots(), cluster.ranks());
  }
};
static_assert(slot_assigner<balanced_pack>);

FAIRLEAD_NAMESPACE_END
