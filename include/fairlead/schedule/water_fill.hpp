// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Pour the experts, largest first, onto their least loaded hosts.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/schedule/detail/pour.hpp>
#include <fairlead/schedule/detail/shares.hpp>
#include <fairlead/schedule/split_conditions.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Experts by descending load, each spread over its hosts so that the lowest ranks rise first, to a common level.
///
/// Cheap and without promise: later experts cannot push earlier ones away, so the largest load is typically 3 to 14 %
/// above the least possible at mild skew. It is a good start for an exact split, and a baseline. Ties go to the lower
/// expert and the lower rank, and copies that do not divide go to the lowest ranks (this library's choice).
///
/// It counts distinct hosts: of several replicas of an expert on one rank, the first gets everything and the others
/// nothing. Ranks may be busy already or of different speed (`conditions`; speed 0 = failed, gets nothing); the level
/// of a rank is then (base + copies) / speed.
struct water_fill {
  split_conditions conditions{};  ///< base loads and speeds of the ranks, both optional

  /// @brief Split the copies of all experts.
  /// @param totals copies an expert, >= 0, < 2^31. @shape{experts}
  /// @param where the placement
  /// @param[out] shares copies a replica. @shape{where.replicas()}
  /// @param ws scratch
  /// @returns `status::ok`, or `status::lost_expert` with shares of zero if an expert with load has no replica on a rank
  ///          that works; `value` is the largest (base + copies) / speed of a rank that works, `bound` 0
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) on a total out of range
  /// @complexity O(experts log experts + sum of d^2) time for d replicas of an expert, no allocation
  /// @determinism exact integer arithmetic
  report split(std::span<index_t const> totals, placement const& where, std::span<count_t> shares, workspace& ws) const {
    detail::check_split(totals, where, shares);
    index_t const ranks = where.ranks();
    detail::check_conditions(conditions, ranks);
    auto const base = conditions.base;
    auto const speeds = conditions.speed;
    workspace::scope const scope(ws);
    auto const loads = ws.take<index_t>(ranks);
    auto const order = ws.take<std::uint64_t>(where.experts());
    auto const hosts = ws.take<detail::pour_host>(most_replicas(where));
    std::fill(shares.begin(), shares.end(), count_t{0});
    if (base.empty()) {
      std::fill(loads.begin(), loads.end(), index_t{0});
    } else {
      std::copy(base.begin(), base.end(), loads.begin());
    }
    // Totals are below 2^31 and so are expert numbers: one integer sorts by (total descending, expert ascending).
    std::size_t experts = 0;
    for (std::size_t e = 0; e < totals.size(); ++e) {
      if (totals[e] != 0) { order[experts++] = (static_cast<std::uint64_t>(0x7FFFFFFF - totals[e]) << 32U) | e; }
    }
    std::sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(experts));
    for (std::uint64_t const key : order.first(experts)) {
      auto const e = static_cast<std::size_t>(key & 0xFFFFFFFFU);
      auto const copies = where.replicas(static_cast<expert_id>(e));
      auto const column = static_cast<std::size_t>(where.replica_offset(static_cast<expert_id>(e)));
      std::size_t count = 0;
      for (std::size_t k = 0; k < copies.size(); ++k) {
        auto const rank = static_cast<std::size_t>(copies[k].rank);
        bool const again = k > 0 && copies[k - 1].rank == copies[k].rank;
        if (!again && (speeds.empty() || speeds[rank] > 0)) {
          hosts[count++] = {loads[rank], speeds.empty() ? 1 : speeds[rank], static_cast<std::int32_t>(rank), static_cast<std::int32_t>(k), 0};
        }
      }
      if (count == 0) {
        std::fill(shares.begin(), shares.end(), count_t{0});
        return {.status = status::lost_expert};
      }
      auto const used = hosts.first(count);
      if (speeds.empty()) {
        detail::pour(used, totals[e]);
      } else {
        detail::pour_by_speed(used, totals[e]);
      }
      for (detail::pour_host const& host : used) {
        loads[static_cast<std::size_t>(host.rank)] += host.added;
        shares[column + static_cast<std::size_t>(host.replica)] = static_cast<count_t>(host.added);
      }
    }
    double largest = 0.0;
    for (std::size_t rank = 0; rank < loads.size(); ++rank) {
      index_t const speed = speeds.empty() ? 1 : speeds[rank];
      if (speed > 0) { largest = std::max(largest, static_cast<double>(loads[rank]) / static_cast<double>(speed)); }
    }
    return {.value = largest};
  }
  /// @param where the placement
  /// @returns bytes for the rank loads, the order of the experts and the hosts of one expert
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const noexcept {
    return fairlead::workspace_bytes<index_t>(where.ranks()) + fairlead::workspace_bytes<std::uint64_t>(where.experts()) +
           fairlead::workspace_bytes<detail::pour_host>(most_replicas(where));
  }

 private:
  [[nodiscard]] static index_t most_replicas(placement const& where) noexcept {
    std::size_t most = 0;
    for (index_t e = 0; e < where.experts(); ++e) { most = std::max(most, where.replicas(static_cast<expert_id>(e)).size()); }
    return static_cast<index_t>(most);
  }
};
static_assert(replica_split<water_fill>);

/// A host gets as much as fits, whatever the number of places of its replicas.
template <>
inline constexpr bool schedules_meaning<water_fill, replica_meaning::capacity_unit> = false;

FAIRLEAD_NAMESPACE_END
