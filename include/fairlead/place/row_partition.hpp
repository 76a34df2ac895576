// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Shuffle the ranks for each local slot and cut them into blocks, one expert a block.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/planner.hpp>
#include <fairlead/place/detail/hosting_ranks.hpp>

#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Give every expert the same number of replicas, on a random block of ranks in one row of slots.
///
/// Row c is local slot c of every rank that has it. Its ranks are shuffled and cut into blocks of `replicas`; ranks left
/// over by the division rest. Blocks of different rows overlap, which is what lets a scheduler move load between them;
/// without the shuffle the same ranks would share all their experts. Any number of ranks and replicas works. With two
/// replicas `cayley_placement` has fewer dense parts; with one it is plain expert parallelism, shuffled.
/// @source{2511.16947, placement}
struct row_partition {
  index_t replicas = 2;     ///< replicas an expert, >= 1
  std::uint64_t seed = 0;   ///< of the shuffles
  std::uint64_t draw = 0;   ///< which of the placements of a seed

  /// What a second replica is for.
  static constexpr replica_meaning meaning = replica_meaning::host;

  /// @brief Fill the slots, whatever the load.
  /// @param cluster the cluster, ragged or not
  /// @param load the loads; only their number and, for `value`, their sizes are looked at
  /// @param now not looked at
  /// @param[out] next expert of each slot. @shape{cluster.slots()}
  /// @param ws scratch, see `workspace_bytes`
  /// @returns `ok`; `value` is the largest load of a rank under equal shares, `bound` the mean load of a hosting rank.
  ///          `infeasible` with all slots none if the rows have fewer blocks than there are experts
  /// @throws contract_violation (level 1) on a shape mismatch or without a replica
  /// @complexity O(rows x ranks + slots + experts), no allocation
  /// @determinism exact for equal seeds
  /// @source{2511.16947, placement}
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now, std::span<expert_id> next,
              workspace& ws) const {
    (void)now;
    FAIRLEAD_EXPECTS(static_cast<index_t>(next.size()) == cluster.slots(), "one entry a slot of the cluster", next.size(), cluster.slots());
    FAIRLEAD_EXPECTS(replicas >= 1, "an expert needs a replica", replicas);
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(load.totals.size());
    std::fill(next.begin(), next.end(), expert_id::none);
    if (experts == 0) { return {}; }
    std::span<std::int32_t> const ranks = ws.take<std::int32_t>(cluster.ranks());
    index_t const rows = detail::most_slots(cluster);
    index_t blocks = 0;
    for (index_t row = 0; row < rows; ++row) { blocks += detail::ranks_with_row(cluster, row, ranks) / replicas; }
    if (blocks < experts) { return {.status = status::infeasible}; }
    detail::random_words random(seed, draw);
    index_t expert = 0;
    for (index_t row = 0; row < rows && expert < experts; ++row) {
      index_t const count = detail::ranks_with_row(cluster, row, ranks);
      random.shuffle(ranks.first(static_cast<std::size_t>(count)));
      for (index_t i = 0; i + replicas <= count && expert < experts; i += replicas, ++expert) {
        for (index_t j = i; j < i + replicas; ++j) {
          auto const rank = static_cast<std::size_t>(ranks[static_cast<std::size_t>(j)]);
          next[static_cast<std::size_t>(cluster.slot_offsets()[rank] + row)] = static_cast<expert_id>(expert);
        }
      }
    }
    std::span<index_t> const counts = ws.take<index_t>(experts);
    return {.value = detail::largest_share(cluster, load.totals, next, counts), .bound = detail::mean_share(cluster, load.totals)};
  }

  /// @brief Scratch of `plan`.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    return fairlead::workspace_bytes<std::int32_t>(cluster.ranks()) + fairlead::workspace_bytes<index_t>(experts);
  }
};
static_assert(load_planner<row_partition>);
/// All replicas of an expert sit in one row.
template <>
inline constexpr bool replicas_share_local_slot<row_partition> = true;

FAIRLEAD_NAMESPACE_END
