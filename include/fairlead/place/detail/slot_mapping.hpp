// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What slot mappers share: ranks that may change places, what they have in common, and slots inside a rank.
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

[[nodiscard]] inline index_t experts_in(std::span<expert_id const> a, std::span<expert_id const> b) noexcept {
  index_t largest = -1;
  for (expert_id const expert : a) { largest = std::max(largest, to_index(expert)); }
  for (expert_id const expert : b) { largest = std::max(largest, to_index(expert)); }
  return largest + 1;
}

[[nodiscard]] inline std::span<expert_id const> row_of(topology const& cluster, std::span<expert_id const> table,
                                                       index_t rank) noexcept {
  return table.subspan(static_cast<std::size_t>(cluster.slot_offsets()[static_cast<std::size_t>(rank)]),
                       static_cast<std::size_t>(cluster.slots(rank)));
}

// Experts of a rank that it did not have before, each once: a second slot is filled from the first.
// `marks` @shape{experts}: any content below 2 `turn`; afterwards below 2 `turn` + 2.
[[nodiscard]] inline index_t fetches_of(std::span<expert_id const> now, std::span<expert_id const> next,
                                        std::span<std::int32_t> marks, std::int32_t turn) noexcept {
  index_t count = 0;
  for (expert_id const expert : now) {
    if (expert != expert_id::none) { marks[static_cast<std::size_t>(expert)] = 2 * turn; }
  }
  for (expert_id const expert : next) {
    if (expert == expert_id::none) { continue; }
    std::int32_t& mark = marks[static_cast<std::size_t>(expert)];
    count += mark < 2 * turn ? 1 : 0;
    mark = 2 * turn + 1;
  }
  return count;
}

[[nodiscard]] inline index_t count_fetches(topology const& cluster, std::span<expert_id const> now,
                                           std::span<expert_id const> next, std::span<std::int32_t> marks) noexcept {
  std::fill(marks.begin(), marks.end(), -1);
  index_t count = 0;
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    auto const before = now.empty() ? now : row_of(cluster, now, rank);
    count += fetches_of(before, row_of(cluster, next, rank), marks, static_cast<std::int32_t>(rank));
  }
  return count;
}

// Experts of one rank into the slots that they have now; the others fill the slots left, in their order. Same content.
// `left` @shape{experts}: zero before and after. `row` @shape{slots of the rank}: scratch.
inline void keep_slots(std::span<expert_id const> now, std::span<expert_id> next, std::span<std::int32_t> left,
                       std::span<expert_id> row) noexcept {
  constexpr auto open = static_cast<expert_id>(-2);
  std::copy(next.begin(), next.end(), row.begin());
  for (expert_id const expert : next) {
    if (expert != expert_id::none) { ++left[static_cast<std::size_t>(expert)]; }
  }
  for (std::size_t slot = 0; slot < next.size(); ++slot) {
    bool const stays = now[slot] != expert_id::none && left[static_cast<std::size_t>(now[slot])] > 0;
    if (stays) { --left[static_cast<std::size_t>(now[slot])]; }
    next[slot] = stays ? now[slot] : open;
  }
  std::size_t slot = 0;
  for (std::size_t i = 0; i < next.size(); ++i) {
    expert_id const expert = row[i];
    if (expert == expert_id::none || left[static_cast<std::size_t>(expert)] == 0) { continue; }
    --left[static_cast<std::size_t>(expert)];
    while (next[slot] != open) { ++slot; }
    next[slot] = expert;
  }
  std::replace(next.begin(), next.end(), open, expert_id::none);
}

// Ranks sorted so that those that may change places are neighbours: (node if only inside nodes, slots, rank).
struct exchangeable_order {
  topology const* cluster;
  bool inside_node;
  [[nodiscard]] bool same(std::int32_t a, std::int32_t b) const noexcept {
    return cluster->slots(a) == cluster->slots(b) && (!inside_node || cluster->node_of(a) == cluster->node_of(b));
  }
  [[nodiscard]] bool operator()(std::int32_t a, std::int32_t b) const noexcept {
    if (inside_node && cluster->node_of(a) != cluster->node_of(b)) { return cluster->node_of(a) < cluster->node_of(b); }
    return cluster->slots(a) != cluster->slots(b) ? cluster->slots(a) < cluster->slots(b) : a < b;
  }
};

[[nodiscard]] inline std::size_t slot_mapping_bytes(topology const& cluster, index_t experts) noexcept {
  return workspace_bytes<std::int32_t>(experts) + workspace_bytes<expert_id>(cluster.slots());
}
[[nodiscard]] inline std::size_t rank_exchange_bytes(topology const& cluster, index_t experts) noexcept {
  index_t const ranks = cluster.ranks();
  return 2 * workspace_bytes<std::int32_t>(ranks) + workspace_bytes<std::int32_t>(ranks * ranks) +
         workspace_bytes<std::int32_t>(experts + 1) + workspace_bytes<std::int32_t>(cluster.slots()) +
         workspace_bytes<std::int32_t>(experts);
}

// Minus the number of experts in common, of the new content of members[i] and the old content of members[j]. @shape{n x
// n}
inline void common_experts(topology const& cluster, std::span<std::int32_t const> members,
                           std::span<expert_id const> now, std::span<expert_id const> next,
                           std::span<std::int32_t> start, std::span<std::int32_t> holders,
                           std::span<std::int32_t> marks, std::int32_t* cost) noexcept {
  auto const n = members.size();
  std::fill_n(cost, n * n, 0);
  std::fill(start.begin(), start.end(), 0);
  std::fill(marks.begin(), marks.end(), -1);
  // Distinct (expert, member) pairs of `now`, by expert: counted, then filled from the back.
  for (int pass = 0; pass < 2; ++pass) {
    for (std::size_t j = 0; j < n; ++j) {
      auto const turn = static_cast<std::int32_t>(static_cast<std::size_t>(pass) * n + j);
      for (expert_id const expert : row_of(cluster, now, members[j])) {
        if (expert == expert_id::none || marks[static_cast<std::size_t>(expert)] == turn) { continue; }
        marks[static_cast<std::size_t>(expert)] = turn;
        if (pass == 0) {
          ++start[static_cast<std::size_t>(expert)];
        } else {
          holders[static_cast<std::size_t>(--start[static_cast<std::size_t>(expert)])] = static_cast<std::int32_t>(j);
        }
      }
    }
    if (pass == 0) {
      std::int32_t sum = 0;
      for (std::int32_t& entry : start) { entry = sum += entry; }
    }
  }
  std::fill(marks.begin(), marks.end(), -1);
  for (std::size_t i = 0; i < n; ++i) {
    std::int32_t* const row = cost + i * n;
    for (expert_id const expert : row_of(cluster, next, members[i])) {
      if (expert == expert_id::none || marks[static_cast<std::size_t>(expert)] == static_cast<std::int32_t>(i)) {
        continue;
      }
      auto const e = static_cast<std::size_t>(expert);
      marks[e] = static_cast<std::int32_t>(i);
      for (std::int32_t at = start[e]; at < start[e + 1]; ++at) { --row[holders[static_cast<std::size_t>(at)]]; }
    }
  }
}

// Let `match(cost, n, target, ws)` choose where the contents of exchangeable ranks go; what saves nothing is left as it
// is.
template <class Match>
void exchange_ranks(topology const& cluster, std::span<expert_id const> now, std::span<expert_id> next,
                    bool inside_node, index_t experts, std::span<expert_id> rows, Match const& match, workspace& ws) {
  workspace::scope const undo(ws);
  std::span<std::int32_t> const order = ws.take<std::int32_t>(cluster.ranks());
  std::span<std::int32_t> const target = ws.take<std::int32_t>(cluster.ranks());
  std::span<std::int32_t> const start = ws.take<std::int32_t>(experts + 1);
  std::span<std::int32_t> const marks = ws.take<std::int32_t>(experts);
  std::span<std::int32_t> const holders = ws.take<std::int32_t>(cluster.slots());
  std::int32_t* const cost = ws.take<std::int32_t>(cluster.ranks() * cluster.ranks()).data();
  for (std::size_t i = 0; i < order.size(); ++i) { order[i] = static_cast<std::int32_t>(i); }
  exchangeable_order const before{&cluster, inside_node};
  std::sort(order.begin(), order.end(), before);
  std::copy(next.begin(), next.end(), rows.begin());
  for (std::size_t first = 0, end = 0; first < order.size(); first = end) {
    for (end = first + 1; end < order.size() && before.same(order[first], order[end]);) { ++end; }
    auto const members = order.subspan(first, end - first);
    if (members.size() < 2 || cluster.slots(members[0]) == 0) { continue; }
    auto const n = members.size();
    common_experts(cluster, members, now, rows, start, holders, marks, cost);
    match(cost, static_cast<index_t>(n), target.first(n), ws);
    index_t as_given = 0;
    index_t matched = 0;
    for (std::size_t i = 0; i < n; ++i) {
      as_given += cost[i * n + i];
      matched += cost[i * n + static_cast<std::size_t>(target[i])];
    }
    if (matched >= as_given) { continue; }
    for (std::size_t i = 0; i < n; ++i) {
      auto const content = row_of(cluster, rows, members[i]);
      index_t const there =
          cluster.slot_offsets()[static_cast<std::size_t>(members[static_cast<std::size_t>(target[i])])];
      std::copy(content.begin(), content.end(), next.begin() + there);
    }
  }
}

// The whole of a mapper but the choice of ranks.
template <class Exchange>
[[nodiscard]] index_t map_slots(topology const& cluster, std::span<expert_id const> now, std::span<expert_id> next,
                                Exchange const& exchange, workspace& ws) {
  FAIRLEAD_EXPECTS(static_cast<index_t>(next.size()) == cluster.slots() && (now.empty() || now.size() == next.size()),
                   "both tables need one entry a slot of the cluster", next.size(), now.size(), cluster.slots());
  workspace::scope const undo(ws);
  index_t const experts = experts_in(now, next);
  std::span<std::int32_t> const marks = ws.take<std::int32_t>(experts);
  std::span<expert_id> const rows = ws.take<expert_id>(cluster.slots());
  if (!now.empty()) {
    exchange(experts, rows, ws);
    std::fill(marks.begin(), marks.end(), 0);
    for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
      auto const first = static_cast<std::size_t>(cluster.slot_offsets()[static_cast<std::size_t>(rank)]);
      keep_slots(row_of(cluster, now, rank), next.subspan(first, static_cast<std::size_t>(cluster.slots(rank))), marks,
                 rows);
    }
  }
  return count_fetches(cluster, now, next, marks);
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
