// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What planners of short-lived copies share: homes, order of loads, checks.
#include <fairlead/core/load.hpp>
#include <fairlead/core/plan.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

inline void check_copy_arguments(topology const& cluster, load_estimate const& load, placement const& base,
                                 bool needs_sources) {
  FAIRLEAD_EXPECTS(base.ranks() == cluster.ranks(), "cluster and placement must have equally many ranks",
                   cluster.ranks(), base.ranks());
  FAIRLEAD_EXPECTS(static_cast<index_t>(load.totals.size()) == base.experts(), "one total an expert of the placement",
                   load.totals.size(), base.experts());
  FAIRLEAD_EXPECTS(
      !needs_sources || (load.by_source.rows() == cluster.ranks() && load.by_source.cols() == base.experts()),
      "copies are weighed by the loads of each source rank: give load.by_source", load.by_source.rows(),
      load.by_source.cols());
}

[[nodiscard]] inline bool loses_load(load_estimate const& load, placement const& base) noexcept {
  for (index_t e = 0; e < base.experts(); ++e) {
    if (load.totals[static_cast<std::size_t>(e)] > 0 && base.replicas(static_cast<expert_id>(e)).empty()) {
      return true;
    }
  }
  return false;
}

[[nodiscard]] inline bool hosts(placement const& base, index_t rank, std::int32_t expert) noexcept {
  for (replica const& one : base.replicas(static_cast<expert_id>(expert))) {
    if (to_index(one.rank) == rank) { return true; }
  }
  return false;
}

// Copy an expert to every rank that has slots and does not host it.
inline void copy_everywhere(topology const& cluster, placement const& base, std::int32_t expert, copy_list& out) {
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    if (cluster.slots(rank) > 0 && !hosts(base, rank, expert)) {
      out.add({static_cast<expert_id>(expert), static_cast<rank_id>(rank)});
    }
  }
}

// Named, so that no lambda is needed: load descending, then expert ascending.
struct heavier {
  index_t const* load;
  [[nodiscard]] bool operator()(std::int32_t a, std::int32_t b) const noexcept {
    return load[a] != load[b] ? load[a] > load[b] : a < b;
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
