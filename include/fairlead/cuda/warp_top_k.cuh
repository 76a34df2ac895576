// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The k best of up to 512 keys (or any number, from memory), found by one warp in the order of `core/order.hpp`.
#include <fairlead/cuda/error.cuh>
#include <fairlead/core/order.hpp>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace kernels {

/// @brief A key in sortable form and its id; `bits` 0 says that there is none.
struct candidate {
  std::uint32_t bits = 0;  ///< `ordered_bits` of a candidate key, else 0
  std::int32_t id = -1;    ///< id, or -1
};

/// @brief Make a candidate.
/// @param key any float; NaN and -inf are no candidates
/// @returns its sortable bits, 0 if it may not be chosen
[[nodiscard]] __device__ inline std::uint32_t candidate_bits(float key) { return is_candidate(key) ? ordered_bits(key) : 0U; }

/// @brief The best candidate of the 32 lanes: larger bits, then the smaller id.
/// @param mine this lane's candidate
/// @returns the winner, on every lane
[[nodiscard]] __device__ inline candidate best_of_warp(candidate mine) {
  constexpr unsigned everybody = 0xFFFFFFFFU;
#if __CUDA_ARCH__ >= 800
  std::uint32_t const best = __reduce_max_sync(everybody, mine.bits);
  // Ids are not negative, so the unsigned minimum of "no id" loses against every id.
  std::uint32_t const id = __reduce_min_sync(everybody, mine.bits == best ? static_cast<std::uint32_t>(mine.id) : 0xFFFFFFFFU);
  return best == 0U ? candidate{} : candidate{best, static_cast<std::int32_t>(id)};
#else
  std::uint64_t packed = (std::uint64_t{mine.bits} << 32U) | static_cast<std::uint32_t>(~mine.id);
  for (int distance = 16; distance > 0; distance /= 2) {
    std::uint64_t const other = __shfl_xor_sync(everybody, packed, distance);
    packed = other > packed ? other : packed;
  }
  return (packed >> 32U) == 0U ? candidate{}
                               : candidate{static_cast<std::uint32_t>(packed >> 32U), ~static_cast<std::int32_t>(packed)};
#endif
}

/// @brief Hands out the keys of a row from best to worst; a warp works together, every lane gets the answer.
/// @tparam Items keys a lane holds in registers, so that a row has at most 32 x Items; 0 = any number, read again from
///         memory in each round
template <int Items>
class warp_ranking {
 public:
  /// @param keys the row, readable by all lanes
  /// @param count number of keys
  __device__ warp_ranking(float const* keys, int count) {
#pragma unroll
    for (int i = 0; i < Items; ++i) {
      int const at = lane() + 32 * i;
      bits_[i] = at < count ? candidate_bits(keys[at]) : 0U;
    }
  }
  /// @returns the next best candidate, or none
  [[nodiscard]] __device__ candidate next() {
    candidate mine;
#pragma unroll
    for (int i = 0; i < Items; ++i) {
      if (bits_[i] > mine.bits) { mine = {bits_[i], lane() + 32 * i}; }
    }
    candidate const winner = best_of_warp(mine);
#pragma unroll
    for (int i = 0; i < Items; ++i) { bits_[i] = winner.id == lane() + 32 * i ? 0U : bits_[i]; }
    return winner;
  }

 private:
  [[nodiscard]] __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  std::uint32_t bits_[Items];
};

/// @brief The form for rows that do not fit into registers.
template <>
class warp_ranking<0> {
 public:
  /// @param keys the row, readable by all lanes
  /// @param count number of keys
  __device__ warp_ranking(float const* keys, int count) : keys_(keys), count_(count) {}
  /// @returns the next best candidate, or none
  [[nodiscard]] __device__ candidate next() {
    candidate mine;
    for (int at = static_cast<int>(threadIdx.x) % 32; at < count_; at += 32) {
      std::uint32_t const bits = candidate_bits(keys_[at]);
      bool const left = bits < last_.bits || (bits == last_.bits && at > last_.id);
      if (left && bits > mine.bits) { mine = {bits, at}; }
    }
    last_ = best_of_warp(mine);
    return last_;
  }

 private:
  float const* keys_;
  int count_;
  candidate last_{0xFFFFFFFFU, -1};
};

}  // namespace kernels
FAIRLEAD_NAMESPACE_END
