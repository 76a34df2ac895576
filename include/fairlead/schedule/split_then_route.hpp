// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Make a token scheduler of a split and a source router.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/concepts/token_scheduler.hpp>
#include <fairlead/schedule/detail/shares.hpp>
#include <fairlead/schedule/equal_shares.hpp>
#include <fairlead/schedule/staircase.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief First decide how much each replica gets, then from which ranks: what a layer takes as its scheduler.
/// @tparam Split how much each replica gets (`replica_split`)
/// @tparam Router which sources feed it (`source_router`)
template <class Split, class Router = staircase>
struct split_then_route {
  Split split{};    ///< how much each replica gets
  Router router{};  ///< which sources feed it

  /// @brief Schedule the copies of all ranks.
  /// @param load copies per source and expert, each column summing to less than 2^31. @shape{ranks x experts}
  /// @param where the placement
  /// @param[out] out copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws scratch
  /// @returns the report of the split, with `out` zero unless it holds valid shares (`ok`, `iteration_limit`,
  ///          `no_improvement`)
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) on a negative load or a sum out of range
  /// @complexity that of both parts and O(ranks x experts) for the sums; no allocation
  /// @determinism that of both parts
  report schedule(load_view load, placement const& where, token_schedule_view out, workspace& ws) const {
    static_assert(replica_split<Split>, ".split must model fairlead::replica_split (concepts/replica_split.hpp), e.g. fairlead::water_fill");
    static_assert(source_router<Router>, ".router must model fairlead::source_router (concepts/replica_split.hpp), e.g. fairlead::staircase");
    detail::check_schedule(load, where, out);
    workspace::scope const scope(ws);
    auto const totals = ws.take<index_t>(where.experts());
    auto const shares = ws.take<count_t>(where.replicas());
    sum_over_ranks(load, totals);
    report const ended = split.split(totals, where, shares, ws);
    if (ended.status != status::ok && ended.status != status::iteration_limit && ended.status != status::no_improvement) {
      detail::clear(out);
      return ended;
    }
    report const routed = router.route(load, where, shares, out, ws);
    if (!routed) { return routed; }
    return ended;
  }
  /// @param where the placement
  /// @returns bytes for totals, shares, and the larger need of the two parts
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const {
    return fairlead::workspace_bytes<index_t>(where.experts()) + fairlead::workspace_bytes<count_t>(where.replicas()) +
           std::max<std::size_t>(split.workspace_bytes(where), router.workspace_bytes(where));
  }
};
static_assert(token_scheduler<split_then_route<equal_shares>>);

/// It makes the sense of replicas that its split makes.
template <class Split, class Router, replica_meaning Meaning>
inline constexpr bool schedules_meaning<split_then_route<Split, Router>, Meaning> = schedules_meaning<Split, Meaning>;

FAIRLEAD_NAMESPACE_END
