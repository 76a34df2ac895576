// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Token rounding: top-k whose copies per expert are rounded to whole tiles of the grouped matrix product.
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/detail/choice_columns.hpp>
#include <fairlead/route/top_k.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Which multiple of a tile a count is rounded to.
enum class tile_rounding {
  down,         ///< never more copies than tokens chose: drops some
  up,           ///< never fewer: adds some
  nearest_even  ///< to the nearest multiple, halves to the even one
};

/// @brief Round a count to whole tiles.
/// @param copies count, >= 0
/// @param tile rows of a tile, >= 1
/// @param rounding which multiple
/// @returns a multiple of `tile`
/// @complexity O(1)
/// @source{SonicMoE code, moe-token-rounding}
[[nodiscard]] constexpr index_t round_to_tile(index_t copies, index_t tile, tile_rounding rounding) noexcept {
  index_t const whole = copies / tile, rest = copies % tile;
  bool more = rest > 0;
  if (rounding == tile_rounding::down) { more = false; }
  if (rounding == tile_rounding::nearest_even) { more = 2 * rest > tile || (2 * rest == tile && whole % 2 == 1); }
  return (whole + (more ? 1 : 0)) * tile;
}

/// @brief In training take the k best experts of each token, then let each expert drop its worst tokens or take more, until
/// its count fills whole tiles; in evaluation plain top-k.
///
/// An expert ranks the tokens that chose it first, by softmax share, then all others by share, and keeps the rounded
/// number of them: it loses tokens with the smallest shares, or gains tokens that wanted it most without choosing it.
/// Weights are shares over all experts, not renormalised, for both. A token may end with none up to `fan_out()` experts;
/// of more the best keep it (true choices first), and that expert's last tile is not full. An expert with fewer
/// candidates than its rounded count takes them all. Rounding looks at the whole batch: training couples tokens;
/// evaluation does not. As a router, and not as a change of a finished routing, because added tokens need shares and
/// gradients.
/// @source{SonicMoE}
struct token_rounding {
  /// Chooses and weighs without rounding.
  using choice_type = softmax_top_k;

  expert_count experts;      ///< number of experts, 1 ... 65536
  index_t k = 1;             ///< experts a token chooses, 1 ... min(experts, 64)
  float scale = 1.0F;        ///< factor on all weights, finite
  index_t tile = 128;        ///< rows of a tile, >= 1
  tile_rounding rounding = tile_rounding::nearest_even;  ///< which multiple
  index_t max_choices = 0;   ///< most experts a token ends with, k ... min(experts, 64), or 0 = min(experts, 64)

  /// @returns most experts a token
  [[nodiscard]] constexpr index_t fan_out() const noexcept { return detail::choices_bound(max_choices, experts); }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const noexcept {
    return fairlead::workspace_bytes<expert_id>(tokens * k) + fairlead::workspace_bytes<float>(tokens * k) +
           detail::column_bytes(tokens, experts) + detail::route_workspace_bytes(tokens, experts);
  }
  /// @brief Choose, round, weigh.
  /// @param on host backend
  /// @param logits @shape{tokens x experts}
  /// @param context phase, masks
  /// @param[out] out @shape{tokens x fan_out}: true choices by descending share, then added experts, then none
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity O(tokens x experts x k) time, no allocation; scratch of tokens x experts floats
  /// @determinism the same bits at any number of threads
  template <host_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    check(context, logits, out);
    if (logits.rows() == 0) { return; }
    workspace::scope const scope(ws);
    index_t const tokens = logits.rows();
    routing_view const chosen{{ws.take<expert_id>(tokens * k).data(), tokens, k},
                              {ws.take<float>(tokens * k).data(), tokens, k}};
    choice(k).route(on, logits, context, chosen, ws);
    if (context.phase == phase::evaluate) {
      on.for_each(tokens, widen_row{chosen, out});
      return;
    }
    float* const columns = detail::make_columns<true>(on, logits, context, ws);
    index_t const rows = detail::column_rows;
    on.for_each((tokens + rows - 1) / rows, demote_rows{columns, experts(), chosen});
    detail::choose_by_columns<true>(on, columns, experts(), rounded_count{tile, rounding}, scale, out, ws);
  }
  /// @brief Derive the loss by the logits; see `token_choice::backward`.
  /// @param on host backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x fan_out}
  /// @param[out] grad_logits overwritten. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens)`
  template <host_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace& ws) const {
    check(context, logits, out);
    choice(fan_out()).backward(on, logits, context, out, grad_weights, grad_logits, ws);
  }

 private:
  struct demote_rows {
    float* columns;
    index_t experts;
    const_routing_view chosen;
    void operator()(index_t block) const {
      index_t const tokens = chosen.tokens(), first = block * detail::column_rows;
      index_t const last = std::min(first + detail::column_rows, tokens);
      float kept[detail::column_rows][max_fan_out];
      for (index_t t = first; t < last; ++t) {
        for (index_t j = 0; j < chosen.fan_out(); ++j) {
          index_t const e = to_index(chosen.experts(t, j));
          kept[t - first][j] = e < 0 ? 0.0F : columns[e * tokens + t];
        }
      }
      for (index_t e = 0; e < experts; ++e) {
        for (index_t t = first; t < last; ++t) { columns[e * tokens + t] = detail::demoted(columns[e * tokens + t]); }
      }
      for (index_t t = first; t < last; ++t) {
        for (index_t j = 0; j < chosen.fan_out(); ++j) {
          index_t const e = to_index(chosen.experts(t, j));
          if (e >= 0) { columns[e * tokens + t] = kept[t - first][j]; }
        }
      }
    }
  };
  struct rounded_count {
    index_t tile;
    tile_rounding rounding;
    index_t operator()(float const* column, index_t tokens, index_t) const noexcept {
      index_t copies = 0;
      for (index_t t = 0; t < tokens; ++t) { copies += column[t] >= 0.0F ? 1 : 0; }  // the demoted are below 0
      return round_to_tile(copies, tile, rounding);
    }
  };
  struct widen_row {
    const_routing_view from;
    routing_view to;
    void operator()(index_t t) const {
      for (index_t j = 0; j < to.fan_out(); ++j) {
        bool const has = j < from.fan_out();
        to.experts(t, j) = has ? from.experts(t, j) : expert_id::none;
        to.weights(t, j) = has ? from.weights(t, j) : 0.0F;
      }
    }
  };
  [[nodiscard]] constexpr choice_type choice(index_t slots) const noexcept {
    return {.experts = experts, .k = slots, .scale = scale, .selection = {}, .noise = {}};
  }
  void check(route_context const& context, matrix_view<float const> logits, const_routing_view out) const {
    FAIRLEAD_EXPECTS(k >= 1 && k <= fan_out() && (max_choices == 0 || max_choices <= experts()),
                     "set k to 1 ... max_choices, and max_choices to k ... experts or 0", k, max_choices, experts());
    FAIRLEAD_EXPECTS(tile >= 1, "a tile has at least one row", tile);
    FAIRLEAD_EXPECTS(logits.rows() <= 0xFFFFFFFF, "an expert ranks fewer than 2^32 tokens", logits.rows());
    detail::check_route(context, experts(), fan_out(), scale, logits, out);
  }
};
/// @brief In evaluation a token does not see its batch-mates.
template <>
inline constexpr bool causal<token_rounding> = true;
/// @brief In training it does.
template <>
inline constexpr bool batch_coupled<token_rounding> = true;

static_assert(router_on<token_rounding, serial> && has_gradient_on<token_rounding, serial>);

FAIRLEAD_NAMESPACE_END
