// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief From the prices of single micro-batches to one selection bias for all ranks.
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/core/order.hpp>
#include <fairlead/core/routing.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The running sum of prices in a global batch: the state of the controllers that read scores.
///
/// A micro-batch weighs as much as it has valid tokens, so equal micro-batches weigh alike and an empty one nothing.
/// Between global batches the sums are zero and the state is equal on every rank.
struct price_average {
  std::vector<double> sums;  ///< price x tokens of this rank since the last global batch, then tokens. @shape{experts + 1}
  index_t updates = 0;       ///< global batches that moved the bias so far

  /// @brief Visit the arrays of the state.
  /// @param self the state
  /// @param f called with a span of each array
  template <class Self, class Function>
  static void each_array(Self& self, Function&& f) {
    f(std::span(self.sums));
    f(std::span(&self.updates, 1));
  }
  /// @brief Make an empty sum.
  /// @param experts number of experts, >= 1
  /// @returns zeros
  /// @throws contract_violation (level 1) without experts; std::bad_alloc
  [[nodiscard]] static price_average make(index_t experts) {
    FAIRLEAD_EXPECTS(experts >= 1, "a bias controller needs experts", experts);
    return {std::vector<double>(static_cast<std::size_t>(experts + 1), 0.0), 0};
  }
  /// @brief Take in the prices of a micro-batch.
  /// @param prices finite. @shape{experts}
  /// @param tokens valid tokens of the micro-batch, their weight, >= 0
  /// @throws contract_violation (level 1) on a wrong size
  /// @complexity O(experts), no allocation
  void add(std::span<double const> prices, index_t tokens) {
    FAIRLEAD_EXPECTS(prices.size() + 1 == sums.size(), "one price an expert", prices.size(), sums.size());
    auto const weight = static_cast<double>(tokens);
    for (std::size_t e = 0; e < prices.size(); ++e) { sums[e] += weight * prices[e]; }
    sums.back() += weight;
  }
  /// @brief Average over ranks and micro-batches, mix with the old bias, subtract the mean, and forget the sums.
  ///
  /// The first n updates are plain running means while 1/(n + 1) is larger than 1 - decay, so that a start from zero
  /// does not drag on.
  /// @param on host backend
  /// @param comm communicator
  /// @param decay share of the old bias that stays, 0 ... 1, without 1
  /// @param[in,out] bias minus the price of each expert; unchanged if no rank learned anything. @shape{experts}
  /// @throws contract_violation (level 1) on a wrong size or decay
  /// @complexity O(experts), one reduction of experts + 1 doubles; no allocation
  /// @determinism the same bits on every rank: reduced sums are, and nothing else enters
  /// @collective all ranks
  template <execution_backend Backend, communicator Comm>
    requires has_all_reduce<Comm, double, Backend>
  void move(Backend const& on, Comm& comm, double decay, std::span<float> bias) {
    FAIRLEAD_EXPECTS(bias.size() + 1 == sums.size(), "one bias an expert", bias.size(), sums.size());
    FAIRLEAD_EXPECTS(decay >= 0.0 && decay < 1.0, "decay must be in [0, 1)", decay);
    comm.all_reduce(on, std::span<double>(sums), reduction::sum).wait();
    double const weight = sums.back();
    if (weight > 0.0) {
      double const fresh = std::max(1.0 - decay, 1.0 / static_cast<double>(updates + 1));
      double mean = 0.0;
      for (std::size_t e = 0; e < bias.size(); ++e) {
        double const old = -static_cast<double>(bias[e]);
        sums[e] = old + fresh * (sums[e] / weight - old);
        mean += sums[e];
      }
      mean /= static_cast<double>(bias.size());
      for (std::size_t e = 0; e < bias.size(); ++e) { bias[e] = static_cast<float>(mean - sums[e]); }
      ++updates;
    }
    std::fill(sums.begin(), sums.end(), 0.0);
  }
};

// A namespace of its own: the names are too plain for one that all modules share.
namespace detail::prices {

/// Tokens that are not padding.
[[nodiscard]] inline index_t valid_tokens(std::span<std::uint8_t const> mask, index_t tokens) noexcept {
  return mask.empty() ? tokens
                      : static_cast<index_t>(std::count_if(mask.begin(), mask.end(), [](std::uint8_t v) { return v != 0; }));
}
/// Whether the mask allows an expert.
[[nodiscard]] inline bool usable(std::span<std::uint8_t const> mask, std::size_t expert) noexcept {
  return mask.empty() || mask[expert] != 0;
}
/// Number of experts that the mask allows.
[[nodiscard]] inline index_t usable_experts(std::span<std::uint8_t const> mask, index_t experts) noexcept {
  return valid_tokens(mask, experts);
}
/// Marks the tokens that have as many candidates as choices. Stops at the last one, so that finite rows cost O(choices).
/// @returns how many there are
[[nodiscard]] inline index_t mark_choosers(matrix_view<float const> scores, index_t fan_out, route_context const& context,
                                           std::span<std::uint8_t> marks) noexcept {
  index_t count = 0;
  for (index_t t = 0; t < scores.rows(); ++t) {
    auto const at = static_cast<std::size_t>(t);
    float const* const row = scores.row(t);
    index_t found = 0;
    for (index_t e = 0; e < scores.cols() && found < fan_out; ++e) {
      found += usable(context.expert_mask, static_cast<std::size_t>(e)) && is_candidate(row[e]) ? 1 : 0;
    }
    marks[at] = found == fan_out && usable(context.token_mask, at) ? 1 : 0;
    count += marks[at];
  }
  return count;
}
/// Copies over the usable experts as evenly as integers allow; the first ones take one more.
inline void usable_capacity(index_t copies, std::span<std::uint8_t const> mask, std::span<index_t> capacity) noexcept {
  auto const experts = static_cast<index_t>(capacity.size());
  index_t const many = std::max<index_t>(usable_experts(mask, experts), 1);
  index_t place = 0;
  for (std::size_t e = 0; e < capacity.size(); ++e) {
    capacity[e] = usable(mask, e) ? copies / many + (place++ < copies % many ? 1 : 0) : 0;
  }
}
/// Shifts the prices of usable experts to the mean of their old ones, and leaves the others at their old prices: solvers
/// may shift all prices alike, and an expert that nobody may use has none.
inline void join_prices(std::span<double const> old, std::span<std::uint8_t const> mask, std::span<double> prices) {
  double shift = 0.0;
  index_t many = 0;
  for (std::size_t e = 0; e < prices.size(); ++e) {
    if (usable(mask, e)) {
      shift += old[e] - prices[e];
      ++many;
    }
  }
  shift /= static_cast<double>(std::max<index_t>(many, 1));
  for (std::size_t e = 0; e < prices.size(); ++e) { prices[e] = usable(mask, e) ? prices[e] + shift : old[e]; }
}

}  // namespace detail::prices
FAIRLEAD_NAMESPACE_END
