// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief From a rerouting to who sends how many copies to whom, and to the rank of each single copy.
#include <fairlead/assign/detail/rerouting_cells.hpp>
#include <fairlead/assign/rerouting_policies.hpp>
#include <fairlead/core/copy_pieces.hpp>
#include <fairlead/core/load.hpp>
#include <fairlead/core/rerouting.hpp>
#include <fairlead/core/token_schedule.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Scratch of the functions here.
/// @param experts number of experts
/// @param ranks number of ranks
/// @returns bytes
[[nodiscard]] inline std::size_t rerouting_map_bytes(index_t experts, index_t ranks) noexcept {
  return detail::cell_scratch::bytes(ranks) + workspace_bytes<index_t>(ranks) + workspace_bytes<std::int32_t>(experts);
}

/// @brief Count the copies that each rank sends to each rank; the diagonal stays at home.
/// @param plan a rerouting of this load
/// @param load copies per source and expert. @shape{ranks x experts}
/// @param order which copies go to which segment
/// @param[out] send copies per source and destination. @shape{ranks x ranks}
/// @param ws scratch
/// @throws contract_violation (level 1) on a shape mismatch, on a plan of a smaller load
/// @complexity O(ranks x experts + segments), no allocation
/// @source{LeastLoadedEP, token map: source_rank_order}
inline void count_sends(rerouting const& plan, load_view load, position_order order, matrix_view<index_t> send, workspace& ws) {
  FAIRLEAD_EXPECTS(load.rows() == plan.ranks() && load.cols() == plan.experts(), "the plan is for another shape of loads",
                   load.rows(), load.cols());
  FAIRLEAD_EXPECTS(send.rows() == plan.ranks() && send.cols() == plan.ranks(), "one row a source, one column a destination",
                   send.rows(), send.cols());
  workspace::scope const scope(ws);
  auto const scratch = detail::cell_scratch::take(ws, plan.ranks());
  for (index_t rank = 0; rank < send.rows(); ++rank) { std::fill_n(send.row(rank), send.cols(), index_t{0}); }
  for (index_t e = 0; e < plan.experts(); ++e) {
    auto const segments = plan.segments(static_cast<expert_id>(e));
    detail::for_each_cell(segments, load, e, order, scratch, [&](index_t source, std::size_t segment, index_t amount) {
      send(source, to_index(segments[segment].rank)) += amount;
    });
  }
}

/// @brief Turn a rerouting into a schedule over a placement with the copies, which any dispatcher can run.
///
/// Amounts and loads are those of the plan. Which single copies they are follows the schedule's rule: a source deals its
/// copies to the replicas by ascending rank, while `pieces_of` deals them in the order of the segments.
/// @param plan a rerouting of this load
/// @param load copies per source and expert. @shape{ranks x experts}
/// @param where `with_copies(resident, copies)` with the copies of `add_copies(plan.transfers(), ...)`
/// @param order which copies go to which segment
/// @param[out] out @shape{ranks x where.replicas()}
/// @param ws scratch
/// @throws contract_violation (level 1) on a shape mismatch, or if a segment's rank does not host its expert
/// @complexity O(ranks x (experts + replicas)), no allocation
inline void schedule_of(rerouting const& plan, load_view load, placement const& where, position_order order,
                        token_schedule_view out, workspace& ws) {
  FAIRLEAD_EXPECTS(load.rows() == plan.ranks() && load.cols() == plan.experts(), "the plan is for another shape of loads",
                   load.rows(), load.cols());
  FAIRLEAD_EXPECTS(where.experts() == plan.experts() && where.ranks() == plan.ranks(), "the placement is for other sizes",
                   where.experts(), where.ranks());
  FAIRLEAD_EXPECTS(out.rows() == load.rows() && out.cols() == where.replicas(),
                   "the schedule needs one row a source rank and one column a replica", out.rows(), out.cols());
  workspace::scope const scope(ws);
  auto const scratch = detail::cell_scratch::take(ws, plan.ranks());
  auto const column = ws.take<index_t>(plan.ranks());
  for (index_t source = 0; source < out.rows(); ++source) { std::fill_n(out.row(source), out.cols(), count_t{0}); }
  for (index_t e = 0; e < plan.experts(); ++e) {
    auto const expert = static_cast<expert_id>(e);
    auto const segments = plan.segments(expert);
    auto const replicas = where.replicas(expert);
    for (std::size_t s = 0; s < segments.size(); ++s) {
      auto const found = std::find_if(replicas.begin(), replicas.end(), [&](replica const& r) { return r.rank == segments[s].rank; });
      FAIRLEAD_EXPECTS(found != replicas.end(), "a rank computes an expert that it does not host: add the plan's copies to the placement",
                       segments[s].rank, expert);
      column[static_cast<std::size_t>(to_index(segments[s].rank))] = where.replica_offset(expert) + (found - replicas.begin());
    }
    detail::for_each_cell(segments, load, e, order, scratch, [&](index_t source, std::size_t segment, index_t amount) {
      out(source, column[static_cast<std::size_t>(to_index(segments[segment].rank))]) += static_cast<count_t>(amount);
    });
  }
}

/// @brief List where one rank's copies of each expert go, in the order in which it deals them: targets are ranks.
///
/// `position_order::source_rank_order` deals by position, which is the published map; `recipient_local_first` by ascending
/// rank.
/// @param plan a rerouting of this load
/// @param load copies per source and expert. @shape{ranks x experts}
/// @param rank the source
/// @param order which copies go to which segment
/// @param[out] pieces room for as many pieces as the plan has segments
/// @param ws scratch
/// @throws contract_violation (level 1) on a shape mismatch or too little room
/// @complexity O(ranks x experts + segments), no allocation
inline void pieces_of(rerouting const& plan, load_view load, rank_id rank, position_order order, copy_pieces const& pieces,
                      workspace& ws) {
  FAIRLEAD_EXPECTS(load.rows() == plan.ranks() && load.cols() == plan.experts(), "the plan is for another shape of loads",
                   load.rows(), load.cols());
  FAIRLEAD_EXPECTS(to_index(rank) >= 0 && to_index(rank) < plan.ranks(), "no such rank", rank, plan.ranks());
  FAIRLEAD_EXPECTS(pieces.experts() == plan.experts(), "the pieces are for another number of experts", pieces.experts(), plan.experts());
  FAIRLEAD_EXPECTS(static_cast<index_t>(pieces.ends.size()) >= plan.offsets.back() && pieces.targets.size() >= pieces.ends.size(),
                   "room for one piece a segment", pieces.ends.size(), plan.offsets.back());
  workspace::scope const scope(ws);
  auto const scratch = detail::cell_scratch::take(ws, plan.ranks());
  std::size_t used = 0;
  for (index_t e = 0; e < plan.experts(); ++e) {
    auto const segments = plan.segments(static_cast<expert_id>(e));
    pieces.offsets[static_cast<std::size_t>(e)] = static_cast<std::int32_t>(used);
    if (segments.size() == 1) {  // the usual case asks for one number, not for a column of the load
      if (load(to_index(rank), e) > 0) {
        pieces.ends[used] = load(to_index(rank), e);
        pieces.targets[used++] = static_cast<std::int32_t>(segments[0].rank);
      }
      continue;
    }
    count_t dealt = 0;
    detail::for_each_cell(segments, load, e, order, scratch, [&](index_t source, std::size_t segment, index_t amount) {
      if (source != to_index(rank)) { return; }
      dealt += static_cast<count_t>(amount);
      pieces.ends[used] = dealt;
      pieces.targets[used++] = static_cast<std::int32_t>(segments[segment].rank);
    });
  }
  pieces.offsets[static_cast<std::size_t>(plan.experts())] = static_cast<std::int32_t>(used);
}

/// @brief Order copies by their target, stably: what is sent, and where it comes from on the way back.
/// @param targets target of each copy, or -1 for a copy that is not sent. @shape{copies}
/// @param[out] starts first place of each target's copies, and the end. @shape{targets + 1}
/// @param[out] permutation copy in each place. @shape{copies}; used up to starts.back()
/// @param[out] inverse place of each copy, or -1. @shape{copies}
/// @throws contract_violation (level 1) on a shape mismatch, (level 2) on a target out of range
/// @complexity O(copies + targets), no allocation
inline void order_by_target(std::span<std::int32_t const> targets, std::span<index_t> starts, std::span<std::int32_t> permutation,
                            std::span<std::int32_t> inverse) {
  FAIRLEAD_EXPECTS(!starts.empty() && permutation.size() == targets.size() && inverse.size() == targets.size(),
                   "starts has targets + 1 entries, permutation and inverse one a copy", starts.size(), permutation.size());
  std::fill(starts.begin(), starts.end(), index_t{0});
  for (std::int32_t const target : targets) {
    FAIRLEAD_EXPECTS_2(target < static_cast<std::int32_t>(starts.size()) - 1, "a target out of range", target, starts.size() - 1);
    if (target >= 0) { ++starts[static_cast<std::size_t>(target) + 1]; }
  }
  for (std::size_t t = 1; t < starts.size(); ++t) { starts[t] += starts[t - 1]; }
  for (std::size_t i = 0; i < targets.size(); ++i) {
    inverse[i] = -1;
    if (targets[i] < 0) { continue; }
    auto const place = static_cast<std::size_t>(starts[static_cast<std::size_t>(targets[i])]++);
    permutation[place] = static_cast<std::int32_t>(i);
    inverse[i] = static_cast<std::int32_t>(place);
  }
  for (std::size_t t = starts.size() - 1; t > 0; --t) { starts[t] = starts[t - 1]; }
  starts[0] = 0;
}

FAIRLEAD_NAMESPACE_END
