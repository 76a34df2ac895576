// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Every replica adds a fixed number of places: which copies survive, and which replica serves them.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/token_scheduler.hpp>
#include <fairlead/schedule/detail/shares.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief An expert with r replicas takes `places` x r copies; what survives is spread over its replicas in service order.
///
/// Copies of an expert are numbered by (source rank, service order). Copies beyond places x r are dropped, and that is
/// decided by `admit` *before* anything is scheduled: a schedule that balances what is left would hide the loss. Copy k of
/// n survivors goes to replica floor(k r / n), so each replica gets n/r up to one, never more than `places`; with every
/// place taken that is k / places. Which replica serves which copy is this library's choice: the paper says "balanced".
///
/// Use with placements whose replicas mean capacity (`replica_meaning::capacity_unit`).
/// @source{SYMI, slot capacity and survivors}
struct slot_capacity {
  index_t places = 0;  ///< copies that one replica takes, >= 0

  /// @brief The usual number of places: factor x copies / slots, rounded down as the capacity formulas of frameworks do.
  /// @param factor capacity factor, >= 0, finite
  /// @param copies copies of the whole batch, on all ranks
  /// @param slots slots on all ranks, >= 1
  /// @returns the rule
  /// @throws contract_violation (level 1) on an argument out of range
  [[nodiscard]] static slot_capacity of(double factor, index_t copies, index_t slots) {
    FAIRLEAD_EXPECTS(factor >= 0.0 && std::isfinite(factor) && copies >= 0 && slots >= 1,
                     "a slot capacity needs factor >= 0, copies >= 0 and a slot", factor, copies, slots);
    double const exact = std::floor(factor * static_cast<double>(copies) / static_cast<double>(slots));
    return {exact < 9.0e18 ? static_cast<index_t>(exact) : std::numeric_limits<index_t>::max()};
  }

  /// @param where the placement
  /// @param expert an expert
  /// @returns copies that it takes in all, at most the largest `index_t`
  [[nodiscard]] index_t capacity(placement const& where, expert_id expert) const noexcept {
    auto const replicas = static_cast<index_t>(where.replicas(expert).size());
    return replicas != 0 && places > std::numeric_limits<index_t>::max() / replicas ? std::numeric_limits<index_t>::max()
                                                                                    : places * replicas;
  }

  /// @brief Count the copies that find a place.
  /// @param totals copies an expert. @shape{experts}
  /// @param where the placement
  /// @returns sum over the experts of min(total, capacity)
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(experts), no allocation
  [[nodiscard]] index_t survivors(std::span<index_t const> totals, placement const& where) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(totals.size()) == where.experts(), "one total an expert is needed", totals.size(), where.experts());
    index_t sum = 0;
    for (std::size_t e = 0; e < totals.size(); ++e) { sum += std::min(totals[e], capacity(where, static_cast<expert_id>(e))); }
    return sum;
  }

  /// @brief Drop what finds no place: lower ranks are served first.
  /// @param load copies per source and expert. @shape{ranks x experts}
  /// @param where the placement
  /// @param[out] admitted copies that survive; of each source the first ones in service order; may be the memory of `load`. @shape{ranks x experts}
  /// @returns `status::ok`; `value` is the number of survivors, `bound` the number of copies. A lost expert has no places.
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) on a negative load
  /// @complexity O(ranks x experts) time, no allocation
  /// @determinism exact integer arithmetic
  report admit(load_view load, placement const& where, matrix_view<count_t> admitted) const {
    FAIRLEAD_EXPECTS(load.cols() == where.experts(), "the load needs one column an expert of the placement", load.cols(), where.experts());
    FAIRLEAD_EXPECTS(admitted.rows() == load.rows() && admitted.cols() == load.cols(), "admitted needs the shape of the load",
                     admitted.rows(), admitted.cols(), load.rows(), load.cols());
    FAIRLEAD_EXPECTS(places >= 0, "the number of places must not be negative", places);
    index_t kept = 0;
    index_t all = 0;
    for (index_t e = 0; e < load.cols(); ++e) {
      index_t left = capacity(where, static_cast<expert_id>(e));
      for (index_t source = 0; source < load.rows(); ++source) {
        count_t const copies = load(source, e);
        FAIRLEAD_EXPECTS_2(copies >= 0, "a load must not be negative", source, e, copies);
        auto const taken = static_cast<count_t>(std::min<index_t>(copies, left));
        admitted(source, e) = taken;
        left -= taken;
        kept += taken;
        all += copies;
      }
    }
    return {.value = static_cast<double>(kept), .bound = static_cast<double>(all)};
  }

  /// @brief Schedule the copies that were admitted.
  /// @param load copies per source and expert, no expert above its capacity. @shape{ranks x experts}
  /// @param where the placement
  /// @param[out] out copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws not used
  /// @returns `status::ok`; `status::lost_expert` with `out` zero if an expert with load has no replica;
  ///          `status::infeasible` with `out` zero if an expert has more copies than places; `value` is the largest number
  ///          of copies that a rank receives
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) on a negative load
  /// @complexity O(ranks x (experts + replicas)) time, no allocation
  /// @determinism exact integer arithmetic
  report schedule(load_view load, placement const& where, token_schedule_view out, workspace& ws) const {
    (void)ws;
    detail::check_schedule(load, where, out);
    FAIRLEAD_EXPECTS(places >= 0, "the number of places must not be negative", places);
    detail::clear(out);
    if (detail::loses_copies(load, where)) { return {.status = status::lost_expert}; }
    for (index_t e = 0; e < load.cols(); ++e) {
      auto const replicas = static_cast<index_t>(where.replicas(static_cast<expert_id>(e)).size());
      index_t const column = where.replica_offset(static_cast<expert_id>(e));
      index_t total = 0;
      for (index_t source = 0; source < load.rows(); ++source) { total += load(source, e); }
      if (total > capacity(where, static_cast<expert_id>(e))) {
        detail::clear(out);
        return {.status = status::infeasible};
      }
      // Replica m serves the copies k with floor(k r / n) = m: those below ceil((m + 1) n / r).
      index_t k = 0;
      index_t m = 0;
      index_t const share = replicas > 0 ? total / replicas : 0;
      index_t const odd = replicas > 0 ? total % replicas : 0;
      auto const end_of = [&](index_t which) { return (which + 1) * share + ((which + 1) * odd + replicas - 1) / replicas; };
      for (index_t source = 0; total > 0 && source < load.rows(); ++source) {
        index_t left = load(source, e);
        while (left > 0) {
          index_t const taken = std::min(left, end_of(m) - k);
          out(source, column + m) += static_cast<count_t>(taken);
          left -= taken;
          k += taken;
          m += k == end_of(m) && m + 1 < replicas ? 1 : 0;
        }
      }
    }
    return {.value = static_cast<double>(detail::largest_rank_load(where, out))};
  }
  /// @returns 0: it needs no scratch
  [[nodiscard]] constexpr std::size_t workspace_bytes(placement const&) const noexcept { return 0; }
};
static_assert(token_scheduler<slot_capacity>);

/// A capacity of slots needs replicas that stand for capacity.
template <>
inline constexpr bool schedules_meaning<slot_capacity, replica_meaning::host> = false;
/// A capacity of slots needs replicas that stand for capacity.
template <>
inline constexpr bool schedules_meaning<slot_capacity, replica_meaning::equal_share> = false;

FAIRLEAD_NAMESPACE_END
