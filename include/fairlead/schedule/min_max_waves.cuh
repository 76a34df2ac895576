// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of `min_max_waves`: a block a problem, in shared memory where a problem fits.
#include <fairlead/exec/cuda_stream.cuh>
#include <fairlead/schedule/min_max_waves.hpp>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// All threads of a block.
struct block_team {
  [[nodiscard]] __device__ std::int32_t first() const { return static_cast<std::int32_t>(threadIdx.x); }
  [[nodiscard]] __device__ std::int32_t step() const { return static_cast<std::int32_t>(blockDim.x); }
  __device__ void sync() const { __syncthreads(); }
  [[nodiscard]] __device__ bool any(bool mine) const { return __syncthreads_or(mine ? 1 : 0) != 0; }
  __device__ void add(index_t* to, index_t amount) const {
    atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(amount));
  }
  __device__ void add(count_t* to, count_t amount) const { atomicAdd(to, amount); }
  // Values >= 0: their order is that of unsigned numbers.
  __device__ void raise(index_t* value, index_t to) const {
    atomicMax(reinterpret_cast<unsigned long long*>(value), static_cast<unsigned long long>(to));
  }
  __device__ std::int32_t lower(std::int32_t* value, std::int32_t to) const { return atomicMin(value, to); }
};

inline constexpr int wave_threads = 256;
inline constexpr std::size_t wave_shared_bytes = 48 * 1024;  // what every device gives without asking

// `global` is null if a problem fits into shared memory. A template, since a kernel in a header needs to be one or inline.
template <class Count>
__global__ void __launch_bounds__(wave_threads, 2) solve_by_waves(column_view where, matrix_view<index_t const> totals, matrix_view<Count> shares,
                                                                  wave_report* reports, index_t most_waves, std::byte* global, index_t bytes) {
  extern __shared__ __align__(16) unsigned char wave_block[];
  auto const problem = static_cast<index_t>(blockIdx.x);
  void* const block = global == nullptr ? static_cast<void*>(wave_block) : static_cast<void*>(global + problem * bytes);
  auto const m = wave_memory::in(block, where.ranks, where.experts);
  block_team const team;
  auto const end = run_waves(team, where, totals.row(problem), most_waves, m);
  for (std::int32_t c = team.first(); c < where.columns; c += team.step()) { shares(problem, c) = m.shares[c]; }
  if (team.first() == 0) { reports[problem] = {end.how, end.waves, end.raises, end.largest}; }
}

}  // namespace detail

/// @brief Device text of `min_max_waves`. One launch, whose size depends on the shapes only; nothing is read back.
/// @determinism shares and reports are the bits of the host text
template <cuda_backend Backend>
struct implementation<min_max_waves, Backend> {
  /// See `min_max_waves::solve_batch`.
  static void solve(Backend const& on, min_max_waves const& policy, column_view const& where, matrix_view<index_t const> totals,
                    matrix_view<count_t> shares, std::span<wave_report> reports, workspace& ws) {
    if (totals.rows() == 0) { return; }
    workspace::scope const scope(ws);
    std::size_t const bytes = detail::wave_memory::bytes(where.ranks, where.experts, where.columns);
    bool const fits = bytes <= detail::wave_shared_bytes;
    std::byte* const global = fits ? nullptr : ws.take<std::byte>(totals.rows() * static_cast<index_t>(bytes)).data();
    detail::solve_by_waves<<<static_cast<unsigned>(totals.rows()), detail::wave_threads, fits ? bytes : 0, on.native()>>>(
        where, totals, shares, reports.data(), policy.most_waves, global, static_cast<index_t>(bytes));
    kernels::check_launch("solve_by_waves");
  }
};

FAIRLEAD_NAMESPACE_END
