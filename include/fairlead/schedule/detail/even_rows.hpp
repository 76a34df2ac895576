// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Spread one source's copies of an expert over a range of its replicas.
#include <fairlead/core/load.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/schedule/detail/shares.hpp>

#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// Some consecutive replicas of an expert; those of a rank, or of a node, are consecutive.
struct replica_range {
  std::size_t first = 0;
  std::size_t count = 0;
};

// The replicas on ranks [begin, end).
[[nodiscard]] inline replica_range replicas_between(std::span<replica const> copies, index_t begin, index_t end) noexcept {
  std::size_t first = 0;
  while (first < copies.size() && to_index(copies[first].rank) < begin) { ++first; }
  std::size_t last = first;
  while (last < copies.size() && to_index(copies[last].rank) < end) { ++last; }
  return {first, last - first};
}

// Equal counts; the remainder goes to consecutive replicas from number `start` on.
inline void spread_evenly(count_t* row, replica_range range, count_t copies, index_t start) noexcept {
  auto const count = static_cast<count_t>(range.count);
  count_t* const first = row + range.first;
  if (count == 1) {
    first[0] = copies;
    return;
  }
  if (count == 2) {
    count_t const odd = copies & 1;
    count_t const turned = static_cast<count_t>(start & 1) & odd;
    first[0] = copies / 2 + (odd ^ turned);
    first[1] = copies / 2 + turned;
    return;
  }
  count_t const share = copies / count;
  count_t const left = copies % count;
  auto const skip = static_cast<count_t>(start % count);
  count_t turn = skip == 0 ? 0 : count - skip;
  for (count_t k = 0; k < count; ++k) {
    first[k] = share + (turn < left ? 1 : 0);
    turn = turn + 1 == count ? 0 : turn + 1;
  }
}

// The replicas that a source uses: with `own_rank_first` those on its rank, then those on its node, then all.
template <bool own_rank_first>
[[nodiscard]] replica_range nearest(std::span<replica const> copies, replica_range on_node, index_t source) noexcept {
  if constexpr (own_rank_first) {
    for (std::size_t k = on_node.first; k < on_node.first + on_node.count; ++k) {
      if (to_index(copies[k].rank) != source) { continue; }
      std::size_t count = 1;
      while (k + count < copies.size() && copies[k + count].rank == copies[k].rank) { ++count; }
      return {k, count};
    }
  }
  return on_node.count > 0 ? on_node : replica_range{0, copies.size()};
}

// One source.
template <bool own_rank_first>
[[nodiscard]] status spread_row(topology const& cluster, bool rotate, std::span<count_t const> copies, index_t source, placement const& where,
                                std::span<count_t> quota) {
  auto const node = static_cast<std::size_t>(cluster.node_of(source));
  auto const nodes = cluster.node_offsets();
  std::fill(quota.begin(), quota.end(), count_t{0});
  for (std::size_t e = 0; e < copies.size(); ++e) {
    FAIRLEAD_EXPECTS_2(copies[e] >= 0, "a load must not be negative", source, e, copies[e]);
    if (copies[e] == 0) { continue; }
    auto const replicas = where.replicas(static_cast<expert_id>(e));
    if (replicas.empty()) {
      std::fill(quota.begin(), quota.end(), count_t{0});
      return status::lost_expert;
    }
    replica_range const on_node = replicas_between(replicas, nodes[node], nodes[node + 1]);
    spread_evenly(quota.data() + where.replica_offset(static_cast<expert_id>(e)), nearest<own_rank_first>(replicas, on_node, source), copies[e],
                  rotate ? source : 0);
  }
  return status::ok;
}

// All sources, node by node: the sources of a node share the search for replicas there.
template <bool own_rank_first>
report spread_rows(topology const& cluster, bool rotate, load_view load, placement const& where, token_schedule_view out) {
  check_schedule(load, where, out);
  clear(out);
  if (loses_copies(load, where)) { return {.status = status::lost_expert}; }
  auto const nodes = cluster.node_offsets();
  for (std::size_t node = 0; node + 1 < nodes.size(); ++node) {
    for (index_t e = 0; e < load.cols(); ++e) {
      auto const replicas = where.replicas(static_cast<expert_id>(e));
      if (replicas.empty()) { continue; }
      replica_range const on_node = replicas_between(replicas, nodes[node], nodes[node + 1]);
      index_t const column = where.replica_offset(static_cast<expert_id>(e));
      for (index_t source = nodes[node]; source < nodes[node + 1]; ++source) {
        spread_evenly(out.row(source) + column, nearest<own_rank_first>(replicas, on_node, source), load(source, e), rotate ? source : 0);
      }
    }
  }
  return {.value = static_cast<double>(largest_rank_load(where, out))};
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
