// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Deal out copies on a device: the place of each copy among those of its expert, then a search in the quotas.
#include <fairlead/core/copy_pieces.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/cuda/counting.cuh>
#include <fairlead/cuda/memory.cuh>

#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace kernels {

/// @brief targets[copy] = where the copy with this place among those of its expert goes; see `target_of`. In place:
/// `targets` holds the places before.
template <class Expert>
__global__ void look_up_targets(Expert const* copies, index_t count, std::int32_t const* offsets, count_t const* ends,
                                std::int32_t const* where_to, std::int32_t* targets) {
  index_t const step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    targets[i] = target_of(offsets, ends, where_to, static_cast<std::int32_t>(copies[i]), targets[i]);
  }
}

/// @brief Scratch of `deal_copies` on a device.
/// @param experts number of experts
/// @param tiles most blocks that count; the backend's `concurrency()`
/// @returns bytes
[[nodiscard]] inline std::size_t deal_copies_bytes(index_t experts, index_t tiles) noexcept {
  return workspace_bytes<count_t>(tiles * experts) + workspace_bytes<count_t>(2 * experts);
}

/// @brief Deal out copies: the text of both public forms, on raw pointers.
/// @param stream CUDA stream
/// @param copies expert of each copy, or none. @shape{count}
/// @param count number of copies
/// @param experts number of experts
/// @param order who is dealt first
/// @param offsets see `copy_pieces`
/// @param ends see `copy_pieces`
/// @param where_to see `copy_pieces`, its targets
/// @param[out] targets target of each copy, or -1. @shape{count}
/// @param tiles most blocks that count
/// @param ws device scratch, `deal_copies_bytes`
/// @throws cuda_error if a launch is refused
/// @complexity O(count log pieces + tiles x experts) work, no allocation, no synchronisation
/// @determinism integers; no result depends on timing
inline void deal_by_pieces(cudaStream_t stream, expert_id const* copies, index_t count, index_t experts, copy_order const& order,
                           std::int32_t const* offsets, count_t const* ends, std::int32_t const* where_to, std::int32_t* targets,
                           index_t tiles, workspace& ws) {
  if (count == 0) { return; }
  if (experts == 0) {  // no copy has an expert
    check(cudaMemsetAsync(targets, 0xFF, static_cast<std::size_t>(count) * sizeof(std::int32_t), stream), "clearing targets");
    return;
  }
  workspace::scope const scope(ws);
  auto const counts = ws.take<count_t>(tiles * experts);
  auto const totals = ws.take<count_t>(2 * experts);
  number_copies(stream, copies, count, experts, order, counts.data(), tiles, totals.data(), targets);
  look_up_targets<<<grid_size(count, 256, 4096), 256, 0, stream>>>(copies, count, offsets, ends, where_to, targets);
  check_launch("look_up_targets");
}

}  // namespace kernels

/// @brief Deal out copies on a device: equal to `deal_copies` on the host.
/// @param on CUDA backend
/// @param copies expert of each copy in service order, or none; device memory. @shape{copies}
/// @param pieces where they go; device memory
/// @param[out] targets target of each copy, -1 for none; device memory. @shape{copies}
/// @param ws device scratch, `kernels::deal_copies_bytes(experts, on.concurrency())`
/// @throws contract_violation (level 1) on a shape mismatch or more than 12288 experts; cuda_error if a launch is refused
/// @complexity O(copies log pieces + experts) work in four launches, no allocation, no synchronisation
/// @determinism integers; equal to the host
template <cuda_backend Backend>
void deal_copies(Backend const& on, std::span<expert_id const> copies, copy_pieces const& pieces, std::span<std::int32_t> targets,
                 workspace& ws) {
  FAIRLEAD_EXPECTS(copies.size() == targets.size(), "one target a copy", copies.size(), targets.size());
  auto const count = static_cast<index_t>(copies.size());
  kernels::deal_by_pieces(on.native(), copies.data(), count, pieces.experts(), {.tokens = count}, pieces.offsets.data(),
                          pieces.ends.data(), pieces.targets.data(), targets.data(), on.concurrency(), ws);
}

FAIRLEAD_NAMESPACE_END
