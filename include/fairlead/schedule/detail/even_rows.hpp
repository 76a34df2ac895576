// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Spread one source's copies of an expert over a range of its replicas.
#include <fairlead/core/load.hpp>
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
  if (count == 1) {
    row[range.first] = copies;
    return;
  }
  count_t const share = copies / count;
  count_t const left = copies % count;
  auto const first = static_cast<count_t>(start % count);
  count_t turn = first == 0 ? 0 : count - first;
  for (std::size_t k = range.first; k < range.first + range.count; ++k) {
    row[k] = share + (turn < left ? 1 : 0);
    turn = turn + 1 == count ? 0 : turn + 1;
  }
}

// Shared text of the rules that look at one source at a time. `choose(copies, source)` names the replicas to use.
template <class Choose>
[[nodiscard]] status spread_row(std::span<count_t const> copies, index_t source, placement const& where, std::span<count_t> quota,
                                bool rotate, Choose const& choose) {
  std::fill(quota.begin(), quota.end(), count_t{0});
  for (std::size_t e = 0; e < copies.size(); ++e) {
    FAIRLEAD_EXPECTS_2(copies[e] >= 0, "a load must not be negative", source, e, copies[e]);
    if (copies[e] == 0) { continue; }
    auto const replicas = where.replicas(static_cast<expert_id>(e));
    if (replicas.empty()) {
      std::fill(quota.begin(), quota.end(), count_t{0});
      return status::lost_expert;
    }
    count_t* const row = quota.data() + where.replica_offset(static_cast<expert_id>(e));
    spread_evenly(row, choose(replicas, source), copies[e], rotate ? source : 0);
  }
  return status::ok;
}

template <class Choose>
report spread_rows(load_view load, placement const& where, token_schedule_view out, bool rotate, Choose const& choose) {
  check_schedule(load, where, out);
  if (loses_copies(load, where)) {
    clear(out);
    return {.status = status::lost_expert};
  }
  auto const experts = static_cast<std::size_t>(load.cols());
  auto const columns = static_cast<std::size_t>(out.cols());
  for (index_t source = 0; source < load.rows(); ++source) {
    (void)spread_row(std::span(load.row(source), experts), source, where, std::span(out.row(source), columns), rotate, choose);
  }
  return {.value = static_cast<double>(largest_rank_load(where, out))};
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
