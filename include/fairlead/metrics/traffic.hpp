// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How many copies of tokens cross ranks and nodes, counted per copy and per token.
#include <fairlead/core/routing.hpp>
#include <fairlead/core/token_schedule.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace metrics {

/// @brief Copies of tokens by how far they travel.
struct copy_traffic {
  index_t local = 0;   ///< computed on the rank that they are on
  index_t node = 0;    ///< sent to another rank of the node
  index_t remote = 0;  ///< sent to another node
  /// @returns copies in all
  [[nodiscard]] constexpr index_t total() const noexcept { return local + node + remote; }
  /// @param row_bytes size of a row. @unit{B}
  /// @returns bytes that leave their rank, one way. @unit{B}
  [[nodiscard]] constexpr index_t crossing_bytes(index_t row_bytes) const noexcept {
    return (node + remote) * row_bytes;
  }
  /// @param row_bytes size of a row. @unit{B}
  /// @returns bytes that leave their node, one way. @unit{B}
  [[nodiscard]] constexpr index_t remote_bytes(index_t row_bytes) const noexcept { return remote * row_bytes; }
  /// Equality of all members.
  friend constexpr bool operator==(copy_traffic const&, copy_traffic const&) = default;
};

/// @brief Count the copies of all source ranks by distance.
/// @param cluster the cluster
/// @param where the placement, on as many ranks
/// @param schedule copies per source and replica. @shape{ranks x where.replicas()}
/// @returns the counts; a token with several copies counts once for each
/// @throws contract_violation (level 1) on a shape mismatch
/// @complexity O(ranks x replicas), no allocation
[[nodiscard]] inline copy_traffic count_copies(topology const& cluster, placement const& where,
                                               const_token_schedule_view schedule) {
  FAIRLEAD_EXPECTS(where.ranks() == cluster.ranks(), "cluster and placement must have equally many ranks",
                   cluster.ranks(), where.ranks());
  FAIRLEAD_EXPECTS(schedule.rows() == cluster.ranks() && schedule.cols() == where.replicas(),
                   "the schedule needs one row a rank and one column a replica", schedule.rows(), schedule.cols(),
                   cluster.ranks(), where.replicas());
  copy_traffic traffic;
  for (index_t source = 0; source < schedule.rows(); ++source) {
    count_t const* count = schedule.row(source);
    for (index_t e = 0; e < where.experts(); ++e) {
      for (replica const& host : where.replicas(static_cast<expert_id>(e))) {
        index_t const rank = to_index(host.rank);
        bool const near = cluster.node_of(rank) == cluster.node_of(source);
        (rank == source ? traffic.local : near ? traffic.node : traffic.remote) += *count++;
      }
    }
  }
  return traffic;
}

/// @brief Rows of one source rank that have to travel, with and without sending the same row twice.
struct row_traffic {
  copy_traffic copies;    ///< per (token, choice)
  index_t rank_rows = 0;  ///< distinct (token, other rank): what an exchange sends that deduplicates per rank
  index_t node_rows =
      0;  ///< distinct (token, other node): what crosses nodes if each row is sent once and spread there
};

/// @brief Scratch of `count_rows`.
/// @param cluster the cluster
/// @param where the placement
/// @returns bytes
[[nodiscard]] inline std::size_t count_rows_bytes(topology const& cluster, placement const& where) noexcept {
  return 2 * workspace_bytes<index_t>(where.experts()) + workspace_bytes<token_id>(where.ranks()) +
         workspace_bytes<token_id>(cluster.nodes());
}

/// @brief Follow each token of one source rank to the replicas that the schedule gives it.
///
/// A schedule says how many copies go to each replica, not which: this library serves a source's copies of an expert in
/// the order of tokens, the first ones to the first replica, and so does this count. It is exact for that order.
/// @param cluster the cluster
/// @param where the placement, on as many ranks
/// @param schedule copies per source and replica. @shape{ranks x where.replicas()}
/// @param source the rank whose tokens these are
/// @param tokens its routing; copies beyond what the schedule holds are not counted (dropped)
/// @param ws scratch of `count_rows_bytes(cluster, where)`
/// @returns the counts
/// @throws contract_violation (level 1) on a shape mismatch or an unknown rank
/// @complexity O(tokens x fan_out + replicas + ranks) time, O(experts + ranks) scratch, no allocation
[[nodiscard]] inline row_traffic count_rows(topology const& cluster, placement const& where,
                                            const_token_schedule_view schedule, rank_id source,
                                            const_routing_view tokens, workspace& ws) {
  FAIRLEAD_EXPECTS(where.ranks() == cluster.ranks() && schedule.cols() == where.replicas(),
                   "the placement needs the ranks of the cluster, the schedule one column a replica", where.ranks(),
                   cluster.ranks(), schedule.cols(), where.replicas());
  FAIRLEAD_EXPECTS(to_index(source) >= 0 && to_index(source) < schedule.rows(), "no such rank", source,
                   schedule.rows());
  workspace::scope const undo(ws);
  // Replica that takes an expert's next copy, and how many it has taken.
  std::span<index_t> const current = ws.take<index_t>(where.experts());
  std::span<index_t> const taken = ws.take<index_t>(where.experts());
  // The last token that was sent to a rank and to a node.
  std::span<token_id> const rank_seen = ws.take<token_id>(where.ranks());
  std::span<token_id> const node_seen = ws.take<token_id>(cluster.nodes());
  std::fill(current.begin(), current.end(), index_t{0});
  std::fill(taken.begin(), taken.end(), index_t{0});
  std::fill(rank_seen.begin(), rank_seen.end(), token_id::none);
  std::fill(node_seen.begin(), node_seen.end(), token_id::none);
  index_t const home = to_index(source);
  index_t const home_node = cluster.node_of(home);
  row_traffic traffic;
  for (index_t t = 0; t < tokens.tokens(); ++t) {
    auto const token = static_cast<token_id>(t);
    for (index_t k = 0; k < tokens.fan_out(); ++k) {
      expert_id const expert = tokens.experts(t, k);
      if (expert == expert_id::none) { continue; }
      FAIRLEAD_EXPECTS_2(to_index(expert) >= 0 && to_index(expert) < where.experts(), "no such expert", expert,
                         where.experts());
      auto const e = static_cast<std::size_t>(expert);
      auto const hosts = where.replicas(expert);
      auto const replicas = static_cast<index_t>(hosts.size());
      while (current[e] < replicas && taken[e] >= schedule(home, where.replica_offset(expert) + current[e])) {
        ++current[e];
        taken[e] = 0;
      }
      if (current[e] == replicas) { continue; }
      ++taken[e];
      auto const rank = static_cast<std::size_t>(hosts[static_cast<std::size_t>(current[e])].rank);
      auto const node = static_cast<std::size_t>(cluster.node_of(static_cast<index_t>(rank)));
      bool const near = static_cast<index_t>(node) == home_node;
      bool const stays = static_cast<index_t>(rank) == home;
      ++(stays ? traffic.copies.local : near ? traffic.copies.node : traffic.copies.remote);
      if (!stays && rank_seen[rank] != token) { ++traffic.rank_rows; }
      if (!near && node_seen[node] != token) { ++traffic.node_rows; }
      rank_seen[rank] = token;
      node_seen[node] = token;
    }
  }
  return traffic;
}

}  // namespace metrics
FAIRLEAD_NAMESPACE_END
