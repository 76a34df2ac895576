// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Find the key of a given rank among many, by one block: radix selection on 64-bit keys, and block-wide minima.
#include <fairlead/cuda/error.cuh>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace kernels {

/// @brief Shared memory of the functions here; one object a block.
struct select_storage {
  std::uint64_t value[2][32];    ///< partial results of the warps
  std::uint32_t histogram[256];  ///< keys of each digit
  std::uint64_t digit;           ///< digit that holds the rank
  std::uint32_t before;          ///< keys with smaller digits
};

/// @brief The least and the greatest value over the threads of a block.
/// @param low this thread's candidate for the least
/// @param high this thread's candidate for the greatest
/// @param storage shared memory
/// @param[out] low the least, on every thread
/// @param[out] high the greatest, on every thread
/// @pre the block has a multiple of 32 threads, all call
__device__ inline void block_extremes(std::uint64_t& low, std::uint64_t& high, select_storage& storage) {
  constexpr unsigned everybody = 0xFFFFFFFFU;
  unsigned const warp = threadIdx.x / 32;
  unsigned const lane = threadIdx.x % 32;
  for (int distance = 16; distance > 0; distance /= 2) {
    std::uint64_t const other_low = __shfl_xor_sync(everybody, low, distance);
    std::uint64_t const other_high = __shfl_xor_sync(everybody, high, distance);
    low = other_low < low ? other_low : low;
    high = other_high > high ? other_high : high;
  }
  __syncthreads();  // the storage may still be read from the call before
  if (lane == 0) {
    storage.value[0][warp] = low;
    storage.value[1][warp] = high;
  }
  __syncthreads();
  for (unsigned other = 0; other < blockDim.x / 32; ++other) {
    low = storage.value[0][other] < low ? storage.value[0][other] : low;
    high = storage.value[1][other] > high ? storage.value[1][other] : high;
  }
}

/// @brief What `block_select` found.
struct selected_key {
  std::uint64_t key;     ///< the key of that rank
  std::uint32_t before;  ///< keys that are smaller
};

/// @brief Find the `rank`-th smallest key, by digits of eight bits from the highest in which keys differ.
/// @tparam KeyAt `bool operator()(std::uint32_t i, std::uint64_t& key)`: whether member i takes part, and its key
/// @param members number of members
/// @param rank 1 = the smallest; at most the number of members that take part
/// @param key_at the keys
/// @param storage shared memory
/// @returns key and number of smaller ones, on every thread
/// @complexity two passes over the members at best, nine at worst
/// @pre the block has a multiple of 32 threads, all call
/// @determinism exact: a function of the set of keys
template <class KeyAt>
[[nodiscard]] __device__ selected_key block_select(std::uint32_t members, std::uint32_t rank, KeyAt const& key_at,
                                                   select_storage& storage) {
  constexpr unsigned everybody = 0xFFFFFFFFU;
  std::uint64_t low = ~std::uint64_t{0};
  std::uint64_t high = 0;
  std::uint64_t key = 0;
  for (std::uint32_t i = threadIdx.x; i < members; i += blockDim.x) {
    if (!key_at(i, key)) { continue; }
    low = key < low ? key : low;
    high = key > high ? key : high;
  }
  block_extremes(low, high, storage);
  std::uint64_t const spread = high - low;
  std::uint64_t prefix = 0;
  std::uint32_t before = 0;
  int shift = spread == 0 ? -8 : (63 - __clzll(static_cast<long long>(spread))) / 8 * 8;
  for (; shift >= 0; shift -= 8) {
    for (unsigned bin = threadIdx.x; bin < 256; bin += blockDim.x) { storage.histogram[bin] = 0; }
    __syncthreads();
    for (std::uint32_t i = threadIdx.x; i < members; i += blockDim.x) {
      if (!key_at(i, key)) { continue; }
      std::uint64_t const above = shift == 56 ? 0 : (key - low) >> static_cast<unsigned>(shift + 8);
      if (above == prefix) { atomicAdd(&storage.histogram[((key - low) >> static_cast<unsigned>(shift)) & 255U], 1U); }
    }
    __syncthreads();
    if (threadIdx.x < 32) {  // a lane takes eight bins
      std::uint32_t mine = 0;
      for (unsigned i = 0; i < 8; ++i) { mine += storage.histogram[threadIdx.x * 8 + i]; }
      std::uint32_t up_to = mine;
      for (unsigned distance = 1; distance < 32; distance *= 2) {
        std::uint32_t const lower = __shfl_up_sync(everybody, up_to, distance);
        if (threadIdx.x >= distance) { up_to += lower; }
      }
      std::uint32_t start = before + up_to - mine;
      if (start < rank && rank <= start + mine) {
        for (unsigned i = 0; i < 8; ++i) {
          std::uint32_t const count = storage.histogram[threadIdx.x * 8 + i];
          if (start + count >= rank) {
            storage.digit = threadIdx.x * 8 + i;
            storage.before = start;
            break;
          }
          start += count;
        }
      }
    }
    __syncthreads();
    prefix = prefix << 8U | storage.digit;
    before = storage.before;
    __syncthreads();
  }
  return {low + prefix, before};
}

}  // namespace kernels
FAIRLEAD_NAMESPACE_END
