// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Peers of the min-max split: its linear program in Clp and in GLPK, kept warm, and its flow in LEMON.
///
/// LP: x >= 0 on each distinct host, sums an expert = load, sums a rank <= z, least z. The matrix depends on the placement
/// only: right-hand sides are replaced and the basis is kept. Flow: source -> expert -> host -> sink with cap z on the last
/// arcs, push-relabel, bisection on z between the known bounds; `lemon_guess_min_max`
/// tries the lower bound first, which needs one flow where all ranks can be equal.
/// Clp 1.17 (Debian: coinor-libclp-dev), GLPK 5.0 (libglpk-dev), LEMON 1.3.1 (liblemon-dev), each where it is found.
#include <fairlead/schedule/host_graph.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#if defined(FAIRLEAD_BENCH_CLP)
#  include <coin/ClpSimplex.hpp>
#  include <coin/CoinPackedMatrix.hpp>
#endif
#if defined(FAIRLEAD_BENCH_GLPK)
#  include <glpk.h>
#endif
#if defined(FAIRLEAD_BENCH_LEMON_FLOW)
#  ifndef LEMON_ONLY_TEMPLATES
#    define LEMON_ONLY_TEMPLATES
#  endif
#  include <lemon/preflow.h>
#  include <lemon/smart_graph.h>
#endif

namespace fl_bench {

#if defined(FAIRLEAD_BENCH_CLP)
/// The LP in Clp: dual simplex, warm.
class clp_min_max {
 public:
  /// @param graph the placement, without second replicas on a rank
  explicit clp_min_max(fairlead::host_graph_view const& graph) : experts_(graph.experts), ranks_(graph.ranks) {
    // Rows: ranks, then experts. Columns: replicas, then z.
    std::vector<int> rows, columns;
    std::vector<double> values;
    auto const add = [&](int row, int column, double value) { rows.push_back(row), columns.push_back(column), values.push_back(value); };
    for (int c = 0; c < graph.columns; ++c) {
      add(graph.rank[static_cast<std::size_t>(c)], c, 1.0);
      add(ranks_ + graph.expert[static_cast<std::size_t>(c)], c, 1.0);
    }
    for (int r = 0; r < ranks_; ++r) { add(r, graph.columns, -1.0); }
    CoinPackedMatrix const matrix(true, rows.data(), columns.data(), values.data(), static_cast<CoinBigIndex>(values.size()));
    std::vector<double> const zero(static_cast<std::size_t>(graph.columns) + 1, 0.0);
    std::vector<double> const inf(static_cast<std::size_t>(graph.columns) + 1, COIN_DBL_MAX);
    std::vector<double> cost = zero;
    cost.back() = 1.0;
    std::vector<double> low(static_cast<std::size_t>(ranks_ + experts_), 0.0), high(low);
    std::fill_n(low.begin(), ranks_, -COIN_DBL_MAX);
    model_.setLogLevel(0);
    model_.loadProblem(matrix, zero.data(), inf.data(), cost.data(), low.data(), high.data());
  }
  /// @returns the least z for these loads
  double solve(std::span<fairlead::index_t const> totals) {
    for (int e = 0; e < experts_; ++e) {
      auto const load = static_cast<double>(totals[static_cast<std::size_t>(e)]);
      model_.setRowBounds(ranks_ + e, load, load);
    }
    model_.dual();
    return model_.objectiveValue();
  }

 private:
  ClpSimplex model_;
  int experts_;
  int ranks_;
};
#endif

#if defined(FAIRLEAD_BENCH_GLPK)
/// The LP in GLPK: dual simplex with primal fallback, warm.
class glpk_min_max {
 public:
  /// @param graph the placement, without second replicas on a rank
  explicit glpk_min_max(fairlead::host_graph_view const& graph) : experts_(graph.experts), ranks_(graph.ranks), problem_(glp_create_prob(), glp_delete_prob) {
    glp_prob* const lp = problem_.get();
    glp_set_obj_dir(lp, GLP_MIN);
    glp_add_rows(lp, ranks_ + experts_);
    glp_add_cols(lp, graph.columns + 1);
    for (int r = 1; r <= ranks_; ++r) { glp_set_row_bnds(lp, r, GLP_UP, 0.0, 0.0); }
    for (int e = 1; e <= experts_; ++e) { glp_set_row_bnds(lp, ranks_ + e, GLP_FX, 0.0, 0.0); }
    std::vector<int> rows(1, 0), columns(1, 0);
    std::vector<double> values(1, 0.0);
    auto const add = [&](int row, int column, double value) { rows.push_back(row), columns.push_back(column), values.push_back(value); };
    for (int c = 0; c < graph.columns; ++c) {
      glp_set_col_bnds(lp, c + 1, GLP_LO, 0.0, 0.0);
      add(1 + graph.rank[static_cast<std::size_t>(c)], c + 1, 1.0);
      add(1 + ranks_ + graph.expert[static_cast<std::size_t>(c)], c + 1, 1.0);
    }
    glp_set_col_bnds(lp, graph.columns + 1, GLP_LO, 0.0, 0.0);
    glp_set_obj_coef(lp, graph.columns + 1, 1.0);
    for (int r = 1; r <= ranks_; ++r) { add(r, graph.columns + 1, -1.0); }
    glp_load_matrix(lp, static_cast<int>(values.size()) - 1, rows.data(), columns.data(), values.data());
    glp_init_smcp(&options_);
    options_.msg_lev = GLP_MSG_OFF;
    options_.meth = GLP_DUALP;
    glp_term_out(GLP_OFF);
    glp_adv_basis(lp, 0);
  }
  /// @returns the least z for these loads
  double solve(std::span<fairlead::index_t const> totals) {
    for (int e = 0; e < experts_; ++e) {
      auto const load = static_cast<double>(totals[static_cast<std::size_t>(e)]);
      glp_set_row_bnds(problem_.get(), ranks_ + e + 1, GLP_FX, load, load);
    }
    glp_simplex(problem_.get(), &options_);
    return glp_get_obj_val(problem_.get());
  }

 private:
  int experts_;
  int ranks_;
  std::unique_ptr<glp_prob, void (*)(glp_prob*)> problem_;
  glp_smcp options_{};
};
#endif

#if defined(FAIRLEAD_BENCH_LEMON_FLOW)
/// The flow in LEMON: push-relabel, bisection on the cap.
class lemon_min_max {
 public:
  /// @param graph the placement, without second replicas on a rank
  explicit lemon_min_max(fairlead::host_graph_view const& graph) : graph_(graph), capacity_(flow_) {
    source_ = flow_.addNode();
    sink_ = flow_.addNode();
    for (int e = 0; e < graph.experts; ++e) { experts_.push_back(flow_.addNode()); }
    for (int r = 0; r < graph.ranks; ++r) { ranks_.push_back(flow_.addNode()); }
    for (auto const node : experts_) { load_arcs_.push_back(flow_.addArc(source_, node)); }
    for (int c = 0; c < graph.columns; ++c) {
      host_arcs_.push_back(flow_.addArc(experts_[static_cast<std::size_t>(graph.expert[static_cast<std::size_t>(c)])],
                                        ranks_[static_cast<std::size_t>(graph.rank[static_cast<std::size_t>(c)])]));
    }
    for (auto const node : ranks_) { cap_arcs_.push_back(flow_.addArc(node, sink_)); }
    preflow_ = std::make_unique<solver>(flow_, capacity_, source_, sink_);
  }
  /// @param totals loads
  /// @param guess_first whether the lower bound is tried before the bisection: often it is the answer
  /// @returns the least integer z for these loads
  std::int64_t solve(std::span<fairlead::index_t const> totals, bool guess_first = false) {
    std::int64_t sum = 0, low = 0, high = 0;
    for (std::size_t e = 0; e < totals.size(); ++e) {
      auto const degree = graph_.first[e + 1] - graph_.first[e];
      sum += totals[e];
      low = std::max<std::int64_t>(low, (totals[e] + degree - 1) / degree);
      capacity_[load_arcs_[e]] = static_cast<int>(totals[e]);
      for (auto c = graph_.first[e]; c < graph_.first[e + 1]; ++c) { capacity_[host_arcs_[static_cast<std::size_t>(c)]] = static_cast<int>(totals[e]); }
    }
    auto const ranks = static_cast<std::int64_t>(ranks_.size());
    low = std::max(low, (sum + ranks - 1) / ranks);
    // An upper bound: every expert in equal parts.
    std::vector<std::int64_t>& busy = busy_;
    busy.assign(ranks_.size(), 0);
    for (std::size_t e = 0; e < totals.size(); ++e) {
      auto const degree = graph_.first[e + 1] - graph_.first[e];
      for (auto c = graph_.first[e]; c < graph_.first[e + 1]; ++c) { busy[static_cast<std::size_t>(graph_.rank[static_cast<std::size_t>(c)])] += totals[e] / degree + 1; }
    }
    high = *std::max_element(busy.begin(), busy.end());
    if (guess_first && feasible(low, sum)) { return low; }
    if (!guess_first) { --low; }
    while (high - low > 1) {
      std::int64_t const middle = (low + high) / 2;
      (feasible(middle, sum) ? high : low) = middle;
    }
    return high;
  }

 private:
  using digraph = lemon::SmartDigraph;
  using solver = lemon::Preflow<digraph, digraph::ArcMap<int>>;
  bool feasible(std::int64_t cap, std::int64_t sum) {
    for (auto const arc : cap_arcs_) { capacity_[arc] = static_cast<int>(cap); }
    preflow_->runMinCut();
    return preflow_->flowValue() == sum;
  }
  fairlead::host_graph_view const& graph_;
  digraph flow_;
  digraph::ArcMap<int> capacity_;
  digraph::Node source_, sink_;
  std::vector<digraph::Node> experts_, ranks_;
  std::vector<digraph::Arc> load_arcs_, host_arcs_, cap_arcs_;
  std::vector<std::int64_t> busy_;
  std::unique_ptr<solver> preflow_;
};

/// The same flow where the lower bound is tried first.
struct lemon_guess_min_max : lemon_min_max {
  using lemon_min_max::lemon_min_max;
  /// @returns the least integer z for these loads
  std::int64_t solve(std::span<fairlead::index_t const> totals) { return lemon_min_max::solve(totals, true); }
};
#endif

}  // namespace fl_bench
