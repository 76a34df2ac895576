// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Which row goes where in one exchange between the tokens of all ranks and the experts of all ranks.
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/load.hpp>
#include <fairlead/core/row_groups.hpp>

#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// Row number that says "no row": dropped copy, padding.
inline constexpr std::int32_t no_row = -1;
/// Row number of a dropped copy that returns its own token instead of an expert's output.
inline constexpr std::int32_t own_row = -2;

/// @brief The result of planning a dispatch, and what combine and backward need of it.
///
/// Three row spaces meet here. *Token rows* are the rows of this rank's input. *Outer rows* are what this rank sends
/// and gets back, sorted by (destination rank, local slot, service order). *Inner rows* are what it receives and sends
/// back, sorted by (source rank, local slot, service order). *Buffer rows* are the rows its experts compute, sorted by
/// (local slot, source rank, service order). On one rank there is no wire: outer and inner rows are buffer rows.
/// Sizes and offsets are host memory, 64 bits; indices live in the memory space of the backend.
/// @tparam Space memory space of the indices
template <memory_space Space = host_space>
struct exchange_plan {
  index_t tokens = 0;       ///< rows of this rank's input
  index_t fan_out = 0;      ///< copies a token
  index_t experts = 0;      ///< logical experts
  index_t ranks = 1;        ///< ranks of the communicator
  index_t rank = 0;         ///< this rank
  index_t outer_rows = 0;   ///< rows this rank sends (buffer rows if ranks == 1)
  index_t inner_rows = 0;   ///< rows this rank receives (buffer rows if ranks == 1)
  index_t buffer_rows = 0;  ///< rows of the expert buffer, alignment padding included
  index_t sent_copies = 0;  ///< copies of this rank that reach an expert
  index_t dropped_copies = 0;          ///< copies of this rank that had an expert and lost it to capacity
  std::uint64_t placement_fingerprint = 0;  ///< the placement it was made for

  buffer<index_t> outer_offsets;  ///< first outer row of each destination rank. @shape{ranks + 1}, host
  buffer<index_t> inner_offsets;  ///< first inner row of each source rank. @shape{ranks + 1}, host
  buffer<index_t> slot_offsets;   ///< first buffer row of each local slot. @shape{slots + 1}, host
  buffer<index_t> slot_counts;    ///< buffer rows in use of each local slot. @shape{slots}, host

  buffer<expert_id, Space> chosen;         ///< expert of each copy after overflow actions. @shape{tokens x fan_out}
  buffer<float, Space> weights;            ///< combine weight of each copy, 0 if dropped. @shape{tokens x fan_out}
  /// Sum of the kept weights of each token, where an overflow action renormalises. @shape{tokens or 0}
  buffer<float, Space> weight_sums;
  buffer<std::int32_t, Space> positions;   ///< place of each copy among those of its expert. @shape{tokens x fan_out}
  buffer<std::int32_t, Space> copy_to_outer;  ///< outer row of each copy, `no_row` or `own_row`. @shape{tokens x fan_out}
  buffer<std::int32_t, Space> outer_to_copy;  ///< token x fan_out + choice of each outer row, or `no_row`. @shape{outer_rows}
  buffer<std::int32_t, Space> buffer_to_inner;  ///< inner row of each buffer row, or `no_row`. @shape{buffer_rows}
  buffer<std::int32_t, Space> inner_to_buffer;  ///< buffer row of each inner row. @shape{inner_rows}

  /// What this rank tells the others: admitted copies per expert, raw copies per expert, valid tokens.
  /// @shape{2 x experts + 1}
  buffer<count_t, Space> count_row;
  /// Copy of `count_row` in host memory, valid once the stage that fills it was waited for (empty where `Space` is host
  /// memory).
  buffer<count_t> host_count_row;

  /// Where the copies of each expert go, and how inner rows become buffer rows, as `dispatch/` builds it; host memory,
  /// and the same for kernels (empty where `Space` is host memory).
  buffer<std::int32_t> tables;
  buffer<std::int32_t, Space> device_tables;  ///< copy of `tables` in the memory space of the indices

  /// @returns the groups of the expert buffer, one a local slot
  [[nodiscard]] row_groups groups() const noexcept { return {slot_offsets.span(), slot_counts.span()}; }
};

FAIRLEAD_NAMESPACE_END
