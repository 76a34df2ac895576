// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Place experts in order, one replica each: the placement of plain expert parallelism.
#include <fairlead/concepts/planner.hpp>

#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Give rank r the experts [r E / W, (r + 1) E / W), rounded down: one replica each, no empty slot.
///
/// Experts need not divide by ranks: slot counts then differ by at most one. With fewer experts than ranks some ranks
/// have no slot.
struct contiguous_placement {
  /// @brief Place experts before any load is known.
  /// @param ranks number of ranks W, >= 1
  /// @param experts number of experts E, >= 0
  /// @returns the placement
  /// @throws contract_violation (level 1) if there is no rank or a negative number of experts
  /// @complexity O(ranks + experts), allocates
  /// @determinism exact: equal on every rank
  [[nodiscard]] placement initial(index_t ranks, index_t experts) const {
    FAIRLEAD_EXPECTS(ranks >= 1, "a placement needs at least one rank", ranks);
    FAIRLEAD_EXPECTS(experts >= 0, "the number of experts must not be negative", experts);
    std::vector<index_t> offsets(static_cast<std::size_t>(ranks) + 1);
    for (index_t rank = 0; rank <= ranks; ++rank) { offsets[static_cast<std::size_t>(rank)] = rank * experts / ranks; }
    std::vector<expert_id> slots(static_cast<std::size_t>(experts));
    for (index_t e = 0; e < experts; ++e) { slots[static_cast<std::size_t>(e)] = static_cast<expert_id>(e); }
    return {experts, offsets, slots};
  }
};
static_assert(planner<contiguous_placement>);

FAIRLEAD_NAMESPACE_END
