// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How `layout_port_cost` works.
#include <fairlead/place/layout_port_cost.hpp>

#include <limits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

template <class Count>
void count_ports(bool rotate, topology const& cluster, source_loads const& sources, Count const* copies,
                 std::span<expert_id const> slots, std::span<std::int32_t const> replicas, std::span<rank_exchange> ranks,
                 workspace& ws) {
  auto const loads = ws.take<index_t>(cluster.ranks());
  std::fill(loads.begin(), loads.end(), index_t{0});
  static_cast<void>(
      rotate ? even_split<Count, true, true>(cluster, slots, replicas, ws).run(copies, sources, loads.data(), ranks.data())
             : even_split<Count, false, true>(cluster, slots, replicas, ws).run(copies, sources, loads.data(), ranks.data()));
}

}  // namespace detail

inline bool layout_port_cost::traffic(topology const& cluster, source_loads const& sources,
                                      std::span<expert_id const> slots, std::span<rank_exchange> ranks,
                                      workspace& ws) const {
  detail::check_table(cluster, sources, slots);
  FAIRLEAD_EXPECTS(static_cast<index_t>(ranks.size()) == cluster.ranks(), "one entry a rank of the cluster", ranks.size(),
                   cluster.ranks());
  workspace::scope const scope(ws);
  auto const replicas = ws.take<std::int32_t>(static_cast<index_t>(sources.totals.size()));
  if (!detail::count_replicas(sources, slots, replicas)) { return false; }
  if (sources.wide.empty()) {
    detail::count_ports(rotate, cluster, sources, sources.narrow.data(), slots, replicas, ranks, ws);
  } else {
    detail::count_ports(rotate, cluster, sources, sources.wide.data(), slots, replicas, ranks, ws);
  }
  return true;
}

inline step_cost layout_port_cost::cost(topology const& cluster, source_loads const& sources,
                                        std::span<expert_id const> slots, workspace& ws) const {
  FAIRLEAD_EXPECTS(ports.intra_bytes_per_s > 0.0 && ports.inter_bytes_per_s > 0.0, "bandwidths must be positive: set .ports",
                   ports.intra_bytes_per_s, ports.inter_bytes_per_s);
  workspace::scope const scope(ws);
  auto const ranks = ws.take<rank_exchange>(cluster.ranks());
  if (!traffic(cluster, sources, slots, ranks, ws)) {
    return {.communication_s = std::numeric_limits<double>::infinity(), .compute_s = 0.0};
  }
  // The busiest numbers first, so that one division each follows; a maximum of quotients is the quotient of the maximum.
  bool const shared = ports.inter_port == port_owner::node;
  index_t near = 0;
  index_t far = 0;
  index_t busiest = 0;
  for (index_t node = 0; node < cluster.nodes(); ++node) {
    index_t out = 0;
    index_t in = 0;
    for (auto rank = static_cast<std::size_t>(cluster.node_offsets()[static_cast<std::size_t>(node)]);
         rank < static_cast<std::size_t>(cluster.node_offsets()[static_cast<std::size_t>(node) + 1]); ++rank) {
      rank_exchange const& one = ranks[rank];
      near = std::max({near, one.sent_near, one.received_near});
      out = (shared ? out : 0) + one.sent_far;
      in = (shared ? in : 0) + one.received_far;
      far = std::max({far, out, in});
      busiest = std::max(busiest, one.computed());
    }
  }
  double const slowest =
      std::max(static_cast<double>(near) / ports.intra_bytes_per_s, static_cast<double>(far) / ports.inter_bytes_per_s);
  return {.communication_s = ports.exchanges * ports.bytes_per_copy * slowest,
          .compute_s = passes * seconds_per_copy * static_cast<double>(busiest)};
}

FAIRLEAD_NAMESPACE_END
