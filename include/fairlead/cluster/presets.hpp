// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Clusters that publications measured, as values of cost models.
#include <fairlead/cluster/pair_sum_cost.hpp>

FAIRLEAD_NAMESPACE_BEGIN
/// Numbers of clusters that publications measured.
namespace presets {

/// @brief 4 nodes of 8 A100-80GB, hidden width 4096 in bfloat16, expert width 14336, recomputation on.
///
/// The bandwidth between nodes is that of a whole node, which the model uses for one pair of ranks; 1.484375 us a copy is
/// 6.08 ms for 4096 copies (the published loader reads another entry of its table, 1.638 us).
/// @source{2602.11686, configuration files of its artifact}
inline constexpr pair_sum_cost a100x32_laer{.token_bytes = 8192.0,
                                            .intra_bytes_per_s = 216.269e9,
                                            .inter_bytes_per_s = 88.9539e9,
                                            .seconds_per_copy = 1.484375e-6,
                                            .recompute = true,
                                            .exchanges = 4};

/// @brief The shape of that cluster.
/// @param slots_per_rank expert slots of each rank, >= 0 (2 for 8 experts, 4 for 16 in the publication)
/// @returns 32 ranks on 4 nodes
[[nodiscard]] inline topology a100x32(index_t slots_per_rank) { return {32, slots_per_rank, 8}; }

}  // namespace presets
FAIRLEAD_NAMESPACE_END
