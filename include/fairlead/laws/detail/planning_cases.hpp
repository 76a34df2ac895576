// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Clusters and loads that the checks of planners and slot assigners try.
#include <fairlead/core/philox.hpp>
#include <fairlead/core/topology.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws::detail {

// Whole numbers below a bound, one after the other.
class whole_numbers {
 public:
  whole_numbers(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}
  index_t below(index_t bound) {
    auto const words = philox::draw(seed_, stream_, index_++);
    std::uint64_t const word = (std::uint64_t{words[0]} << 31U) | (words[1] >> 1U);
    return bound <= 1 ? 0 : static_cast<index_t>(word % static_cast<std::uint64_t>(bound));
  }

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
  std::uint64_t index_ = 0;
};

inline constexpr int cluster_kinds = 7;
inline constexpr int load_kinds = 9;

// Slots over ranks and ranks over nodes. `kind` 0: even; 1: ragged ranks; 2: also ranks without slots; 3: one rank;
// 4: no slot to spare; 5: ragged nodes too; 6: as even, one slot to spare.
[[nodiscard]] inline topology planning_cluster(int kind, index_t ranks, index_t ranks_per_node, index_t slots,
                                               index_t experts, bool ragged, whole_numbers& draw) {
  if (kind == 3) { ranks = 1; }
  if (kind == 4) { slots = experts; }
  if (kind == 6) { slots = experts + 1; }
  std::vector<index_t> sizes(static_cast<std::size_t>(ranks), 0);
  index_t const hosting = kind == 2 && ragged && ranks > 1 ? ranks - 1 : ranks;
  index_t const without = hosting < ranks ? draw.below(ranks) : ranks;
  if (!ragged) {
    for (index_t& size : sizes) { size = (slots + ranks - 1) / ranks; }
  } else if (kind == 0 || kind == 3 || kind == 4 || kind == 6) {
    for (index_t r = 0; r < ranks; ++r) {
      sizes[static_cast<std::size_t>(r)] = slots / ranks + (r < slots % ranks ? 1 : 0);
    }
  } else {
    for (index_t slot = 0; slot < slots; ++slot) {  // all ranks but one, at random
      index_t const r = draw.below(hosting);
      ++sizes[static_cast<std::size_t>(r < without ? r : r + 1)];
    }
  }
  std::vector<index_t> slot_offsets(1, 0);
  for (index_t const size : sizes) { slot_offsets.push_back(slot_offsets.back() + size); }
  std::vector<index_t> node_offsets(1, 0);
  index_t const step = std::max<index_t>(ranks_per_node, 1);
  while (node_offsets.back() < ranks) {
    index_t const size = kind == 5 && ragged ? 1 + draw.below(2 * step) : step;
    node_offsets.push_back(std::min(ranks, node_offsets.back() + size));
  }
  return {node_offsets, slot_offsets};
}

// Loads. `kind` 0: none; 1: all on one expert; 2: all equal; 3: tied in pairs; 4: powers of two; 5: ones and zeros;
// 6: huge; others: random.
inline void planning_load(int kind, index_t largest, index_t huge, std::span<index_t> load, whole_numbers& draw) {
  std::size_t const lucky = load.empty() ? 0 : static_cast<std::size_t>(draw.below(static_cast<index_t>(load.size())));
  for (std::size_t e = 0; e < load.size(); ++e) {
    switch (kind) {
      case 0:
        load[e] = 0;
        break;
      case 1:
        load[e] = e == lucky ? largest : 0;
        break;
      case 2:
        load[e] = largest;
        break;
      case 3:
        load[e] = e % 2 == 1 ? load[e - 1] : draw.below(largest + 1);
        break;
      case 4:
        load[e] = index_t{1} << std::min<index_t>(draw.below(static_cast<index_t>(load.size())), 20);
        break;
      case 5:
        load[e] = draw.below(2);
        break;
      case 6:
        load[e] = draw.below(huge) + 1;
        break;
      default:
        load[e] = draw.below(largest + 1);
        break;
    }
  }
}

// The largest load of a rank when each replica takes an equal share. Needs every loaded expert placed.
[[nodiscard]] inline double largest_equal_share(topology const& cluster, std::span<index_t const> load,
                                                std::span<expert_id const> slots) {
  std::vector<index_t> replicas(load.size(), 0);
  for (expert_id const expert : slots) {
    if (expert != expert_id::none) { ++replicas[static_cast<std::size_t>(expert)]; }
  }
  double largest = 0.0;
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    double sum = 0.0;
    for (index_t slot = cluster.slot_offsets()[static_cast<std::size_t>(rank)];
         slot < cluster.slot_offsets()[static_cast<std::size_t>(rank) + 1]; ++slot) {
      expert_id const expert = slots[static_cast<std::size_t>(slot)];
      if (expert == expert_id::none) { continue; }
      auto const e = static_cast<std::size_t>(expert);
      sum += static_cast<double>(load[e]) / static_cast<double>(replicas[e]);
    }
    largest = std::max(largest, sum);
  }
  return largest;
}

// Whether two objectives are equal up to the rounding of sums.
[[nodiscard]] inline bool nearly_equal(double a, double b) noexcept {
  double const scale = std::max({a < 0.0 ? -a : a, b < 0.0 ? -b : b, 1e-300});
  double const gap = a < b ? b - a : a - b;
  return gap <= 1e-9 * scale;
}

}  // namespace laws::detail
FAIRLEAD_NAMESPACE_END
