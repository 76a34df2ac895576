// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Weights that are softmax shares over the tokens of an expert, and their gradient.
#include <fairlead/route/detail/choice_columns.hpp>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Softmax over the tokens of each expert.
struct column_softmax {
  float const* columns;
  index_t tokens;
  softmax_row* soft;
  void operator()(index_t e) const { soft[e] = softmax_of(columns + e * tokens, tokens); }
};
/// Experts that a token goes to, as a divisor.
[[nodiscard]] inline float choices_of(const_routing_view out, index_t t, bool divide) noexcept {
  index_t count = 0;
  for (index_t j = 0; divide && j < out.fan_out(); ++j) { count += out.experts(t, j) != expert_id::none ? 1 : 0; }
  return count > 0 ? static_cast<float>(count) : 1.0F;
}
[[nodiscard]] inline float token_share(float logit, softmax_row const& soft) noexcept {
  return numeric::quotient(numeric::exp(clean_logit(logit) - soft.largest), soft.sum);
}

struct weigh_token_row {
  float const* columns;
  softmax_row const* soft;
  float scale;
  bool divide;
  routing_view out;
  void operator()(index_t t) const {
    float const count = choices_of(out, t, divide);
    for (index_t j = 0; j < out.fan_out(); ++j) {
      index_t const e = to_index(out.experts(t, j));
      float const share = e < 0 ? 0.0F : token_share(columns[e * out.tokens() + t], soft[e]);
      out.weights(t, j) = e < 0 ? 0.0F : numeric::product(numeric::quotient(share, count), scale);
    }
  }
};

/// Sums over the tokens of one run of gradient x share, for each expert.
struct share_dot_run {
  float const* columns;
  softmax_row const* soft;
  float scale;
  bool divide;
  const_routing_view out;
  matrix_view<float const> grad_weights;
  index_t experts;
  double* dots;
  void operator()(index_t part) const {
    double* const mine = dots + part * experts;
    std::fill_n(mine, experts, 0.0);
    index_t const tokens = out.tokens(), parts = std::min(route_parts, tokens);
    for (index_t t = part * tokens / parts; t < (part + 1) * tokens / parts; ++t) {
      float const factor = scale / choices_of(out, t, divide);
      for (index_t j = 0; j < out.fan_out(); ++j) {
        index_t const e = to_index(out.experts(t, j));
        if (e < 0) { continue; }
        float const share = token_share(columns[e * tokens + t], soft[e]);
        mine[e] += static_cast<double>(grad_weights(t, j) * factor) * static_cast<double>(share);
      }
    }
  }
};
struct share_gradient_row {
  float const* columns;
  softmax_row const* soft;
  double const* dots;
  float scale;
  bool divide;
  const_routing_view out;
  matrix_view<float const> grad_weights;
  matrix_view<float> grad_logits;
  void operator()(index_t t) const {
    index_t const experts = grad_logits.cols(), tokens = grad_logits.rows();
    float* const grad = grad_logits.row(t);
    for (index_t e = 0; e < experts; ++e) { grad[e] = -static_cast<float>(dots[e]); }
    float const factor = scale / choices_of(out, t, divide);
    for (index_t j = 0; j < out.fan_out(); ++j) {
      if (out.experts(t, j) != expert_id::none) { grad[to_index(out.experts(t, j))] += grad_weights(t, j) * factor; }
    }
    for (index_t e = 0; e < experts; ++e) {
      float const key = columns[e * tokens + t];
      grad[e] = is_candidate(key) ? grad[e] * token_share(key, soft[e]) : 0.0F;
    }
  }
};

/// Scratch of both.
[[nodiscard]] constexpr std::size_t share_bytes(index_t tokens, index_t experts) noexcept {
  return workspace_bytes<softmax_row>(experts) +
         workspace_bytes<double>((std::min(route_parts, tokens) + 1) * experts);
}

template <host_backend Backend>
void weigh_by_token_shares(Backend const& on, float const* columns, matrix_view<float const> logits, float scale,
                           bool divide, routing_view out, workspace& ws) {
  workspace::scope const scope(ws);
  softmax_row* const soft = ws.take<softmax_row>(logits.cols()).data();
  on.for_each(logits.cols(), column_softmax{columns, logits.rows(), soft});
  on.for_each(logits.rows(), weigh_token_row{columns, soft, scale, divide, out});
}

template <host_backend Backend>
void token_share_gradient(Backend const& on, float const* columns, matrix_view<float const> logits, float scale,
                          bool divide, const_routing_view out, matrix_view<float const> grad_weights,
                          matrix_view<float> grad_logits, workspace& ws) {
  workspace::scope const scope(ws);
  index_t const experts = logits.cols(), parts = std::min(route_parts, logits.rows());
  softmax_row* const soft = ws.take<softmax_row>(experts).data();
  double* const dots = ws.take<double>((parts + 1) * experts).data();
  double* const sums = dots + parts * experts;
  on.for_each(experts, column_softmax{columns, logits.rows(), soft});
  on.for_each(parts, share_dot_run{columns, soft, scale, divide, out, grad_weights, experts, dots});
  for (index_t e = 0; e < experts; ++e) {
    sums[e] = 0.0;
    for (index_t part = 0; part < parts; ++part) { sums[e] += dots[part * experts + e]; }
  }
  on.for_each(logits.rows(),
              share_gradient_row{columns, soft, sums, scale, divide, out, grad_weights, grad_logits});
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
