// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Function objects of `column_rules.hpp`, for host and device.
#include <fairlead/core/load.hpp>
#include <fairlead/core/token_schedule.hpp>
#include <fairlead/schedule/column_table.hpp>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

struct column_sum {
  load_view load;
  index_t* totals;
  FAIRLEAD_HD void operator()(index_t expert) const {
    index_t sum = 0;
    for (index_t source = 0; source < load.rows(); ++source) { sum += load(source, expert); }
    totals[expert] = sum;
  }
};

// One expert: replicas take what their own rank has, then sources and replicas are walked together.
struct stairs {
  column_view where;
  load_view load;
  count_t const* shares;
  token_schedule_view out;
  bool rotate;

  FAIRLEAD_HD void operator()(index_t expert) const {
    std::int32_t const begin = where.first[expert];
    std::int32_t const end = where.first[expert + 1];
    if (begin == end) { return; }
    for (index_t source = 0; source < load.rows(); ++source) {
      for (std::int32_t c = begin; c < end; ++c) { out(source, c) = 0; }
    }
    count_t own = 0;  // copies that the rank of this column still has
    for (std::int32_t c = begin; c < end; ++c) {
      std::int32_t const rank = where.rank[c];
      if (c == begin || where.rank[c - 1] != rank) { own = load(rank, expert); }
      count_t const kept = own < shares[c] ? own : shares[c];
      out(rank, c) = kept;
      own -= kept;
    }
    std::int32_t to = begin;
    count_t wanted = wants(to);
    index_t source = rotate ? expert % load.rows() : 0;
    for (index_t walked = 0; walked < load.rows(); ++walked) {
      for (count_t left = leaves(source, expert, begin, end); left > 0;) {
        while (wanted == 0 && to + 1 < end) { wanted = wants(++to); }
        if (wanted == 0) { return; }
        count_t const amount = left < wanted ? left : wanted;
        out(source, to) += amount;
        left -= amount;
        wanted -= amount;
      }
      source = source + 1 == load.rows() ? 0 : source + 1;
    }
  }

 private:
  // What a replica takes from other ranks: its own rank's part is written, and nobody else's while it has not been reached.
  [[nodiscard]] FAIRLEAD_HD count_t wants(std::int32_t c) const { return shares[c] - out(where.rank[c], c); }
  // What a source sends away: all but what it gave to the replicas at home.
  [[nodiscard]] FAIRLEAD_HD count_t leaves(index_t source, index_t expert, std::int32_t begin, std::int32_t end) const {
    count_t left = load(source, expert);
    for (std::int32_t c = begin; c < end && left > 0; ++c) {
      if (where.rank[c] == source) { left -= out(source, c); }
    }
    return left;
  }
};

struct count_lost {
  column_view where;
  load_view load;
  std::int32_t* lost;
  FAIRLEAD_HD void operator()(index_t) const {
    std::int32_t count = 0;
    for (std::int32_t e = 0; e < where.experts; ++e) {
      if (where.first[e] < where.first[e + 1]) { continue; }
      for (index_t source = 0; source < load.rows(); ++source) { count += load(source, e) > 0 ? 1 : 0; }
    }
    *lost = count;
  }
};

// One (source, expert): even parts over the replicas on the source's node, or over all if there is none.
struct even_cell {
  column_view where;
  std::int32_t const* nodes;
  load_view load;
  token_schedule_view out;
  std::int32_t const* lost;
  bool rotate;

  FAIRLEAD_HD void operator()(index_t i) const {
    index_t const source = i / load.cols();
    index_t const expert = i % load.cols();
    std::int32_t const begin = where.first[expert];
    std::int32_t const end = where.first[expert + 1];
    std::int32_t near = begin;
    while (near < end && where.rank[near] < nodes[2 * source]) { ++near; }
    std::int32_t beyond = near;
    while (beyond < end && where.rank[beyond] < nodes[2 * source + 1]) { ++beyond; }
    if (near == beyond) {
      near = begin;
      beyond = end;
    }
    count_t const copies = *lost != 0 ? 0 : load(source, expert);
    std::int32_t const count = beyond - near;
    for (std::int32_t c = begin; c < end; ++c) {
      count_t mine = 0;
      if (c >= near && c < beyond) {
        // Place of this replica in the order that starts with the one whose turn it is.
        std::int32_t const turn = rotate ? (c - near + count - static_cast<std::int32_t>(source % count)) % count : c - near;
        mine = copies / count + (turn < copies % count ? 1 : 0);
      }
      out(source, c) = mine;
    }
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
