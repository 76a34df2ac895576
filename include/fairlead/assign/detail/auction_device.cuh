// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of the auction. A round's outcome is a function of sets of tokens: lists may be filled in any
/// order, positions in them come from atomics, and owners and prices are still those of the host.
#include <fairlead/assign/detail/auction_rules.hpp>
#include <fairlead/core/order.hpp>
#include <fairlead/cuda/block_select.cuh>

#include <cstdint>
#include <limits>

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

// Puts entries behind a list; the lanes of a warp call together and ask for places once.
__device__ inline void push_entry(bool wants, std::uint32_t entry, std::uint32_t* length, std::uint32_t* list) {
  unsigned const wanting = __ballot_sync(auction_warp, wants ? 1 : 0);
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

// The bid of one active token, by a warp: entry `number` of the list.
__device__ inline void auction_bid(auction_memory const& m, std::uint32_t const* entries, index_t number) {
  std::uint32_t const entry = entries[number];
  auction_control const& control = *m.control;
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
    m.wanted[number] = no_expert;
  } else if (decided.expert == no_expert || m.price[decided.expert] >= control.limit) {
    m.wanted[number] = no_expert;
    m.control->infeasible = 1;
  } else {
    m.target[t] = decided.expert;
    m.wanted[number] = decided.expert;
    m.bid[t] = decided.bid;
    atomicAdd(&m.count[decided.expert], 1U);
  }
}

// Bids of all problems whose round the grid runs. A warp a token; blocks of row y work on problem y.
template <class Score>
__global__ void __launch_bounds__(auction_row_threads) auction_bids(device_auction<Score> a) {
  auction_memory const m = a.memory.of(blockIdx.y);
  if (m.control->in_grid == 0) { return; }
  auto const active = static_cast<index_t>(m.control->active);
  std::uint32_t const* const entries = m.control->list == 0 ? m.active[0] : m.active[1];
  for (index_t i = row_warp(); i < active; i += row_warps()) { auction_bid(m, entries, i); }
}

struct settle_storage {
  kernels::select_storage select;
  std::uint32_t base;    // first of the bidders in the scratch list
  std::uint32_t filled;  // bidders found
  std::uint32_t freed;   // places that rejected holders leave
  std::uint32_t taken;   // places that new holders take
};

// One expert after the bids, by a block: the best `capacity` of holders and bidders stay.
__device__ inline void auction_settle(auction_memory const& m, std::uint32_t e, settle_storage& shared) {
  auction_control* const control = m.control;
  std::uint32_t const bidders = m.count[e];
  bool const raised = m.raised[e] != 0;
  if (bidders == 0 && !raised) { return; }
  std::uint32_t const capacity = m.capacity[e];
  std::uint32_t held = m.held[e];
  std::int64_t const epsilon = control->epsilon;
  std::uint32_t const active = control->active;
  // Chosen by value: an index into the array of pointers would put it into local memory.
  std::uint32_t const* const entries = control->list == 0 ? m.active[0] : m.active[1];
  std::uint32_t* const next = control->list == 0 ? m.active[1] : m.active[0];
  std::uint32_t* const hold = m.hold + m.offset[e];
  std::uint32_t const thread = threadIdx.x;
  std::uint32_t const threads = blockDim.x;
  if (thread == 0) {
    shared.base = atomicAdd(&control->cursor, bidders);
    shared.filled = shared.freed = shared.taken = 0;
  }
  __syncthreads();
  std::uint32_t* const list = m.list + shared.base;
  std::uint32_t* const places = m.list + m.tokens + m.offset[e];
  for (std::uint32_t first = thread; bidders != 0 && first < active; first += 4 * threads) {
    std::uint32_t wanted[4];  // loads in flight before the first is looked at
#pragma unroll
    for (std::uint32_t u = 0; u < 4; ++u) {
      std::uint32_t const i = first + u * threads;
      wanted[u] = i < active ? m.wanted[i] : no_expert;
    }
#pragma unroll
    for (std::uint32_t u = 0; u < 4; ++u) {
      if (wanted[u] == e) { list[atomicAdd(&shared.filled, 1U)] = entries[first + u * threads]; }
    }
  }
  __syncthreads();
  std::uint32_t const members = held + bidders;
  std::uint32_t const rejected = members > capacity ? members - capacity : 0;
  auto const member = [&](std::uint32_t i) { return i < held ? hold[i] : list[i - held]; };
  if (rejected == 0) {
    for (std::uint32_t i = thread; i < bidders; i += threads) { hold[held + i] = list[i]; }
    held = members;
  } else {
    // Bids ascending, tokens descending: the first `rejected` of that order go.
    auto const by_bid = kernels::block_select(
        members, rejected,
        [&](std::uint32_t i, std::uint64_t& key) {
          key = static_cast<std::uint64_t>(m.bid[member(i)]);
          return true;
        },
        shared.select);
    auto const level = static_cast<std::int64_t>(by_bid.key);
    auto const by_token = kernels::block_select(
        members, rejected - by_bid.before,
        [&](std::uint32_t i, std::uint64_t& key) {
          std::uint32_t const t = member(i);
          key = ~t & 0x7FFFFFFFU;
          return m.bid[t] == level;
        },
        shared.select);
    std::uint32_t const last_token = ~static_cast<std::uint32_t>(by_token.key) & 0x7FFFFFFFU;
    auto const goes = [&](std::uint32_t t) { return m.bid[t] < level || (m.bid[t] == level && t >= last_token); };
    __syncthreads();
    for (std::uint32_t first = 0; first < held; first += threads) {
      std::uint32_t const i = first + thread;
      std::uint32_t const t = i < held ? hold[i] : 0;
      bool const leaves = i < held && goes(t);
      push_entry(leaves, t, &control->next_active, next);
      if (leaves) { places[atomicAdd(&shared.freed, 1U)] = i; }
    }
    __syncthreads();
    for (std::uint32_t first = 0; first < bidders; first += threads) {
      std::uint32_t const i = first + thread;
      std::uint32_t const t = i < bidders ? list[i] : 0;
      bool const leaves = i < bidders && goes(t);
      push_entry(leaves, t, &control->next_active, next);
      if (i < bidders && !leaves) {
        std::uint32_t const place = atomicAdd(&shared.taken, 1U);
        hold[place < shared.freed ? places[place] : held + place - shared.freed] = t;
      }
    }
    held = capacity;
  }
  __syncthreads();
  if (held == capacity) {
    std::uint64_t least = ~std::uint64_t{0};
    std::uint64_t unused = 0;
    for (std::uint32_t i = thread; i < held; i += threads) {
      auto const bid = static_cast<std::uint64_t>(m.bid[hold[i]]);
      least = bid < least ? bid : least;
    }
    kernels::block_extremes(least, unused, shared.select);
    auto const price = static_cast<std::int64_t>(least);
    for (std::uint32_t first = 0; rejected != 0 && first < held; first += threads) {
      std::uint32_t const i = first + thread;
      std::uint32_t const t = i < held ? hold[i] : 0;
      push_entry(i < held && m.bid[t] <= price + epsilon, t | raises_bid, &control->next_active, next);
    }
    if (thread == 0) { m.price[e] = price; }
  }
  if (thread == 0) {
    m.held[e] = held;
    m.count[e] = 0;
    m.raised[e] = 0;
    if (rejected != 0) { atomicAdd(&control->next_unassigned, rejected); }
  }
  __syncthreads();
}

// All experts after the bids of the grid. A block an expert, blocks of row y work on problem y.
template <class Score>
__global__ void __launch_bounds__(auction_settle_threads, 5) auction_settle_all(device_auction<Score> a) {
  __shared__ settle_storage shared;
  auction_memory const m = a.memory.of(blockIdx.y);
  if (m.control->in_grid != 0) { auction_settle(m, blockIdx.x, shared); }
}

// The start of a phase: everybody is unassigned, prices stay. By a block.
template <class Score>
__device__ void auction_open_phase(device_auction<Score> const& a, auction_memory const& m, settle_storage& shared) {
  std::uint64_t least = ~std::uint64_t{0};
  std::uint64_t top = 0;
  for (index_t e = threadIdx.x; e < m.experts; e += blockDim.x) {
    if (m.capacity[e] == 0) { continue; }
    auto const price = static_cast<std::uint64_t>(m.price[e]);
    least = price < least ? price : least;
    top = price > top ? price : top;
  }
  kernels::block_extremes(least, top, shared.select);
  auto const lowest = static_cast<std::int64_t>(least);
  std::int64_t const highest = m.control->highest_floor();
  std::int64_t const lifted = static_cast<std::int64_t>(top) - lowest;
  for (index_t e = threadIdx.x; e < m.experts; e += blockDim.x) {
    std::int64_t const price = m.price[e] - lowest;
    m.price[e] = price < highest ? price : highest;
    m.held[e] = m.count[e] = m.raised[e] = 0;
  }
  bool const again = m.control->phases > 0;
  if (threadIdx.x == 0) { shared.filled = 0; }
  __syncthreads();
  for (index_t first = 0; first < m.tokens; first += blockDim.x) {
    index_t const t = first + threadIdx.x;
    bool const bids = t < m.tokens && a.valid(blockIdx.x, t);
    if (again && t < m.tokens) { m.complete[t] = m.target[t]; }
    push_entry(bids, static_cast<std::uint32_t>(t), &shared.filled, m.active[0]);
  }
  __syncthreads();
  if (threadIdx.x == 0) { m.control->open_phase(lifted < highest ? lifted : highest); }
  __syncthreads();
}

// Between the rounds of the grid: phases, the end, and rounds with few bidders. A block a problem.
template <class Score>
__global__ void __launch_bounds__(auction_tail_threads, 1) auction_advance(device_auction<Score> a) {
  __shared__ settle_storage shared;
  __shared__ auction_step step;
  __shared__ std::uint32_t touched[auction_tail_active];  // an active token touches one expert
  __shared__ std::uint32_t touches;
  auction_memory const m = a.memory.of(blockIdx.x);
  auction_control* const control = m.control;
  if (control->finished != 0) { return; }
  __syncthreads();
  if (threadIdx.x == 0 && control->in_grid != 0) {
    control->in_grid = 0;
    if (control->infeasible == 0) { control->end_round(); }
  }
  for (int round = 0; round < auction_tail_rounds;) {
    __syncthreads();
    if (threadIdx.x == 0) { step = control->next(a.divisor, a.most_rounds); }
    __syncthreads();
    if (step == auction_step::open_phase) {
      auction_open_phase(a, m, shared);
      continue;
    }
    if (step == auction_step::finish) {
      if (threadIdx.x == 0) {
        control->finished = 1;
        atomicAdd(a.finished, 1U);
      }
      return;
    }
    if (control->active > auction_tail_active) {
      if (threadIdx.x == 0) { control->in_grid = 1; }
      return;
    }
    std::uint32_t const active = control->active;
    std::uint32_t const* const entries = control->list == 0 ? m.active[0] : m.active[1];
    for (std::uint32_t i = threadIdx.x / 32; i < active; i += auction_tail_threads / 32) { auction_bid(m, entries, i); }
    __syncthreads();
    if (control->infeasible != 0) { continue; }
    if (threadIdx.x == 0) { touches = 0; }
    __syncthreads();
    for (index_t e = threadIdx.x; e < m.experts; e += blockDim.x) {
      if (m.count[e] != 0 || m.raised[e] != 0) { touched[atomicAdd(&touches, 1U)] = static_cast<std::uint32_t>(e); }
    }
    __syncthreads();
    for (std::uint32_t i = 0; i < touches; ++i) { auction_settle(m, touched[i], shared); }
    if (threadIdx.x == 0) { control->end_round(); }
    ++round;
  }
}

// Prices in the unit of the scores, owners. A block a problem.
template <class Score>
__global__ void __launch_bounds__(auction_tail_threads) auction_publish(device_auction<Score> a) {
  __shared__ kernels::select_storage storage;
  index_t const problem = blockIdx.x;
  auction_memory const m = a.memory.of(problem);
  auction_control const& control = *m.control;
  bool const solved = control.infeasible == 0;
  std::uint32_t const* const answer = control.limited == 0 || control.rushed != 0 ? m.target : m.complete;
  for (index_t t = threadIdx.x; t < m.tokens; t += blockDim.x) {
    bool const owned = solved && a.valid(problem, t);
    a.owner(problem * m.tokens + t, 0) = owned ? static_cast<expert_id>(answer[t]) : expert_id::none;
  }
  std::uint64_t least = ~std::uint64_t{0};
  std::uint64_t top = 0;
  for (index_t e = threadIdx.x; e < m.experts; e += blockDim.x) {
    if (m.capacity[e] == 0) { continue; }
    auto const price = static_cast<std::uint64_t>(m.price[e]);
    least = price < least ? price : least;
    top = price > top ? price : top;
  }
  kernels::block_extremes(least, top, storage);
  auction_grid const grid = a.grid(control);
  for (index_t e = threadIdx.x; e < m.experts; e += blockDim.x) {
    double price = 0.0;
    if (solved && control.valid > 0) {
      price = m.capacity[e] != 0 ? price_in_scores(m.price[e] - static_cast<std::int64_t>(least), control, grid)
                                 : idle_price(static_cast<std::int64_t>(top - least), control, grid);
    }
    m.final_price[e] = price;
    if (a.prices != nullptr) { a.prices[problem * m.experts + e] = price; }
  }
}

// Best value - price of each token, for the bound. A warp a row.
template <class Score>
__global__ void __launch_bounds__(auction_row_threads) auction_surplus(device_auction<Score> a) {
  index_t const problem = blockIdx.y;
  auction_memory const m = a.memory.of(problem);
  for (index_t t = row_warp(); t < m.tokens; t += row_warps()) {
    bool const valid = a.valid(problem, t);
    Score const* const row = a.scores.row(problem * m.tokens + t);
    double best = -std::numeric_limits<double>::infinity();
    for (index_t e = threadIdx.x % 32; e < m.experts && valid; e += 32) {
      float const score = auction_score(row[e]);
      if (!is_candidate(score)) { continue; }
      double const value = static_cast<double>(score) - m.final_price[e];
      best = value > best ? value : best;
    }
    for (int distance = 16; distance > 0; distance /= 2) {
      double const other = __shfl_xor_sync(auction_warp, best, distance);
      best = other > best ? other : best;
    }
    if (threadIdx.x % 32 == 0) { m.surplus[t] = best > -std::numeric_limits<double>::infinity() ? best : 0.0; }
  }
}

// Value, bound and the rest of the report, added up in the host's order. A block a problem.
template <class Score>
__global__ void __launch_bounds__(sum_lanes) auction_reports(device_auction<Score> a, assignment_report* reports) {
  __shared__ double values[sum_lanes];
  __shared__ double bounds[sum_lanes];
  index_t const problem = blockIdx.x;
  auction_memory const m = a.memory.of(problem);
  auction_control const& control = *m.control;
  std::uint32_t const* const answer = control.limited == 0 || control.rushed != 0 ? m.target : m.complete;
  double value = 0.0;
  double bound = 0.0;
  for (index_t t = threadIdx.x; t < m.tokens; t += sum_lanes) {
    if (control.infeasible == 0 && a.valid(problem, t)) {
      value += static_cast<double>(auction_score(a.scores(problem * m.tokens + t, answer[t])));
    }
    bound += m.surplus[t];
  }
  for (index_t e = threadIdx.x; e < m.experts; e += sum_lanes) {
    bound = fma(static_cast<double>(m.capacity[e]), m.final_price[e], bound);
  }
  values[threadIdx.x] = value;
  bounds[threadIdx.x] = bound;
  __syncthreads();
  for (index_t width = sum_lanes / 2; width > 0; width /= 2) {
    if (threadIdx.x < width) {
      values[threadIdx.x] += values[threadIdx.x + width];
      bounds[threadIdx.x] += bounds[threadIdx.x + width];
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) { reports[problem] = auction_report(control, values[0], bounds[0]); }
}

// Owners of a problem that is not solved.
struct no_owners {
  matrix_view<expert_id> owner;
  FAIRLEAD_HD void operator()(index_t t) const {
    for (index_t j = 0; j < owner.cols(); ++j) { owner(t, j) = expert_id::none; }
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
