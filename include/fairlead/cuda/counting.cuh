// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A stable counting sort's numbering: the place of each copy among the copies of its expert.
#include <fairlead/cuda/error.cuh>
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>
#include <fairlead/core/load.hpp>

#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

#include <algorithm>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace kernels {

/// @brief In which order copies are numbered: by copy number, by choice and then token, or as a list says.
struct copy_order {
  std::int32_t const* sequence = nullptr;  ///< copy number of each place in line, or null
  index_t tokens = 0;                      ///< rows
  index_t fan_out = 1;                     ///< copies a token
  bool choice_major = false;               ///< all first choices before all second ones; without a sequence
  /// @param place place in line
  /// @returns copy number
  [[nodiscard]] FAIRLEAD_HD index_t copy(index_t place) const {
    if (sequence != nullptr) { return sequence[place]; }
    return choice_major ? place % tokens * fan_out + place / tokens : place;
  }
};

/// @brief How a numbering is cut into tiles: a block takes a tile, a warp a contiguous part of it.
struct counting_shape {
  static constexpr index_t shared_bytes = 48 * 1024;  ///< shared memory every device gives without asking
  static constexpr index_t most_experts = shared_bytes / static_cast<index_t>(sizeof(count_t));  ///< with one warp a block
  int warps = 8;             ///< warps of a block; fewer when the experts need the shared memory
  index_t warp_copies = 512;  ///< copies a warp walks, a multiple of 32
  index_t tiles = 1;         ///< blocks

  /// @param copies copies in all
  /// @param experts number of counters
  /// @param most_tiles limit of the scratch memory, >= 1
  [[nodiscard]] static counting_shape of(index_t copies, index_t experts, index_t most_tiles) {
    FAIRLEAD_EXPECTS(experts <= most_experts, "the device numbers the copies of at most 12288 experts", experts);
    counting_shape shape;
    index_t const fit = shared_bytes / (std::max<index_t>(experts, 1) * static_cast<index_t>(sizeof(count_t)));
    while (shape.warps > fit) { shape.warps /= 2; }
    index_t const each = (copies + most_tiles * shape.warps - 1) / (most_tiles * shape.warps);
    shape.warp_copies = std::max<index_t>(shape.warp_copies, (each + 31) / 32 * 32);
    shape.tiles = std::max<index_t>((copies + shape.tile_copies() - 1) / shape.tile_copies(), 1);
    return shape;
  }
  /// @returns copies of a tile
  [[nodiscard]] FAIRLEAD_HD index_t tile_copies() const { return warp_copies * warps; }
};

/// @brief counts[tile][expert] = copies of the expert in the tile. Shared memory: one counter an expert.
template <class Expert>
__global__ void count_tiles(counting_shape shape, Expert const* chosen, index_t copies, int experts, copy_order order,
                            count_t* counts) {
  extern __shared__ count_t histogram[];
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += static_cast<int>(blockDim.x)) { histogram[e] = 0; }
  __syncthreads();
  index_t const first = static_cast<index_t>(blockIdx.x) * shape.tile_copies();
  index_t const last = first + shape.tile_copies() < copies ? first + shape.tile_copies() : copies;
  for (index_t place = first + threadIdx.x; place < last; place += blockDim.x) {
    auto const expert = static_cast<int>(chosen[order.copy(place)]);
    if (expert >= 0) { atomicAdd(&histogram[expert], 1); }  // integers: the order of additions does not matter
  }
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += static_cast<int>(blockDim.x)) {
    counts[static_cast<index_t>(blockIdx.x) * experts + e] = histogram[e];
  }
}

inline constexpr int scan_threads = 128;  ///< threads of a block of `scan_tiles`

/// @brief counts[tile][e] becomes the copies of e in earlier tiles; totals[e] and again totals[e + experts] their sum.
/// A block scans one expert over the tiles.
template <class Count>
__global__ void __launch_bounds__(scan_threads) scan_tiles(index_t tiles, int experts, Count* counts, Count* totals) {
  using scan_t = cub::BlockScan<Count, scan_threads>;
  __shared__ typename scan_t::TempStorage storage;
  int const expert = static_cast<int>(blockIdx.x);
  Count before = 0;
  for (index_t first = 0; first < tiles; first += scan_threads) {
    index_t const tile = first + threadIdx.x;
    Count const mine = tile < tiles ? counts[tile * experts + expert] : 0;
    Count start = 0;
    Count sum = 0;
    scan_t(storage).ExclusiveSum(mine, start, sum);
    if (tile < tiles) { counts[tile * experts + expert] = before + start; }
    before += sum;
    __syncthreads();  // the storage is used again
  }
  if (threadIdx.x == 0) {
    totals[expert] = before;
    totals[expert + experts] = before;
  }
}

/// @brief positions[copy] = number of copies of the same expert earlier in line, -1 where there is no expert.
///
/// No atomics decide a position: warps count their parts, the counts are added up in order, and inside 32 copies the
/// lanes with equal experts find their rank by `__match_any_sync`. Shared memory: warps x experts counters.
template <class Expert>
__global__ void number_tiles(counting_shape shape, Expert const* chosen, index_t copies, int experts, copy_order order,
                             count_t const* starts, std::int32_t* positions) {
  extern __shared__ count_t counters[];
  constexpr unsigned everybody = 0xFFFFFFFFU;
  int const warp = static_cast<int>(threadIdx.x) / 32;
  int const lane = static_cast<int>(threadIdx.x) % 32;
  count_t* const mine = counters + warp * experts;
  for (int e = static_cast<int>(threadIdx.x); e < shape.warps * experts; e += static_cast<int>(blockDim.x)) { counters[e] = 0; }
  __syncthreads();
  index_t const first = static_cast<index_t>(blockIdx.x) * shape.tile_copies() + warp * shape.warp_copies;
  index_t const last = first + shape.warp_copies < copies ? first + shape.warp_copies : copies;
  for (index_t place = first + lane; place < last; place += 32) {
    auto const expert = static_cast<int>(chosen[order.copy(place)]);
    if (expert >= 0) { atomicAdd(&mine[expert], 1); }
  }
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += static_cast<int>(blockDim.x)) {
    count_t start = starts[static_cast<index_t>(blockIdx.x) * experts + e];
    for (int w = 0; w < shape.warps; ++w) {
      count_t const count = counters[w * experts + e];
      counters[w * experts + e] = start;
      start += count;
    }
  }
  __syncthreads();
  for (index_t begin = first; begin < last; begin += 32) {
    bool const inside = begin + lane < last;
    index_t const copy = inside ? order.copy(begin + lane) : 0;
    int const expert = inside ? static_cast<int>(chosen[copy]) : -1;
    unsigned const peers = __match_any_sync(everybody, expert);
    int const rank = __popc(peers & ((1U << lane) - 1U));
    count_t const start = expert >= 0 ? mine[expert] : 0;
    __syncwarp();
    if (expert >= 0 && rank == 0) { mine[expert] = start + __popc(peers); }
    __syncwarp();
    if (inside) { positions[copy] = expert >= 0 ? start + rank : -1; }
  }
}

inline constexpr int reduce_threads = 256;  ///< threads of the block of `count_set`

/// @brief *count = number of bytes that are not zero. One block.
template <class Count>
__global__ void __launch_bounds__(reduce_threads) count_set(std::uint8_t const* bytes, index_t n, Count* count) {
  using reduce_t = cub::BlockReduce<Count, reduce_threads>;
  __shared__ typename reduce_t::TempStorage storage;
  Count mine = 0;
  for (index_t i = threadIdx.x; i < n; i += reduce_threads) { mine += bytes[i] != 0 ? 1 : 0; }
  Count const sum = reduce_t(storage).Sum(mine);
  if (threadIdx.x == 0) { *count = sum; }
}

/// @brief Queue the three kernels that count and number copies.
/// @param stream CUDA stream
/// @param chosen expert of each copy, or none. @shape{copies}
/// @param copies number of copies, >= 0
/// @param experts number of experts, >= 1
/// @param order who is numbered first
/// @param scratch @shape{most_tiles x experts}
/// @param most_tiles parts that the scratch memory has room for, >= 1
/// @param[out] totals copies an expert, twice. @shape{2 x experts}
/// @param[out] positions place of each copy among those of its expert, or -1. @shape{copies}
/// @complexity O(copies + tiles x experts) work
/// @determinism integers; no result depends on timing
inline void number_copies(cudaStream_t stream, expert_id const* chosen, index_t copies, index_t experts,
                          copy_order const& order, count_t* scratch, index_t most_tiles, count_t* totals,
                          std::int32_t* positions) {
  if (experts == 0) { return; }
  auto const shape = counting_shape::of(copies, experts, most_tiles);
  auto const tiles = static_cast<unsigned>(shape.tiles);
  auto const threads = static_cast<unsigned>(32 * shape.warps);
  auto const counters = static_cast<unsigned>(experts) * static_cast<unsigned>(sizeof(count_t));
  int const columns = static_cast<int>(experts);
  count_tiles<<<tiles, threads, counters, stream>>>(shape, chosen, copies, columns, order, scratch);
  check_launch("count_tiles");
  scan_tiles<<<static_cast<unsigned>(experts), scan_threads, 0, stream>>>(shape.tiles, columns, scratch, totals);
  check_launch("scan_tiles");
  number_tiles<<<tiles, threads, counters * static_cast<unsigned>(shape.warps), stream>>>(shape, chosen, copies, columns,
                                                                                          order, scratch, positions);
  check_launch("number_tiles");
}

/// @brief to[i] runs from inner to buffer rows and back, for runs of rows; a block takes a run.
template <class Row>
__global__ void regroup_runs(Row const* inner, Row const* buffer, Row const* count, Row* buffer_to_inner,
                             Row* inner_to_buffer) {
  Row const from = inner[blockIdx.x];
  Row const to = buffer[blockIdx.x];
  for (Row i = static_cast<Row>(threadIdx.x); i < count[blockIdx.x]; i += static_cast<Row>(blockDim.x)) {
    buffer_to_inner[to + i] = from + i;
    inner_to_buffer[from + i] = to + i;
  }
}

}  // namespace kernels
FAIRLEAD_NAMESPACE_END
