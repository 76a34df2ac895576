// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What a deduplicated exchange adds to a plan: one wire row for all copies of a token that go to one rank.
#include <fairlead/core/exchange_plan.hpp>
#include <fairlead/dispatch/detail/row_kernels.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief A plan whose wire rows are (token, destination rank) pairs.
///
/// The inherited outer and inner rows number copies; `wire_*` number the rows that travel. Host memory.
struct deduplicated_plan : exchange_plan<host_space> {
  index_t wire_outer_rows = 0;                   ///< rows this rank sends
  index_t wire_inner_rows = 0;                   ///< rows this rank receives
  buffer<index_t> wire_outer_offsets;            ///< by destination rank. @shape{ranks + 1}
  buffer<index_t> wire_inner_offsets;            ///< by source rank. @shape{ranks + 1}
  buffer<std::int32_t> wire_token;               ///< token of each sent row. @shape{wire_outer_rows}
  buffer<std::int32_t> first_copy_to_wire;       ///< sent row of the first copy of each (token, rank), else `no_row`. @shape{tokens x fan_out}
  buffer<std::int32_t> buffer_to_wire;           ///< received row of each buffer row. @shape{buffer_rows}
  buffer<std::int32_t> wire_first;               ///< first entry of each received row in `wire_to_buffer`. @shape{wire_inner_rows + 1}
  buffer<std::int32_t> wire_to_buffer;           ///< buffer rows of each received row. @shape{inner_rows}
  buffer<float> row_weights;                     ///< weight of each buffer row. @shape{buffer_rows}
  buffer<std::int32_t> sent, received;           ///< messages between plans: rows, then (row, weight) of each copy
  buffer<index_t> sent_offsets, received_offsets;  ///< @shape{ranks + 1}
};

namespace detail {

// A message holds the number of rows, then for each copy its row and the bits of its weight.
[[nodiscard]] inline index_t message_offset(index_t copies, index_t rank) { return 2 * copies + rank; }

/// Number the (token, destination) pairs and write the messages to the destinations.
inline void number_wire_rows(deduplicated_plan& plan) {
  index_t const ranks = plan.ranks;
  plan.wire_outer_offsets.resize(ranks + 1);
  plan.wire_inner_offsets.resize(ranks + 1);
  plan.sent_offsets.resize(ranks + 1);
  plan.received_offsets.resize(ranks + 1);
  for (index_t r = 0; r <= ranks; ++r) {
    plan.sent_offsets[r] = message_offset(plan.outer_offsets[r], r);
    plan.received_offsets[r] = message_offset(plan.inner_offsets[r], r);
  }
  plan.sent.resize(plan.sent_offsets[ranks]);
  plan.received.resize(plan.received_offsets[ranks]);
  plan.wire_token.resize(plan.outer_rows);
  plan.first_copy_to_wire.resize(plan.tokens * plan.fan_out);

  auto const rank_of = [&plan, ranks](std::int32_t row) {
    auto const* const begin = plan.outer_offsets.data();
    return std::upper_bound(begin, begin + ranks + 1, index_t{row}) - begin - 1;
  };
  auto* const next = plan.wire_outer_offsets.data();  // counts first, then running row numbers, then offsets again
  std::fill_n(next, ranks + 1, 0);
  // Calls f(copy, its row, its rank, the earlier copy of the token with that rank or -1).
  auto const each_copy = [&plan, &rank_of](auto f) {
    for (index_t token = 0; token < plan.tokens; ++token) {
      for (index_t j = 0; j < plan.fan_out; ++j) {
        index_t const copy = token * plan.fan_out + j;
        std::int32_t const row = plan.copy_to_outer[copy];
        if (row < 0) {
          plan.first_copy_to_wire[copy] = no_row;
          continue;
        }
        index_t const rank = rank_of(row);
        index_t earlier = -1;
        for (index_t i = token * plan.fan_out; i < copy && earlier < 0; ++i) {
          if (plan.copy_to_outer[i] >= 0 && rank_of(plan.copy_to_outer[i]) == rank) { earlier = i; }
        }
        f(copy, row, rank, earlier);
      }
    }
  };
  each_copy([next](index_t, std::int32_t, index_t rank, index_t earlier) { next[rank + 1] += earlier < 0 ? 1 : 0; });
  for (index_t r = 0; r < ranks; ++r) {
    plan.sent[plan.sent_offsets[r]] = static_cast<std::int32_t>(next[r + 1]);
    next[r + 1] += next[r];
  }
  plan.wire_outer_rows = next[ranks];
  // From here next[r] runs over the rows of rank r and ends where those of rank r + 1 begin.
  each_copy([&plan, next](index_t copy, std::int32_t row, index_t rank, index_t earlier) {
    std::int32_t wire;
    if (earlier < 0) {
      wire = static_cast<std::int32_t>(next[rank]++);
      plan.wire_token[wire] = static_cast<std::int32_t>(copy / plan.fan_out);
      plan.first_copy_to_wire[copy] = wire;
    } else {
      wire = plan.first_copy_to_wire[earlier];
      plan.first_copy_to_wire[copy] = no_row;
    }
    index_t const at = plan.sent_offsets[rank] + 1 + 2 * (row - plan.outer_offsets[rank]);
    plan.sent[at] = wire;  // made relative to the destination's first row below
    plan.sent[at + 1] = std::bit_cast<std::int32_t>(plan.weights[copy]);
  });
  for (index_t r = ranks; r > 0; --r) { next[r] = next[r - 1]; }
  next[0] = 0;
  for (index_t r = 0; r < ranks; ++r) {
    for (index_t at = plan.sent_offsets[r] + 1; at < plan.sent_offsets[r + 1]; at += 2) { plan.sent[at] -= static_cast<std::int32_t>(next[r]); }
  }
}

/// Read the messages of the sources.
inline void read_wire_rows(deduplicated_plan& plan) {
  index_t const ranks = plan.ranks;
  index_t rows = 0;
  for (index_t r = 0; r < ranks; ++r) {
    plan.wire_inner_offsets[r] = rows;
    rows += plan.received[plan.received_offsets[r]];
  }
  plan.wire_inner_offsets[ranks] = rows;
  plan.wire_inner_rows = rows;
  plan.buffer_to_wire.resize(plan.buffer_rows);
  plan.row_weights.resize(plan.buffer_rows);
  plan.wire_first.resize(rows + 1);
  plan.wire_to_buffer.resize(plan.inner_rows);
  std::fill_n(plan.buffer_to_wire.data(), plan.buffer_rows, no_row);
  std::fill_n(plan.row_weights.data(), plan.buffer_rows, 0.0F);
  std::fill_n(plan.wire_first.data(), rows + 1, 0);
  for (index_t r = 0; r < ranks; ++r) {
    for (index_t copy = plan.inner_offsets[r]; copy < plan.inner_offsets[r + 1]; ++copy) {
      index_t const at = plan.received_offsets[r] + 1 + 2 * (copy - plan.inner_offsets[r]);
      auto const wire = static_cast<std::int32_t>(plan.wire_inner_offsets[r]) + plan.received[at];
      std::int32_t const row = plan.inner_to_buffer[copy];
      plan.buffer_to_wire[row] = wire;
      plan.row_weights[row] = std::bit_cast<float>(plan.received[at + 1]);
      ++plan.wire_first[wire + 1];
    }
  }
  for (index_t w = 0; w < rows; ++w) { plan.wire_first[w + 1] += plan.wire_first[w]; }
  // Copies come in ascending slots, so the rows of a wire row are in slot order.
  for (index_t copy = 0; copy < plan.inner_rows; ++copy) {
    std::int32_t const row = plan.inner_to_buffer[copy];
    plan.wire_to_buffer[plan.wire_first[plan.buffer_to_wire[row]]++] = row;
  }
  for (index_t w = rows; w > 0; --w) { plan.wire_first[w] = plan.wire_first[w - 1]; }
  if (rows > 0) { plan.wire_first[0] = 0; }
}

/// out[w] = sum over the buffer rows of wire row w of weight * row.
template <class Value>
struct sum_wire_rows {
  std::int32_t const* first;
  std::int32_t const* entries;
  float const* weights;  // null = ones
  matrix_view<Value const> rows;
  matrix_view<Value> out;
  struct term {
    Value const* row;
    row_sum_t<Value> weight;
  };
  void operator()(index_t wire) const {
    std::int32_t const begin = first[wire];
    many_terms<Value>::run(
        first[wire + 1] - begin,
        [this, begin](index_t i) {
          std::int32_t const row = entries[begin + i];
          return term{rows.row(row), weights == nullptr ? row_sum_t<Value>{1} : static_cast<row_sum_t<Value>>(weights[row])};
        },
        out.cols(), out.row(wire));
  }
};

/// rows[b]: from an expert's output to the gradient of it; grad_weights of the copy in that row.
template <class Value>
struct spread_gradients {
  deduplicated_plan const* plan;
  matrix_view<Value const> wire;
  matrix_view<Value> rows;
  float* grad_weights;  // by buffer row
  void operator()(index_t row) const {
    std::int32_t const from = plan->buffer_to_wire[row];
    Value* const to = rows.row(row);
    if (from < 0) {
      std::fill_n(to, rows.cols(), Value{});
      return;
    }
    Value const* const grad = wire.row(from);
    grad_weights[row] = static_cast<float>(ordered_dot<Value>(grad, to, rows.cols()));
    auto const weight = static_cast<row_sum_t<Value>>(plan->row_weights[row]);
    for (index_t i = 0; i < rows.cols(); ++i) { to[i] = static_cast<Value>(weight * static_cast<row_sum_t<Value>>(grad[i])); }
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
