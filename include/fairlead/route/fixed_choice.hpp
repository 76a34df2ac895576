// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Routers whose choice comes from a table, with weights from the logits at the chosen experts.
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/token_choice.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The row of the table is the token's vocabulary id (`route_context::token_ids`).
struct row_by_token_id {};
/// @brief The row of the table is the row of the batch.
struct row_by_position {};

/// @brief Take the experts of a token from a table and weigh them by their logits.
///
/// An id that is none, masked, or whose logit is NaN or -inf gives none and weight 0. The gradient flows through the
/// weights only. On a device, table and token ids are device memory, and what is not in the table gives none.
/// @tparam Row `row_by_token_id` or `row_by_position`
/// @tparam Score how a logit becomes a score
/// @tparam Renormalisation how scores become weights
template <class Row, class Score, class Renormalisation>
struct table_choice {
  expert_count experts;                  ///< number of experts
  index_t k = 1;                         ///< experts a token, 1 ... min(experts, 64)
  float scale = 1.0F;                    ///< factor on all weights, finite
  matrix_view<expert_id const> table{};  ///< distinct experts a row, memory of the backend. @shape{rows x k}

  /// @returns experts a token
  [[nodiscard]] FAIRLEAD_HD constexpr index_t fan_out() const noexcept { return k; }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const noexcept {
    return detail::route_workspace_bytes(tokens, experts);
  }
  /// @brief Look up experts and weigh them.
  /// @param on execution backend
  /// @param logits @shape{tokens x experts}
  /// @param context masks, and token ids for `row_by_token_id`
  /// @param[out] out @shape{tokens x k}, in the order of the table
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes, (level 2, hosts) if the id of a token that is no padding is
  /// not in the table, or an id in the table is no expert and not none
  /// @complexity O(tokens x k), and x experts for weights over the whole row; no allocation
  template <execution_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    check<Backend>(logits, context, out);
    implementation<table_choice, Backend>::route(*this, on, logits, context, out, ws);
  }
  /// @brief Derive the loss by the logits, given its derivative by the weights.
  /// @param on execution backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x k}
  /// @param[out] grad_logits overwritten. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens)`
  template <execution_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace& ws) const {
    check<Backend>(logits, context, out);
    implementation<token_choice<Score, plain_selection, Renormalisation>, Backend>::backward(
        {.experts = experts, .k = k, .scale = scale, .selection = {}, .noise = {}}, on, logits, context, out,
        grad_weights, grad_logits, ws);
  }

 private:
  template <class Backend>
  void check(matrix_view<float const> logits, route_context const& context, const_routing_view out) const {
    detail::check_route(context, experts(), k, scale, logits, out);
    FAIRLEAD_EXPECTS(table.cols() == k || logits.rows() == 0, "the table must have k columns", table.cols(), k);
    if constexpr (std::is_same_v<Row, row_by_position>) {
      FAIRLEAD_EXPECTS(table.rows() >= logits.rows(), "the table must have a row a token", table.rows(), logits.rows());
    } else {
      FAIRLEAD_EXPECTS(static_cast<index_t>(context.token_ids.size()) == logits.rows(),
                       "set route_context::token_ids, one a token", context.token_ids.size(), logits.rows());
      if constexpr (host_backend<Backend>) {
        for (index_t t = 0; t < logits.rows(); ++t) {
          [[maybe_unused]] std::int32_t const id = context.token_ids[static_cast<std::size_t>(t)];
          FAIRLEAD_EXPECTS_2(!detail::is_valid(context, t) || (id >= 0 && id < table.rows()),
                             "each token id must be a row of the table", id, t, table.rows());
        }
      }
    }
  }
};

/// @brief A token by its id never sees its batch-mates; a table by position is external and promises nothing.
template <class Score, class Renormalisation>
inline constexpr bool causal<table_choice<row_by_token_id, Score, Renormalisation>> = true;

namespace detail {
/// Routes the rows of one part.
template <class Row, class Score, class Renormalisation>
struct table_part {
  table_choice<Row, Score, Renormalisation> choice;
  matrix_view<float const> logits;
  route_context context;
  routing_view out;
  float* scratch;
  index_t rows_per_part;
  void operator()(index_t part) const {
    using rules = weighting<Score, Renormalisation>;
    index_t const experts = choice.experts();
    index_t const last = std::min((part + 1) * rows_per_part, logits.rows());
    float* const row_scratch = scratch + part * route_scratch(experts);
    float chosen[max_fan_out];
    for (index_t t = part * rows_per_part; t < last; ++t) {
      bool const valid = is_valid(context, t);
      index_t row = t;
      if constexpr (std::is_same_v<Row, row_by_token_id>) { row = context.token_ids[static_cast<std::size_t>(t)]; }
      for (index_t j = 0; j < choice.k; ++j) {
        // The id of padding may be anything, -1 for instance: it is not looked up.
        expert_id const id = valid ? choice.table(row, j) : expert_id::none;
        bool const none = id == expert_id::none;
        chosen[j] = none ? minus_infinity
                         : effective_logit(no_noise{}, context, t, to_index(id), experts, logits(t, to_index(id)));
        out.experts(t, j) = is_candidate(chosen[j]) ? id : expert_id::none;
      }
      softmax_row soft;
      if constexpr (rules::needs_row) {
        effective_row(no_noise{}, context, t, experts, logits.row(t), row_scratch);
        soft = softmax_of(row_scratch, experts);
      }
      rules::template weights<1>(chosen, choice.k, choice.scale, &soft, out.weights.row(t));
    }
  }
};
}  // namespace detail

/// @brief Host text of `table_choice`.
template <class Row, class Score, class Renormalisation, host_backend Backend>
struct implementation<table_choice<Row, Score, Renormalisation>, Backend> {
  /// See `table_choice::route`.
  static void route(table_choice<Row, Score, Renormalisation> const& router, Backend const& on,
                    matrix_view<float const> logits, route_context const& context, routing_view out, workspace& ws) {
    for (index_t t = 0; t < logits.rows(); ++t) {
      if (!detail::is_valid(context, t)) { continue; }
      index_t row = t;
      if constexpr (std::is_same_v<Row, row_by_token_id>) { row = context.token_ids[static_cast<std::size_t>(t)]; }
      for (index_t j = 0; j < router.k; ++j) {
        [[maybe_unused]] index_t const id = to_index(router.table(row, j));
        FAIRLEAD_EXPECTS_2(id >= -1 && id < router.experts(), "each id of the table must be an expert or -1 for none",
                           id, t, j, router.experts());
      }
    }
    detail::for_each_part(
        on, logits.rows(), router.experts(), ws,
        detail::table_part<Row, Score, Renormalisation>{router, logits, context, out, nullptr, 0});
  }
};

/// @brief S10: experts by vocabulary id, weights from the logits there (DeepSeek-V4 hash layers).
/// @source{routing orders S10, FlashInfer hash_topk}
using hash_table_top_k = table_choice<row_by_token_id, sqrt_softplus_score, sum_over_chosen>;
/// @brief S11: experts that somebody else chose (replay, experiments), weights by the softmax over their logits.
/// @source{routing orders S11}
using external_ids = table_choice<row_by_position, raw_score, softmax_over_chosen>;
static_assert(router_on<hash_table_top_k, serial> && has_gradient_on<external_ids, serial>);

FAIRLEAD_NAMESPACE_END
