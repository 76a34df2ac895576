// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A few single-precision interior point steps towards the least largest load: what a GPU balancer computes.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/schedule/detail/affine_scaling.hpp>
#include <fairlead/schedule/detail/shares.hpp>

#include <algorithm>
#include <cmath>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief How the largest relative step of an interior point iteration is found.
enum class step_reduction {
  maximum,       ///< the largest of all
  last_per_lane  ///< the largest of the last element of each of 32 lanes: a reduction that overwrites, which can overstep
};

/// @brief Solve the min-max linear program of experts with two hosts by a fixed number of affine-scaling steps in fp32.
///
/// A comparator for `min_max_flow`, which is exact, whole-numbered and faster: it shows what a fixed number of steps in
/// single precision gives up. Each expert is on one or two ranks; its ratio at the first host starts in the middle and
/// moves, all together, against the gradient of the largest load. The ratios are accepted if the last step was small
/// and the constraints hold; else every expert is split in half, which the status tells. More steps are not better:
/// fp32 breaks down near the boundary, from about 8 steps on flat loads.
///
/// Shares are floor(ratio x total) at the first host and the rest at the second, so they always sum up. A ratio outside
/// of [0, 1], which `step_reduction::last_per_lane` produces, is clamped. Norms of the acceptance test are this library's
/// choice (largest absolute value).
/// @source{LPLB, the solver kernel read through public copies; `last_per_lane` is its reduction as found there, which
/// later versions may have changed}
struct interior_point_split {
  index_t steps = 5;                                   ///< affine-scaling steps, >= 1
  step_reduction reduction = step_reduction::maximum;  ///< how the step length is found

  /// @brief Split the copies of all experts.
  /// @param totals copies an expert, >= 0, < 2^31. @shape{experts}
  /// @param where the placement, every expert on at most two ranks
  /// @param[out] shares copies a replica; a second replica on one rank gets nothing. @shape{where.replicas()}
  /// @param ws scratch
  /// @returns `status::ok`; `status::iteration_limit` with shares of one half if the steps were not accepted;
  ///          `status::lost_expert` with shares of zero if an expert with load has no replica; `status::unsupported` with
  ///          shares of zero if an expert is on three ranks or more; `value` is the largest number of copies of a rank
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) on a total out of range
  /// @complexity O(steps x (ranks + experts)^3) time, O((ranks + experts)^2) scratch, no allocation
  /// @determinism a function of its arguments for one binary; fp32, so ranks with different binaries may differ
  report split(std::span<index_t const> totals, placement const& where, std::span<count_t> shares, workspace& ws) const {
    detail::check_split(totals, where, shares);
    FAIRLEAD_EXPECTS(steps >= 1, "an interior point method needs a step", steps);
    std::fill(shares.begin(), shares.end(), count_t{0});
    if (detail::loses_copies(totals, where)) { return {.status = status::lost_expert}; }
    workspace::scope const scope(ws);
    auto const pairs = ws.take<detail::scaled_pair>(where.experts());
    auto const fixed = ws.take<float>(where.ranks());
    std::fill(fixed.begin(), fixed.end(), 0.0F);
    index_t largest = 1;
    for (index_t const total : totals) { largest = std::max(largest, total); }
    auto const scale = 1.0F / static_cast<float>(largest);
    std::size_t count = 0;
    for (std::size_t e = 0; e < totals.size(); ++e) {
      auto const hosts = where.replicas(static_cast<expert_id>(e));
      if (hosts.empty()) { continue; }
      auto const first = where.replica_offset(static_cast<expert_id>(e));
      std::size_t other = 0;
      for (std::size_t k = 1; k < hosts.size(); ++k) {
        if (hosts[k].rank == hosts[k - 1].rank) { continue; }
        if (other != 0) {
          std::fill(shares.begin(), shares.end(), count_t{0});
          return {.status = status::unsupported};
        }
        other = k;
      }
      float const load = static_cast<float>(totals[e]) * scale;
      if (other == 0) {
        fixed[static_cast<std::size_t>(hosts[0].rank)] += load;
        shares[static_cast<std::size_t>(first)] = static_cast<count_t>(totals[e]);
      } else {
        pairs[count++] = {static_cast<std::int32_t>(hosts[0].rank), static_cast<std::int32_t>(hosts[other].rank), load,
                          static_cast<std::int32_t>(first), static_cast<std::int32_t>(first + static_cast<index_t>(other)),
                          static_cast<std::int32_t>(e)};
      }
    }
    detail::affine_scaling solver(pairs.first(count), fixed, ws);
    bool const accepted = solver.run(steps, reduction == step_reduction::last_per_lane);
    for (std::size_t k = 0; k < count; ++k) {
      detail::scaled_pair const& pair = pairs[k];
      index_t const total = totals[static_cast<std::size_t>(pair.expert)];
      double const ratio = accepted ? std::clamp(static_cast<double>(solver.ratio(k)), 0.0, 1.0) : 0.5;
      auto const home = std::min(total, static_cast<index_t>(std::floor(ratio * static_cast<double>(total))));
      shares[static_cast<std::size_t>(pair.first_column)] = static_cast<count_t>(home);
      shares[static_cast<std::size_t>(pair.second_column)] = static_cast<count_t>(total - home);
    }
    return {.status = accepted ? status::ok : status::iteration_limit, .iterations = steps,
            .value = static_cast<double>(detail::largest_rank_load(where, shares))};
  }
  /// @param where the placement
  /// @returns bytes for the normal equations and the variables
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const noexcept {
    return fairlead::workspace_bytes<detail::scaled_pair>(where.experts()) + fairlead::workspace_bytes<float>(where.ranks()) +
           detail::affine_scaling::bytes(where.experts(), where.ranks());
  }
};
static_assert(replica_split<interior_point_split>);

/// A host gets as much as fits, whatever the number of places of its replicas.
template <>
inline constexpr bool schedules_meaning<interior_point_split, replica_meaning::capacity_unit> = false;

FAIRLEAD_NAMESPACE_END
