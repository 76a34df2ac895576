// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Divide the weights of a token by their p-norm.
#include <fairlead/concepts/router.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Route as another router does, then divide the weights of each token by (sum of |weight|^p)^(1/p).
///
/// With p = 1 and positive weights that is the usual renormalisation. Weights that are all zero stay zero.
/// Example: `normalised_weights<softmax_top_k>{.router = {.experts = 64, .k = 2}, .p = 2}`.
/// @tparam Router a router without state, with gradient; host backends
/// @source{MegaBlocks, layers/router, moe_normalize_expert_weights}
template <class Router>
struct normalised_weights {
  Router router{};     ///< who chooses
  float p = 1.0F;      ///< order of the norm, >= 1 and finite
  float scale = 1.0F;  ///< factor on all weights afterwards, finite

  /// @returns number of experts
  [[nodiscard]] constexpr index_t experts() const { return router.experts(); }
  /// @returns experts a token
  [[nodiscard]] constexpr index_t fan_out() const { return router.fan_out(); }
  /// @returns columns of the logits
  [[nodiscard]] constexpr index_t logit_columns() const { return fairlead::logit_columns(router); }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const {
    return router.workspace_bytes(tokens) + fairlead::workspace_bytes<expert_id>(tokens * fan_out()) +
           2 * fairlead::workspace_bytes<float>(tokens * fan_out());
  }
  /// @brief Choose experts and weights.
  /// @param on host backend
  /// @param logits @shape{tokens x logit_columns()}
  /// @param context phase, seed, step, masks
  /// @param[out] out @shape{tokens x fan_out()}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity that of the router and O(tokens x fan_out); no allocation
  template <host_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    FAIRLEAD_EXPECTS(p >= 1.0F && p < std::numeric_limits<float>::infinity(), "the order of a norm is at least 1", p);
    FAIRLEAD_EXPECTS(std::isfinite(scale), "the router's scale must be finite", scale);
    router.route(on, logits, context, out, ws);
    on.for_each((out.tokens() + rows - 1) / rows, divide{p, scale, out.weights});
  }
  /// @brief Derive the loss by the logits, through norm and router; the choice is held constant.
  /// @param on host backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x fan_out()}
  /// @param[out] grad_logits overwritten. @shape{tokens x logit_columns()}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  template <host_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace& ws) const {
    index_t const tokens = logits.rows();
    index_t const k = fan_out();
    FAIRLEAD_EXPECTS(out.tokens() == tokens && grad_weights.rows() == tokens && grad_weights.cols() == k,
                     "routing and grad_weights must be tokens x fan_out", out.tokens(), grad_weights.rows(), grad_weights.cols());
    workspace::scope const scope(ws);
    // The weights before the division, which a quotient does not tell.
    matrix_view<expert_id> const ids(ws.take<expert_id>(tokens * k).data(), tokens, k);
    matrix_view<float> const weights(ws.take<float>(tokens * k).data(), tokens, k);
    matrix_view<float> const grad(ws.take<float>(tokens * k).data(), tokens, k);
    router.route(on, logits, context, {ids, weights}, ws);
    on.for_each((tokens + rows - 1) / rows, through{p, scale, weights, grad_weights, grad});
    router.backward(on, logits, context, const_routing_view{ids, weights}, matrix_view<float const>(grad), grad_logits, ws);
  }

 private:
  static constexpr index_t rows = 256;
  // |x|^p without a call for the usual orders.
  [[nodiscard]] static float power(float x, float exponent) noexcept {
    float const size = std::fabs(x);
    return exponent == 0.0F ? 1.0F : exponent == 1.0F ? size : exponent == 2.0F ? size * size : std::pow(size, exponent);
  }
  [[nodiscard]] static float norm(float const* weights, index_t count, float p) noexcept {
    float largest = 0.0F;
    for (index_t j = 0; j < count; ++j) { largest = std::max(largest, std::fabs(weights[j])); }
    if (!(largest > 0.0F)) { return 0.0F; }
    float sum = 0.0F;  // of quotients: powers of small weights vanish
    for (index_t j = 0; j < count; ++j) { sum += power(weights[j] / largest, p); }
    return largest * (p == 1.0F ? sum : p == 2.0F ? std::sqrt(sum) : std::pow(sum, 1.0F / p));
  }
  struct divide {
    float p;
    float scale;
    matrix_view<float> weights;
    void operator()(index_t block) const {
      index_t const last = std::min((block + 1) * rows, weights.rows());
      for (index_t t = block * rows; t < last; ++t) {
        float const total = norm(weights.row(t), weights.cols(), p);
        for (index_t j = 0; j < weights.cols(); ++j) {
          weights(t, j) = total > 0.0F ? scale * (weights(t, j) / total) : 0.0F;
        }
      }
    }
  };
  // With v = w / N: dLoss/dw_i = scale / N (g_i - sign(v_i) |v_i|^(p-1) sum_j g_j v_j).
  struct through {
    float p;
    float scale;
    matrix_view<float const> weights;
    matrix_view<float const> grad_weights;
    matrix_view<float> grad;
    void operator()(index_t block) const {
      index_t const last = std::min((block + 1) * rows, weights.rows());
      for (index_t t = block * rows; t < last; ++t) {
        float const total = norm(weights.row(t), weights.cols(), p);
        float along = 0.0F;
        for (index_t j = 0; j < weights.cols() && total > 0.0F; ++j) { along += grad_weights(t, j) * (weights(t, j) / total); }
        for (index_t j = 0; j < weights.cols(); ++j) {
          float const value = total > 0.0F ? weights(t, j) / total : 0.0F;
          float const slope = std::copysign(power(value, p - 1.0F), value);
          grad(t, j) = total > 0.0F ? scale * (grad_weights(t, j) - slope * along) / total : 0.0F;
        }
      }
    }
  };
};
/// @brief As causal as the router that chooses.
template <class Router>
inline constexpr bool causal<normalised_weights<Router>> = causal<Router>;
/// @brief What couples the router couples this one.
template <class Router>
inline constexpr bool batch_coupled<normalised_weights<Router>> = batch_coupled<Router>;

FAIRLEAD_NAMESPACE_END
