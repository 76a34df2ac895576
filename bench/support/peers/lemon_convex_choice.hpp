// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A peer: LEMON's network simplex on tokens, servers and a sink, one arc for each further copy of a server.
///
/// LEMON 1.3.1 (Debian: liblemon-dev). Only LEMON's templates are used, so that nothing has to be linked.
#ifndef LEMON_ONLY_TEMPLATES
#  define LEMON_ONLY_TEMPLATES
#endif
#include <fairlead/core/matrix_view.hpp>

#include <lemon/network_simplex.h>
#include <lemon/smart_graph.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace fl_bench {

/// @brief One instance, ready to be solved once: building the graph is not part of `solve`.
class lemon_convex_choice {
 public:
  using index_t = fairlead::index_t;
  using graph = lemon::SmartDigraph;
  using solver = lemon::NetworkSimplex<graph, int, int>;

  /// @param scores integers after scaling. @shape{tokens x servers}
  /// @param fan_out servers a token
  /// @param scale of the scores
  /// @param cost integer marginal costs, called with (server, copies)
  template <class Cost>
  lemon_convex_choice(fairlead::matrix_view<float const> scores, index_t fan_out, double scale, Cost const& cost) {
    index_t const tokens = scores.rows();
    index_t const servers = scores.cols();
    auto const node = [](index_t v) { return graph::nodeFromId(static_cast<int>(v)); };
    graph_.reserveNode(static_cast<int>(tokens + servers + 1));
    graph_.reserveArc(static_cast<int>(2 * tokens * servers));
    for (index_t v = 0; v < tokens + servers + 1; ++v) { graph_.addNode(); }
    std::vector<int> costs;
    costs.reserve(static_cast<std::size_t>(2 * tokens * servers));
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t j = 0; j < servers; ++j) {
        graph_.addArc(node(t), node(tokens + j));
        costs.push_back(-static_cast<int>(scale * static_cast<double>(scores(t, j))));
      }
    }
    for (index_t j = 0; j < servers; ++j) {
      for (index_t n = 0; n < tokens; ++n) {
        graph_.addArc(node(tokens + j), node(tokens + servers));
        costs.push_back(static_cast<int>(cost(j, n)));
      }
    }
    graph::ArcMap<int> cost_map(graph_), most(graph_, 1);
    for (std::size_t a = 0; a < costs.size(); ++a) { cost_map[graph::arcFromId(static_cast<int>(a))] = costs[a]; }
    graph::NodeMap<int> supply(graph_, 0);
    for (index_t t = 0; t < tokens; ++t) { supply[node(t)] = static_cast<int>(fan_out); }
    supply[node(tokens + servers)] = -static_cast<int>(tokens * fan_out);
    simplex_ = std::make_unique<solver>(graph_);
    simplex_->costMap(cost_map).supplyMap(supply).upperMap(most);
  }
  /// @returns whether an optimum was found
  bool solve() { return simplex_->run() == solver::OPTIMAL; }
  /// @returns the optimum, exact
  [[nodiscard]] std::int64_t value() const { return simplex_->totalCost<std::int64_t>(); }

 private:
  graph graph_;
  std::unique_ptr<solver> simplex_;
};

}  // namespace fl_bench
