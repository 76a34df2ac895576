// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of the auction. A round's outcome is a function of sets of tokens: lists may be filled in any
/// order, positions in them come from atomics, and owners and prices are still those of the host.
#include <fairlead/assign/detail/auction_rules.hpp>
#include <fairlead/core/order.hpp>
#include <fairlead/cuda/block_select.cuh>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

inline constexpr int auction_row_threads = 256;    // kernels with a warp a row
inline constexpr int auction_settle_threads = 256; // a block an expert
inline constexpr int auction_tail_threads = 512;   // a block a problem
inline constexpr std::uint32_t auction_tail_active = 256;  // so few bidders are served by one block
inline constexpr int auction_tail_rounds = 512;            // rounds of that block in one launch
inline constexpr unsigned auction_warp = 0xFFFFFFFFU;

template <class Score>
struct device_auction {
  matrix_view<Score const> scores;
  index_t const* capacity;        // of problem p at p x capacity_step
  index_t capacity_step;
  std::uint8_t const* mask;       // or null
  double const* warm;             // or null
  matrix_view<expert_id> owner;
  double* prices;                 // or null
  auction_memory memory;
  std::uint32_t* finished;        // problems that are done
  index_t divisor, first_divisor, most_rounds;

  [[nodiscard]] __device__ bool valid(index_t problem, index_t t) const {
    return mask == nullptr || mask[problem * memory.tokens + t] != 0;
  }
  [[nodiscard]] __device__ auction_grid grid(auction_control const& control) const {
    return auction_grid::of(__uint_as_float(control.largest_bits), memory.experts);
  }
};

[[nodiscard]] __device__ inline index_t row_warp() {
  return static_cast<index_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
}
[[nodiscard]] __device__ inline index_t row_warps() { return static_cast<index_t>(gridDim.x) * (blockDim.x / 32); }

// Puts a thread's entry behind a list; the lanes of a warp ask once for all.
__device__ inline void push_entry(bool wants, std::uint32_t entry, std::uint32_t* length, std::uint32_t* list) {
  unsigned const asking = __activemask();
  unsigned const wanting = __ballot_sync(asking, wants ? 1 : 0);
  if (!wants) { return; }
  unsigned const lane = threadIdx.x % 32;
  int const leader = __ffs(static_cast<int>(wanting)) - 1;
  std::uint32_t first = 0;
  if (static_cast<int>(lane) == leader) { first = atomicAdd(length, static_cast<std::uint32_t>(__popc(wanting))); }
  first = __shfl_sync(wanting, first, leader);
  list[first + static_cast<std::uint32_t>(__popc(wanting & ((1U << lane) - 1U)))] = entry;
}

// Capacities, first holders, number of valid tokens. A block a problem.
template <class Score>
__global__ void __launch_bounds__(auction_tail_threads) auction_setup(device_auction<Score> a) {
  auction_memory const m = a.memory.of(blockIdx.x);
  index_t const* const capacity = a.capacity + blockIdx.x * a.capacity_step;
  __shared__ std::uint32_t valid;
  if (threadIdx.x == 0) {
    *m.control = auction_control{};
    valid = 0;
    index_t copies = 0;
    std::uint32_t served = 0;
    for (index_t e = 0; e < m.experts; ++e) {
      index_t const each = capacity[e] < m.tokens + 1 ? capacity[e] : m.tokens + 1;
      m.capacity[e] = static_cast<std::uint32_t>(each);
      m.offset[e] = static_cast<std::uint32_t>(copies < m.tokens ? copies : m.tokens);
      copies += each;
      served += each > 0 ? 1U : 0U;
    }
    m.control->served = served;
    m.control->list = copies <= m.tokens ? static_cast<std::uint32_t>(copies) : 0xFFFFFFFFU;  // until the tokens are counted
  }
  __syncthreads();
  std::uint32_t mine = 0;
  for (index_t t = threadIdx.x; t < m.tokens; t += blockDim.x) { mine += a.valid(blockIdx.x, t) ? 1U : 0U; }
  atomicAdd(&valid, mine);
  __syncthreads();
  if (threadIdx.x == 0) {
    m.control->valid = valid;
    if (m.control->list != valid) { m.control->infeasible = 1; }
    m.control->list = 0;
  }
}

// The largest score, and the best one of experts without capacity.
template <class Score>
__global__ void __launch_bounds__(auction_row_threads) auction_measure(device_auction<Score> a) {
  index_t const problem = blockIdx.y;
  auction_memory const m = a.memory.of(problem);
  std::uint32_t largest = 0;
  std::uint32_t idle = 0;
  for (index_t t = row_warp(); t < m.tokens; t += row_warps()) {
    if (!a.valid(problem, t)) { continue; }
    Score const* const row = a.scores.row(problem * m.tokens + t);
    for (index_t e = threadIdx.x % 32; e < m.experts; e += 32) {
      float const score = auction_score(row[e]);
      if (!is_candidate(score)) { continue; }
      std::uint32_t const bits = m.capacity[e] == 0 ? ordered_bits(score) : __float_as_uint(score) & 0x7FFFFFFFU;
      std::uint32_t& most = m.capacity[e] == 0 ? idle : largest;
      most = bits > most ? bits : most;
    }
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    std::uint32_t const other = __shfl_xor_sync(auction_warp, largest, distance);
    std::uint32_t const other_idle = __shfl_xor_sync(auction_warp, idle, distance);
    largest = other > largest ? other : largest;
    idle = other_idle > idle ? other_idle : idle;
  }
  if (threadIdx.x % 32 == 0) {
    atomicMax(&m.control->largest_bits, largest);
    atomicMax(&m.control->idle_bits, idle);
  }
}

// Scores to the grid.
template <class Score>
__global__ void __launch_bounds__(auction_row_threads) auction_quantise(device_auction<Score> a) {
  index_t const problem = blockIdx.y;
  auction_memory const m = a.memory.of(problem);
  auction_grid const grid = a.grid(*m.control);
  std::uint32_t least = forbidden_step;
  std::uint32_t most = 0;
  for (index_t t = row_warp(); t < m.tokens; t += row_warps()) {
    Score const* const row = a.scores.row(problem * m.tokens + t);
    bool const valid = a.valid(problem, t);
    bool any = false;
    for (index_t e = threadIdx.x % 32; e < m.experts; e += 32) {
      std::uint32_t step = forbidden_step;
      if (valid && m.capacity[e] != 0) {
        float const score = auction_score(row[e]);
        if (is_candidate(score)) { step = grid.step(score); }
      }
      m.steps[t * m.experts + e] = step;
      if (step == forbidden_step) { continue; }
      any = true;
      least = step < least ? step : least;
      most = step > most ? step : most;
    }
    if (__any_sync(auction_warp, any ? 1 : 0) == 0 && valid && threadIdx.x % 32 == 0) { m.control->infeasible = 1; }
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    std::uint32_t const lower = __shfl_xor_sync(auction_warp, least, distance);
    std::uint32_t const upper = __shfl_xor_sync(auction_warp, most, distance);
    least = lower < least ? lower : least;
    most = upper > most ? upper : most;
  }
  if (threadIdx.x % 32 == 0) {
    atomicMin(&m.control->least_step, least);
    atomicMax(&m.control->most_step, most);
  }
}

// The order of doubles as unsigned integers, and back.
[[nodiscard]] __device__ inline std::uint64_t price_key(double price) {
  auto const bits = static_cast<std::uint64_t>(__double_as_longlong(price));
  return (bits >> 63U) != 0 ? ~bits : bits | 0x8000000000000000U;
}
[[nodiscard]] __device__ inline double price_of_key(std::uint64_t key) {
  return __longlong_as_double(static_cast<long long>((key >> 63U) != 0 ? key & 0x7FFFFFFFFFFFFFFFU : ~key));
}

// First epsilon and first prices. A block a problem.
template <class Score>
__global__ void __launch_bounds__(auction_tail_threads) auction_begin(device_auction<Score> a) {
  __shared__ kernels::select_storage storage;
  auction_memory const m = a.memory.of(blockIdx.x);
  double const* const warm = a.warm == nullptr ? nullptr : a.warm + blockIdx.x * m.experts;
  if (threadIdx.x == 0) { m.control->begin(a.first_divisor); }
  std::uint64_t least = ~std::uint64_t{0};
  std::uint64_t unused = 0;
  for (index_t e = threadIdx.x; e < m.experts && warm != nullptr; e += blockDim.x) {
    if (m.capacity[e] == 0 || !is_finite_price(warm[e])) { continue; }
    std::uint64_t const key = price_key(warm[e]);
    least = key < least ? key : least;
  }
  kernels::block_extremes(least, unused, storage);
  __syncthreads();
  double const base = least == ~std::uint64_t{0} ? 0.0 : price_of_key(least);
  auction_grid const grid = a.grid(*m.control);
  for (index_t e = threadIdx.x; e < m.experts; e += blockDim.x) {
    m.price[e] = warm == nullptr ? 0 : warm_units(warm[e], base, *m.control, grid);
  }
}

// The bid of one active token, by a warp.
__device__ inline void auction_bid(auction_memory const& m, auction_control const& control, std::uint32_t entry) {
  int const lane = static_cast<int>(threadIdx.x) % 32;
  bool const raises = (entry & raises_bid) != 0;
  std::uint32_t const t = entry & ~raises_bid;
  auto const experts = static_cast<std::uint32_t>(m.experts);
  std::uint32_t const* const steps = m.steps + static_cast<index_t>(t) * m.experts;
  std::uint32_t const start = t % experts;
  auto const value_at = [&](std::uint32_t e) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(steps[e]) * static_cast<std::uint64_t>(control.factor)) - m.price[e];
  };
  best_two seen;
#pragma unroll 4
  for (std::uint32_t e = static_cast<std::uint32_t>(lane); e < experts; e += 32) {
    if (steps[e] == forbidden_step) { continue; }
    seen.see(value_at(e), e >= start ? e - start : e + experts - start);
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    best_two other;
    other.first = __shfl_xor_sync(auction_warp, seen.first, distance);
    other.second = __shfl_xor_sync(auction_warp, seen.second, distance);
    other.rank = __shfl_xor_sync(auction_warp, seen.rank, distance);
    seen.merge(other);
  }
  if (lane != 0) { return; }
  std::uint32_t const stays_at = raises                                    ? m.target[t]
                                 : control.fresh != 0 && control.phases > 0 ? m.complete[t]
                                                                            : no_expert;
  auto const decided = decide_bid(control, m.price, m.experts, start, seen, stays_at, raises, value_at);
  if (raises) {
    m.bid[t] = decided.bid > m.bid[t] ? decided.bid : m.bid[t];
    m.raised[stays_at] = 1;
  } else if (decided.expert == no_expert || m.price[decided.expert] >= control.limit) {
    m.target[t] = no_expert;
    m.control->infeasible = 1;
  } else {
    m.target[t] = decided.expert;
    m.bid[t] = decided.bid;
    atomicAdd(&m.count[decided.expert], 1U);
  }
}

// Bids of all problems whose round the grid runs. A warp a token; blocks of row y work on problem y.
inline __global__ void __launch_bounds__(auction_row_threads) auction_bids(auction_memory all) {
  auction_memory const m = all.of(blockIdx.y);
  auction_control const control = *m.control;
  if (control.in_grid == 0) { return; }
  for (index_t i = row_warp(); i < static_cast<index_t>(control.active); i += row_warps()) {
    auction_bid(m, control, m.active[control.list][i]);
  }
}
}  // namespace detail
FAIRLEAD_NAMESPACE_END
