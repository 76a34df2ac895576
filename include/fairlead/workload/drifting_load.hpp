// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Seeded loads that change from micro-batch to micro-batch.
#include <fairlead/core/load.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/workload/zipf.hpp>

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace workload {

/// @brief Describe a sequence of load matrices: Zipf popularity times a drifting lognormal factor.
///
/// The logarithm of expert e's popularity in micro-batch m is log zipf(e) + spread * x(m, e), where x is a stationary
/// first-order autoregression with unit variance: x(m) = persistence * x(m - 1) + sqrt(1 - persistence^2) * noise.
/// persistence 1 never changes, 0 redraws every micro-batch. Each source rank multiplies its own lognormal factor on
/// top (`rank_spread`), and its copies are apportioned to whole numbers, so that every row adds up exactly.
struct drifting_load {
  index_t ranks = 1;           ///< source ranks, >= 0
  index_t experts = 1;         ///< experts, >= 1
  index_t copies = 0;          ///< copies of each source rank, 0 <= copies < 2^31
  double skew = 1.0;           ///< Zipf exponent of the mean popularity, >= 0
  double spread = 0.5;         ///< standard deviation of the drifting factor's logarithm, >= 0
  double persistence = 0.9;    ///< correlation of the factor from one micro-batch to the next, in [0, 1]
  double rank_spread = 0.1;    ///< standard deviation of the ranks' own factor's logarithm, >= 0
  std::uint64_t seed = 0;      ///< names the sequence; equal on all ranks

  /// @brief Draw the first micro-batches.
  /// @param micro_batches how many, >= 0
  /// @returns their loads, each @shape{ranks x experts}
  /// @throws contract_violation (level 1) on a bad field; std::bad_alloc
  /// @complexity O(micro_batches x ranks x experts log experts), allocates
  /// @determinism a function of the fields for a given libm; a longer sequence begins with the shorter one
  [[nodiscard]] std::vector<matrix<count_t>> make(index_t micro_batches) const {
    check();
    FAIRLEAD_EXPECTS(micro_batches >= 0, "the number of micro-batches must not be negative", micro_batches);
    std::vector<double> factor(static_cast<std::size_t>(experts), 0.0);
    std::vector<matrix<count_t>> result;
    result.reserve(static_cast<std::size_t>(micro_batches));
    for (index_t m = 0; m < micro_batches; ++m) {
      advance(m, factor);
      result.push_back(load_of(m, factor));
    }
    return result;
  }

  /// @brief Draw one micro-batch.
  /// @param micro_batch its number, >= 0
  /// @returns its load, equal to `make(n)[micro_batch]` @shape{ranks x experts}
  /// @throws contract_violation (level 1) on a bad field; std::bad_alloc
  /// @complexity O(experts x (micro_batch + ranks log experts)), allocates
  [[nodiscard]] matrix<count_t> at(index_t micro_batch) const {
    check();
    FAIRLEAD_EXPECTS(micro_batch >= 0, "the number of a micro-batch must not be negative", micro_batch);
    std::vector<double> factor(static_cast<std::size_t>(experts), 0.0);
    for (index_t m = 0; m <= micro_batch; ++m) { advance(m, factor); }
    return load_of(micro_batch, factor);
  }

 private:
  void check() const {
    FAIRLEAD_EXPECTS(ranks >= 0 && experts >= 1 && copies >= 0 && copies <= INT32_MAX,
                     "a load needs ranks >= 0, experts >= 1 and 0 <= copies < 2^31", ranks, experts, copies);
    FAIRLEAD_EXPECTS(spread >= 0.0 && rank_spread >= 0.0 && persistence >= 0.0 && persistence <= 1.0,
                     "spreads must not be negative and persistence must be in [0, 1]", spread, rank_spread, persistence);
  }
  void advance(index_t micro_batch, std::span<double> factor) const {
    double const keep = micro_batch == 0 ? 0.0 : persistence;
    double const fresh = std::sqrt(1.0 - keep * keep);
    auto const stream = (std::uint64_t{0x647266} << 40U) + static_cast<std::uint64_t>(micro_batch);
    for (std::size_t expert = 0; expert < factor.size(); ++expert) {
      factor[expert] = keep * factor[expert] + fresh * philox::normal(seed, stream, expert);
    }
  }
  [[nodiscard]] matrix<count_t> load_of(index_t micro_batch, std::span<double const> factor) const {
    auto const shares = zipf_shares(experts, skew);
    auto const order = shuffled_ids(experts, seed);
    matrix<count_t> load(ranks, experts);
    std::vector<double> weights(factor.size());
    auto const stream = (std::uint64_t{0x726E6B} << 40U) + static_cast<std::uint64_t>(micro_batch);
    for (index_t rank = 0; rank < ranks; ++rank) {
      for (std::size_t i = 0; i < weights.size(); ++i) {
        auto const expert = static_cast<std::size_t>(order[i]);
        auto const index = static_cast<std::uint64_t>(rank * experts) + expert;
        weights[expert] =
            shares[i] * std::exp(spread * factor[expert] + rank_spread * philox::normal(seed, stream, index));
      }
      auto const counts = apportion(weights, copies);
      for (std::size_t expert = 0; expert < counts.size(); ++expert) {
        load(rank, static_cast<index_t>(expert)) = static_cast<count_t>(counts[expert]);
      }
    }
    return load;
  }
};

}  // namespace workload
FAIRLEAD_NAMESPACE_END
