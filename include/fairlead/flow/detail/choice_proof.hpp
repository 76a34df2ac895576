// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Value of a choice under convex costs, and what given prices leave between it and the optimum: weak duality.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// The sum of the chosen scores, and what lies between value and bound on the side of the tokens.
struct choice_sums {
  double score = 0.0;
  double size = 0.0;
  double gap = 0.0;
};

/// Sums a block of tokens: chosen scores, and by how much the best keys exceed the chosen ones.
struct choice_check {
  static constexpr index_t block_tokens = 256;
  matrix_view<float const> scores;
  matrix_view<expert_id const> choices;
  double scale;
  double const* prices;
  double* best;  // fan_out a block
  choice_sums* sums;

  void operator()(index_t block) const {
    index_t const end = std::min(scores.rows(), (block + 1) * block_tokens);
    index_t const servers = scores.cols();
    index_t const fan_out = choices.cols();
    double* const top = best + block * fan_out;
    choice_sums sum;
    for (index_t t = block * block_tokens; t < end; ++t) {
      float const* const row = scores.row(t);
      double worst = std::numeric_limits<double>::infinity();
      double chosen = 0.0;
      for (index_t k = 0; k < fan_out; ++k) {
        index_t const j = to_index(choices(t, k));
        double const key = scale * assignable(row[j]) - prices[j];
        sum.score += assignable(row[j]);
        sum.size += std::abs(assignable(row[j]));
        worst = std::min(worst, key);
        chosen += key;
      }
      int better = 0;
      for (index_t k = 0; k < fan_out; ++k) {
        index_t const j = to_index(choices(t, k));
        better -= scale * assignable(row[j]) - prices[j] > worst ? 1 : 0;
      }
      for (index_t j = 0; j < servers; ++j) {
        // NaN never compares, and -inf times a scale of 0 is one.
        double const key = scale * static_cast<double>(std::min(row[j], std::numeric_limits<float>::max())) - prices[j];
        better += key > worst ? 1 : 0;
      }
      if (better == 0) { continue; }
      std::fill_n(top, fan_out, -std::numeric_limits<double>::infinity());
      for (index_t j = 0; j < servers; ++j) {
        double const score = assignable(row[j]);
        double const key = score > -std::numeric_limits<double>::infinity() ? scale * score - prices[j] : -std::numeric_limits<double>::infinity();
        if (!(key > top[fan_out - 1])) { continue; }
        index_t place = fan_out - 1;
        for (; place > 0 && top[place - 1] < key; --place) { top[place] = top[place - 1]; }
        top[place] = key;
      }
      double most = 0.0;
      for (index_t k = 0; k < fan_out; ++k) { most += top[k]; }
      sum.gap += std::max(0.0, most - chosen);
    }
    sums[block] = sum;
  }
};

/// Cost of the counts less the scaled scores; how far the prices leave the optimum below it; and the size of the numbers
/// whose rounding is in both.
struct choice_proof {
  double value = 0.0;
  double gap = 0.0;
  double size = 0.0;
};

template <class Backend, class Marginal>
choice_proof prove_choice(Backend const& on, matrix_view<float const> scores, matrix_view<expert_id const> choices,
                          double scale, Marginal const& cost, std::span<index_t const> counts,
                          std::span<double const> prices, workspace& ws) {
  workspace::scope const scope(ws);
  index_t const tokens = scores.rows();
  index_t const blocks = (tokens + choice_check::block_tokens - 1) / choice_check::block_tokens;
  auto const sums = ws.take<choice_sums>(blocks);
  on.for_each(blocks, choice_check{scores, choices, scale, prices.data(), ws.take<double>(blocks * choices.cols()).data(), sums.data()});
  choice_proof proof;
  double score = 0.0;
  for (choice_sums const& sum : sums) {
    score += sum.score;
    proof.gap += sum.gap;
    proof.size += scale * sum.size;
  }
  double total = 0.0;
  for (std::size_t j = 0; j < counts.size(); ++j) {
    auto const server = static_cast<index_t>(j);
    if constexpr (requires { static_cast<double>(cost.total(server, counts[j])); }) {
      total += static_cast<double>(cost.total(server, counts[j]));
    } else {
      for (index_t n = 0; n < counts[j]; ++n) { total += static_cast<double>(cost(server, n)); }
    }
    // Steps do not fall: the first or the last is the largest in size.
    if (counts[j] > 0) {
      proof.size += static_cast<double>(counts[j]) * std::max(std::abs(static_cast<double>(cost(server, 0))),
                                                              std::abs(static_cast<double>(cost(server, counts[j] - 1))));
    }
    for (index_t n = counts[j]; n > 0; --n) {
      auto const step = static_cast<double>(cost(server, n - 1));
      if (!(step > prices[j])) { break; }
      proof.gap += step - prices[j];  // the copy costs more than its price
    }
    for (index_t n = counts[j]; n < tokens; ++n) {
      auto const step = static_cast<double>(cost(server, n));
      if (!(step < prices[j])) { break; }
      proof.gap += prices[j] - step;  // the price pays for copies that it does not get
    }
  }
  proof.value = total - scale * score;
  return proof;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
