// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What ranks bring along when copies are split: loads that they have anyway, speeds, failures.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/load.hpp>
#include <fairlead/core/placement.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief What ranks bring along; views of numbers that the caller owns, equal on every rank.
struct split_conditions {
  std::span<index_t const> base{};   ///< copies that each rank has anyway (the part of a pipeline that ran, shared experts), in [0, 2^31). @shape{ranks}, or empty = 0
  std::span<count_t const> speed{};  ///< relative speed of each rank, in [0, 2^20]; 0 = failed, hosts nothing. @shape{ranks}, or empty = all equal
};

namespace detail {

inline void check_conditions(split_conditions const& conditions, index_t ranks) {
  FAIRLEAD_EXPECTS(conditions.base.empty() || static_cast<index_t>(conditions.base.size()) == ranks, "base needs one number a rank, or none",
                   conditions.base.size(), ranks);
  FAIRLEAD_EXPECTS(conditions.speed.empty() || static_cast<index_t>(conditions.speed.size()) == ranks, "speed needs one number a rank, or none",
                   conditions.speed.size(), ranks);
}

// The conditions of a split; none if it knows none. Tiles share the speeds of what splits them, but not its unit of load.
template <class Split>
[[nodiscard]] split_conditions conditions_of(Split const& split) {
  if constexpr (requires { split.conditions.speed; }) {
    return split.conditions;
  } else if constexpr (requires { split.split_first; }) {
    return conditions_of(split.split_first);
  } else if constexpr (requires { split.split_tiles; }) {
    split_conditions const inner = conditions_of(split.split_tiles);
    FAIRLEAD_EXPECTS(inner.base.empty(), "base loads of a split of tiles count tiles: give limits instead", inner.base.size());
    return inner;
  } else {
    return {};
  }
}

// The largest (base + copies) / speed of a rank that works, as a fraction.
struct rank_level {
  index_t load = 0;
  index_t speed = 1;
};

[[nodiscard]] inline rank_level largest_level(split_conditions const& conditions, placement const& where, std::span<count_t const> shares) noexcept {
  rank_level top;
  for (index_t r = 0; r < where.ranks(); ++r) {
    auto const rank = static_cast<rank_id>(r);
    index_t const speed = conditions.speed.empty() ? 1 : conditions.speed[static_cast<std::size_t>(r)];
    if (speed == 0) { continue; }
    index_t load = conditions.base.empty() ? 0 : conditions.base[static_cast<std::size_t>(r)];
    for (index_t slot = 0; slot < where.slots(rank); ++slot) {
      index_t const column = where.replica_at(rank, static_cast<local_slot_id>(slot));
      load += column >= 0 ? shares[static_cast<std::size_t>(column)] : 0;
    }
    if (load * top.speed > top.load * speed) { top = {load, speed}; }
  }
  return top;
}

// The copies of each rank that leave it at or below a level, plus `slack`; none for a failed rank.
inline void limits_at(split_conditions const& conditions, rank_level const& top, index_t slack, std::span<index_t> limits) noexcept {
  for (std::size_t r = 0; r < limits.size(); ++r) {
    index_t const speed = conditions.speed.empty() ? 1 : conditions.speed[r];
    index_t const base = conditions.base.empty() ? 0 : conditions.base[r];
    limits[r] = speed == 0 ? 0 : std::max<index_t>(top.load * speed / top.speed - base, 0) + slack;
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
