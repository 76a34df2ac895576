// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Move copies of overloaded ranks' experts to the least loaded ranks for one layer call; weights follow them.
#include <fairlead/assign/detail/least_loaded_plan.hpp>
#include <fairlead/assign/rerouting_policies.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/core/rerouting.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>

#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Plan which ranks compute which copies so that no rank has much more than the mean, with few transfers of weights.
///
/// An expert belongs to the rank of its first replica. In order of descending load each expert of a rank above the capacity
/// keeps what fits after all smaller experts of its rank have theirs; the rest goes in pieces to ranks with room, the least
/// loaded first. So an overloaded rank sheds its largest experts, and few experts leave.
///
/// Reach for it where loads jump from batch to batch and weights can travel under the token exchange; where they drift,
/// replicas planned ahead (`place/`) and a scheduler move fewer bytes.
///
/// - With `least_chunk` = 1 and `ceil_capacity` nothing is forced, no rank exceeds the capacity, and there are at most
///   (experts that leave) + ranks - 1 transfers.
/// - A rank that holds a further replica of an expert may take copies of it without a transfer, and is asked first when
///   `residents_first` (this library's choice: the paper has one replica an expert).
/// - A rank without slots takes nothing and does not count in the mean. A rank whose slots are empty takes copies.
/// - A plan in which `most_imports` leaves no rank for a remainder keeps it on the expert's own rank, and counts it as forced.
/// @tparam Capacity a rerouting_capacity
/// @tparam Gate a rerouting_gate
/// @determinism integers and total orders (load descending, id ascending; load ascending, rank ascending): every rank plans
///              the same from the same counts, and none has to send its plan
/// @source{2601.17111, algorithms 2 and 3; deviations: docs/algorithms/assign_least_loaded.md}
template <class Capacity = ceil_capacity, class Gate = rank_ratio>
struct least_loaded {
  static_assert(rerouting_capacity<Capacity>, "least_loaded: the first argument must model rerouting_capacity");
  static_assert(rerouting_gate<Gate>, "least_loaded: the second argument must model rerouting_gate");

  Capacity capacity{};                                            ///< above how many copies a rank is overloaded
  Gate gate{};                                                    ///< whether to reroute at all
  index_t least_chunk = 1;                                        ///< copies worth a separate product, >= 1; the paper's is 1024
  index_t most_imports = -1;                                      ///< transfers to a rank, or -1: no limit
  tail_rule tail = tail_rule::spill;                              ///< what becomes of a small last remainder
  recipient_order recipients = recipient_order::by_load;          ///< who is asked first
  forced_rule forced = forced_rule::least_loaded_other;           ///< who takes what fits nowhere
  recipient_scan scan = recipient_scan::every_chunk;              ///< when ranks are put in order
  bool residents_first = true;                                    ///< ask ranks with a replica of the expert before others
  /// Whether a rank that only remainders of others overloaded gives its own copies away in turn, as published. Without,
  /// such remainders cause no further transfers, and that rank stays above the capacity; this library's choice.
  bool forced_shed = true;
  /// Merge pieces of an expert on one rank. Without it a plan may ship weights twice, as the released code does: for
  /// comparison only.
  bool coalesce = true;

  /// @brief Plan for ranks of one node.
  /// @param totals copies an expert, >= 0. @shape{experts}
  /// @param where the resident placement
  /// @param[out] out the plan; its memory decides how large a plan may be
  /// @param ws scratch
  /// @returns `status::ok`, or `status::lost_expert` with an empty plan if an expert with copies has no replica. `value` is
  ///          the largest load of a rank, `bound` the mean rounded up, `iterations` the number of transfers
  /// @throws contract_violation (level 1) on a shape mismatch, a bad field, `out` too small; (level 2) on a negative load
  /// @complexity O(experts + sorted experts + segments x ranks), no allocation. Only experts of overloaded ranks are sorted
  report plan(std::span<index_t const> totals, placement const& where, rerouting& out, workspace& ws) const {
    return plan_on(nullptr, totals, where, out, ws);
  }
  /// @brief Plan for ranks of several nodes; `recipients` may then prefer near ranks.
  /// @param cluster which rank is on which node
  /// @param totals copies an expert. @shape{experts}
  /// @param where the resident placement
  /// @param[out] out the plan
  /// @param ws scratch
  /// @returns as above
  report plan(topology const& cluster, std::span<index_t const> totals, placement const& where, rerouting& out, workspace& ws) const {
    FAIRLEAD_EXPECTS(cluster.ranks() == where.ranks(), "the placement is for another number of ranks", where.ranks(), cluster.ranks());
    return plan_on(&cluster, totals, where, out, ws);
  }
  /// @param experts number of experts
  /// @param ranks number of ranks
  /// @returns bytes of scratch for `plan`
  [[nodiscard]] std::size_t workspace_bytes(index_t experts, index_t ranks) const noexcept {
    return detail::least_loaded_pass::workspace_bytes(experts, ranks);
  }

 private:
  report plan_on(topology const* cluster, std::span<index_t const> totals, placement const& where, rerouting& out, workspace& ws) const {
    auto const experts = static_cast<index_t>(totals.size());
    FAIRLEAD_EXPECTS(experts == where.experts(), "one load an expert of the placement", experts, where.experts());
    FAIRLEAD_EXPECTS(out.experts() == experts && out.ranks() == where.ranks(), "the plan's memory is for other sizes",
                     out.experts(), out.ranks(), where.ranks());
    FAIRLEAD_EXPECTS(static_cast<index_t>(out.segment_storage.size()) >= rerouting::most_segments(experts, where.ranks()) &&
                         static_cast<index_t>(out.transfer_storage.size()) >= rerouting::most_transfers(experts, where.ranks()),
                     "the plan's memory is too small: see most_segments and most_transfers");
    FAIRLEAD_EXPECTS(least_chunk >= 1, "the least chunk is at least one copy", least_chunk);
    for (index_t const load : totals) { FAIRLEAD_EXPECTS_2(load >= 0, "a load must not be negative", load); }
    workspace::scope const scope(ws);
    out.transfer_count = 0;
    out.forced = 0;
    out.capacity = 0;
    out.used_plan = false;
    detail::least_loaded_rules const rules{least_chunk, most_imports, tail, recipients, forced, scan, residents_first, forced_shed, coalesce};
    detail::least_loaded_pass pass(rules, cluster, totals, where, out, ws);
    if (!pass.count_native_loads()) {
      std::fill(out.offsets.begin(), out.offsets.end(), index_t{0});
      std::fill(out.rank_load.begin(), out.rank_load.end(), index_t{0});
      return {.status = status::lost_expert};
    }
    index_t const mean = pass.total() > 0 ? detail::ceil_ratio(1, pass.total(), 1, pass.hosting()) : 0;
    if (pass.total() > 0) { out.capacity = capacity.of(pass.total(), pass.hosting()); }
    out.used_plan = pass.total() > 0 && gate.open(out.rank_load, totals, pass.hosting(), pass.total());
    if (out.used_plan) {
      pass.reroute(out.capacity);
    } else {
      pass.keep_all();
    }
    index_t const most = out.rank_load.empty() ? 0 : *std::max_element(out.rank_load.begin(), out.rank_load.end());
    return {.iterations = out.transfer_count, .value = static_cast<double>(most), .bound = static_cast<double>(mean)};
  }
};

/// @brief The planner as it was released: rounded-down capacity, whole experts from one list, duplicates kept.
///
/// For comparison: it forces remainders and may ship an expert's weights twice to one rank.
/// @source{LeastLoadedEP, planner}
using released_least_loaded = least_loaded<floor_capacity, always_reroute>;

/// @brief Make the released planner.
/// @param least_chunk copies worth a separate product; 1024 in the release
/// @returns the planner with the release's choices; set `capacity` for a ratio other than 1
[[nodiscard]] constexpr released_least_loaded make_released_least_loaded(index_t least_chunk = 1024) noexcept {
  return {.least_chunk = least_chunk, .scan = recipient_scan::one_list, .coalesce = false};
}

FAIRLEAD_NAMESPACE_END
