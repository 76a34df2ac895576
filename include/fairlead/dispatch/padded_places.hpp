// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How many rows each expert has in a buffer of static shape.
#include <fairlead/dispatch/capacity.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Rows of each expert in a buffer that is padded to the capacity, as frameworks with static shapes allocate it.
///
/// That is the number of places, whatever the load (Megatron's pad_to_capacity, DeepSpeed, Tutel); where there is no
/// limit, the largest load (DeepSpeed without drops, MegaBlocks with factor 0, Tutel with factor 0). The dispatchers of
/// this library keep ragged buffers and need none of it: this is for kernels and frameworks that want [experts, rows].
/// @tparam Capacity a model of `capacity_policy`
/// @param policy the capacity
/// @param largest_load most copies of one expert, over all ranks that share the shape, >= 0
/// @param tokens what the policy's scope counts
/// @param experts all experts
/// @param fan_out experts a token
/// @param ranks all ranks
/// @param alignment the result is a multiple of it, >= 1 (DeepSpeed: the tensor-parallel ranks)
/// @returns rows per expert
/// @throws contract_violation (level 1) on a bad size
/// @complexity O(1)
/// @source{DeepSpeed, sharded_moe; Megatron-core, apply_router_token_dropping; MegaBlocks, layers/moe}
template <capacity_policy Capacity>
[[nodiscard]] constexpr index_t padded_places(Capacity const& policy, index_t largest_load, index_t tokens,
                                              index_t experts, index_t fan_out, index_t ranks, index_t alignment = 1) {
  FAIRLEAD_EXPECTS(largest_load >= 0 && alignment >= 1, "the largest load must not be negative, the alignment positive",
                   largest_load, alignment);
  index_t const places = policy.places(tokens, experts, fan_out, ranks);
  index_t const rows = places == unlimited_places ? largest_load : places;
  return (rows + alignment - 1) / alignment * alignment;
}
/// @brief The same for Tutel, where a factor of 0 or below follows the load, up to a limit if it is negative.
/// @param policy the capacity; its alignment applies
/// @param largest_load most copies of one expert, over all ranks of the group, >= 0
/// @param tokens tokens of this source rank, or the most of any
/// @param experts all experts
/// @param fan_out experts a token
/// @param ranks all ranks
/// @returns rows per expert
/// @throws contract_violation (level 1) on a bad size
/// @complexity O(1)
/// @source{Tutel, impls/fast_dispatch extract_critical}
[[nodiscard]] constexpr index_t padded_places(tutel_capacity const& policy, index_t largest_load, index_t tokens,
                                              index_t experts, index_t fan_out, index_t ranks) {
  FAIRLEAD_EXPECTS(largest_load >= 0, "the largest load must not be negative", largest_load);
  index_t const places = policy.places(tokens, experts, fan_out, ranks);
  index_t const rows = policy.factor > 0.0 ? places : std::min(largest_load, places);
  return (rows + policy.alignment - 1) / policy.alignment * policy.alignment;
}

/// @brief Tutel's alignment: shards x overlap degree, above 256 a multiple of 128.
/// @param shards parts that the experts' width is cut into, >= 1
/// @param overlap degree of overlap of exchange and computation, >= 1
/// @returns the alignment
/// @throws contract_violation (level 1) on a bad size
/// @source{Tutel, impls/moe_layer}
[[nodiscard]] constexpr index_t tutel_alignment(index_t shards, index_t overlap) {
  FAIRLEAD_EXPECTS(shards >= 1 && overlap >= 1, "shards and overlap must be positive", shards, overlap);
  index_t const alignment = shards * overlap;
  return alignment > 256 ? (alignment + 127) / 128 * 128 : alignment;
}

FAIRLEAD_NAMESPACE_END
