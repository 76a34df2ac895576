// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief LAER-MoE's candidate sets on recorded loads: which counts a tuner should be offered.
#include "report.hpp"
#include "simulation.hpp"

#include <fairlead/place/contiguous.hpp>
#include <fairlead/place/even_replicas.hpp>
#include <fairlead/place/greedy_max_replicas.hpp>
#include <fairlead/place/layout_tuner.hpp>
#include <fairlead/place/node_symmetric_greedy.hpp>
#include <fairlead/place/replicate_then_place.hpp>
#include <fairlead/place/spread_greedy.hpp>
#include <fairlead/schedule/local_node_even.hpp>
#include <fairlead/schedule/sole_replica.hpp>
#include <fairlead/workload/trace.hpp>

#include <algorithm>
#include <cstdio>
#include <string>
#include <tuple>
#include <vector>

namespace drift_tables {

/// @brief What the tuner is offered, on a trace of [records, layers, ranks, experts].
/// @param path NumPy file
/// @param first first record that is judged
/// @param stride judge every n-th record
inline void candidate_sets(std::string const& path, index_t first, index_t stride) {
  auto const loads = fl::workload::trace::read(path);
  index_t const records = loads.outer_shape().empty() ? 1 : loads.outer_shape().front();
  index_t const layers = loads.size() / std::max<index_t>(records, 1);
  using pq = fl::replicate_then_place<fl::greedy_max_replicas, fl::spread_greedy>;
  using pq_node = fl::replicate_then_place<fl::node_symmetric_greedy, fl::spread_greedy>;
  using even = fl::replicate_then_place<fl::even_replicas, fl::spread_greedy>;
  using shipped = fl::layout_tuner<std::tuple<fl::even_replicas, fl::node_symmetric_greedy>>;
  using all = fl::layout_tuner<std::tuple<fl::even_replicas, fl::node_symmetric_greedy, fl::greedy_max_replicas>>;
  shipped const two_rules{.rules = {}, .keep = false};
  all const three_rules{.rules = {}, .keep = false};
  std::string const title =
      "candidate sets of LAER-MoE's tuner on the given trace, even split on the own node, largest / mean load of a "
      "rank; " +
      std::to_string(layers) + " layers, records " + std::to_string(first) + " to " + std::to_string(records - 1) +
      " in steps of " + std::to_string(stride) +
      "\nreferences: pq at 4 slots on these layers of the public trace; the others on all 24 layers and 4 "
      "micro-batches";
  table out(title, "slots, lag", {"even", "pq of nodes", "pq", "even + pq of nodes", "all three"});
  // A record of the public trace is 10 iterations: the references of the whole trace have a lag of one record.
  for (index_t const slots : {index_t{4}, index_t{8}}) {
    for (index_t const lag : {index_t{0}, index_t{1}, index_t{5}, index_t{10}}) {
      fl::topology const cluster(loads.ranks(), slots, 8);
      if (cluster.slots() < loads.experts()) { continue; }
      fl::local_node_even const rule{.cluster = cluster};
      average columns[5];
      for (index_t record = std::max(first, lag); record < records; record += stride) {
        for (index_t layer = 0; layer < layers; ++layer) {
          auto const known = loads.load((record - lag) * layers + layer);
          auto const load = loads.load(record * layers + layer);
          std::vector<index_t> totals(static_cast<std::size_t>(loads.experts()));
          fl::sum_over_ranks(known, totals);
          fl::matrix<index_t> by_source(known.rows(), known.cols());
          std::copy(known.data(), known.data() + known.rows() * known.cols(), by_source.span().begin());
          fl::load_estimate const estimate{.totals = totals,
                                           .by_source = {by_source.data(), by_source.rows(), by_source.cols()}};
          auto const run = [&](auto const& planner, average& column) {
            std::vector<fl::expert_id> table_of(static_cast<std::size_t>(cluster.slots()));
            fl::arena<> memory(planner.workspace_bytes(cluster, loads.experts()));
            fl::workspace ws = memory.view();
            static_cast<void>(planner.plan(cluster, estimate, {}, table_of, ws));
            column.add(imbalance(
                rule, load, fl::make_placement(cluster, loads.experts(), table_of, fl::replica_meaning::equal_share)));
          };
          run(even{}, columns[0]), run(pq_node{}, columns[1]), run(pq{}, columns[2]), run(two_rules, columns[3]),
              run(three_rules, columns[4]);
        }
      }
      static constexpr double four[5] = {2.911, 2.911, 1.248, 2.911, 1.273},
                              eight[5] = {1.525, 1.078, 1.130, 1.075, 1.079};
      std::vector<cell> cells;
      for (int i = 0; i < 5; ++i) {
        cells.push_back({.ours = columns[i].mean(), .reference = lag != 1 ? unknown : slots == 4 ? four[i] : eight[i]});
      }
      if (slots == 4 && lag != 1) { cells[2].reference = lag == 0 ? 1.222 : lag == 5 ? 1.286 : 1.330; }
      out.row(std::to_string(slots) + ", " + std::to_string(lag), cells);
    }
  }
  average fixed;
  fl::placement const plain = fl::contiguous_placement{}.initial(loads.ranks(), loads.experts());
  for (index_t record = first; record < records; record += stride) {
    for (index_t layer = 0; layer < layers; ++layer) {
      fixed.add(imbalance(fl::sole_replica{}, loads.load(record * layers + layer), plain));
    }
  }
  table last("one replica each, in order, on the same records", "", {"static EP"});
  last.row("2", {{.ours = fixed.mean(), .reference = 6.07}});
}

}  // namespace drift_tables
