// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Rules of this module over flat arrays, on any backend: sums of loads, the staircase, even parts on a node.
///
/// One text for host and device; each call is one or two `for_each`, so that it waits for nothing and can be captured.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/load.hpp>
#include <fairlead/core/token_schedule.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/schedule/column_table.hpp>
#include <fairlead/schedule/detail/column_functions.hpp>

#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Sum a load over the source ranks, on any backend.
/// @param on backend
/// @param load copies per source and expert, in its memory. @shape{ranks x experts}
/// @param[out] totals copies an expert, in its memory. @shape{experts}
/// @throws contract_violation (level 1) on a shape mismatch
/// @complexity O(ranks x experts) work, no allocation
template <execution_backend Backend>
void sum_over_ranks(Backend const& on, load_view load, std::span<index_t> totals) {
  FAIRLEAD_EXPECTS(static_cast<index_t>(totals.size()) == load.cols(), "one total an expert", totals.size(), load.cols());
  on.for_each(load.cols(), detail::column_sum{load, totals.data()});
}

/// @brief Feed replicas from sources: the counts of `staircase`, on any backend.
/// @param on backend
/// @param where the placement in its memory
/// @param load copies per source and expert. @shape{ranks x experts}
/// @param shares copies of each replica, with the sums of the load, as a split gives them. @shape{columns}
/// @param rotate see `staircase::rotate`
/// @param[out] out copies per source and replica. @shape{ranks x columns}
/// @throws contract_violation (level 1) on a shape mismatch
/// @complexity O(ranks x replicas x replicas of an expert) work, an expert a thread; no allocation
/// @determinism the counts of `staircase::route` for shares that sum to the load
template <execution_backend Backend>
void route_staircase(Backend const& on, column_view const& where, load_view load, std::span<count_t const> shares,
                     bool rotate, token_schedule_view out) {
  FAIRLEAD_EXPECTS(load.rows() == where.ranks && load.cols() == where.experts, "the load needs one row a rank and one column an expert",
                   load.rows(), load.cols());
  FAIRLEAD_EXPECTS(out.rows() == where.ranks && out.cols() == where.columns, "the schedule needs one row a rank and one column a replica",
                   out.rows(), out.cols());
  FAIRLEAD_EXPECTS(static_cast<index_t>(shares.size()) == where.columns, "one share a replica is needed", shares.size(), where.columns);
  on.for_each(where.experts, detail::stairs{where, load, shares.data(), out, rotate});
}

/// @brief First rank and end of the node of each rank, in a memory space: what `spread_on_nodes` reads.
/// @tparam Space where the numbers live
template <memory_space Space = host_space>
class node_table {
 public:
  /// @param on backend of the memory space
  /// @param cluster which rank sits on which node
  /// @throws std::bad_alloc, or what the memory space throws
  /// @complexity O(ranks), allocates; waits for a device to have the copy
  template <class Backend>
  node_table(Backend const& on, topology const& cluster) {
    std::vector<std::int32_t> bounds;
    for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
      auto const node = static_cast<std::size_t>(cluster.node_of(rank));
      bounds.push_back(static_cast<std::int32_t>(cluster.node_offsets()[node]));
      bounds.push_back(static_cast<std::int32_t>(cluster.node_offsets()[node + 1]));
    }
    bounds_.resize(static_cast<index_t>(bounds.size()));
    on.from_host(bounds_.data(), bounds.data(), bounds.size() * sizeof(std::int32_t));
    on.wait();
  }
  /// @returns two numbers a rank
  [[nodiscard]] std::int32_t const* data() const noexcept { return bounds_.data(); }
  /// @returns number of ranks
  [[nodiscard]] index_t ranks() const noexcept { return bounds_.size() / 2; }

 private:
  buffer<std::int32_t, Space> bounds_;
};

/// @brief Split each source's copies evenly over the replicas of its node: the counts of `local_node_even`, on any backend.
/// @param on backend
/// @param where the placement in its memory
/// @param nodes the nodes in its memory
/// @param load copies per source and expert. @shape{ranks x experts}
/// @param rotate see `local_node_even::rotate`
/// @param[out] out copies per source and replica, all zero if an expert is lost. @shape{ranks x columns}
/// @param[out] lost number of (source, expert) with copies and without a replica, in its memory
/// @throws contract_violation (level 1) on a shape mismatch
/// @complexity O(ranks x (experts + replicas)) work, a (source, expert) a thread; no allocation
/// @determinism the counts of `local_node_even::schedule`
template <execution_backend Backend, memory_space Space>
void spread_on_nodes(Backend const& on, column_view const& where, node_table<Space> const& nodes, load_view load, bool rotate,
                     token_schedule_view out, std::int32_t* lost) {
  static_assert(std::same_as<Space, typename Backend::memory_space>, "the nodes must live in the backend's memory");
  FAIRLEAD_EXPECTS(load.rows() == where.ranks && load.cols() == where.experts, "the load needs one row a rank and one column an expert",
                   load.rows(), load.cols());
  FAIRLEAD_EXPECTS(out.rows() == where.ranks && out.cols() == where.columns, "the schedule needs one row a rank and one column a replica",
                   out.rows(), out.cols());
  FAIRLEAD_EXPECTS(nodes.ranks() == where.ranks, "the nodes are for another number of ranks", nodes.ranks(), where.ranks);
  if (where.lost == 0) {
    on.fill_zero(lost, sizeof(std::int32_t));
  } else {
    on.for_each(1, detail::count_lost{where, load, lost});
  }
  on.for_each(load.rows() * load.cols(), detail::even_cell{where, nodes.data(), load, out, lost, rotate});
}

FAIRLEAD_NAMESPACE_END
