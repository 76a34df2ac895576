// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The text of `min_max_waves`, compiled for a block of a device and for one host thread alike.
#include <fairlead/core/load.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/schedule/column_table.hpp>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// A team runs loops over [first(), n) in steps of step(), and meets in sync() and any(). Inside a loop its members write
// disjoint places, or add and lower, so that the order of members never shows in the result.
struct team_of_one {
  [[nodiscard]] FAIRLEAD_HD std::int32_t first() const { return 0; }
  [[nodiscard]] FAIRLEAD_HD std::int32_t step() const { return 1; }
  FAIRLEAD_HD void sync() const {}
  [[nodiscard]] FAIRLEAD_HD bool any(bool mine) const { return mine; }
  FAIRLEAD_HD void add(index_t* to, index_t amount) const { *to += amount; }
  FAIRLEAD_HD void add(count_t* to, count_t amount) const { *to += amount; }
  FAIRLEAD_HD void raise(index_t* value, index_t to) const { *value = *value < to ? to : *value; }
  FAIRLEAD_HD std::int32_t lower(std::int32_t* value, std::int32_t to) const {
    std::int32_t const old = *value;
    *value = to < old ? to : old;
    return old;
  }
};

inline constexpr std::int32_t no_level = INT32_MAX;

// Scratch of one problem, in shared memory of a block where it fits.
struct wave_memory {
  index_t* load;               // copies of each rank
  index_t* room;               // places below the cap, fixed during a wave
  index_t* sums;               // three sums over the team
  std::int32_t* level;         // steps to the next rank with room
  std::int32_t* expert_level;  // least level of an expert's hosts
  count_t* shares;             // copies of each column

  [[nodiscard]] FAIRLEAD_HD static std::size_t bytes(index_t ranks, index_t experts, index_t columns) {
    auto const words = static_cast<std::size_t>(2 * ranks + 4) * sizeof(index_t) +
                       static_cast<std::size_t>(ranks + experts + columns) * sizeof(std::int32_t);
    return (words + buffer_alignment - 1) / buffer_alignment * buffer_alignment;
  }
  [[nodiscard]] FAIRLEAD_HD static wave_memory in(void* block, index_t ranks, index_t experts) {
    auto* const wide = static_cast<index_t*>(block);
    auto* const narrow = reinterpret_cast<std::int32_t*>(wide + 2 * ranks + 4);
    return {wide, wide + ranks, wide + 2 * ranks, narrow, narrow + ranks, narrow + ranks + experts};
  }
};

// What a problem ended with; every member of the team has the equal one.
struct wave_end {
  status how;
  index_t waves, raises, largest;
};

// Copies in even parts on all hosts; returns the first cap, or -1 if an expert with copies has no host.
template <class Team>
FAIRLEAD_HD index_t start_waves(Team const& team, column_view const& graph, index_t const* totals, wave_memory const& m) {
  for (std::int32_t r = team.first(); r < graph.ranks; r += team.step()) { m.load[r] = 0; }
  for (std::int32_t i = team.first(); i < 3; i += team.step()) { m.sums[i] = 0; }
  team.sync();
  bool lost = false;
  for (std::int32_t e = team.first(); e < graph.experts; e += team.step()) {
    index_t const total = totals[e];
    std::int32_t hosts = 0;
    for (std::int32_t c = graph.first[e]; c < graph.first[e + 1]; ++c) { hosts += graph.is_twin(c) ? 0 : 1; }
    lost = lost || (hosts == 0 && total > 0);
    if (hosts == 0) { continue; }
    auto const share = static_cast<count_t>(total / hosts);
    auto const left = static_cast<std::int32_t>(total % hosts);
    std::int32_t turn = hosts - 1 - e % hosts;  // whose turn it is to get one of the copies left over
    for (std::int32_t c = graph.first[e]; c < graph.first[e + 1]; ++c) {
      if (graph.is_twin(c)) {
        m.shares[c] = 0;
        continue;
      }
      turn = turn + 1 == hosts ? 0 : turn + 1;
      count_t const mine = share + (turn < left ? 1 : 0);
      m.shares[c] = mine;
      team.add(&m.load[graph.rank[c]], static_cast<index_t>(mine));
    }
    team.add(&m.sums[0], total);
    team.raise(&m.sums[1], (total + hosts - 1) / hosts);
  }
  for (std::int32_t r = team.first(); r < graph.ranks; r += team.step()) {
    if (graph.rank_first[r] < graph.rank_first[r + 1]) { team.add(&m.sums[2], index_t{1}); }
  }
  if (team.any(lost)) { return -1; }
  index_t const mean = m.sums[2] > 0 ? (m.sums[0] + m.sums[2] - 1) / m.sums[2] : 0;
  return mean > m.sums[1] ? mean : m.sums[1];
}

// Distances to ranks with room. Returns the largest that matters, or -1 if a crowded rank reaches no room.
template <class Team>
FAIRLEAD_HD std::int32_t measure_levels(Team const& team, column_view const& graph, index_t cap, wave_memory const& m) {
  for (std::int32_t d = 0;; ++d) {
    for (std::int32_t e = team.first(); e < graph.experts; e += team.step()) {
      if (m.expert_level[e] != no_level) { continue; }
      for (std::int32_t c = graph.first[e]; c < graph.first[e + 1]; ++c) {
        if (m.level[graph.rank[c]] == d) { m.expert_level[e] = d; }
      }
    }
    team.sync();
    bool grown = false;
    for (std::int32_t c = team.first(); c < graph.columns; c += team.step()) {
      if (m.shares[c] > 0 && m.expert_level[graph.expert[c]] == d) {
        grown = team.lower(&m.level[graph.rank[c]], d + 1) > d + 1 || grown;
      }
    }
    bool const went_on = team.any(grown);
    bool missing = false;
    for (std::int32_t r = team.first(); r < graph.ranks; r += team.step()) {
      missing = missing || (m.load[r] > cap && m.level[r] == no_level);
    }
    if (!team.any(missing)) { return d + 1; }
    if (!went_on) { return -1; }
  }
}

// One crowded rank gives what it has too much to ranks one level nearer to room. The rank's own columns are read and
// written by this member only: others give to nearer levels than its own.
template <class Team>
FAIRLEAD_HD void push_down(Team const& team, column_view const& graph, std::int32_t rank, std::int32_t level, index_t cap,
                           wave_memory const& m) {
  index_t const excess = m.load[rank] - cap;
  index_t left = excess;
  for (std::int32_t k = graph.rank_first[rank]; k < graph.rank_first[rank + 1] && left > 0; ++k) {
    std::int32_t const c = graph.rank_columns[k];
    std::int32_t const e = graph.expert[c];
    count_t have = m.shares[c];
    if (have == 0 || m.expert_level[e] != level - 1) { continue; }
    for (std::int32_t to = graph.first[e]; to < graph.first[e + 1] && left > 0 && have > 0; ++to) {
      std::int32_t const v = graph.rank[to];
      if (m.level[v] != level - 1 || graph.is_twin(to)) { continue; }
      index_t amount = left < have ? left : have;
      if (level == 1 && m.room[v] < amount) { amount = m.room[v]; }
      team.add(&m.shares[to], static_cast<count_t>(amount));
      team.add(&m.load[v], amount);
      have -= static_cast<count_t>(amount);
      left -= amount;
    }
    m.shares[c] = have;
  }
  m.load[rank] -= excess - left;
}

// The whole of one problem. A wave: distances, then all crowded ranks push at once, the farthest first.
template <class Team>
FAIRLEAD_HD wave_end run_waves(Team const& team, column_view const& graph, index_t const* totals, index_t most_waves, wave_memory const& m) {
  index_t cap = start_waves(team, graph, totals, m);
  if (cap < 0) {
    for (std::int32_t c = team.first(); c < graph.columns; c += team.step()) { m.shares[c] = 0; }
    team.sync();
    return {status::lost_expert, 0, 0, 0};
  }
  wave_end end{status::ok, 0, 0, cap};
  for (;; ++end.waves) {
    team.sync();
    bool crowded = false;
    for (std::int32_t r = team.first(); r < graph.ranks; r += team.step()) {
      crowded = crowded || m.load[r] > cap;
      m.room[r] = cap - m.load[r];
      m.level[r] = m.load[r] < cap ? 0 : no_level;
    }
    for (std::int32_t e = team.first(); e < graph.experts; e += team.step()) { m.expert_level[e] = no_level; }
    for (std::int32_t i = team.first(); i < 2; i += team.step()) { m.sums[i] = 0; }
    if (!team.any(crowded)) { break; }
    if (end.waves >= most_waves) {
      end.how = status::iteration_limit;
      break;
    }
    std::int32_t const depth = measure_levels(team, graph, cap, m);
    if (depth < 0) {  // the ranks that reach no room keep all they have in any split: a higher bound
      for (std::int32_t r = team.first(); r < graph.ranks; r += team.step()) {
        if (m.level[r] != no_level) { continue; }
        team.add(&m.sums[0], m.load[r]);
        team.add(&m.sums[1], index_t{1});
      }
      team.sync();
      cap = (m.sums[0] + m.sums[1] - 1) / m.sums[1];
      ++end.raises;
      continue;
    }
    for (std::int32_t level = depth; level > 0; --level) {
      for (std::int32_t r = team.first(); r < graph.ranks; r += team.step()) {
        if (m.level[r] == level && m.load[r] > cap) { push_down(team, graph, r, level, cap, m); }
      }
      team.sync();
    }
  }
  end.largest = cap;
  if (end.how != status::ok) {
    for (std::int32_t r = team.first(); r < graph.ranks; r += team.step()) { team.raise(&m.sums[0], m.load[r]); }
    team.sync();
    end.largest = m.sums[0];
  }
  return end;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
