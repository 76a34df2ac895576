// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Balanced first, then near: among schedules with the least largest load, the one with the least traffic.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/concepts/token_scheduler.hpp>
#include <fairlead/schedule/detail/near_flow.hpp>
#include <fairlead/schedule/min_max_flow.hpp>
#include <fairlead/schedule/split_conditions.hpp>
#include <fairlead/schedule/staircase.hpp>
#include <fairlead/schedule/tiered.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Keep as many copies as possible on their rank, then on their node, without raising the largest load of a rank.
///
/// The split says how large the largest load has to be; its shares are then forgotten, because there are many with the
/// same largest load. A min-cost flow finds shares that let most copies stay on their rank, and of those the ones that
/// let most stay on their node; `tiered` routes them. Both numbers are optimal, in whole copies. Balance costs nothing
/// here; `slack` trades some of it for more local copies, and `limits` replaces the split by limits of each rank.
///
/// Base loads and speeds of the split (`conditions`) hold here too: the largest (base + copies) / speed is kept, and a failed
/// rank gets nothing. It counts distinct hosts: a second replica of an expert on one rank gets nothing.
/// @tparam Split where the largest load comes from; `min_max_flow` makes the order lexicographic
/// @source{MicroMoE, LPP 4: its weighted sum of load and traffic replaced by an order of importance (this library's choice)}
template <class Split = min_max_flow>
struct nearest_flow {
  Split split{};                       ///< where the largest load comes from; not used with `limits`
  topology cluster{};                  ///< which rank sits on which node; empty = ranks only
  index_t slack = 0;                   ///< copies that a rank may have above the split's largest load, >= 0
  std::span<index_t const> limits{};   ///< copies that each rank takes at most, >= 0; empty = the split's largest load. @shape{ranks}

  /// @brief Schedule the copies of all ranks.
  /// @param load copies per source and expert, each column summing to less than 2^31. @shape{ranks x experts}
  /// @param where the placement
  /// @param[out] out copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws scratch
  /// @returns `status::ok`; `status::lost_expert` or what else stopped the split, or `status::infeasible` if `limits` do not
  ///          suffice, with `out` zero; `value` is the largest number of copies of a rank, or (base + copies) / speed with
  ///          conditions, `bound` that of the split (0 with `limits`), `iterations` the number of paths
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) on a negative load or a sum out of range
  /// @complexity the split; O(ranks x (experts + replicas)) for sums and routing; at most O(copies) paths and few in
  ///             practice, each O(ranks + replicas); no allocation. Recursion is at most 4 x ranks deep.
  /// @determinism exact integer arithmetic
  report schedule(load_view load, placement const& where, token_schedule_view out, workspace& ws) const {
    detail::check_schedule(load, where, out);
    workspace::scope const scope(ws);
    auto const shares = ws.take<count_t>(where.replicas());
    report const ended = share(load, where, shares, ws);
    if (!ended) {
      detail::clear(out);
      return ended;
    }
    if (cluster.ranks() == 0) {
      (void)staircase{}.route(load, where, shares, out, ws);
    } else {
      (void)detail::route_in_tiers(cluster, false, load, where, shares, out, ws);
    }
    return ended;
  }

  /// @brief Find the shares alone, for a router of one's own: any router that keeps local copies reaches the optimum.
  /// @param load copies per source and expert, each column summing to less than 2^31. @shape{ranks x experts}
  /// @param where the placement
  /// @param[out] shares copies of each replica; zero if it fails. @shape{where.replicas()}
  /// @param ws scratch
  /// @returns as `schedule`
  /// @throws contract_violation as `schedule`
  report share(load_view load, placement const& where, std::span<count_t> shares, workspace& ws) const {
    static_assert(replica_split<Split>, ".split must model fairlead::replica_split (concepts/replica_split.hpp), e.g. fairlead::min_max_flow");
    index_t const ranks = where.ranks();
    FAIRLEAD_EXPECTS(load.rows() == ranks && load.cols() == where.experts(), "the load needs one row a rank and one column an expert",
                     load.rows(), load.cols(), ranks, where.experts());
    FAIRLEAD_EXPECTS(cluster.ranks() == 0 || cluster.ranks() == ranks, "the cluster must be the one that the placement is for, or empty",
                     cluster.ranks(), ranks);
    FAIRLEAD_EXPECTS(slack >= 0, "slack must not be negative", slack);
    FAIRLEAD_EXPECTS(limits.empty() || static_cast<index_t>(limits.size()) == ranks, "limits needs one number a rank", limits.size(), ranks);
    workspace::scope const scope(ws);
    auto const totals = ws.take<index_t>(where.experts());
    auto const most = ws.take<index_t>(ranks);
    sum_over_ranks(load, totals);
    detail::check_split(totals, where, shares);
    std::fill(shares.begin(), shares.end(), count_t{0});
    if (detail::loses_copies(std::span<index_t const>(totals), where)) { return {.status = status::lost_expert}; }
    report ended;
    split_conditions conditions;
    if (limits.empty()) {
      ended = split.split(totals, where, shares, ws);
      if (ended.status != status::ok && ended.status != status::iteration_limit && ended.status != status::no_improvement) { return ended; }
      conditions = detail::conditions_of(split);
      detail::limits_at(conditions, detail::largest_level(conditions, where, shares), slack, most);
    } else {
      for (std::size_t rank = 0; rank < most.size(); ++rank) { most[rank] = std::max<index_t>(limits[rank], 0); }
    }
    detail::near_flow flow(where, cluster, ws);
    if (!flow.solve(load, totals, most)) {
      std::fill(shares.begin(), shares.end(), count_t{0});
      return {.status = status::infeasible};
    }
    flow.shares(shares);
    auto const top = detail::largest_level(conditions, where, shares);
    return {.iterations = flow.pushes(), .value = static_cast<double>(top.load) / static_cast<double>(top.speed), .bound = ended.bound};
  }

  /// @param where the placement
  /// @returns bytes for shares, sums, and the largest need of split, flow and router
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const {
    std::size_t const parts = std::max<std::size_t>(split.workspace_bytes(where), detail::near_flow::bytes(where, cluster));
    return fairlead::workspace_bytes<count_t>(where.replicas()) +
           std::max(fairlead::workspace_bytes<index_t>(where.experts()) + fairlead::workspace_bytes<index_t>(where.ranks()) + parts,
                    detail::row_walk::bytes(where));
  }
};
static_assert(token_scheduler<nearest_flow<>>);

/// A host gets as much as fits, whatever the number of places of its replicas.
template <class Split>
inline constexpr bool schedules_meaning<nearest_flow<Split>, replica_meaning::capacity_unit> = false;

FAIRLEAD_NAMESPACE_END
