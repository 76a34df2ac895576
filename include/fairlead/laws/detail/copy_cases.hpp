// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Random clusters, tables and loads for the kits of planning.
#include <fairlead/core/load.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/core/plan.hpp>
#include <fairlead/core/topology.hpp>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws::detail {

// Numbers of one case, drawn one after another.
class case_numbers {
 public:
  case_numbers(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}
  [[nodiscard]] index_t below(index_t bound) {
    auto const word = philox::draw(seed_, stream_, index_++)[0];
    return static_cast<index_t>(philox::below(word, static_cast<std::uint32_t>(std::max<index_t>(bound, 1))));
  }

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
  std::uint64_t index_ = 0;
};

// Ragged nodes; slots of a rank `least` to `most`, or all equal. Every third cluster has a rank without slots.
[[nodiscard]] inline topology random_cluster(case_numbers& draw, index_t ranks, index_t least, index_t most) {
  std::vector<index_t> nodes(1, 0);
  while (nodes.back() < ranks) { nodes.push_back(std::min(ranks, nodes.back() + 1 + draw.below(3))); }
  bool const even = draw.below(2) == 0;
  bool const hole = ranks > 1 && draw.below(3) == 0;
  index_t const closed = draw.below(ranks);
  index_t const common = least + draw.below(most - least + 1);
  std::vector<index_t> slots(1, 0);
  for (index_t rank = 0; rank < ranks; ++rank) {
    index_t const mine = even ? common : least + draw.below(most - least + 1);
    slots.push_back(slots.back() + (hole && rank == closed ? 0 : mine));
  }
  return {nodes, slots};
}

// Every expert at least once if there is room, the other slots random or empty.
[[nodiscard]] inline std::vector<expert_id> random_table(case_numbers& draw, index_t slots, index_t experts) {
  std::vector<expert_id> table;
  for (index_t slot = 0; slot < slots; ++slot) {
    table.push_back(static_cast<expert_id>(slot < experts ? slot : draw.below(experts + 1) - 1));
  }
  for (std::size_t i = table.size(); i > 1; --i) {
    std::swap(table[i - 1], table[static_cast<std::size_t>(draw.below(static_cast<index_t>(i)))]);
  }
  return table;
}

}  // namespace laws::detail
FAIRLEAD_NAMESPACE_END
