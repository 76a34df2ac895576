// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Gate scores of a slot's tokens: softmax of normal logits, with servers that the gate likes more than others.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/core/numeric.hpp>
#include <fairlead/core/philox.hpp>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace workload {

/// @brief Describe scores: softmax over servers of N(0, 1) plus a bias a server, itself normal with deviation `skew`.
///
/// The bias is drawn once, by `popularity_seed`, and holds for all slots. Any row of any slot is drawn alone.
/// The logit of a server does not depend on how many servers there are.
struct gate_scores {
  index_t servers = 10;               ///< number of columns, >= 0
  double skew = 0.0;                  ///< standard deviation of the biases, 0 to 1e30; 0 = the gate has no favourites
  std::uint64_t seed = 0;             ///< names the logits
  std::uint64_t popularity_seed = 0;  ///< names the biases

  /// The largest skew: logits must stay in fp32.
  static constexpr double max_skew = 1e30;

  /// @param server number of the server
  /// @returns what is added to its logits
  [[nodiscard]] double bias(index_t server) const {
    return skew * philox::normal(popularity_seed, std::uint64_t{0x706F70} << 40U, static_cast<std::uint64_t>(server));
  }

  /// @brief Write the scores of a slot's tokens.
  /// @param slot number of the slot, below 2^40
  /// @param[out] scores rows with sum 1. @shape{tokens x servers}
  /// @throws contract_violation (level 1) on a wrong width, or a skew that is negative or above `max_skew`
  /// @complexity O(tokens x servers), no allocation
  /// @determinism a function of (seeds, skew, servers, slot, row); equal bits for equal libm
  void fill(std::uint64_t slot, matrix_view<float> scores) const {
    FAIRLEAD_EXPECTS(servers >= 0 && (scores.rows() == 0 || scores.cols() == servers), "one column a server", scores.cols(), servers);
    FAIRLEAD_EXPECTS(skew >= 0.0 && skew <= max_skew, "the skew must not be negative, and at most 1e30", skew);
    std::uint64_t const stream = (std::uint64_t{0x676174} << 40U) + slot;
    for (index_t server = 0; server < servers; ++server) {
      auto const fixed = static_cast<float>(bias(server));
      for (index_t row = 0; row < scores.rows(); ++row) { scores(row, server) = fixed; }
    }
    for (index_t row = 0; row < scores.rows(); ++row) {
      float* const values = scores.row(row);
      for (index_t first = 0; first < servers; first += 2) {
        // A block of random bits makes two logits.
        auto const words = philox::draw(seed, stream, (static_cast<std::uint64_t>(row) << 24U) + static_cast<std::uint64_t>(first / 2));
        values[first] += numeric::normal(words[0], words[1]);
        if (first + 1 < servers) { values[first + 1] += numeric::normal(words[2], words[3]); }
      }
      softmax(values);
    }
  }

 private:
  void softmax(float* values) const {
    float largest = servers > 0 ? values[0] : 0.0F;
    for (index_t j = 1; j < servers; ++j) { largest = values[j] > largest ? values[j] : largest; }
    float sum = 0.0F;
    for (index_t j = 0; j < servers; ++j) {
      values[j] = numeric::exp(values[j] - largest);
      sum += values[j];
    }
    float const scale = 1.0F / sum;
    for (index_t j = 0; j < servers; ++j) { values[j] *= scale; }
  }
};

}  // namespace workload
FAIRLEAD_NAMESPACE_END
