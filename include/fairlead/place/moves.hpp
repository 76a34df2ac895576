// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What has to travel from one placement to another, from whom, and the plan that says so.
#include <fairlead/core/plan.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/place/detail/slot_mapping.hpp>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Which of an expert's owners sends it.
enum class source_rule {
  even,  ///< owners of an expert send equally often (to within one); among those, the one that sends least in all
  same_node_first  ///< an owner on the receiver's node if there is one, evenly among those; else as `even`
};

/// @brief How a transfer list is made.
struct move_options {
  source_rule sources = source_rule::even;  ///< who sends
  /// Whether ranks without slots afterwards may send: true if they are being retired, false if they failed.
  bool emptied_ranks_send = false;
};

/// @brief Size of one expert with what moves along.
struct expert_size {
  index_t parameters = 0;    ///< parameters of an expert
  index_t weight_bytes = 2;  ///< bytes a parameter of the weights, 2 = 16 bits. @unit{B}
  index_t state_bytes =
      16;  ///< bytes a parameter of optimizer state that moves along, 16 = Adam with master weights; 0 = none. @unit{B}
  /// @returns bytes of one move. @unit{B}
  [[nodiscard]] constexpr index_t bytes() const noexcept { return parameters * (weight_bytes + state_bytes); }
};

/// @brief What a transfer list amounts to.
struct move_report {
  fairlead::status status = fairlead::status::ok;  ///< ok, or lost_expert if something has to come from a checkpoint
  index_t moves = 0;                               ///< entries of the list
  index_t remote = 0;                              ///< of them between nodes
  index_t lost = 0;                                ///< of them without a source
  index_t local_copies = 0;    ///< slots that are filled from another slot of their rank; not in the list
  index_t largest_sender = 0;  ///< most moves from one rank
  /// @param size of an expert
  /// @returns bytes between ranks. @unit{B}
  [[nodiscard]] constexpr index_t bytes(expert_size size) const noexcept { return (moves - lost) * size.bytes(); }
  /// @param size of an expert
  /// @returns bytes from a checkpoint. @unit{B}
  [[nodiscard]] constexpr index_t checkpoint_bytes(expert_size size) const noexcept { return lost * size.bytes(); }
};

/// @brief Scratch of `list_moves`.
/// @param before the cluster before
/// @param after the cluster after
/// @param experts number of experts
/// @returns bytes
[[nodiscard]] inline std::size_t list_moves_bytes(topology const& before, topology const& after,
                                                  index_t experts) noexcept {
  return 4 * workspace_bytes<std::int32_t>(experts + 1) + workspace_bytes<std::int32_t>(before.slots()) +
         workspace_bytes<std::int32_t>(after.slots()) + 2 * workspace_bytes<std::int32_t>(after.ranks());
}

/// @brief List the fewest transfers that lead from one table to another.
///
/// A rank fetches each expert that it did not have exactly once; a second slot, or another slot than before, is filled
/// on the rank itself. Senders are ranks that had the expert and still have slots (or `emptied_ranks_send`); without
/// any, `from` is none and the status lost_expert. Experts with few owners choose first, so that the busiest sender
/// stays low; that is a greedy choice, while the evenness among the owners of one expert is exact. Bytes:
/// `move_report::bytes`.
/// @param before the cluster before: ranks that lost their memory have no slots in it
/// @param was the table before, or empty. @shape{before.slots()}
/// @param after the cluster after, with as many ranks
/// @param becomes the table after. @shape{after.slots()}
/// @param options who sends
/// @param[out] moves room for `after.slots()` entries; by ascending (rank, slot) of the receiver
/// @param ws scratch of `list_moves_bytes`
/// @returns counts; `moves` = entries written
/// @throws contract_violation (level 1) on a shape mismatch or too little room
/// @complexity O(slots + experts + moves x owners) time, O(slots + experts + ranks) scratch, no allocation
/// @determinism exact: equal on every rank; ties: lowest expert, lowest rank
/// @source{Lazarus, reconfiguration: fetches spread over owners}
inline move_report list_moves(topology const& before, std::span<expert_id const> was, topology const& after,
                              std::span<expert_id const> becomes, move_options options, std::span<replica_move> moves,
                              workspace& ws) {
  FAIRLEAD_EXPECTS(before.ranks() == after.ranks(),
                   "rank ids do not change: describe a failed rank with topology::without", before.ranks(),
                   after.ranks());
  FAIRLEAD_EXPECTS((was.empty() || static_cast<index_t>(was.size()) == before.slots()) &&
                       static_cast<index_t>(becomes.size()) == after.slots(),
                   "each table needs one entry a slot of its cluster", was.size(), before.slots(), becomes.size(),
                   after.slots());
  FAIRLEAD_EXPECTS(moves.size() >= becomes.size(), "the list needs room for one move a slot", moves.size(),
                   becomes.size());
  workspace::scope const undo(ws);
  index_t const experts = detail::experts_in(was, becomes);
  auto const row_before = [&](index_t rank) { return was.empty() ? was : detail::row_of(before, was, rank); };
  std::span<std::int32_t> const marks = ws.take<std::int32_t>(experts + 1);
  std::span<std::int32_t> const owner_start = ws.take<std::int32_t>(experts + 1);
  std::span<std::int32_t> const move_start = ws.take<std::int32_t>(experts + 1);
  std::span<std::int32_t> const order = ws.take<std::int32_t>(experts + 1);
  std::span<std::int32_t> const owners = ws.take<std::int32_t>(before.slots());
  std::span<std::int32_t> const of_expert = ws.take<std::int32_t>(after.slots());
  std::span<std::int32_t> const sent = ws.take<std::int32_t>(after.ranks());   // in all
  std::span<std::int32_t> const given = ws.take<std::int32_t>(after.ranks());  // of one expert
  move_report result;

  // What each rank has to fetch. Marks: 2 rank = had it, 2 rank + 1 = listed or copied already.
  std::fill(marks.begin(), marks.end(), -1);
  std::fill(move_start.begin(), move_start.end(), 0);
  for (index_t rank = 0; rank < after.ranks(); ++rank) {
    auto const turn = static_cast<std::int32_t>(2 * rank);
    auto const old = row_before(rank);
    for (expert_id const expert : old) {
      if (expert != expert_id::none) { marks[static_cast<std::size_t>(expert)] = turn; }
    }
    auto const row = detail::row_of(after, becomes, rank);
    for (std::size_t slot = 0; slot < row.size(); ++slot) {
      if (row[slot] == expert_id::none) { continue; }
      std::int32_t& mark = marks[static_cast<std::size_t>(row[slot])];
      if (mark >= turn) {
        result.local_copies += slot < old.size() && old[slot] == row[slot] ? 0 : 1;
        continue;
      }
      mark = turn + 1;
      moves[static_cast<std::size_t>(result.moves++)] = {row[slot], rank_id::none, static_cast<rank_id>(rank),
                                                         static_cast<local_slot_id>(slot)};
      ++move_start[static_cast<std::size_t>(row[slot])];
    }
  }

  // Owners and moves by expert: counted, summed, filled from the back.
  auto const fill_back = [](std::span<std::int32_t> counts) {
    std::int32_t sum = 0;
    for (std::int32_t& entry : counts) { entry = sum += entry; }
  };
  std::fill(owner_start.begin(), owner_start.end(), 0);
  for (int pass = 0; pass < 2; ++pass) {
    std::fill(marks.begin(), marks.end(), -1);
    for (index_t rank = before.ranks() - 1; rank >= 0; --rank) {
      if (after.slots(rank) == 0 && !options.emptied_ranks_send) { continue; }
      for (expert_id const expert : row_before(rank)) {
        if (expert == expert_id::none || marks[static_cast<std::size_t>(expert)] == rank) { continue; }
        marks[static_cast<std::size_t>(expert)] = static_cast<std::int32_t>(rank);
        std::int32_t& entry = owner_start[static_cast<std::size_t>(expert)];
        if (pass == 0) {
          ++entry;
        } else {
          owners[static_cast<std::size_t>(--entry)] = static_cast<std::int32_t>(rank);
        }
      }
    }
    if (pass == 0) { fill_back(owner_start); }
  }
  fill_back(move_start);
  for (index_t move = result.moves - 1; move >= 0; --move) {
    of_expert[static_cast<std::size_t>(
        --move_start[static_cast<std::size_t>(moves[static_cast<std::size_t>(move)].expert)])] =
        static_cast<std::int32_t>(move);
  }

  // Few owners first: they have the least choice.
  for (std::size_t e = 0; e < order.size(); ++e) { order[e] = static_cast<std::int32_t>(e); }
  auto const by_expert = order.first(static_cast<std::size_t>(experts));
  std::sort(by_expert.begin(), by_expert.end(), [&](std::int32_t a, std::int32_t b) {
    auto const of = [&](std::int32_t e) {
      return owner_start[static_cast<std::size_t>(e) + 1] - owner_start[static_cast<std::size_t>(e)];
    };
    return of(a) != of(b) ? of(a) < of(b) : a < b;
  });
  std::fill(sent.begin(), sent.end(), 0);
  std::fill(given.begin(), given.end(), 0);
  for (std::int32_t const expert : by_expert) {
    auto const e = static_cast<std::size_t>(expert);
    auto const mine = owners.subspan(static_cast<std::size_t>(owner_start[e]),
                                     static_cast<std::size_t>(owner_start[e + 1] - owner_start[e]));
    for (std::int32_t const rank : mine) { given[static_cast<std::size_t>(rank)] = 0; }
    for (std::int32_t at = move_start[e]; at < move_start[e + 1]; ++at) {
      replica_move& move = moves[static_cast<std::size_t>(of_expert[static_cast<std::size_t>(at)])];
      index_t const node = after.node_of(to_index(move.to));
      std::int32_t best = -1;
      for (std::int32_t const rank : mine) {
        if (best < 0) {
          best = rank;
          continue;
        }
        bool const near = after.node_of(rank) == node;
        bool const best_near = after.node_of(best) == node;
        bool const near_first = options.sources == source_rule::same_node_first;
        std::int32_t const a[] = {near_first && !near, given[static_cast<std::size_t>(rank)],
                                  sent[static_cast<std::size_t>(rank)], !near};
        std::int32_t const b[] = {near_first && !best_near, given[static_cast<std::size_t>(best)],
                                  sent[static_cast<std::size_t>(best)], !best_near};
        if (std::lexicographical_compare(a, a + 4, b, b + 4)) { best = rank; }
      }
      if (best < 0) {
        ++result.lost;
        continue;
      }
      move.from = static_cast<rank_id>(best);
      ++given[static_cast<std::size_t>(best)];
      result.largest_sender = std::max<index_t>(result.largest_sender, ++sent[static_cast<std::size_t>(best)]);
      result.remote += after.node_of(best) != node ? 1 : 0;
    }
  }
  if (result.lost > 0) { result.status = status::lost_expert; }
  return result;
}

/// @brief Everything besides the tables that a plan says.
struct plan_options {
  replica_meaning meaning = replica_meaning::host;  ///< what a second replica is good for
  std::uint64_t version = 0;                        ///< number of the plan
  double modelled_gain = 0.0;                       ///< seconds a step that it is expected to save. @unit{s}
  move_options moves{};                             ///< who sends
};

/// @brief Put a plan together: the placement, its copies, and what has to move.
/// @param cluster the cluster from now on
/// @param experts number of experts
/// @param now the placement in use, on as many ranks, or one without ranks
/// @param next the new table. @shape{cluster.slots()}
/// @param copies short-lived copies on top of it
/// @param options the rest
/// @returns the plan; moves from none stand for experts that are lost, or for all of them when there is no placement
///          yet
/// @throws contract_violation (level 1) on a shape mismatch or an expert out of range; std::bad_alloc
/// @complexity that of `list_moves`, `make_placement` and `with_copies`; allocates
/// @determinism exact: equal on every rank
[[nodiscard]] inline plan make_plan(topology const& cluster, index_t experts, placement const& now,
                                    std::span<expert_id const> next, std::span<replica_copy const> copies = {},
                                    plan_options const& options = {}) {
  FAIRLEAD_EXPECTS(now.ranks() == 0 || now.ranks() == cluster.ranks(),
                   "the placement in use must have the ranks of the cluster", now.ranks(), cluster.ranks());
  std::vector<index_t> offsets(1, 0);
  std::vector<expert_id> was;
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    if (now.ranks() != 0) {
      auto const row = now.experts_on(static_cast<rank_id>(rank));
      was.insert(was.end(), row.begin(), row.end());
    }
    offsets.push_back(static_cast<index_t>(was.size()));
  }
  topology const before(cluster.node_offsets(), offsets);
  plan result;
  result.base = make_placement(cluster, experts, next, options.meaning, options.version);
  result.copies.assign(copies.begin(), copies.end());
  result.where = with_copies(result.base, copies);
  result.moves.resize(next.size());
  arena<> memory(list_moves_bytes(before, cluster, std::max(experts, now.experts())));
  workspace ws = memory.view();
  move_report const moved = list_moves(before, was, cluster, next, options.moves, result.moves, ws);
  result.moves.resize(static_cast<std::size_t>(moved.moves));
  result.modelled_gain = options.modelled_gain;
  return result;
}

FAIRLEAD_NAMESPACE_END
