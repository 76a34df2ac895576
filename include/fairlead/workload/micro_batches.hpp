// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Seeded problems of token scheduling: random placements, and expert loads of one micro-batch after another.
#include <fairlead/core/placement.hpp>
#include <fairlead/workload/zipf.hpp>

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace workload {

/// @brief Place every expert on equally many distinct ranks at random, every rank with equally many slots if it divides.
/// @param ranks number of ranks, >= 1
/// @param experts number of experts, >= 0
/// @param replicas hosts of each expert, 1 <= replicas <= ranks
/// @param seed names the placement
/// @returns the placement: ranks differ by at most one slot
/// @throws contract_violation (level 1) on a bad size; std::bad_alloc
/// @complexity O(experts x replicas^2) expected, allocates
/// @determinism exact: equal on every rank
[[nodiscard]] inline placement random_hosts(index_t ranks, index_t experts, index_t replicas, std::uint64_t seed) {
  FAIRLEAD_EXPECTS(ranks >= 1 && experts >= 0 && replicas >= 1 && replicas <= ranks, "an expert needs 1 to `ranks` distinct hosts", ranks,
                   experts, replicas);
  index_t const slots = experts * replicas;
  auto const order = shuffled_ids(slots, seed);
  std::vector<index_t> host(static_cast<std::size_t>(slots));
  for (std::size_t i = 0; i < host.size(); ++i) { host[i] = order[i] % ranks; }
  // Swap away second replicas on one rank; every swap keeps the number of slots of each rank.
  auto const clashes = [&](index_t slot) {
    index_t const first = slot / replicas * replicas;
    for (index_t other = first; other < first + replicas; ++other) {
      if (other != slot && host[static_cast<std::size_t>(other)] == host[static_cast<std::size_t>(slot)]) { return true; }
    }
    return false;
  };
  std::uint64_t draws = 0;
  for (index_t slot = 0; slot < slots; ++slot) {
    while (clashes(slot)) {
      auto const word = philox::draw(seed, 0x686F7374, draws++)[0];
      auto const other = static_cast<index_t>(philox::below(word, static_cast<std::uint32_t>(slots)));
      std::swap(host[static_cast<std::size_t>(slot)], host[static_cast<std::size_t>(other)]);
      // A partner that clashes now and lies behind is met again when its turn comes; one that lies before is swapped back.
      if (other < slot && clashes(other)) { std::swap(host[static_cast<std::size_t>(slot)], host[static_cast<std::size_t>(other)]); }
    }
  }
  std::vector<index_t> offsets(static_cast<std::size_t>(ranks) + 1, 0);
  for (index_t const rank : host) { ++offsets[static_cast<std::size_t>(rank) + 1]; }
  for (std::size_t r = 1; r < offsets.size(); ++r) { offsets[r] += offsets[r - 1]; }
  std::vector<index_t> next(offsets.begin(), offsets.end() - 1);
  std::vector<expert_id> table(static_cast<std::size_t>(slots));
  for (index_t slot = 0; slot < slots; ++slot) {
    index_t& at = next[static_cast<std::size_t>(host[static_cast<std::size_t>(slot)])];
    table[static_cast<std::size_t>(at++)] = static_cast<expert_id>(slot / replicas);
  }
  return {experts, offsets, table};
}

/// @brief Describe expert loads of a sequence of micro-batches.
struct micro_batches {
  index_t experts = 1;        ///< experts, >= 1
  index_t copies = 0;         ///< copies of a micro-batch over all ranks, >= 0
  double skew = 1.0;          ///< exponent of the Zipf law
  bool redraw = false;        ///< whether popularities change owners every micro-batch; else each gets its own noise
  double noise = 0.1;         ///< standard deviation of the logarithm of that noise
  std::uint64_t seed = 0;     ///< names the sequence

  /// @brief Draw one micro-batch.
  /// @param micro_batch its number, >= 0
  /// @returns copies an expert, with sum `copies`. @shape{experts}
  /// @throws contract_violation (level 1) on a bad field; std::bad_alloc
  /// @complexity O(experts log experts), allocates
  /// @determinism a function of the fields for a given libm
  [[nodiscard]] std::vector<index_t> at(index_t micro_batch) const {
    FAIRLEAD_EXPECTS(experts >= 1 && copies >= 0 && micro_batch >= 0, "micro-batches need an expert and no negative numbers", experts, copies,
                     micro_batch);
    auto const shares = zipf_shares(experts, skew);
    auto const number = static_cast<std::uint64_t>(micro_batch);
    auto const owner = shuffled_ids(experts, redraw ? seed + 0x9E3779B97F4A7C15ULL * (number + 1) : seed);
    std::vector<double> weights(shares.size());
    for (std::size_t i = 0; i < shares.size(); ++i) {
      double const factor = redraw ? 1.0 : std::exp(noise * philox::normal(seed, (std::uint64_t{0x6E6F69} << 40U) + number, i));
      weights[static_cast<std::size_t>(owner[i])] = shares[i] * factor;
    }
    return apportion(weights, copies);
  }
};

}  // namespace workload
FAIRLEAD_NAMESPACE_END
