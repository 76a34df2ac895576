// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How a search over placements judges one: by the load that no other ranks can take.
#include <fairlead/core/topology.hpp>
#include <fairlead/metrics/induced_density.hpp>
#include <fairlead/place/detail/split_optimum.hpp>

#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Judges a slot table for a load.
///
/// Required of a model `score`:
/// - `score.evaluate(cluster, slots, totals, stop_above, ws)`: the densest set of ranks (`metrics::density`), or, if
///   `stop_above` is not null and the table is denser than that, anything that is denser. `status::unsupported` if it
///   cannot say.
/// - `score.workspace_bytes(cluster, experts)`: scratch it needs; the call allocates nothing.
///
/// A score that gives densities rounded up to whole copies says so: `rounds_up_density<Score>`.
template <class Score>
concept density_score = requires(Score const& score, topology const& cluster, std::span<expert_id const> slots,
                                 std::span<index_t const> totals, metrics::density const* limit, workspace& ws) {
  { score.evaluate(cluster, slots, totals, limit, ws) } -> std::same_as<metrics::density>;
  { score.workspace_bytes(cluster, index_t{}) } -> std::convertible_to<std::size_t>;
};

/// @brief Stated by a density_score: its densities are rounded up to whole copies, over one rank.
template <class Score>
inline constexpr bool rounds_up_density = false;

/// @brief Judge by an optimal split of the copies: any number of ranks, rounded up to whole copies.
///
/// The least largest load of a rank is the density of the densest set of ranks, rounded up; it is computed by pouring and
/// repairing an integer flow, which takes microseconds for tens of ranks.
/// @source{2511.16947, Eq. 3 and LPP 1}
struct flow_score {
  /// @brief Compute the least largest load of a rank.
  /// @param cluster the cluster
  /// @param slots expert of each slot, or none. @shape{cluster.slots()}
  /// @param totals load of each expert. @shape{experts}
  /// @param stop_above not looked at: the answer is always exact
  /// @param ws scratch, see `workspace_bytes`
  /// @returns that load over one rank; which ranks is not told. `status::lost_expert` if an expert with load has no rank
  /// @complexity O(slots + ranks) a path, usually a few tens of them; no allocation
  [[nodiscard]] metrics::density evaluate(topology const& cluster, std::span<expert_id const> slots, std::span<index_t const> totals,
                                          metrics::density const* stop_above, workspace& ws) const {
    (void)stop_above;
    workspace::scope const scope(ws);
    detail::split_scratch scratch(cluster, static_cast<index_t>(totals.size()), ws);
    detail::split_answer const answer = detail::split_optimum(cluster, totals, slots, cluster.hosting_ranks(), scratch);
    for (std::size_t e = 0; e < totals.size(); ++e) {
      if (totals[e] > 0 && scratch.first_edge[e] == scratch.first_edge[e + 1]) { return {.status = status::lost_expert, .load = totals[e]}; }
    }
    return {.load = answer.largest};
  }
  /// @brief Scratch of `evaluate`.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] static std::size_t workspace_bytes(topology const& cluster, index_t experts) {
    return detail::split_scratch::bytes(cluster, experts);
  }
};
static_assert(density_score<flow_score>);
/// Whole copies.
template <>
inline constexpr bool rounds_up_density<flow_score> = true;

/// @brief Judge by looking at all sets of ranks: exact fractions, for at most 64 ranks of which at most 30 host.
struct enumerated_score {
  /// @brief Find the densest set.
  /// @param cluster the cluster
  /// @param slots expert of each slot, or none. @shape{cluster.slots()}
  /// @param totals load of each expert. @shape{experts}
  /// @param stop_above null, or give up as soon as the table is seen to be denser
  /// @param ws scratch, see `workspace_bytes`
  /// @returns as `metrics::enumerated_density::evaluate`
  /// @complexity O(2^n n) for n hosting ranks, no allocation
  [[nodiscard]] metrics::density evaluate(topology const& cluster, std::span<expert_id const> slots, std::span<index_t const> totals,
                                          metrics::density const* stop_above, workspace& ws) const {
    if (cluster.ranks() > 64) { return {.status = status::unsupported}; }
    workspace::scope const scope(ws);
    std::span<std::uint64_t> const hosts = ws.take<std::uint64_t>(static_cast<index_t>(totals.size()));
    metrics::host_masks(cluster.slot_offsets(), slots, hosts);
    return metrics::enumerated_density{}.evaluate(hosts, totals, ws, stop_above);
  }
  /// @brief Scratch of `evaluate`.
  /// @param cluster not looked at
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] static std::size_t workspace_bytes(topology const& cluster, index_t experts) noexcept {
    (void)cluster;
    return metrics::induced_density_bytes(experts);
  }
};
static_assert(density_score<enumerated_score>);

FAIRLEAD_NAMESPACE_END
