// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The rooms of a similar-object auction: holders of each expert in a heap, tokens in a queue, prices.
#include <fairlead/assign/detail/working.hpp>
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail::rounding {

/// How far the scores of a row lie apart, over experts with places: what epsilon is measured by.
struct row_spreads {
  double largest = 0.0;    // of a row
  double mean = 0.0;       // over the rows
  double magnitude = 0.0;  // of a score
  bool forbids = false;    // some pair may not be used
  bool hopeless = false;   // some token has no expert
};

template <class Score>
[[nodiscard]] row_spreads measure_spreads(assignment_problem<Score> const& problem) {
  row_spreads found;
  index_t rows = 0;
  for (index_t t = 0; t < problem.tokens(); ++t) {
    if (!token_counts(problem, t)) { continue; }
    double low = std::numeric_limits<double>::infinity();
    double high = unusable;
    Score const* const row = problem.scores.row(t);
    for (index_t e = 0; e < problem.experts(); ++e) {
      if (problem.upper[static_cast<std::size_t>(e)] == 0) { continue; }
      double const score = assignable(row[e]);
      if (score > unusable) {
        low = std::min(low, score);
        high = std::max(high, score);
      } else {
        found.forbids = true;
      }
    }
    if (!(high > unusable)) {
      found.hopeless = true;
      continue;
    }
    ++rows;
    found.largest = std::max(found.largest, high - low);
    found.mean += (high - low - found.mean) / static_cast<double>(rows);
    found.magnitude = std::max(found.magnitude, std::max(high, -low));
  }
  return found;
}

template <class Score>
class bidding {
 public:
  [[nodiscard]] static constexpr std::size_t bytes(index_t tokens, index_t experts) noexcept {
    return workspace_bytes<hold>(tokens) + workspace_bytes<std::int32_t>(tokens) +
           2 * workspace_bytes<double>(experts) + 2 * workspace_bytes<index_t>(experts);
  }

  /// The capacities sum to the number of valid tokens.
  bidding(assignment_problem<Score> const& problem, workspace& ws)
      : problem_(problem), holds_(ws.take<hold>(problem.tokens())), queue_(ws.take<std::int32_t>(problem.tokens())),
        price_(ws.take<double>(problem.experts())), floor_(ws.take<double>(problem.experts())),
        first_(ws.take<index_t>(problem.experts())), held_(ws.take<index_t>(problem.experts())) {
    index_t place = 0;
    for (std::size_t e = 0; e < price_.size(); ++e) {
      first_[e] = place;
      place += problem_.upper[e];
      // An expert without a place sells nothing: nobody bids at an infinite price.
      floor_[e] = problem_.upper[e] > 0 ? 0.0 : std::numeric_limits<double>::infinity();
    }
  }

  /// One phase: everybody bids anew, at the prices where the last phase ended.
  /// @param epsilon least increment, > 0
  /// @param margin what a token bids beyond the price if it has no other expert
  /// @param[in,out] bids bids left
  /// @returns whether every token got a place before the bids ran out
  [[nodiscard]] bool phase(double epsilon, double margin, index_t& bids) {
    std::copy(floor_.begin(), floor_.end(), price_.begin());
    std::fill(held_.begin(), held_.end(), index_t{0});
    index_t waiting = 0;
    for (index_t t = 0; t < problem_.tokens(); ++t) {
      if (token_counts(problem_, t)) { queue_[static_cast<std::size_t>(waiting++)] = static_cast<std::int32_t>(t); }
    }
    // A ring: a bid takes one token out and puts at most one in.
    auto const places = static_cast<std::size_t>(waiting);
    std::size_t front = 0;
    std::size_t back = 0;
    while (waiting > 0) {
      if (bids == 0) { return false; }
      --bids;
      std::int32_t const token = queue_[front];
      front = front + 1 == places ? 0 : front + 1;
      --waiting;
      std::int32_t const displaced = bid(token, epsilon, margin);
      if (displaced >= 0) {
        queue_[back] = displaced;
        back = back + 1 == places ? 0 : back + 1;
        ++waiting;
      }
    }
    std::copy(price_.begin(), price_.end(), floor_.begin());
    return true;
  }

  /// Owners as they stand; tokens that wait have none.
  void hand_over(matrix_view<expert_id> owner) const {
    clear_owner(owner);
    for (std::size_t e = 0; e < price_.size(); ++e) {
      for (index_t i = 0; i < held_[e]; ++i) {
        owner(holds_[static_cast<std::size_t>(first_[e] + i)].token, 0) = static_cast<expert_id>(e);
      }
    }
  }
  /// Prices as they stand, the lowest at 0 (a common shift is free); 0 for experts without a place.
  void hand_over(std::span<double> prices) const {
    double lowest = std::numeric_limits<double>::infinity();
    for (double const price : price_) { lowest = std::min(lowest, price); }
    for (std::size_t e = 0; e < price_.size(); ++e) { prices[e] = problem_.upper[e] > 0 ? price_[e] - lowest : 0.0; }
  }

 private:
  struct hold {
    double bid;
    std::int32_t token;
    /// For the heap of the standard library, whose top is the largest: the lowest bid, of equal ones the later token.
    [[nodiscard]] friend bool operator<(hold const& a, hold const& b) noexcept {
      return a.bid != b.bid ? a.bid > b.bid : a.token < b.token;
    }
  };

  /// @returns the token that lost its place, or -1
  std::int32_t bid(std::int32_t token, double epsilon, double margin) {
    Score const* const row = problem_.scores.row(token);
    double best = unusable;
    double second = unusable;
    std::size_t expert = 0;
    for (std::size_t e = 0; e < price_.size(); ++e) {
      double const worth = assignable(row[e]) - price_[e];
      if (worth > best) {
        second = best;
        best = worth;
        expert = e;
      } else if (worth > second) {
        second = worth;
      }
    }
    double const lead = second > unusable ? best - second : margin;
    hold const mine{price_[expert] + lead + epsilon, token};
    auto const first = holds_.begin() + first_[expert];
    index_t& count = held_[expert];
    std::int32_t displaced = -1;
    if (count < problem_.upper[expert]) {
      first[count++] = mine;
      std::push_heap(first, first + count);
    } else {
      std::pop_heap(first, first + count);
      displaced = first[count - 1].token;
      first[count - 1] = mine;
      std::push_heap(first, first + count);
    }
    if (count == problem_.upper[expert]) { price_[expert] = first->bid; }
    return displaced;
  }

  assignment_problem<Score> const& problem_;
  std::span<hold> holds_;
  std::span<std::int32_t> queue_;
  std::span<double> price_, floor_;
  std::span<index_t> first_, held_;
};

}  // namespace detail::rounding
FAIRLEAD_NAMESPACE_END
