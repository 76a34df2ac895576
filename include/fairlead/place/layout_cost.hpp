// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Time of a step for a slot table when every source splits its copies evenly over the nearest replicas.
#include <fairlead/cluster/pair_sum_cost.hpp>
#include <fairlead/concepts/layout_objective.hpp>

#include <algorithm>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Who gets the copies that an even split leaves over.
enum class even_remainder {
  first,    ///< the first replicas, in slot order, one copy each
  rotated,  ///< the same, starting with replica (source rank mod replicas), so that sources differ
  divided   ///< nobody: quotas are fractions, as the published cost model means them
};

/// @brief Where copies went under an even split.
struct layout_traffic {
  double same_rank = 0.0;   ///< copies that stay on their rank
  double same_node = 0.0;   ///< copies that change their rank inside a node
  double other_node = 0.0;  ///< copies that change their node
  double busiest = 0.0;     ///< copies of the busiest rank
};

/// @brief Copies that one rank exchanges under an even split.
struct rank_exchange {
  index_t stays = 0;          ///< copies of its own that it computes
  index_t sent_near = 0;      ///< copies to other ranks of its node
  index_t sent_far = 0;       ///< copies to other nodes
  index_t received_near = 0;  ///< copies from other ranks of its node
  index_t received_far = 0;   ///< copies from other nodes
  /// @returns copies that it computes
  [[nodiscard]] constexpr index_t computed() const noexcept { return stays + received_near + received_far; }
  /// Equality of all members.
  friend constexpr bool operator==(rank_exchange const&, rank_exchange const&) = default;
};

/// @brief Loads of sources in the form that `layout_cost` reads: computed once, shared by all slot tables.
struct source_loads {
  std::span<std::int32_t const> narrow;   ///< copies a source and expert when no expert has 2^31, else empty. @shape{ranks x experts}
  std::span<index_t const> wide;          ///< the same when an expert has 2^31 or more, else empty. @shape{ranks x experts}
  std::span<index_t const> node_sums;     ///< copies a node and expert. @shape{nodes x experts}
  std::span<index_t const> totals;        ///< copies an expert. @shape{experts}
};

/// @brief Predict the time of a step for a slot table, with each source's copies split evenly over the replicas of its
/// node, or over all replicas if its node has none.
///
/// The answer is that of `pair_sum_cost` for the token schedule of this split, to the last bit, without making that
/// schedule (it would have ranks x slots entries): ranks of a node share their targets, so that sums over the sources of a
/// node and counts of their remainders say what each replica gets; copies that change their node follow from sums of
/// nodes alone; copies that stay on their rank are looked up slot by slot. Every copy is counted exactly once.
/// @source{2602.11686, section 3.2 and Algorithm 3} The published code adds the remainder of a quotient that was not
/// rounded down, and so counts it twice; `even_remainder::divided` gives the numbers that it should have had.
struct layout_cost {
  pair_sum_cost model{};                             ///< what copies cost
  even_remainder remainder = even_remainder::rotated;  ///< who gets the copies left over; the same as the scheduler

  /// @brief Compute what all slot tables share.
  /// @param cluster the cluster
  /// @param load `by_source` @shape{ranks x experts}, entries >= 0, sums < 2^63; if empty, `totals` are split evenly over
  ///        all ranks, the remainder to the first ones
  /// @param ws scratch; the result views it
  /// @returns the loads in the form of `cost` and `traffic`
  /// @throws contract_violation (level 1) on a shape mismatch or a negative load, (level 2) if columns do not sum to `totals`
  /// @complexity O(ranks x experts) time and scratch, no allocation
  /// @determinism exact integers
  [[nodiscard]] source_loads prepare(topology const& cluster, load_estimate const& load, workspace& ws) const;

  /// @brief Count where copies go.
  /// @param cluster the cluster
  /// @param sources what `prepare` returned for this cluster
  /// @param slots expert of each slot, or none; each expert with load has a slot. @shape{cluster.slots()}
  /// @param[out] rank_loads copies that each rank computes. @shape{cluster.ranks()}
  /// @param ws scratch
  /// @returns the sums; whole numbers unless the remainder is divided
  /// @throws contract_violation (level 1) on a shape mismatch or an expert with load and without slot
  /// @complexity O(ranks x experts + slots) time, O(ranks + slots + experts) scratch, no allocation
  /// @determinism exact integers; divided remainders are doubles summed in a fixed order
  [[nodiscard]] layout_traffic traffic(topology const& cluster, source_loads const& sources,
                                       std::span<expert_id const> slots, std::span<double> rank_loads,
                                       workspace& ws) const;

  /// @brief The time of a step for a slot table.
  /// @param cluster the cluster
  /// @param sources what `prepare` returned for this cluster
  /// @param slots expert of each slot, or none. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns the cost; infinite if an expert with load has no slot
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity as `traffic`
  [[nodiscard]] step_cost cost(topology const& cluster, source_loads const& sources, std::span<expert_id const> slots,
                               workspace& ws) const;

  /// @brief What no slot table of this cluster beats: free exchange and even load of all ranks that have a slot.
  /// @param cluster the cluster
  /// @param sources what `prepare` returned for this cluster
  /// @returns a lower bound of `cost(...).total_s()`. @unit{s}
  /// @complexity O(experts + ranks)
  [[nodiscard]] double bound(topology const& cluster, source_loads const& sources) const noexcept;

  /// @brief Scratch of `prepare` and one `cost` or `traffic`.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    using fairlead::workspace_bytes;
    // Shared: loads, sums of nodes, totals. A table: three rows of divisors and sums, the marks of replicas, rank loads.
    return workspace_bytes<index_t>(cluster.ranks() * experts) + workspace_bytes<index_t>(cluster.nodes() * experts) +
           workspace_bytes<index_t>(experts) + 14 * workspace_bytes<index_t>(experts) +
           workspace_bytes<index_t>(4 * cluster.slots() + 2 * experts) + 2 * workspace_bytes<index_t>(cluster.ranks());
  }
};

FAIRLEAD_NAMESPACE_END

#include <fairlead/place/detail/layout_cost_text.hpp>

FAIRLEAD_NAMESPACE_BEGIN
static_assert(layout_objective<layout_cost>);
FAIRLEAD_NAMESPACE_END
