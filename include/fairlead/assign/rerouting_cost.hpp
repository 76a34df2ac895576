// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What a rerouting costs: transfers out of and into each rank, predicted time, and how few transfers can do.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/rerouting.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <concepts>
#include <functional>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Count the experts that each rank sends and receives.
/// @param moves transfers of a plan
/// @param[out] egress experts sent. @shape{ranks}
/// @param[out] ingress experts received. @shape{ranks}
/// @returns the largest of all: what a plan waits for when every link is equally fast
/// @complexity O(transfers + ranks), no allocation
inline index_t count_transfers(std::span<replica_move const> moves, std::span<index_t> egress, std::span<index_t> ingress) {
  std::fill(egress.begin(), egress.end(), index_t{0});
  std::fill(ingress.begin(), ingress.end(), index_t{0});
  index_t most = 0;
  for (replica_move const& move : moves) {
    most = std::max(most, ++egress[static_cast<std::size_t>(move.from)]);
    most = std::max(most, ++ingress[static_cast<std::size_t>(move.to)]);
  }
  return most;
}

/// @brief Seconds of the parts of a layer call that a plan does not decide.
struct rerouting_times {
  double transfer_s = 0.0;  ///< one expert's weights over one link. @unit{s}
  double exchange_s = 0.0;  ///< exchange of tokens, under which transfers hide. @unit{s}
  double planning_s = 0.0;  ///< making the plan. @unit{s}
};

/// @brief Predict the time of one layer call under a plan.
///
/// The busiest rank's products, plus what of the busiest link's transfers the exchange does not hide, plus planning and
/// exchange. This library's reading of the paper's equation 3, which leaves transfers, planning and exchange out.
/// @tparam Product gives the seconds of one expert's products on n rows, a measured curve of the machine
/// @param plan the plan
/// @param product called with the size of each segment
/// @param times the other parts
/// @param ws scratch of `rerouting_cost_bytes`
/// @returns predicted time. @unit{s}
/// @complexity O(segments + transfers + ranks), no allocation
/// @source{2601.17111, equations 3 and 4}
template <class Product>
  requires std::is_invocable_r_v<double, Product const&, index_t>
[[nodiscard]] double predicted_seconds(rerouting const& plan, Product const& product, rerouting_times const& times, workspace& ws) {
  workspace::scope const scope(ws);
  auto const seconds = ws.take<double>(plan.ranks());
  auto const egress = ws.take<index_t>(plan.ranks());
  auto const ingress = ws.take<index_t>(plan.ranks());
  std::fill(seconds.begin(), seconds.end(), 0.0);
  for (index_t s = 0; s < plan.offsets.back(); ++s) {
    expert_segment const& segment = plan.segment_storage[static_cast<std::size_t>(s)];
    seconds[static_cast<std::size_t>(segment.rank)] += product(segment.size());
  }
  double const compute = seconds.empty() ? 0.0 : *std::max_element(seconds.begin(), seconds.end());
  double const transfers = static_cast<double>(count_transfers(plan.transfers(), egress, ingress)) * times.transfer_s;
  return compute + std::max(0.0, transfers - times.exchange_s) + times.planning_s + times.exchange_s;
}

/// @param experts number of experts
/// @param ranks number of ranks
/// @returns bytes of scratch for the functions here
[[nodiscard]] inline std::size_t rerouting_cost_bytes(index_t experts, index_t ranks) noexcept {
  return workspace_bytes<double>(ranks) + 2 * workspace_bytes<index_t>(ranks) + workspace_bytes<index_t>(std::max(experts, ranks));
}

/// @brief A number of transfers below which no plan keeps every rank within a capacity.
///
/// The larger of two bounds: each overloaded rank has to give away enough experts to cover its surplus, the largest ones at
/// best; and the surpluses have to fit into the free places of so many other ranks, each of which gets an expert.
/// @param totals copies an expert. @shape{experts}
/// @param where the placement; an expert with several replicas counts as free to move
/// @param capacity most copies of a rank
/// @param ws scratch of `rerouting_cost_bytes`
/// @returns the bound; 0 where nothing is overloaded
/// @complexity O(experts log experts + ranks log ranks + experts x ranks), no allocation
[[nodiscard]] inline index_t fewest_transfers(std::span<index_t const> totals, placement const& where, index_t capacity, workspace& ws) {
  FAIRLEAD_EXPECTS(static_cast<index_t>(totals.size()) == where.experts(), "one load an expert of the placement", totals.size(), where.experts());
  workspace::scope const scope(ws);
  auto const loads = ws.take<index_t>(where.ranks());
  auto const mine = ws.take<index_t>(where.experts());
  std::fill(loads.begin(), loads.end(), index_t{0});
  bool replicated = false;
  for (index_t e = 0; e < where.experts(); ++e) {
    auto const replicas = where.replicas(static_cast<expert_id>(e));
    replicated = replicated || replicas.size() > 1;
    if (replicas.size() == 1) { loads[static_cast<std::size_t>(replicas[0].rank)] += totals[static_cast<std::size_t>(e)]; }
  }
  index_t leaving = 0;
  index_t surplus = 0;
  for (index_t rank = 0; rank < where.ranks(); ++rank) {
    index_t over = loads[static_cast<std::size_t>(rank)] - capacity;
    if (over <= 0) { continue; }
    surplus += over;
    std::size_t count = 0;
    for (index_t e = 0; e < where.experts(); ++e) {
      auto const replicas = where.replicas(static_cast<expert_id>(e));
      if (replicas.size() == 1 && to_index(replicas[0].rank) == rank) { mine[count++] = totals[static_cast<std::size_t>(e)]; }
    }
    std::sort(mine.begin(), mine.begin() + static_cast<std::ptrdiff_t>(count), std::greater<>{});
    for (std::size_t i = 0; i < count && over > 0; ++i, ++leaving) { over -= mine[i]; }
  }
  if (replicated) { return leaving; }  // further replicas may take what others would have to
  index_t receivers = 0;
  std::sort(loads.begin(), loads.end());
  for (std::size_t i = 0; i < loads.size() && surplus > 0 && loads[i] < capacity; ++i, ++receivers) { surplus -= capacity - loads[i]; }
  return std::max(leaving, receivers);
}

FAIRLEAD_NAMESPACE_END
