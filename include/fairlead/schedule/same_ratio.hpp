// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Make a token scheduler of a split by giving every source the same ratios.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/concepts/token_scheduler.hpp>
#include <fairlead/schedule/detail/shares.hpp>
#include <fairlead/schedule/equal_shares.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Every source sends the same part of its copies of an expert to a replica: the replica's share of the total.
///
/// All a source needs is one ratio a replica, so a balancer on the device hands out probabilities and never counts. The
/// price: no copy stays local on purpose, and each source rounds for itself, so that a rank may receive up to one copy a
/// source and expert more than its shares say. A comparator for `split_then_route`, which keeps shares exactly.
/// Source i with n copies sends floor(n S_k / T) - floor(n S_{k-1} / T) to replica k, where S_k sums the shares up to k and T
/// is the total; with two hosts that is the published floor(ratio x n) and the rest.
/// @tparam Split how much each replica gets (`replica_split`)
/// @source{LPLB, index mapping: counts only, not its permutation of tokens}
template <class Split>
struct same_ratio {
  Split split{};  ///< how much each replica gets

  /// @brief Schedule the copies of all ranks.
  /// @param load copies per source and expert, each column summing to less than 2^31. @shape{ranks x experts}
  /// @param where the placement
  /// @param[out] out copies per source and replica. @shape{ranks x where.replicas()}
  /// @param ws scratch
  /// @returns the status of the split, with `out` zero unless it holds valid shares; `value` is the largest number of copies
  ///          that a rank receives, `bound` that of the split
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) on a negative load or a sum out of range
  /// @complexity the split, and O(ranks x (experts + replicas)) time; no allocation
  /// @determinism that of the split
  report schedule(load_view load, placement const& where, token_schedule_view out, workspace& ws) const {
    static_assert(replica_split<Split>, ".split must model fairlead::replica_split (concepts/replica_split.hpp), e.g. fairlead::water_fill");
    detail::check_schedule(load, where, out);
    workspace::scope const scope(ws);
    auto const totals = ws.take<index_t>(where.experts());
    auto const shares = ws.take<count_t>(where.replicas());
    sum_over_ranks(load, totals);
    report ended = split.split(totals, where, shares, ws);
    if (ended.status != status::ok && ended.status != status::iteration_limit && ended.status != status::no_improvement) {
      detail::clear(out);
      return ended;
    }
    for (index_t source = 0; source < load.rows(); ++source) {
      count_t const* const copies = load.row(source);
      count_t* const row = out.row(source);
      std::size_t column = 0;
      for (std::size_t e = 0; e < totals.size(); ++e) {
        auto const end = column + where.replicas(static_cast<expert_id>(e)).size();
        index_t sum = 0;
        index_t given = 0;
        for (; column < end; ++column) {
          sum += shares[column];
          index_t const until = totals[e] == 0 ? 0 : sum * copies[e] / totals[e];  // both below 2^31
          row[column] = static_cast<count_t>(until - given);
          given = until;
        }
      }
    }
    ended.value = static_cast<double>(detail::largest_rank_load(where, out));
    return ended;
  }
  /// @param where the placement
  /// @returns bytes for totals, shares and the split
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const {
    return fairlead::workspace_bytes<index_t>(where.experts()) + fairlead::workspace_bytes<count_t>(where.replicas()) + split.workspace_bytes(where);
  }
};
static_assert(token_scheduler<same_ratio<equal_shares>>);

/// It makes the sense of replicas that its split makes.
template <class Split, replica_meaning Meaning>
inline constexpr bool schedules_meaning<same_ratio<Split>, Meaning> = schedules_meaning<Split, Meaning>;

FAIRLEAD_NAMESPACE_END
