// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Seeded router logits whose choices follow a Zipf law over the experts.
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/workload/zipf.hpp>

#include <cmath>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace workload {

/// @brief Describe logits: logarithm of the expert's popularity plus Gumbel noise.
///
/// By the Gumbel-max identity the largest logit of a row falls on expert e with exactly e's share of the Zipf law, and
/// the k largest are a draw without replacement. Which expert is popular is shuffled by `popularity_seed`, which
/// ranks share; the noise is named by (seed, global row).
/// @source{gumbel1954, Statistical theory of extreme values, maximum of exponential races}
struct skewed_logits {
  index_t tokens = 0;                 ///< number of rows, >= 0
  index_t experts = 0;                ///< number of columns, >= 0
  double skew = 1.0;                  ///< Zipf exponent of the popularity, >= 0; 0 = uniform
  std::uint64_t seed = 0;             ///< names the noise
  index_t first_token = 0;            ///< global number of row 0, >= 0
  std::uint64_t popularity_seed = 0;  ///< names the order of popularity; equal on all ranks

  /// @brief Draw the logits.
  /// @returns the matrix @shape{tokens x experts}
  /// @throws contract_violation (level 1) on a negative size or skew; std::bad_alloc
  /// @complexity O(tokens x experts) time, allocates
  /// @determinism a function of (seeds, skew, experts, global row) for a given libm
  [[nodiscard]] matrix<float> make() const {
    FAIRLEAD_EXPECTS(tokens >= 0 && experts >= 0 && first_token >= 0, "sizes must not be negative", tokens, experts,
                     first_token);
    auto const shares = zipf_shares(experts, skew);
    auto const order = shuffled_ids(experts, popularity_seed);
    std::vector<double> popularity(shares.size());
    for (std::size_t i = 0; i < shares.size(); ++i) {
      popularity[static_cast<std::size_t>(order[i])] = std::log(shares[i]);
    }
    matrix<float> result(tokens, experts);
    for (index_t token = 0; token < tokens; ++token) {
      auto const stream = (std::uint64_t{0x6C6F67} << 40U) + static_cast<std::uint64_t>(first_token + token);
      for (index_t expert = 0; expert < experts; ++expert) {
        std::uint32_t const word = philox::draw(seed, stream, static_cast<std::uint64_t>(expert))[0];
        double const uniform = (static_cast<double>(word) + 0.5) * 0x1p-32;
        result(token, expert) =
            static_cast<float>(popularity[static_cast<std::size_t>(expert)] - std::log(-std::log(uniform)));
      }
    }
    return result;
  }
};

}  // namespace workload
FAIRLEAD_NAMESPACE_END
