// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Private: small questions about slot tables that the searching planners share.
#include <fairlead/concepts/slot_objective.hpp>
#include <fairlead/core/load.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

__extension__ using slot_wide = __int128;

// Largest load over the mean of the ranks that can host, rounded up; exactly one unit where integers allow no less.
inline index_t ratio_cost(index_t largest, index_t total, index_t hosts) {
  if (total <= 0 || hosts <= 0 || largest <= (total + hosts - 1) / hosts) { return slot_cost_unit; }
  slot_wide const scaled = static_cast<slot_wide>(largest) * hosts * slot_cost_unit;
  return static_cast<index_t>((scaled + total - 1) / total);
}

// Parts of a copy in which shares are counted: 1024, or fewer where the sum of the loads needs the bits.
inline index_t share_fraction(std::span<index_t const> load) {
  std::uint64_t total = 0;
  for (index_t const one : load) { total += static_cast<std::uint64_t>(one); }
  index_t fraction = 1024;
  while (fraction > 1 && total >= (std::uint64_t{1} << 62U) / static_cast<std::uint64_t>(fraction)) { fraction /= 2; }
  return fraction;
}

// Rank of every slot.
inline void fill_rank_of_slot(topology const& cluster, std::span<std::int32_t> rank_of) {
  auto const offsets = cluster.slot_offsets();
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    for (index_t slot = offsets[static_cast<std::size_t>(rank)]; slot < offsets[static_cast<std::size_t>(rank) + 1];
         ++slot) {
      rank_of[static_cast<std::size_t>(slot)] = static_cast<std::int32_t>(rank);
    }
  }
}

// Whether a rank holds an expert.
inline bool hosts_expert(topology const& cluster, std::span<expert_id const> slots, index_t rank, expert_id expert) {
  auto const offsets = cluster.slot_offsets();
  auto const first = slots.begin() + offsets[static_cast<std::size_t>(rank)];
  auto const last = slots.begin() + offsets[static_cast<std::size_t>(rank) + 1];
  return std::find(first, last, expert) != last;
}

// Replicas of every expert.
inline void count_replicas(std::span<expert_id const> slots, std::span<std::int32_t> replicas) {
  std::fill(replicas.begin(), replicas.end(), 0);
  for (expert_id const expert : slots) {
    if (expert != expert_id::none) { ++replicas[static_cast<std::size_t>(expert)]; }
  }
}

// Whether a table has the shape of the cluster, holds only known experts, and loses none. `replicas` becomes the
// counts.
inline bool is_whole_table(topology const& cluster, std::span<expert_id const> slots,
                           std::span<std::int32_t> replicas) {
  if (static_cast<index_t>(slots.size()) != cluster.slots()) { return false; }
  auto const experts = static_cast<index_t>(replicas.size());
  for (expert_id const expert : slots) {
    if (expert != expert_id::none && (to_index(expert) < 0 || to_index(expert) >= experts)) { return false; }
  }
  count_replicas(slots, replicas);
  return std::find(replicas.begin(), replicas.end(), 0) == replicas.end();
}

inline void check_plan_arguments(topology const& cluster, load_estimate const& load, std::span<expert_id const> now,
                                 std::span<expert_id> next) {
  FAIRLEAD_EXPECTS(static_cast<index_t>(next.size()) == cluster.slots(), "the new table has one entry a slot",
                   next.size(), cluster.slots());
  FAIRLEAD_EXPECTS(now.empty() || now.size() == next.size(), "the table in use has one entry a slot, or is empty",
                   now.size(), next.size());
  FAIRLEAD_EXPECTS(load.samples.rows() == 0 || load.samples.cols() == static_cast<index_t>(load.totals.size()),
                   "samples have one column an expert", load.samples.cols(), load.totals.size());
  FAIRLEAD_EXPECTS_2(std::all_of(load.totals.begin(), load.totals.end(), [](index_t total) { return total >= 0; }),
                     "loads must not be negative");
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
