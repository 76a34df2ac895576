// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Give every replica of an expert the same number of copies.
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/schedule/detail/shares.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Each of the r replicas of an expert gets 1/r of its copies, whatever the other experts do.
///
/// Replicas count one by one, so a rank with two replicas of an expert gets two shares (`replica_meaning::equal_share`,
/// `capacity_unit`). All remainders being equal, largest remainders leaves free who gets the total mod r copies left over:
/// here the replicas e mod r, (e + 1) mod r, ... of expert e, so that the lowest ranks do not collect the remainders of
/// all experts (this library's choice: the papers do not say). It is the assumption behind equal-share planners and the
/// comparator of every other split; unlike `equal_split` it only fixes the sums, a `source_router` finds the sources.
/// @source{EPLB, balancedness at run time}
/// @source{Lazarus, Algorithm 1: p_e}
struct equal_shares {
  /// @brief Split the copies of all experts.
  /// @param totals copies an expert, >= 0, < 2^31. @shape{experts}
  /// @param where the placement
  /// @param[out] shares copies a replica. @shape{where.replicas()}
  /// @param ws not used
  /// @returns `status::ok`, or `status::lost_expert` with shares of zero if an expert with load has no replica; `value` is
  ///          the largest number of copies of a rank
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) on a total out of range
  /// @complexity O(experts + replicas + ranks) time, no allocation
  /// @determinism exact integer arithmetic
  report split(std::span<index_t const> totals, placement const& where, std::span<count_t> shares, workspace& ws) const {
    (void)ws;
    detail::check_split(totals, where, shares);
    if (detail::loses_copies(totals, where)) {
      std::fill(shares.begin(), shares.end(), count_t{0});
      return {.status = status::lost_expert};
    }
    std::size_t column = 0;
    for (std::size_t e = 0; e < totals.size(); ++e) {
      auto const replicas = static_cast<index_t>(where.replicas(static_cast<expert_id>(e)).size());
      if (replicas == 0) { continue; }
      index_t const share = totals[e] / replicas;
      index_t const left = totals[e] % replicas;
      // Place of the first replica in the rotation that starts at (e mod replicas).
      index_t turn = (replicas - static_cast<index_t>(e) % replicas) % replicas;
      for (index_t k = 0; k < replicas; ++k) {
        shares[column++] = static_cast<count_t>(share + (turn < left ? 1 : 0));
        turn = turn + 1 == replicas ? 0 : turn + 1;
      }
    }
    return {.value = static_cast<double>(detail::largest_rank_load(where, shares))};
  }
  /// @returns 0: it needs no scratch
  [[nodiscard]] constexpr std::size_t workspace_bytes(placement const&) const noexcept { return 0; }
};
static_assert(replica_split<equal_shares>);

FAIRLEAD_NAMESPACE_END
