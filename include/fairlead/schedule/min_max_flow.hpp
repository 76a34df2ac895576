// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Split copies over replicas so that the busiest rank gets as little as possible: exact, with a certificate.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/concepts/token_scheduler.hpp>
#include <fairlead/schedule/detail/min_max.hpp>
#include <fairlead/schedule/host_graph.hpp>
#include <fairlead/schedule/min_max_report.hpp>
#include <fairlead/schedule/split_then_route.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Split copies over replicas so that the largest load of a rank is the least possible one, in whole copies.
///
/// Minimises max over ranks of (base + copies) / speed. The optimum is the largest density max over rank sets S of
/// (load of the experts that are hosted only inside S) / |S|, rounded up; the solver returns a set that attains it. A
/// second replica on one rank gets nothing: only distinct hosts matter (`replica_meaning::host`).
///
/// How: experts even out their hosts pair by pair for a few sweeps; one pass over a spanning tree of ranks settles the
/// rest where all ranks end equally busy; what is left is repaired by shortest augmenting paths, and a crowded rank that
/// reaches no room proves a higher bound (a discrete Newton step). The first two only make a good start: the last one
/// alone is exact.
///
/// @source{2511.16947, MicroMoE, LPP 1 and equation 3} - the paper solves a linear program and does not say how it rounds;
/// pair sweeps, the tree pass and the integral augmentation are this library's.
struct min_max_flow {
  index_t sweeps = 2;             ///< most pair sweeps before the exact part, >= 0: speed only
  split_conditions conditions{};  ///< base loads and speeds for `split` and `schedule`, both optional; 0 = failed rank

  /// @brief Split with a compiled placement: the form for every micro-batch, microseconds for tens of ranks.
  /// @param graph the placement, compiled once (`host_graph`)
  /// @param totals copies an expert, in [0, 2^31). @shape{experts}
  /// @param given base loads and speeds for this call, both optional (the field `conditions` is not read)
  /// @param start whether `shares` holds an earlier split to start from
  /// @param[in,out] shares copies a replica; read only with `split_start::warm`, when any non-negative numbers are
  ///                legal. @shape{columns}
  /// @param ws scratch, `workspace_bytes(graph)`
  /// @returns `status::ok`, or `status::lost_expert` with all shares zero if an expert with load has no live host; see
  ///          `min_max_report` for the certificate
  /// @throws contract_violation (level 1) on a shape mismatch, a load out of range or loads of 2^42 and more together,
  ///         (level 2) on a base or speed out of range
  /// @complexity O(sweeps x replicas + searches x (ranks + replicas)); none to some tens of searches up to 64 ranks, up to
  ///             two a rank were seen with more ranks, two hosts an expert and loads far apart; no allocation
  /// @determinism integers and fixed orders; a warm start makes the shares (not their maximum) depend on history, which
  ///              all ranks must share
  [[nodiscard]] min_max_report solve(host_graph_view const& graph, std::span<index_t const> totals, split_conditions const& given,
                                     split_start start, std::span<count_t> shares, workspace& ws) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(totals.size()) == graph.experts, "one total an expert of the placement", totals.size(), graph.experts);
    FAIRLEAD_EXPECTS(static_cast<index_t>(shares.size()) == graph.columns, "one share a replica of the placement", shares.size(), graph.columns);
    detail::check_conditions(given, graph.ranks);
    FAIRLEAD_EXPECTS(sweeps >= 0, "the number of sweeps must not be negative", sweeps);
    return detail::solve_min_max(graph, totals, given, static_cast<std::int32_t>(std::min<index_t>(sweeps, 64)), start, shares, ws);
  }

  /// @brief Split: compiles the placement first. A model of `replica_split`.
  /// @param totals copies an expert, in [0, 2^31). @shape{experts}
  /// @param where the placement
  /// @param[out] shares copies a replica. @shape{where.replicas()}
  /// @param ws scratch, `workspace_bytes(where)`
  /// @returns as `solve`; `value` is the largest (base + copies) / speed of a rank and `bound` equals it
  /// @throws contract_violation as `solve`
  /// @complexity as `solve`, plus O(ranks + experts + replicas); no allocation
  report split(std::span<index_t const> totals, placement const& where, std::span<count_t> shares, workspace& ws) const {
    workspace::scope const scope(ws);
    return solve(make_host_graph(where, ws), totals, conditions, split_start::cold, shares, ws).summary;
  }
  /// @brief Split, then feed each replica from its own rank first (`staircase`). A model of `token_scheduler`.
  /// @param load copies per source and expert. @shape{ranks x experts}
  /// @param where the placement
  /// @param[out] out copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws scratch, `workspace_bytes(where)`
  /// @returns as `split`
  /// @throws contract_violation as `split_then_route`
  /// @complexity as `split`, plus O(ranks x (experts + replicas)); no allocation
  report schedule(load_view load, placement const& where, token_schedule_view out, workspace& ws) const {
    return split_then_route<parts>{.split = {*this}}.schedule(load, where, out, ws);
  }
  /// @param graph a compiled placement
  /// @returns bytes of scratch that `solve` takes
  [[nodiscard]] std::size_t workspace_bytes(host_graph_view const& graph) const noexcept {
    return detail::min_max_bytes(graph.ranks, graph.experts, graph.columns);
  }
  /// @param where a placement
  /// @returns bytes of scratch that `split` and `schedule` take
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const noexcept {
    return split_then_route<parts>{.split = {*this}}.workspace_bytes(where);
  }

 private:
  // The split alone, so that `schedule` can be composed from it.
  struct parts {
    min_max_flow const& flow;
    report split(std::span<index_t const> totals, placement const& where, std::span<count_t> shares, workspace& ws) const {
      return flow.split(totals, where, shares, ws);
    }
    [[nodiscard]] std::size_t workspace_bytes(placement const& where) const noexcept {
      return host_graph_bytes(where) + detail::min_max_bytes(where.ranks(), where.experts(), where.replicas());
    }
  };
};
static_assert(replica_split<min_max_flow> && token_scheduler<min_max_flow>);
/// Distinct hosts are all it sees: fixed shares and units of capacity mean something else.
template <>
inline constexpr bool schedules_meaning<min_max_flow, replica_meaning::capacity_unit> = false;
/// The largest load is proved least possible.
template <>
inline constexpr bool optimal_split<min_max_flow> = true;

FAIRLEAD_NAMESPACE_END
