// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of the routers that read a table.
#include <fairlead/route/fixed_choice.hpp>
#include <fairlead/route/token_choice.cuh>

#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// Looks up and weighs the experts of a row, by a warp: a lane a slot, two for more than 32.
template <class Row, class Score, class Renormalisation>
__global__ void __launch_bounds__(32 * route_warps, route_blocks)
    table_rows(table_choice<Row, Score, Renormalisation> choice, matrix_view<float const> logits, route_context context,
               routing_view out, float* scratch, bool changes) {
  extern __shared__ float route_shared[];
  using rules = weighting<Score, Renormalisation>;
  auto const experts = static_cast<int>(choice.experts());
  int const fan_out = static_cast<int>(choice.k);
  auto const rows = warp_rows::of(route_shared, scratch, route_stride(experts));
  for (index_t row = blockIdx.x * static_cast<index_t>(route_warps) + threadIdx.x / 32; row < logits.rows();
       row += gridDim.x * static_cast<index_t>(route_warps)) {
    std::int32_t id[2] = {-1, -1};
    float chosen[2] = {minus_infinity, minus_infinity};
    softmax_row soft;
    if (is_valid(context, row)) {
      index_t entry = row;
      if constexpr (std::is_same_v<Row, row_by_token_id>) {
        auto const token = static_cast<std::uint32_t>(context.token_ids[static_cast<std::size_t>(row)]);
        entry = token < static_cast<std::uint64_t>(choice.table.rows()) ? static_cast<index_t>(token) : -1;
      }
      for (int h = 0; h < 2 && entry >= 0; ++h) {
        int const slot = lane_number() + 32 * h;
        if (slot >= fan_out) { continue; }
        auto const expert = static_cast<std::int32_t>(choice.table(entry, slot));
        if (static_cast<std::uint32_t>(expert) >= static_cast<std::uint32_t>(experts)) { continue; }
        chosen[h] = effective_logit(no_noise{}, context, row, expert, experts, logits(row, expert));
        id[h] = is_candidate(chosen[h]) ? expert : -1;
      }
    }
    if constexpr (rules::needs_row) {
      float const* effective = logits.row(row);
      if (changes) {
        warp_effective_row(no_noise{}, context, row, experts, effective, rows.effective);
        effective = rows.effective;
      }
      soft = warp_softmax(effective, experts);
      __syncwarp();  // the next row overwrites the scratch
    }
    float weight[2];
    warp_weights<Score, Renormalisation>(chosen, fan_out, choice.scale, soft, weight);
    for (int h = 0; h < 2; ++h) {
      int const slot = lane_number() + 32 * h;
      if (slot >= fan_out) { continue; }
      out.experts(row, slot) = static_cast<expert_id>(id[h]);
      out.weights(row, slot) = weight[h];
    }
  }
}

}  // namespace detail

/// @brief Device text of `table_choice`: table, token ids and masks are device memory.
/// @determinism ids and weights are the bits of the host text
template <class Row, class Score, class Renormalisation, cuda_backend Backend>
struct implementation<table_choice<Row, Score, Renormalisation>, Backend> {
  /// See `table_choice::route`.
  static void route(table_choice<Row, Score, Renormalisation> const& router, Backend const& on,
                    matrix_view<float const> logits, route_context const& context, routing_view out, workspace& ws) {
    if (logits.rows() == 0) { return; }
    workspace::scope const scope(ws);
    auto const launch = detail::route_launch::of(logits.rows(), router.experts(), ws);
    detail::table_rows<<<launch.blocks, 32 * detail::route_warps, launch.shared, on.native()>>>(
        router, logits, context, out, launch.scratch, detail::changes_logits<no_noise>(context));
    kernels::check_launch("route by a table");
  }
};

FAIRLEAD_NAMESPACE_END
