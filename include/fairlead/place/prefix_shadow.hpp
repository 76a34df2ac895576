// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Copy the hottest experts to all ranks for one step, as many as the modelled time wants.
#include <fairlead/cluster/expert_times.hpp>
#include <fairlead/concepts/copy_planner.hpp>
#include <fairlead/place/detail/copy_load.hpp>

#include <algorithm>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief What is left to wait for, once some experts are on all ranks.
enum class shadow_work {
  /// As published: computing and receiving the hottest expert that is left.
  hottest_expert,
  /// Revised: the rank of that expert also computes its own tokens of the copied experts, and does not receive its own
  /// tokens.
  hottest_owner
};

/// @brief Which numbers of copied experts are looked at.
enum class shadow_search {
  stop_at_first_failure,   ///< published: stop at the first one that does not help
  while_better_than_none,  ///< the revised code: stop at the first one that is no better than no copies; keep the best
  best_prefix              ///< look at all of them
};

/// @brief Shadow experts: each is broadcast to all ranks, so that its tokens stay where they are, and its gradients are
/// added up at home.
///
/// The copied experts are a prefix of the order of loads (load descending, expert ascending). With the j hottest
/// copied, the time is 3 compute + 4 rows + j broadcasts, where `work` says of how many rows. Experts that are on all
/// ranks anyway count as copied for free and are left out. Ranks without slots get no copy. Runs in the step itself, on
/// its loads; it does not see how many experts share a rank: `subset_copy` does.
///
/// The code of the paper added the gathered counts up over the wrong axis (per source rank instead of per expert), so
/// that it could never shadow an expert when all ranks have equally many tokens; here the load of an expert is its
/// column sum.
/// @source{FasterMoE, dynamic shadowing (code: fmoe/fastermoe/shadow_policy.py)}
/// @source{SmartMoE, revised form of the same file in its artifact}
struct prefix_shadow {
  expert_times times{};                                         ///< machine and expert
  shadow_work work = shadow_work::hottest_expert;               ///< what is waited for
  shadow_search search = shadow_search::stop_at_first_failure;  ///< which prefixes are looked at

  /// @brief Choose the copies of one step.
  /// @param cluster the cluster
  /// @param load `totals`, and `by_source` if `work` is `hottest_owner`
  /// @param base the resident placement; the first replica of an expert is its home
  /// @param[in,out] out the copies are appended
  /// @param ws scratch
  /// @returns `iterations` = experts copied, `value` = modelled time with, `bound` = without copies;
  ///          `status::no_improvement` if none helps, `status::lost_expert` without copies if an expert with load has
  ///          no replica
  /// @throws contract_violation (level 1) on a shape mismatch, rates that are not positive, or a full list
  /// @complexity O(E log E + E^2) time (E ranks if the work is `hottest_expert`), O(E) scratch, no allocation
  /// @determinism integers and a fixed order of fp64 operations
  report copies(topology const& cluster, load_estimate const& load, placement const& base, copy_list& out,
                workspace& ws) const {
    bool const owner = work == shadow_work::hottest_owner;
    detail::check_copy_arguments(cluster, load, base, owner);
    FAIRLEAD_EXPECTS(times.net_bytes_per_s > 0.0 && times.flops_per_s > 0.0, "rates must be positive",
                     times.net_bytes_per_s, times.flops_per_s);
    if (detail::loses_load(load, base)) { return {.status = status::lost_expert}; }
    workspace::scope const undo(ws);
    std::span<std::int32_t> const room = ws.take<std::int32_t>(base.experts());
    index_t const everywhere = cluster.hosting_ranks();
    std::size_t candidates = 0;
    for (std::int32_t e = 0; e < base.experts(); ++e) {
      if (distinct_hosts(base, e) < everywhere) { room[candidates++] = e; }
    }
    std::span<std::int32_t> const order = room.first(candidates);
    std::sort(order.begin(), order.end(), detail::heavier{load.totals.data()});
    if (candidates == 0) { return {.status = status::no_improvement}; }
    double const none = time_with(load, base, order, 0);
    double best = none;
    std::size_t kept = 0;
    for (std::size_t copied = 1; copied < candidates; ++copied) {
      double const time = time_with(load, base, order, copied);
      if (time < best) {
        best = time;
        kept = copied;
      } else if (search == shadow_search::stop_at_first_failure ||
                 (search == shadow_search::while_better_than_none && !(time < none))) {
        break;
      }
    }
    for (std::int32_t const expert : order.first(kept)) { detail::copy_everywhere(cluster, base, expert, out); }
    return {.status = kept == 0 ? status::no_improvement : status::ok,
            .iterations = static_cast<index_t>(kept),
            .value = best,
            .bound = none};
  }
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns most copies that it appends
  [[nodiscard]] index_t most_copies(topology const& cluster, index_t experts) const noexcept {
    return experts * cluster.hosting_ranks();
  }
  /// @param cluster not used
  /// @param experts number of experts
  /// @returns bytes of scratch
  [[nodiscard]] std::size_t workspace_bytes([[maybe_unused]] topology const& cluster, index_t experts) const noexcept {
    return fairlead::workspace_bytes<std::int32_t>(experts);
  }

 private:
  [[nodiscard]] static index_t distinct_hosts(placement const& base, std::int32_t expert) noexcept {
    index_t count = 0;
    rank_id last = rank_id::none;
    for (replica const& one : base.replicas(static_cast<expert_id>(expert))) {  // ascending ranks
      count += one.rank != last ? 1 : 0;
      last = one.rank;
    }
    return count;
  }
  // Modelled time with the first `copied` of `order` on all ranks; at least one expert is left.
  [[nodiscard]] double time_with(load_estimate const& load, placement const& base, std::span<std::int32_t const> order,
                                 std::size_t copied) const {
    auto const hottest = static_cast<std::size_t>(order[copied]);
    index_t computed = load.totals[hottest];
    index_t received = computed;
    bool const owner = work == shadow_work::hottest_owner;
    auto const homes = base.replicas(static_cast<expert_id>(hottest));
    if (owner && !homes.empty()) {
      index_t const home = to_index(homes.front().rank);
      received -= load.by_source(home, static_cast<index_t>(hottest));
      for (std::int32_t const e : order.first(copied)) { computed += load.by_source(home, e); }
    }
    double const broadcast = owner ? times.revised_broadcast_s() : times.broadcast_s();
    return 3.0 * times.compute_s() * static_cast<double>(computed) +
           4.0 * times.row_s() * static_cast<double>(received) + broadcast * static_cast<double>(copied);
  }
};
static_assert(copy_planner<prefix_shadow>);

FAIRLEAD_NAMESPACE_END
