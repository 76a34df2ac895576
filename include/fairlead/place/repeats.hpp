// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Whether a rank may hold two replicas of one expert.
#include <fairlead/core/config.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Whether a rank may hold two replicas of one expert: each counts for an equal share, but the second holds the
/// same weights again.
enum class repeats_on_a_rank {
  allowed,   ///< where it balances loads; what EPLB does
  avoided,   ///< only where packing around them and single swaps find no other place (`distinct_ranks` finds one wherever
             ///< there is one); the report counts them
  forbidden  ///< never: a planner leaves the slot empty, an assigner with fixed numbers of replicas says infeasible
};

FAIRLEAD_NAMESPACE_END
