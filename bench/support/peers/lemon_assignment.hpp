// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A peer: LEMON's network simplex on the graph of all allowed (token, expert) pairs, with 32-bit costs.
///
/// LEMON 1.3.1 (Debian: liblemon-dev), P. Kovacs, "Minimum-cost flow algorithms: an experimental evaluation", 2015.
/// Only LEMON's templates are used, so that nothing has to be linked.
#ifndef LEMON_ONLY_TEMPLATES
#  define LEMON_ONLY_TEMPLATES
#endif
#include <fairlead/core/contract.hpp>
#include <fairlead/core/matrix_view.hpp>

#include <lemon/network_simplex.h>
#include <lemon/smart_graph.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

namespace fl_bench {

/// @brief One instance, ready to be solved once: building the graph is not part of `solve`.
///
/// Scores must be integers after scaling: the optimum is then the optimum of the problem itself.
class lemon_assignment {
 public:
  using index_t = fairlead::index_t;
  using graph = lemon::SmartDigraph;
  using solver = lemon::NetworkSimplex<graph, int, int>;

  /// How the arcs are laid out. Time depends on it, by up to 4x; the value does not.
  enum class order {
    by_token,  ///< the order of the scores, LEMON's default options
    by_expert  ///< all arcs of an expert in a row, LEMON's arc mixing off: the fastest order found
  };

  /// @param scores worth of (token, expert); NaN and -inf leave the pair out
  /// @param fan_out experts a token
  /// @param lower fewest copies of an expert
  /// @param upper most copies of an expert
  /// @param scale makes the scores integers
  /// @param layout order of the arcs
  /// @param mask zero = padding; empty = all valid
  lemon_assignment(fairlead::matrix_view<float const> scores, index_t fan_out, std::span<index_t const> lower,
                   std::span<index_t const> upper, double scale, order layout = order::by_token,
                   std::span<std::uint8_t const> mask = {})
      : tokens_(scores.rows()), experts_(scores.cols()), fan_out_(fan_out), scores_(scores), scale_(scale) {
    bool bounds = false;
    for (std::size_t e = 0; e < lower.size(); ++e) { bounds = bounds || lower[e] != upper[e]; }
    graph_.reserveNode(static_cast<int>(tokens_ + experts_ + 1));
    graph_.reserveArc(static_cast<int>(tokens_ * experts_ + experts_));
    for (index_t v = 0; v < tokens_ + experts_ + (bounds ? 1 : 0); ++v) { graph_.addNode(); }
    costs_.reserve(static_cast<std::size_t>(tokens_ * experts_ + experts_));
    if (layout == order::by_token) {
      for (index_t t = 0; t < tokens_; ++t) {
        for (index_t e = 0; e < experts_; ++e) { add_pair(t, e); }
      }
    } else {
      for (index_t e = 0; e < experts_; ++e) {
        for (index_t t = 0; t < tokens_; ++t) { add_pair(t, e); }
      }
    }
    auto const pairs = static_cast<int>(costs_.size());
    index_t copies = 0;
    graph::NodeMap<int> supply(graph_, 0);
    for (index_t t = 0; t < tokens_; ++t) {
      bool const valid = mask.empty() || mask[static_cast<std::size_t>(t)] != 0;
      supply[node(t)] = valid ? static_cast<int>(fan_out) : 0;
      copies += valid ? fan_out : 0;
    }
    index_t least = 0, most = 0;
    for (index_t e = 0; e < experts_; ++e) {
      auto const at = static_cast<std::size_t>(e);
      least += lower[at];
      most += upper[at];
      if (!bounds) {
        supply[node(tokens_ + e)] = -static_cast<int>(lower[at]);
      } else {
        graph_.addArc(node(tokens_ + e), node(tokens_ + experts_));
        costs_.push_back(0);
      }
    }
    // LEMON takes surplus supply for "at most": sums that do not fit are refused here.
    impossible_ = copies < least || copies > most;
    if (bounds) { supply[node(tokens_ + experts_)] = -static_cast<int>(copies); }
    graph::ArcMap<int> cost(graph_), at_least(graph_, 0), at_most(graph_, 1);
    for (int a = 0; a < static_cast<int>(costs_.size()); ++a) { cost[graph_.arcFromId(a)] = costs_[a_index(a)]; }
    for (int a = pairs; a < static_cast<int>(costs_.size()); ++a) {
      at_least[graph_.arcFromId(a)] = static_cast<int>(lower[a_index(a - pairs)]);
      at_most[graph_.arcFromId(a)] = static_cast<int>(upper[a_index(a - pairs)]);
    }
    simplex_ = std::make_unique<solver>(graph_, layout == order::by_token);
    simplex_->costMap(cost).supplyMap(supply);
    if (bounds) { simplex_->lowerMap(at_least); }
    // A token of one expert needs no arc capacities; without them LEMON is faster.
    if (bounds || fan_out != 1) { simplex_->upperMap(at_most); }
  }

  /// @returns whether an optimum was found; false = no assignment exists
  bool solve() {
    if (impossible_) { return false; }
    auto const outcome = simplex_->run();
    FAIRLEAD_EXPECTS(outcome != solver::UNBOUNDED, "LEMON called a bounded problem unbounded: costs overflowed");
    return outcome == solver::OPTIMAL;
  }
  /// @returns the optimum times the scale, exact
  [[nodiscard]] std::int64_t scaled_value() const { return -simplex_->totalCost<std::int64_t>(); }
  /// @param expert which one
  /// @returns an optimal price
  [[nodiscard]] double price(index_t expert) const {
    return -static_cast<double>(simplex_->potential(node(tokens_ + expert))) / scale_;
  }
  /// @brief Visit the assigned pairs.
  /// @param visit called with (token, expert)
  template <class Visitor>
  void for_each_pair(Visitor visit) const {
    for (graph::ArcIt arc(graph_); arc != lemon::INVALID; ++arc) {
      index_t const token = graph_.id(graph_.source(arc));
      if (token < tokens_ && simplex_->flow(arc) > 0) { visit(token, graph_.id(graph_.target(arc)) - tokens_); }
    }
  }

 private:
  [[nodiscard]] static std::size_t a_index(int arc) { return static_cast<std::size_t>(arc); }
  [[nodiscard]] graph::Node node(index_t v) const { return graph_.nodeFromId(static_cast<int>(v)); }
  void add_pair(index_t t, index_t e) {
    float const score = scores_(t, e);
    if (!(score > -std::numeric_limits<float>::infinity())) { return; }
    double const scaled = static_cast<double>(score) * scale_;
    FAIRLEAD_EXPECTS(scaled == std::nearbyint(scaled) && std::fabs(scaled) < 0x1p28,
                     "scores must be moderate integers after scaling", score, scale_);
    graph_.addArc(node(t), node(tokens_ + e));
    costs_.push_back(-static_cast<int>(scaled));
  }

  index_t tokens_, experts_, fan_out_;
  fairlead::matrix_view<float const> scores_;
  double scale_;
  bool impossible_ = false;
  graph graph_;
  std::vector<int> costs_;
  std::unique_ptr<solver> simplex_;
};

}  // namespace fl_bench
