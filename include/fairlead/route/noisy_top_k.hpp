// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Choose by logits with noise whose size is learned; and the noise of routers that add a fixed one, for losses.
#include <fairlead/concepts/noisy_logits.hpp>
#include <fairlead/route/detail/normal_words.hpp>
#include <fairlead/route/top_k.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Choose the k best noisy logits and weigh them by the softmax over the chosen; the deviation is learned.
///
/// Reads two logits an expert: the clean ones in the first `experts` columns, those of the noise after them (see
/// `noisy_linear_gate`). In training l = clean + n (softplus(noise) + floor) with a standard normal n a token and expert;
/// in evaluation l = clean. The gradient holds the choice and n constant and so reaches both halves.
/// Its balance losses are `weight_importance_loss` and `noisy_load_loss` (`balance/`).
/// @source{Shazeer 2017, equations 3 to 5; tensor2tensor code, noisy_top_k_gating}
struct noisy_top_k {
  expert_count experts;       ///< number of experts, 1 ... 65536
  index_t k = 2;              ///< experts a token, 1 ... min(experts, 64)
  float scale = 1.0F;         ///< factor on all weights, finite
  float floor = 1e-2F;        ///< least deviation of the noise, >= 0

  /// @returns experts a token
  [[nodiscard]] FAIRLEAD_HD constexpr index_t fan_out() const noexcept { return k; }
  /// @returns columns of the logits: clean ones, then those of the noise
  [[nodiscard]] FAIRLEAD_HD constexpr index_t logit_columns() const noexcept { return 2 * experts(); }
  /// @returns the router that chooses among noisy logits
  [[nodiscard]] constexpr top_k choice() const noexcept {
    return {.experts = experts, .k = k, .scale = scale, .selection = {}, .noise = {}};
  }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const noexcept {
    return fairlead::workspace_bytes<float>(tokens * experts()) + choice().workspace_bytes(tokens);
  }
  /// @brief Choose experts and weights.
  /// @param on execution backend
  /// @param logits @shape{tokens x 2 experts}
  /// @param context phase, seed, step, masks
  /// @param[out] out @shape{tokens x k}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity O(tokens x experts x k); no allocation
  /// @determinism ids and weights are the same bits for every host backend and number of threads
  template <execution_backend Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    check(logits);
    workspace::scope const scope(ws);
    choice().route(on, seen(on, logits, context, ws), context, out, ws);
  }
  /// @brief Derive the loss by clean logits and by those of the noise.
  /// @param on execution backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x k}
  /// @param[out] grad_logits overwritten. @shape{tokens x 2 experts}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes or fields
  /// @complexity O(tokens x experts); no allocation
  template <execution_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace& ws) const {
    check(logits);
    FAIRLEAD_EXPECTS(grad_logits.rows() == logits.rows() && grad_logits.cols() == logit_columns(),
                     "grad_logits must be tokens x 2 experts", grad_logits.rows(), grad_logits.cols());
    workspace::scope const scope(ws);
    matrix_view<float> const clean(grad_logits.data(), grad_logits.rows(), experts(), grad_logits.stride());
    choice().backward(on, seen(on, logits, context, ws), context, out, grad_weights, clean, ws);
    implementation<noisy_top_k, Backend>::spread(*this, on, logits, context, grad_logits);
  }
  /// @brief See `noisy_logits_source`.
  /// @param context phase, seed, step, masks
  /// @param row row of the batch
  /// @param logits @shape{2 experts}
  /// @param[out] noisy @shape{experts}
  /// @param[out] deviation @shape{experts}
  /// @returns whether there is noise
  [[nodiscard]] FAIRLEAD_HD bool noisy_logits(route_context const& context, index_t row, float const* logits,
                                              float* noisy, float* deviation) const noexcept;
  /// @brief See `noisy_logits_source`.
  /// @param context phase, seed, step, masks
  /// @param row row of the batch
  /// @param logits @shape{2 experts}
  /// @param grad_noisy @shape{experts}
  /// @param grad_deviation @shape{experts}
  /// @param[in,out] grad_logits added to. @shape{2 experts}
  FAIRLEAD_HD void noisy_logits_backward(route_context const& context, index_t row, float const* logits,
                                         float const* grad_noisy, float const* grad_deviation,
                                         float* grad_logits) const noexcept;

 private:
  void check(matrix_view<float const> logits) const {
    FAIRLEAD_EXPECTS(logits.cols() == logit_columns(), "noisy_top_k reads two logits an expert: use noisy_linear_gate",
                     logits.cols(), experts());
    FAIRLEAD_EXPECTS(floor >= 0.0F && floor < std::numeric_limits<float>::infinity(),
                     "the least deviation must be finite and not negative", floor);
  }
  // What the choice is made on: a view of the clean half, or the noisy logits.
  template <class Backend>
  [[nodiscard]] matrix_view<float const> seen(Backend const& on, matrix_view<float const> logits,
                                              route_context const& context, workspace& ws) const {
    if (context.phase == phase::evaluate) { return {logits.data(), logits.rows(), experts(), logits.stride()}; }
    matrix_view<float> const noisy(ws.take<float>(logits.rows() * experts()).data(), logits.rows(), experts());
    implementation<noisy_top_k, Backend>::apply(*this, on, logits, context, noisy);
    return noisy;
  }
};

namespace detail {
/// Walks the experts of a row by fours and calls f(expert, normal number).
template <class Function>
FAIRLEAD_HD void each_normal(route_context const& context, index_t row, index_t experts, Function f) {
  for (index_t e = 0; e < experts; e += 4) {
    auto const words = routing_words(context, row, e / 4, experts);
    for (unsigned i = 0; i < 4 && e + i < experts; ++i) { f(e + i, normal_of(words, i)); }
  }
}
/// Adds the noise of one element.
struct add_noise {
  float const* logits;
  float* noisy;
  float* deviation;  // may be null
  index_t experts;
  float floor;
  FAIRLEAD_HD void operator()(index_t e, float number) const noexcept {
    float const width = numeric::sum(numeric::softplus(logits[experts + e]), floor);
    noisy[e] = numeric::fused(width, number, logits[e]);
    if (deviation != nullptr) { deviation[e] = width; }
  }
};
/// From the gradient of a noisy logit to that of its noise logit.
struct spread_noise {
  float const* logits;
  float* grad_logits;
  index_t experts;
  FAIRLEAD_HD void operator()(index_t e, float number) const noexcept {
    float const grad = grad_logits[e];
    // Zero where nothing was chosen, whatever the noise logit holds.
    grad_logits[experts + e] = grad != 0.0F ? grad * number * numeric::sigmoid(logits[experts + e]) : 0.0F;
  }
};
/// The same when the deviation has a gradient of its own; adds.
struct add_noise_gradient {
  float const* logits;
  float const* grad_noisy;
  float const* grad_deviation;
  float* grad_logits;
  index_t experts;
  FAIRLEAD_HD void operator()(index_t e, float number) const noexcept {
    grad_logits[e] += grad_noisy[e];
    float const grad = numeric::fused(grad_noisy[e], number, grad_deviation[e]);
    if (grad != 0.0F) { grad_logits[experts + e] += grad * numeric::sigmoid(logits[experts + e]); }
  }
};
/// Rows a task handles.
inline constexpr index_t noise_rows = 32;
/// Applies or spreads noise over a block of rows.
struct noise_block {
  noisy_top_k router;
  matrix_view<float const> logits;
  route_context context;
  matrix_view<float> out;
  bool spreads;
  void operator()(index_t block) const {
    index_t const last = (block + 1) * noise_rows < out.rows() ? (block + 1) * noise_rows : out.rows();
    for (index_t t = block * noise_rows; t < last; ++t) {
      if (!spreads) {
        each_normal(context, t, router.experts(),
                    add_noise{logits.row(t), out.row(t), nullptr, router.experts(), router.floor});
      } else if (context.phase == phase::evaluate) {
        for (index_t e = 0; e < router.experts(); ++e) { out.row(t)[router.experts() + e] = 0.0F; }
      } else {
        each_normal(context, t, router.experts(), spread_noise{logits.row(t), out.row(t), router.experts()});
      }
    }
  }
};
}  // namespace detail

FAIRLEAD_HD inline bool noisy_top_k::noisy_logits(route_context const& context, index_t row, float const* logits,
                                                  float* noisy, float* deviation) const noexcept {
  bool const active = context.phase != phase::evaluate;
  if (active) {
    detail::each_normal(context, row, experts(), detail::add_noise{logits, noisy, deviation, experts(), floor});
  }
  for (index_t e = 0; e < experts(); ++e) {
    if (!active) {
      noisy[e] = logits[e];
      deviation[e] = 0.0F;
    }
    if (!detail::allows(context, e)) { noisy[e] = detail::minus_infinity; }
  }
  return active;
}
FAIRLEAD_HD inline void noisy_top_k::noisy_logits_backward(route_context const& context, index_t row,
                                                           float const* logits, float const* grad_noisy,
                                                           float const* grad_deviation,
                                                           float* grad_logits) const noexcept {
  if (context.phase == phase::evaluate) { return; }
  detail::each_normal(context, row, experts(),
                      detail::add_noise_gradient{logits, grad_noisy, grad_deviation, grad_logits, experts()});
}

/// @brief Host text of what `noisy_top_k` adds to its choice.
template <host_backend Backend>
struct implementation<noisy_top_k, Backend> {
  /// Writes the noisy logits. @shape{tokens x experts}
  static void apply(noisy_top_k const& router, Backend const& on, matrix_view<float const> logits,
                    route_context const& context, matrix_view<float> noisy) {
    on.for_each((noisy.rows() + detail::noise_rows - 1) / detail::noise_rows,
                detail::noise_block{router, logits, context, noisy, false});
  }
  /// Fills the second half of the gradients from the first.
  static void spread(noisy_top_k const& router, Backend const& on, matrix_view<float const> logits,
                     route_context const& context, matrix_view<float> grad_logits) {
    on.for_each((grad_logits.rows() + detail::noise_rows - 1) / detail::noise_rows,
                detail::noise_block{router, logits, context, grad_logits, true});
  }
};
/// @brief A token of this router never sees its batch-mates.
template <>
inline constexpr bool causal<noisy_top_k> = true;
static_assert(router_on<noisy_top_k, serial> && has_gradient_on<noisy_top_k, serial>);
static_assert(noisy_logits_source<noisy_top_k>);

/// @brief The noise of a router with `fixed_noise`, as losses ask for it:
/// `fixed_noise_logits{.experts = 64, .k = 2}` goes with `with_noise<softmax_top_k, fixed_noise>` of the same fields.
/// @source{V-MoE code, noisy router}
struct fixed_noise_logits {
  expert_count experts;  ///< number of experts
  index_t k = 1;         ///< experts a token
  fixed_noise noise{};   ///< fields of the noise

  /// @returns experts a token
  [[nodiscard]] constexpr index_t fan_out() const noexcept { return k; }
  /// @returns one column an expert
  [[nodiscard]] constexpr index_t logit_columns() const noexcept { return experts(); }
  /// @brief See `noisy_logits_source`.
  /// @param context phase, seed, step, masks
  /// @param row row of the batch
  /// @param logits @shape{experts}
  /// @param[out] noisy @shape{experts}
  /// @param[out] deviation @shape{experts}
  /// @returns whether there is noise
  [[nodiscard]] bool noisy_logits(route_context const& context, index_t row, float const* logits, float* noisy,
                                  float* deviation) const noexcept {
    detail::effective_row(noise, context, row, experts(), logits, noisy);
    float const width = noise.deviation < 0.0F ? 1.0F / static_cast<float>(experts()) : noise.deviation;
    bool const active = context.phase != phase::evaluate && width > 0.0F;
    std::fill_n(deviation, experts(), active ? width : 0.0F);
    return active;
  }
  /// @brief See `noisy_logits_source`: the deviation is fixed, and noise is added.
  /// @param grad_noisy @shape{experts}
  /// @param[in,out] grad_logits added to. @shape{experts}
  void noisy_logits_backward(route_context const&, index_t, float const*, float const* grad_noisy, float const*,
                             float* grad_logits) const noexcept {
    for (index_t e = 0; e < experts(); ++e) { grad_logits[e] += grad_noisy[e]; }
  }
};
static_assert(noisy_logits_source<fixed_noise_logits>);

FAIRLEAD_NAMESPACE_END
