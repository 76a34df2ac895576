// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A peer: the auction that fairseq's BASE layer ships, written anew from its published rules.
///
/// For benches and their tests only. It is approximate, and its answer can be no assignment at all; with bidders that
/// re-bid a constant every round, its prices carry no guarantee. Only one expert a token and tokens % experts == 0.
#include <fairlead/core/matrix_view.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace fl_bench {

/// @brief What the auction ended with.
struct auction_outcome {
  std::vector<std::vector<std::int32_t>> tokens_of;  ///< tokens of each expert, in its own order
  int rounds = 0;                                    ///< bidding rounds that left a token without a bid
  bool finished = false;                             ///< false: the cap on rounds was met, or the shape is refused
  /// @returns whether every token is there exactly once
  [[nodiscard]] bool valid(fairlead::index_t tokens) const {
    std::vector<char> seen(static_cast<std::size_t>(tokens), 0);
    fairlead::index_t count = 0;
    for (auto const& list : tokens_of) {
      for (std::int32_t const t : list) {
        count += seen[static_cast<std::size_t>(t)] == 0 ? 1 : 0;
        seen[static_cast<std::size_t>(t)] = 1;
      }
    }
    return finished && count == tokens;
  }
};

/// @brief Experts bid for tokens in rounds: each holds tokens / experts places, and every bid raises the token's price.
/// @tparam Before order among equal values, as (value, token) pairs: the published code leaves it open
/// @param scores @shape{tokens x experts}
/// @param max_rounds cap; the published code has none
/// @param max_seconds cap; the published code has none
/// @param before whether a pair ranks before another one
/// @returns the lists; see `valid`
template <class Before>
auction_outcome fairseq_auction(fairlead::matrix_view<float const> scores, int max_rounds, double max_seconds,
                                Before before) {
  using fairlead::index_t;
  constexpr int polite_rounds = 100;  // after those, winners no longer hold their tokens at any price
  index_t const tokens = scores.rows(), experts = scores.cols();
  auction_outcome out;
  if (experts < 2 || tokens % experts != 0 || tokens == 0) { return out; }
  auto const places = static_cast<std::size_t>(tokens / experts);
  auto const n = static_cast<std::size_t>(tokens);

  std::vector<float> worth(n * static_cast<std::size_t>(experts));  // by expert, then by token
  float lowest = std::numeric_limits<float>::infinity(), highest = -lowest;
  constexpr index_t tile = 16;
  for (index_t first = 0; first < tokens; first += tile) {
    for (index_t e = 0; e < experts; ++e) {
      for (index_t t = first; t < std::min(tokens, first + tile); ++t) {
        float const score = scores(t, e);
        worth[static_cast<std::size_t>(e) * n + static_cast<std::size_t>(t)] = score;
        lowest = std::min(lowest, score);
        highest = std::max(highest, score);
      }
    }
  }
  float const step = std::max((highest - lowest) / 50.0F, 1e-4F);
  std::vector<float> price(n, 0.0F), offer(n);
  std::vector<std::int32_t> holder(n, -1), winner(n);
  std::vector<std::pair<float, std::int32_t>> list(n);
  out.tokens_of.assign(static_cast<std::size_t>(experts), std::vector<std::int32_t>(places));

  auto const start = std::chrono::steady_clock::now();
  while (out.rounds < max_rounds &&
         std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < max_seconds) {
    bool const polite = out.rounds < polite_rounds;
    bool const holds = out.rounds > 0 && polite;
    bool const ceiling = out.rounds <= polite_rounds;  // what a holder sees was set in the round before
    for (std::size_t t = 0; t < n; ++t) {
      bool const held = holds && holder[t] >= 0;
      offer[t] = held ? step : 0.0F;
      winner[t] = held ? holder[t] : -1;
    }
    for (std::int32_t e = 0; e < experts; ++e) {
      float const* const row = worth.data() + static_cast<std::size_t>(e) * n;
      for (std::size_t t = 0; t < n; ++t) {
        float const own = ceiling ? highest : row[t];
        list[t] = {holder[t] == e && out.rounds > 0 ? own : row[t] - price[t], static_cast<std::int32_t>(t)};
      }
      std::nth_element(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(places), list.end(), before);
      float const next = list[places].first;
      auto& kept = out.tokens_of[static_cast<std::size_t>(e)];
      for (std::size_t i = 0; i < places; ++i) {
        auto const [value, token] = list[i];
        kept[i] = token;
        auto const t = static_cast<std::size_t>(token);
        // What was held already is held with the smallest bid only, whatever it is worth.
        float const bid = holds && holder[t] == e ? step : value - next + step;
        if (bid > offer[t] || (bid == offer[t] && bid > 0.0F && e < winner[t])) { offer[t] = bid, winner[t] = e; }
      }
    }
    bool all = true;
    for (std::size_t t = 0; t < n; ++t) {
      all = all && offer[t] > 0.0F;
      price[t] += offer[t];
      holder[t] = winner[t];
    }
    if (all) {
      out.finished = true;
      break;
    }
    ++out.rounds;
  }
  return out;
}

/// @brief The same, with equal values in the order that selection happens to leave them: what the published code does.
/// @param scores @shape{tokens x experts}
/// @param max_rounds cap
/// @param max_seconds cap
/// @returns the lists; see `valid`
inline auction_outcome fairseq_auction(fairlead::matrix_view<float const> scores, int max_rounds = 10000,
                                       double max_seconds = 600.0) {
  return fairseq_auction(scores, max_rounds, max_seconds,
                         [](auto const& a, auto const& b) { return a.first > b.first; });
}

}  // namespace fl_bench
