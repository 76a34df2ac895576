// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How many copies of one expert go from each source rank to each of its segments.
#include <fairlead/assign/rerouting_policies.hpp>
#include <fairlead/core/load.hpp>
#include <fairlead/core/rerouting.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// Scratch of `for_each_cell`.
struct cell_scratch {
  std::span<std::int32_t> by_rank;  // segments of an expert by ascending rank
  std::span<index_t> wanted;        // what each of them still wants

  [[nodiscard]] static std::size_t bytes(index_t ranks) noexcept {
    return fairlead::workspace_bytes<std::int32_t>(ranks) + fairlead::workspace_bytes<index_t>(ranks);
  }
  [[nodiscard]] static cell_scratch take(workspace& ws, index_t ranks) {
    return {ws.take<std::int32_t>(ranks), ws.take<index_t>(ranks)};
  }
};

// Calls cell(source, segment, amount > 0) by ascending source, and for a source in the order in which it deals its copies.
template <class Cell>
void for_each_cell(std::span<expert_segment const> segments, load_view load, index_t expert, position_order order,
                   cell_scratch const& scratch, Cell&& cell) {
  if (segments.empty()) { return; }
  if (segments.size() == 1) {
    for (index_t source = 0; source < load.rows(); ++source) {
      if (load(source, expert) > 0) { cell(source, std::size_t{0}, static_cast<index_t>(load(source, expert))); }
    }
    return;
  }
  if (order == position_order::source_rank_order) {
    std::size_t at = 0;
    index_t position = 0;
    for (index_t source = 0; source < load.rows(); ++source) {
      for (index_t left = load(source, expert); left > 0;) {
        while (at < segments.size() && segments[at].end <= position) { ++at; }
        FAIRLEAD_EXPECTS(at < segments.size(), "the plan is for other loads: it covers fewer copies", expert, position);
        index_t const amount = std::min(left, segments[at].end - position);
        cell(source, at, amount);
        position += amount;
        left -= amount;
      }
    }
    return;
  }
  // Each rank keeps its own copies first. What is left of the sources meets what is left of the segments in rank order.
  FAIRLEAD_EXPECTS(segments.size() <= scratch.by_rank.size(), "an expert has one segment a rank: plan with coalesce", expert);
  for (std::size_t s = 0; s < segments.size(); ++s) {
    std::size_t at = s;
    for (; at > 0 && segments[static_cast<std::size_t>(scratch.by_rank[at - 1])].rank > segments[s].rank; --at) {
      scratch.by_rank[at] = scratch.by_rank[at - 1];
    }
    scratch.by_rank[at] = static_cast<std::int32_t>(s);
  }
  for (std::size_t s = 0; s < segments.size(); ++s) {
    index_t const own = load(to_index(segments[s].rank), expert);
    scratch.wanted[s] = segments[s].size() - std::min(own, segments[s].size());
  }
  std::size_t mine = 0;  // first segment, by rank, that is not before the source's
  std::size_t next = 0;  // first segment, by rank, that wants copies of others
  for (index_t source = 0; source < load.rows(); ++source) {
    auto const at = [&](std::size_t place) { return static_cast<std::size_t>(scratch.by_rank[place]); };
    while (mine < segments.size() && to_index(segments[at(mine)].rank) < source) { ++mine; }
    index_t left = load(source, expert);
    index_t kept = 0;
    if (mine < segments.size() && to_index(segments[at(mine)].rank) == source) {
      kept = std::min(left, segments[at(mine)].size());
      left -= kept;
    }
    while (left > 0 || kept > 0) {
      while (next < segments.size() && scratch.wanted[at(next)] == 0) { ++next; }
      if (kept > 0 && (left == 0 || mine < next)) {
        cell(source, at(mine), kept);
        kept = 0;
        continue;
      }
      FAIRLEAD_EXPECTS(next < segments.size(), "the plan is for other loads: it covers fewer copies", expert, source);
      index_t const amount = std::min(left, scratch.wanted[at(next)]);
      cell(source, at(next), amount);
      scratch.wanted[at(next)] -= amount;
      left -= amount;
    }
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
