// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A peer: the textbook's successive shortest paths on the graph of servers, one path a copy, by Bellman and Ford.
///
/// A copy enters at a server, tokens that are there move on, and the last server takes one more. The cheapest token of each
/// ordered pair of servers comes from a heap whose stale entries are thrown away when they reach the top.
#include <fairlead/core/matrix.hpp>

#include <algorithm>
#include <functional>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace fl_bench {

/// @brief The exact choice of servers under convex costs, as it is usually described.
/// @tparam Cost marginal costs, called with (server, copies)
template <class Cost>
class exchange_paths {
 public:
  using index_t = fairlead::index_t;

  /// @param cost what one copy more costs
  /// @param tokens most tokens
  /// @param servers number of servers
  exchange_paths(Cost const& cost, index_t tokens, index_t servers)
      : cost_(cost),
        servers_(static_cast<std::size_t>(servers)),
        has_(static_cast<std::size_t>(tokens) * servers_),
        heaps_(servers_ * servers_),
        distance_(servers_),
        before_(servers_) {}

  /// @param scores of (token, server)
  /// @param scale what a score is worth
  /// @param[out] choices servers of the tokens. @shape{tokens x fan_out}
  /// @param[out] counts copies of the servers
  void solve(fairlead::matrix_view<float const> scores, double scale, fairlead::matrix_view<fairlead::expert_id> choices,
             std::span<index_t> counts) {
    scores_ = scores;
    scale_ = scale;
    std::fill(counts.begin(), counts.end(), index_t{0});
    std::fill(has_.begin(), has_.end(), char{0});
    for (auto& heap : heaps_) { heap.clear(); }
    for (index_t t = 0; t < scores.rows(); ++t) {
      for (index_t k = 0; k < choices.cols(); ++k) { augment(static_cast<std::size_t>(t), counts); }
    }
    for (index_t t = 0; t < scores.rows(); ++t) {
      index_t k = 0;
      for (std::size_t j = 0; j < servers_; ++j) {
        if (has(static_cast<std::size_t>(t), j)) { choices(t, k++) = static_cast<fairlead::expert_id>(j); }
      }
    }
  }

 private:
  static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  using entry = std::pair<double, std::size_t>;  // what moving costs, token

  char& has(std::size_t token, std::size_t server) { return has_[token * servers_ + server]; }
  double worth(std::size_t token, std::size_t server) const {
    return scale_ * static_cast<double>(scores_(static_cast<index_t>(token), static_cast<index_t>(server)));
  }
  // The token that moves from j to k at the least cost.
  entry const* cheapest(std::size_t j, std::size_t k) {
    auto& heap = heaps_[j * servers_ + k];
    while (!heap.empty() && (!has(heap.front().second, j) || has(heap.front().second, k))) {
      std::pop_heap(heap.begin(), heap.end(), std::greater<>{});
      heap.pop_back();
    }
    return heap.empty() ? nullptr : &heap.front();
  }
  void offer(std::size_t token, std::size_t j, std::size_t k) {
    auto& heap = heaps_[j * servers_ + k];
    heap.emplace_back(worth(token, j) - worth(token, k), token);
    std::push_heap(heap.begin(), heap.end(), std::greater<>{});
  }
  void enter(std::size_t token, std::size_t server) {
    has(token, server) = 1;
    for (std::size_t k = 0; k < servers_; ++k) {
      if (!has(token, k)) { offer(token, server, k); }
    }
  }
  void leave(std::size_t token, std::size_t server) {
    has(token, server) = 0;
    for (std::size_t j = 0; j < servers_; ++j) {
      if (has(token, j)) { offer(token, j, server); }
    }
  }
  void augment(std::size_t token, std::span<index_t> counts) {
    constexpr double infinite = std::numeric_limits<double>::infinity();
    for (std::size_t j = 0; j < servers_; ++j) {
      distance_[j] = has(token, j) ? infinite : -worth(token, j);
      before_[j] = none;
    }
    bool changed = true;
    for (std::size_t round = 0; changed && round < servers_; ++round) {
      changed = false;
      for (std::size_t j = 0; j < servers_; ++j) {
        if (distance_[j] == infinite) { continue; }
        for (std::size_t k = 0; k < servers_; ++k) {
          entry const* const move = k == j ? nullptr : cheapest(j, k);
          // Rounding must not look like a gain.
          if (move != nullptr && distance_[j] + move->first < distance_[k] - 1e-10 * scale_) {
            distance_[k] = distance_[j] + move->first;
            before_[k] = j;
            changed = true;
          }
        }
      }
    }
    std::size_t last = 0;
    double least = infinite;
    for (std::size_t j = 0; j < servers_; ++j) {
      double const own = distance_[j] + cost_(static_cast<index_t>(j), counts[j]);
      if (own < least) {
        least = own;
        last = j;
      }
    }
    ++counts[last];
    path_.clear();
    for (std::size_t k = last; before_[k] != none; k = before_[k]) { path_.push_back({cheapest(before_[k], k)->second, {before_[k], k}}); }
    enter(token, path_.empty() ? last : path_.back().second.first);
    for (auto const& [mover, way] : path_) { leave(mover, way.first); }
    for (auto const& [mover, way] : path_) { enter(mover, way.second); }
  }

  Cost const& cost_;
  std::size_t servers_;
  fairlead::matrix_view<float const> scores_{};
  double scale_ = 0.0;
  std::vector<char> has_;
  std::vector<std::vector<entry>> heaps_;
  std::vector<double> distance_;
  std::vector<std::size_t> before_;
  std::vector<std::pair<std::size_t, std::pair<std::size_t, std::size_t>>> path_;
};

}  // namespace fl_bench
