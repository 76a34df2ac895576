// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Keys by expert instead of by token, and the best tokens of an expert: the text of routers in which experts choose.
#include <fairlead/route/detail/weigh_ids.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Experts are cut into at most this many parts, whatever the backend.
inline constexpr index_t column_parts = 32;
/// Rows that are transposed together: one cache line.
inline constexpr index_t column_rows = 16;

/// Most choices of a token where the user gave no bound.
[[nodiscard]] constexpr index_t choices_bound(index_t max_choices, index_t experts) noexcept {
  return max_choices > 0 ? max_choices : std::min(experts, max_fan_out);
}

/// Key and token in one integer: the larger comes first in the order (key descending, token ascending).
[[nodiscard]] inline std::uint64_t token_key(float key, index_t token) noexcept {
  return (std::uint64_t{ordered_bits(key)} << 32U) | (0xFFFFFFFFU - static_cast<std::uint32_t>(token));
}

/// Effective logits, or softmax shares over the row, into columns, 16 tokens at a time; -inf for what may not be chosen.
template <bool Shares>
struct fill_columns {
  matrix_view<float const> logits;
  route_context context;
  float* columns;  // experts x tokens
  float* rows;     // column_rows x stride, for each part
  void operator()(index_t part) const {
    float* const mine = rows + part * column_rows * route_stride(logits.cols());
    for (index_t first = part * column_rows; first < logits.rows(); first += route_parts * column_rows) {
      fill(first, mine);
    }
  }
  void fill(index_t first, float* mine) const {
    index_t const experts = logits.cols(), stride = route_stride(experts), tokens = logits.rows();
    index_t const count = std::min(column_rows, tokens - first);
    for (index_t i = 0; i < count; ++i) {
      float* const row = mine + i * stride;
      if (!is_valid(context, first + i)) {
        std::fill_n(row, experts, minus_infinity);
        continue;
      }
      effective_row(no_noise{}, context, first + i, experts, logits.row(first + i), row);
      if constexpr (Shares) { score_row<softmax_score>(row, experts, true, row); }
    }
    for (index_t e = 0; e < experts; ++e) {
      float* const column = columns + e * tokens + first;
      for (index_t i = 0; i < count; ++i) { column[i] = mine[i * stride + e]; }
    }
  }
};

/// For each expert the key of the last token that it takes; the largest integer if it takes none.
/// @tparam Count called with (column, tokens, candidates): how many tokens the expert takes
template <class Count>
struct find_cuts {
  Count count;
  float const* columns;
  index_t tokens;
  index_t experts;
  std::uint64_t* keys;  // tokens a part
  std::uint64_t* cuts;  // experts
  void operator()(index_t part) const {
    std::uint64_t* const mine = keys + part * tokens;
    for (index_t e = part; e < experts; e += column_parts) {
      float const* const column = columns + e * tokens;
      index_t candidates = 0;
      for (index_t t = 0; t < tokens; ++t) {
        if (is_candidate(column[t])) { mine[candidates++] = token_key(column[t], t); }
      }
      index_t const wanted = std::min<index_t>(count(column, tokens, candidates), candidates);
      if (wanted < 1) {
        cuts[e] = ~std::uint64_t{0};
        continue;
      }
      std::nth_element(mine, mine + (wanted - 1), mine + candidates, std::greater<>{});
      cuts[e] = mine[wanted - 1];
    }
  }
};

/// Collects the experts that take a token, the best first, as many as there are slots.
struct collect_choices {
  float const* columns;
  std::uint64_t const* cuts;
  index_t tokens;
  index_t experts;
  routing_view out;
  void operator()(index_t block) const {
    index_t const last = std::min((block + 1) * column_rows, tokens), k = out.fan_out();
    float best[column_rows][max_fan_out];
    std::int32_t ids[column_rows][max_fan_out];
    for (index_t i = 0; i < column_rows; ++i) {
      std::fill_n(best[i], k, minus_infinity);
      std::fill_n(ids[i], k, -1);
    }
    for (index_t e = 0; e < experts; ++e) {
      for (index_t t = block * column_rows; t < last; ++t) {
        float const key = columns[e * tokens + t];
        bool const takes = is_candidate(key) && token_key(key, t) >= cuts[e];
        if (takes) {
          insert_best(key, static_cast<std::int32_t>(e), k, best[t % column_rows], ids[t % column_rows]);
        }
      }
    }
    for (index_t t = block * column_rows; t < last; ++t) {
      for (index_t j = 0; j < k; ++j) { out.experts(t, j) = static_cast<expert_id>(ids[t % column_rows][j]); }
    }
  }
};

/// Scratch of the three steps.
[[nodiscard]] constexpr std::size_t column_bytes(index_t tokens, index_t experts) noexcept {
  index_t const parts = std::min(route_parts, (tokens + column_rows - 1) / column_rows);
  return workspace_bytes<float>(tokens * experts) +
         std::max(workspace_bytes<float>(parts * column_rows * route_stride(experts)),
                  workspace_bytes<std::uint64_t>(std::min(experts, column_parts) * tokens)) +
         workspace_bytes<std::uint64_t>(experts);
}

/// Transposes logits or shares.
template <bool Shares, host_backend Backend>
[[nodiscard]] float* make_columns(Backend const& on, matrix_view<float const> logits, route_context const& context,
                                  workspace& ws) {
  index_t const tokens = logits.rows(), experts = logits.cols();
  index_t const parts = std::min(route_parts, (tokens + column_rows - 1) / column_rows);
  float* const columns = ws.take<float>(tokens * experts).data();
  workspace::scope const scope(ws);
  float* const rows = ws.take<float>(parts * column_rows * route_stride(experts)).data();
  on.for_each(parts, fill_columns<Shares>{logits, context, columns, rows});
  return columns;
}

/// Lets each expert take its best tokens and writes ids, no weights.
template <class Count, host_backend Backend>
void choose_by_columns(Backend const& on, float const* columns, index_t experts, Count count, routing_view out,
                       workspace& ws) {
  workspace::scope const scope(ws);
  index_t const tokens = out.tokens(), parts = std::min(experts, column_parts);
  std::uint64_t* const cuts = ws.take<std::uint64_t>(experts).data();
  {
    workspace::scope const inner(ws);
    std::uint64_t* const keys = ws.take<std::uint64_t>(parts * tokens).data();
    on.for_each(parts, find_cuts<Count>{count, columns, tokens, experts, keys, cuts});
  }
  on.for_each((tokens + column_rows - 1) / column_rows, collect_choices{columns, cuts, tokens, experts, out});
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
