// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of `copy_slots`: counting over tiles, prefix sums, and a search a copy.
#include <fairlead/cuda/deal_copies.cuh>
#include <fairlead/exec/cuda_stream.cuh>
#include <fairlead/schedule/copy_slots.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Device text of `copy_slots`. Launches depend on sizes only; nothing is read back.
/// @determinism the slots of the host text
template <cuda_backend Backend>
struct implementation<copy_slots, Backend> {
  static_assert(sizeof(slot_id) == sizeof(std::int32_t));
  /// See `copy_slots::assign`; `ends` are the running sums.
  static void look_up(Backend const& on, std::span<expert_id const> copies, std::span<std::int32_t const> sequence, column_view const& where,
                      count_t const* ends, std::span<slot_id> slots, workspace& ws) {
    auto const count = static_cast<index_t>(copies.size());
    kernels::copy_order const order{.sequence = sequence.empty() ? nullptr : sequence.data(), .tokens = count};
    kernels::deal_by_pieces(on.native(), copies.data(), count, where.experts, order, where.first, ends, where.slot,
                            reinterpret_cast<std::int32_t*>(slots.data()), on.concurrency(), ws);
  }
};

FAIRLEAD_NAMESPACE_END
