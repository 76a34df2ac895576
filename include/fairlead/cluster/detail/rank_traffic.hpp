// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Copies and messages that each rank sends and receives, by tier.
#include <fairlead/core/placement.hpp>
#include <fairlead/core/token_schedule.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// One direction of one rank. Near: other ranks of its node, far: other nodes. What stays on the rank is in neither.
struct tier_counts {
  index_t near_copies = 0;
  index_t far_copies = 0;
  index_t near_messages = 0;
  index_t far_messages = 0;
  void add(bool near, index_t copies) noexcept {
    (near ? near_copies : far_copies) += copies;
    (near ? near_messages : far_messages) += 1;
  }
};

struct rank_traffic {
  std::span<tier_counts> sent;
  std::span<tier_counts> received;
};

[[nodiscard]] inline std::size_t rank_traffic_bytes(topology const& cluster) noexcept {
  return 2 * workspace_bytes<tier_counts>(cluster.ranks()) + workspace_bytes<index_t>(cluster.ranks());
}

// Take the sums from `ws`; all copies of a source for one destination rank are one message. O(ranks x (replicas +
// ranks)).
[[nodiscard]] inline rank_traffic count_rank_traffic(topology const& cluster, placement const& where,
                                                     const_token_schedule_view schedule, workspace& ws) {
  FAIRLEAD_EXPECTS(where.ranks() == cluster.ranks(), "cluster and placement must have equally many ranks",
                   cluster.ranks(), where.ranks());
  FAIRLEAD_EXPECTS(schedule.rows() == cluster.ranks() && schedule.cols() == where.replicas(),
                   "the schedule needs one row a rank and one column a replica", schedule.rows(), schedule.cols(),
                   cluster.ranks(), where.replicas());
  index_t const ranks = cluster.ranks();
  rank_traffic traffic{ws.take<tier_counts>(ranks), ws.take<tier_counts>(ranks)};
  std::span<index_t> const to = ws.take<index_t>(ranks);
  std::fill(traffic.sent.begin(), traffic.sent.end(), tier_counts{});
  std::fill(traffic.received.begin(), traffic.received.end(), tier_counts{});
  for (index_t source = 0; source < ranks; ++source) {
    std::fill(to.begin(), to.end(), index_t{0});
    count_t const* count = schedule.row(source);
    for (index_t e = 0; e < where.experts(); ++e) {
      for (replica const& host : where.replicas(static_cast<expert_id>(e))) {
        to[static_cast<std::size_t>(host.rank)] += *count++;
      }
    }
    index_t const node = cluster.node_of(source);
    for (index_t rank = 0; rank < ranks; ++rank) {
      index_t const copies = to[static_cast<std::size_t>(rank)];
      if (rank == source || copies == 0) { continue; }
      bool const near = cluster.node_of(rank) == node;
      traffic.sent[static_cast<std::size_t>(source)].add(near, copies);
      traffic.received[static_cast<std::size_t>(rank)].add(near, copies);
    }
  }
  return traffic;
}

// Rows of the busiest rank when each replica's rows are rounded up by `rounded` (a named function object of one count).
template <class Rounded>
[[nodiscard]] double busiest_rank(placement const& where, const_token_schedule_view schedule, Rounded const& rounded,
                                  std::span<double> time) {
  std::fill(time.begin(), time.end(), 0.0);
  index_t column = 0;
  for (index_t e = 0; e < where.experts(); ++e) {
    for (replica const& host : where.replicas(static_cast<expert_id>(e))) {
      index_t copies = 0;
      for (index_t source = 0; source < schedule.rows(); ++source) { copies += schedule(source, column); }
      ++column;
      if (copies > 0) { time[static_cast<std::size_t>(host.rank)] += rounded(copies); }
    }
  }
  double largest = 0.0;
  for (double const rank : time) { largest = std::max(largest, rank); }
  return largest;
}

// Seconds of one replica: rows rounded up to whole tiles, but no less than the time to read the weights.
struct replica_time {
  double seconds_per_copy;
  index_t tile;
  double launch_s;
  double weight_read_s;
  [[nodiscard]] double operator()(index_t copies) const noexcept {
    index_t const rows = (copies + tile - 1) / tile * tile;
    return launch_s + std::max(static_cast<double>(rows) * seconds_per_copy, weight_read_s);
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
