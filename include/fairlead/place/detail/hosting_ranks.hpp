// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What placements without a load share: ranks that can host, shuffles, and the largest equal share.
#include <fairlead/core/philox.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// A sequence of random words named by (seed, stream).
class random_words {
 public:
  random_words(std::uint64_t seed, std::uint64_t stream) noexcept : seed_(seed), stream_(stream) {}
  /// A number in [0, bound).
  [[nodiscard]] index_t below(index_t bound) noexcept {
    if (at_ == 4) {
      words_ = philox::draw(seed_, stream_, block_++);
      at_ = 0;
    }
    return philox::below(words_[at_++], static_cast<std::uint32_t>(bound));
  }
  /// Fisher and Yates.
  template <class Value>
  void shuffle(std::span<Value> values) noexcept {
    for (std::size_t i = values.size(); i > 1; --i) {
      std::swap(values[i - 1], values[static_cast<std::size_t>(below(static_cast<index_t>(i)))]);
    }
  }

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
  std::uint64_t block_ = 0;
  std::array<std::uint32_t, 4> words_{};
  std::size_t at_ = 4;
};

/// Ranks with more than `row` slots, ascending, into `out`; returns how many. @shape{out: ranks}
inline index_t ranks_with_row(topology const& cluster, index_t row, std::span<std::int32_t> out) noexcept {
  index_t count = 0;
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    if (cluster.slots(rank) > row) { out[static_cast<std::size_t>(count++)] = static_cast<std::int32_t>(rank); }
  }
  return count;
}

/// Most slots of a rank.
[[nodiscard]] inline index_t most_slots(topology const& cluster) noexcept {
  index_t most = 0;
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) { most = std::max(most, cluster.slots(rank)); }
  return most;
}

/// Number of nodes that have a slot: what rules for numbers of replicas take for the nodes.
[[nodiscard]] inline index_t nodes_with_slots(topology const& cluster) noexcept {
  auto const first = cluster.node_offsets();
  auto const slot = cluster.slot_offsets();
  index_t count = 0;
  for (std::size_t node = 0; node + 1 < first.size(); ++node) {
    count += slot[static_cast<std::size_t>(first[node])] < slot[static_cast<std::size_t>(first[node + 1])] ? 1 : 0;
  }
  return count;
}

/// Largest load of a rank when each replica takes an equal share; `counts` is scratch. @shape{counts: experts}
[[nodiscard]] inline double largest_share(topology const& cluster, std::span<index_t const> load,
                                          std::span<expert_id const> slots, std::span<index_t> counts) noexcept {
  std::fill(counts.begin(), counts.end(), index_t{0});
  for (expert_id const expert : slots) {
    if (expert != expert_id::none) { ++counts[static_cast<std::size_t>(expert)]; }
  }
  double largest = 0.0;
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    double sum = 0.0;
    for (index_t slot = cluster.slot_offsets()[static_cast<std::size_t>(rank)];
         slot < cluster.slot_offsets()[static_cast<std::size_t>(rank) + 1]; ++slot) {
      expert_id const expert = slots[static_cast<std::size_t>(slot)];
      if (expert == expert_id::none) { continue; }
      auto const e = static_cast<std::size_t>(expert);
      sum += static_cast<double>(load[e]) / static_cast<double>(counts[e]);
    }
    largest = std::max(largest, sum);
  }
  return largest;
}

/// Load of a hosting rank when all have the same.
[[nodiscard]] inline double mean_share(topology const& cluster, std::span<index_t const> load) noexcept {
  double sum = 0.0;
  for (index_t const one : load) { sum += static_cast<double>(one); }
  index_t const ranks = cluster.hosting_ranks();
  return ranks == 0 ? 0.0 : sum / static_cast<double>(ranks);
}

/// The same, of the experts that have a replica.
[[nodiscard]] inline double mean_share(topology const& cluster, std::span<index_t const> load, std::span<index_t const> replicas) noexcept {
  double sum = 0.0;
  for (std::size_t e = 0; e < load.size(); ++e) { sum += replicas[e] > 0 ? static_cast<double>(load[e]) : 0.0; }
  index_t const ranks = cluster.hosting_ranks();
  return ranks == 0 ? 0.0 : sum / static_cast<double>(ranks);
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
