// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of `gather_load`: a histogram of tiles in shared memory, added up in order.
#include <fairlead/cuda/counting.cuh>
#include <fairlead/exec/cuda_stream.cuh>
#include <fairlead/schedule/gather_load.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Device text of `gather_load`; at most 12288 experts.
template <cuda_backend Backend>
struct implementation<gather_load, Backend> {
  /// See `gather_load::gather`.
  static void count(Backend const& on, std::span<expert_id const> copies, index_t experts, std::span<count_t> counts, workspace& ws) {
    if (experts == 0) { return; }
    workspace::scope const scope(ws);
    index_t const most_tiles = on.concurrency();
    auto const scratch = ws.take<count_t>(most_tiles * experts);
    auto const number = static_cast<index_t>(copies.size());
    auto const shape = kernels::counting_shape::of(number, experts, most_tiles);
    auto const counters = static_cast<unsigned>(experts) * static_cast<unsigned>(sizeof(count_t));
    int const columns = static_cast<int>(experts);
    kernels::count_tiles<<<static_cast<unsigned>(shape.tiles), static_cast<unsigned>(32 * shape.warps), counters, on.native()>>>(
        shape, copies.data(), number, columns, kernels::copy_order{.tokens = number}, scratch.data());
    kernels::check_launch("count_tiles");
    kernels::scan_tiles<<<static_cast<unsigned>(experts), kernels::scan_threads, 0, on.native()>>>(shape.tiles, columns, scratch.data(), counts.data());
    kernels::check_launch("scan_tiles");
  }
};

FAIRLEAD_NAMESPACE_END
