// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Keys by expert instead of by token, and the best tokens of an expert: the text of routers in which experts choose.
#include <fairlead/route/detail/weigh_ids.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>

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

/// A share in [0, 1] as a key below all shares, in the order of the shares: their ordered bits move down by 2^30, which is
/// exact where subtracting 1 would round. No candidate stays none.
[[nodiscard]] inline float demoted(float share) noexcept {
  return is_candidate(share) ? std::bit_cast<float>(~(ordered_bits(share) - 0x40000000U)) : share;
}
/// The share behind a key that may be demoted.
[[nodiscard]] inline float share_of_key(float key) noexcept {
  return std::signbit(key) ? std::bit_cast<float>((~std::bit_cast<std::uint32_t>(key) + 0x40000000U) & 0x7FFFFFFFU) : key;
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

/// The last token that an expert takes, as key and float; the expert takes a token of a greater key, or of an equal one.
struct column_cut {
  std::uint64_t key = ~std::uint64_t{0};  ///< nothing reaches it: takes none
  float floor = std::numeric_limits<float>::infinity();  ///< no key below this one is taken
};

/// Finds the cut of each expert: a histogram of the upper bits of the keys, then a selection inside one of its buckets.
/// @tparam Count called with (column, tokens, candidates): how many tokens the expert takes
template <class Count>
struct find_cuts {
  static constexpr int shift = 21;
  static constexpr std::uint32_t buckets = 1U << (32 - shift);
  static constexpr std::uint32_t first_candidate = 0x00800000U >> shift;  // NaN and -inf lie below

  Count count;
  float const* columns;
  index_t tokens;
  index_t experts;
  std::uint64_t* keys;  // tokens a part
  column_cut* cuts;     // experts
  void operator()(index_t part) const {
    for (index_t e = part; e < experts; e += column_parts) { cuts[e] = cut(columns + e * tokens, keys + part * tokens); }
  }
  [[nodiscard]] column_cut cut(float const* column, std::uint64_t* mine) const {
    std::uint32_t counts[2][buckets] = {};  // two, so that neighbours in one bucket need not wait for each other
    for (index_t t = 0; t < tokens; ++t) { ++counts[t & 1][ordered_bits(column[t]) >> shift]; }
    index_t candidates = 0;
    for (std::uint32_t b = first_candidate; b < buckets; ++b) { candidates += counts[0][b] + counts[1][b]; }
    index_t wanted = std::min<index_t>(count(column, tokens, candidates), candidates);
    if (wanted < 1) { return {}; }
    std::uint32_t bucket = buckets - 1;
    for (; wanted > index_t{counts[0][bucket]} + counts[1][bucket]; --bucket) { wanted -= counts[0][bucket] + counts[1][bucket]; }
    index_t inside = 0;
    for (index_t t = 0; t < tokens; ++t) {
      // Written always, kept only if it is in the bucket: no branch to guess.
      mine[inside] = token_key(column[t], t);
      inside += (mine[inside] >> (32 + shift)) == bucket ? 1 : 0;
    }
    std::nth_element(mine, mine + (wanted - 1), mine + inside, std::greater<>{});
    return {mine[wanted - 1], column[0xFFFFFFFFU - static_cast<std::uint32_t>(mine[wanted - 1])]};
  }
};

/// Collects the experts that take a token, the best first, as many as there are slots.
/// @tparam Shares whether keys are shares: then weights are written too
template <bool Shares>
struct collect_choices {
  float const* columns;
  column_cut const* cuts;
  index_t tokens;
  index_t experts;
  float scale;
  routing_view out;
  void operator()(index_t block) const {
    index_t const first = block * column_rows, count = std::min(column_rows, tokens - first), k = out.fan_out();
    float best[column_rows][max_fan_out];
    std::int32_t ids[column_rows][max_fan_out];
    for (index_t i = 0; i < column_rows; ++i) {
      std::fill_n(best[i], k, minus_infinity);
      std::fill_n(ids[i], k, -1);
    }
    for (index_t e = 0; e < experts; ++e) {
      float const* const keys = columns + e * tokens + first;
      std::uint32_t near = 0;  // NaN and -inf are below every floor
      for (index_t i = 0; i < count; ++i) { near |= static_cast<std::uint32_t>(keys[i] >= cuts[e].floor) << i; }
      for (; near != 0; near &= near - 1) {
        auto const i = static_cast<index_t>(std::countr_zero(near));
        if (token_key(keys[i], first + i) >= cuts[e].key) {
          insert_best(keys[i], static_cast<std::int32_t>(e), k, best[i], ids[i]);
        }
      }
    }
    for (index_t i = 0; i < count; ++i) {
      for (index_t j = 0; j < k; ++j) {
        out.experts(first + i, j) = static_cast<expert_id>(ids[i][j]);
        if constexpr (Shares) {
          out.weights(first + i, j) = ids[i][j] < 0 ? 0.0F : numeric::product(share_of_key(best[i][j]), scale);
        }
      }
    }
  }
};

/// Scratch of the three steps.
[[nodiscard]] constexpr std::size_t column_bytes(index_t tokens, index_t experts) noexcept {
  index_t const parts = std::min(route_parts, (tokens + column_rows - 1) / column_rows);
  return workspace_bytes<float>(tokens * experts) +
         std::max(workspace_bytes<float>(parts * column_rows * route_stride(experts)),
                  workspace_bytes<std::uint64_t>(std::min(experts, column_parts) * tokens)) +
         workspace_bytes<column_cut>(experts);
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

/// Lets each expert take its best tokens; weights are written if keys are shares.
template <bool Shares, class Count, host_backend Backend>
void choose_by_columns(Backend const& on, float const* columns, index_t experts, Count count, float scale,
                       routing_view out, workspace& ws) {
  workspace::scope const scope(ws);
  index_t const tokens = out.tokens(), parts = std::min(experts, column_parts);
  column_cut* const cuts = ws.take<column_cut>(experts).data();
  {
    workspace::scope const inner(ws);
    std::uint64_t* const keys = ws.take<std::uint64_t>(parts * tokens).data();
    on.for_each(parts, find_cuts<Count>{count, columns, tokens, experts, keys, cuts});
  }
  on.for_each((tokens + column_rows - 1) / column_rows,
              collect_choices<Shares>{columns, cuts, tokens, experts, scale, out});
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
