// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A peer: tokens take what is cheapest at the marginal costs of the moment, then move singly while that gains. Not exact.
#include <fairlead/core/matrix.hpp>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

namespace fl_bench {

/// @brief The cheap alternative to an exact choice of servers under convex costs.
/// @tparam Cost marginal costs, called with (server, copies)
template <class Cost>
class marginal_descent {
 public:
  using index_t = fairlead::index_t;

  /// @param cost what one copy more costs
  /// @param servers number of servers
  marginal_descent(Cost const& cost, index_t servers)
      : cost_(cost), up_(static_cast<std::size_t>(servers)), down_(up_.size()), order_(up_.size()), taken_(up_.size()) {}

  /// @param scores of (token, server)
  /// @param scale what a score is worth
  /// @param[out] choices servers of the tokens. @shape{tokens x fan_out}
  /// @param[out] counts copies of the servers
  void solve(fairlead::matrix_view<float const> scores, double scale, fairlead::matrix_view<fairlead::expert_id> choices,
             std::span<index_t> counts) {
    std::fill(counts.begin(), counts.end(), index_t{0});
    for (index_t j = 0; j < scores.cols(); ++j) { renew(j, 0); }
    for (index_t t = 0; t < scores.rows(); ++t) {
      place(scores.row(t), scale, choices.row(t), choices.cols(), counts);
    }
    for (bool moved = true; moved;) {
      moved = false;
      for (index_t t = 0; t < scores.rows(); ++t) {
        while (improve(scores.row(t), scale, choices.row(t), choices.cols(), counts)) { moved = true; }
      }
    }
  }

 private:
  void renew(index_t server, index_t count) {
    auto const j = static_cast<std::size_t>(server);
    up_[j] = cost_(server, count);
    down_[j] = count > 0 ? cost_(server, count - 1) : 0.0;
  }
  void place(float const* row, double scale, fairlead::expert_id* choice, index_t fan_out, std::span<index_t> counts) {
    for (std::size_t j = 0; j < order_.size(); ++j) { order_[j] = {up_[j] - scale * static_cast<double>(row[j]), j}; }
    std::partial_sort(order_.begin(), order_.begin() + fan_out, order_.end());
    for (index_t k = 0; k < fan_out; ++k) {
      std::size_t const j = order_[static_cast<std::size_t>(k)].second;
      choice[k] = static_cast<fairlead::expert_id>(j);
      renew(static_cast<index_t>(j), ++counts[j]);
    }
  }
  bool improve(float const* row, double scale, fairlead::expert_id* choice, index_t fan_out, std::span<index_t> counts) {
    std::fill(taken_.begin(), taken_.end(), char{0});
    for (index_t k = 0; k < fan_out; ++k) { taken_[static_cast<std::size_t>(choice[k])] = 1; }
    std::size_t best = 0;
    double cheapest = 1e300;
    for (std::size_t j = 0; j < up_.size(); ++j) {
      double const enter = up_[j] - scale * static_cast<double>(row[j]);
      if (!taken_[j] && enter < cheapest) {
        cheapest = enter;
        best = j;
      }
    }
    index_t worst = -1;
    double gain = 1e-9;
    for (index_t k = 0; k < fan_out; ++k) {
      auto const j = static_cast<std::size_t>(choice[k]);
      double const own = down_[j] - scale * static_cast<double>(row[j]) - cheapest;
      if (own > gain) {
        gain = own;
        worst = k;
      }
    }
    if (worst < 0) { return false; }
    auto const from = static_cast<std::size_t>(choice[worst]);
    choice[worst] = static_cast<fairlead::expert_id>(best);
    renew(static_cast<index_t>(from), --counts[from]);
    renew(static_cast<index_t>(best), ++counts[best]);
    return true;
  }

  Cost const& cost_;
  std::vector<double> up_, down_;
  std::vector<std::pair<double, std::size_t>> order_;
  std::vector<char> taken_;
};

/// @brief What a choice costs: the steps of the servers less the worth of the chosen scores.
/// @param cost marginal costs
/// @param scores of (token, server)
/// @param scale what a score is worth
/// @param choices servers of the tokens
/// @param counts copies of the servers
/// @returns the value
template <class Cost>
double choice_value(Cost const& cost, fairlead::matrix_view<float const> scores, double scale,
                    fairlead::matrix_view<fairlead::expert_id const> choices, std::span<fairlead::index_t const> counts) {
  double value = 0.0;
  for (std::size_t j = 0; j < counts.size(); ++j) {
    for (fairlead::index_t n = 0; n < counts[j]; ++n) { value += cost(static_cast<fairlead::index_t>(j), n); }
  }
  double mass = 0.0;
  for (fairlead::index_t t = 0; t < choices.rows(); ++t) {
    for (fairlead::index_t k = 0; k < choices.cols(); ++k) { mass += static_cast<double>(scores(t, fairlead::to_index(choices(t, k)))); }
  }
  return value - scale * mass;
}

}  // namespace fl_bench
