// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Choose by logits with noise whose size is learned; and the noise of routers that add a fixed one, for losses.
#include <fairlead/concepts/noisy_logits.hpp>
#include <fairlead/route/detail/normal_words.hpp>
#include <fairlead/route/top_k.hpp>

#include <algorithm>
#include <limits>

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
  /// @complexity O(tokens x (experts + k)); no allocation
  template <execution_backend Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace& ws) const {
    check(logits);
    FAIRLEAD_EXPECTS(grad_logits.rows() == logits.rows() && grad_logits.cols() == logit_columns(),
                     "grad_logits must be tokens x 2 experts", grad_logits.rows(), grad_logits.cols());
    detail::check_route(context, experts(), k, scale, clean_half(logits), out);
    FAIRLEAD_EXPECTS(grad_weights.rows() == logits.rows() && grad_weights.cols() == k,
                     "grad_weights must be tokens x k", grad_weights.rows(), grad_weights.cols());
    (void)ws;
    implementation<noisy_top_k, Backend>::backward(*this, on, logits, context, out, grad_weights, grad_logits);
  }
  /// @brief See `noisy_logits_source`.
  /// @param context phase, seed, step, masks
  /// @param row row of the batch
  /// @param logits @shape{2 experts}
  /// @param[out] noisy @shape{experts}
  /// @param[out] deviation @shape{experts}
  /// @returns whether there is noise
  [[nodiscard]] bool noisy_logits(route_context const& context, index_t row, float const* logits, float* noisy,
                                  float* deviation) const noexcept;
  /// @brief See `noisy_logits_source`.
  /// @param context phase, seed, step, masks
  /// @param row row of the batch
  /// @param logits @shape{2 experts}
  /// @param grad_noisy @shape{experts}
  /// @param grad_deviation @shape{experts}
  /// @param[in,out] grad_logits added to. @shape{2 experts}
  void noisy_logits_backward(route_context const& context, index_t row, float const* logits, float const* grad_noisy,
                             float const* grad_deviation, float* grad_logits) const noexcept;

 private:
  void check(matrix_view<float const> logits) const {
    FAIRLEAD_EXPECTS(logits.cols() == logit_columns(), "noisy_top_k reads two logits an expert: use noisy_linear_gate",
                     logits.cols(), experts());
    FAIRLEAD_EXPECTS(floor >= 0.0F && floor < std::numeric_limits<float>::infinity(),
                     "the least deviation must be finite and not negative", floor);
  }
  [[nodiscard]] matrix_view<float const> clean_half(matrix_view<float const> logits) const {
    return {logits.data(), logits.rows(), experts(), logits.stride()};
  }
  // What the choice is made on: a view of the clean half, or the noisy logits.
  template <class Backend>
  [[nodiscard]] matrix_view<float const> seen(Backend const& on, matrix_view<float const> logits,
                                              route_context const& context, workspace& ws) const {
    if (context.phase == phase::evaluate) { return clean_half(logits); }
    matrix_view<float> const noisy(ws.take<float>(logits.rows() * experts()).data(), logits.rows(), experts());
    implementation<noisy_top_k, Backend>::apply(*this, on, logits, context, noisy);
    return noisy;
  }
};

namespace detail {
/// Rows a task handles.
inline constexpr index_t noise_rows = 32;
/// Writes noisy logits, and deviations unless null, of one row.
inline void add_noise(noisy_top_k const& router, route_context const& context, index_t row, float const* logits,
                      float* noisy, float* deviation) noexcept {
  index_t const experts = router.experts();
  for (index_t first = 0; first < experts; first += normal_chunk) {
    index_t const count = std::min(normal_chunk, experts - first);
    float numbers[normal_chunk];
    float widths[normal_chunk];
    normal_numbers(context, row, experts, first, count, numbers);
    float const* const clean = logits + first;
    for (index_t e = 0; e < count; ++e) { widths[e] = numeric::sum(numeric::softplus(clean[experts + e]), router.floor); }
    for (index_t e = 0; e < count; ++e) { noisy[first + e] = numeric::fused(widths[e], numbers[e], clean[e]); }
    if (deviation != nullptr) { std::copy_n(widths, count, deviation + first); }
  }
}
/// Applies noise to a block of rows.
struct add_noise_block {
  noisy_top_k router;
  matrix_view<float const> logits;
  route_context context;
  matrix_view<float> out;
  void operator()(index_t block) const {
    index_t const last = std::min((block + 1) * noise_rows, out.rows());
    for (index_t t = block * noise_rows; t < last; ++t) { add_noise(router, context, t, logits.row(t), out.row(t), nullptr); }
  }
};
/// The random number of one expert of a token.
[[nodiscard]] inline float normal_number(route_context const& context, index_t row, index_t experts, index_t expert) noexcept {
  return normal_of(routing_words(context, row, expert / 4, experts), static_cast<unsigned>(expert % 4));
}
/// Gradients of a block of rows: only chosen logits, and their noise, have one.
struct noisy_gradient_block {
  noisy_top_k router;
  matrix_view<float const> logits;
  route_context context;
  const_routing_view out;
  matrix_view<float const> grad_weights;
  matrix_view<float> grad_logits;
  void operator()(index_t block) const {
    index_t const last = std::min((block + 1) * noise_rows, logits.rows());
    index_t const experts = router.experts();
    bool const noisy = context.phase != phase::evaluate;
    float chosen[max_fan_out], numbers[max_fan_out], weight[max_fan_out], grad_chosen[max_fan_out];
    for (index_t t = block * noise_rows; t < last; ++t) {
      float const* const row = logits.row(t);
      float* const grad = grad_logits.row(t);
      std::fill_n(grad, 2 * experts, 0.0F);
      for (index_t j = 0; j < router.k; ++j) {
        index_t const e = to_index(out.experts(t, j));
        chosen[j] = minus_infinity;
        if (e < 0) { continue; }
        numbers[j] = noisy ? normal_number(context, t, experts, e) : 0.0F;
        chosen[j] = noisy ? numeric::fused(numeric::sum(numeric::softplus(row[experts + e]), router.floor), numbers[j], row[e]) : row[e];
      }
      weighting<raw_score, softmax_over_chosen>::gradient(chosen, grad_weights.row(t), router.k, router.scale, {}, weight, grad_chosen);
      for (index_t j = 0; j < router.k; ++j) {
        index_t const e = to_index(out.experts(t, j));
        if (e < 0) { continue; }
        grad[e] = grad_chosen[j];
        grad[experts + e] = noisy ? grad_chosen[j] * numbers[j] * numeric::sigmoid(row[experts + e]) : 0.0F;
      }
    }
  }
};
}  // namespace detail

inline bool noisy_top_k::noisy_logits(route_context const& context, index_t row, float const* logits, float* noisy,
                                      float* deviation) const noexcept {
  bool const active = context.phase != phase::evaluate;
  if (active) {
    detail::add_noise(*this, context, row, logits, noisy, deviation);
  } else {
    std::copy_n(logits, experts(), noisy);
    std::fill_n(deviation, experts(), 0.0F);
  }
  for (index_t e = 0; e < experts(); ++e) {
    if (!detail::allows(context, e)) { noisy[e] = detail::minus_infinity; }
  }
  return active;
}
inline void noisy_top_k::noisy_logits_backward(route_context const& context, index_t row, float const* logits,
                                               float const* grad_noisy, float const* grad_deviation,
                                               float* grad_logits) const noexcept {
  if (context.phase == phase::evaluate) { return; }
  for (index_t e = 0; e < experts(); ++e) {
    float grad = grad_deviation[e];
    if (grad_noisy[e] != 0.0F) {  // random numbers are made where they count
      grad_logits[e] += grad_noisy[e];
      grad = numeric::fused(grad_noisy[e], detail::normal_number(context, row, experts(), e), grad);
    }
    if (grad != 0.0F) { grad_logits[experts() + e] += grad * numeric::sigmoid(logits[experts() + e]); }
  }
}

/// @brief Host text of what `noisy_top_k` adds to its choice.
template <host_backend Backend>
struct implementation<noisy_top_k, Backend> {
  /// Writes the noisy logits. @shape{tokens x experts}
  static void apply(noisy_top_k const& router, Backend const& on, matrix_view<float const> logits,
                    route_context const& context, matrix_view<float> noisy) {
    on.for_each((noisy.rows() + detail::noise_rows - 1) / detail::noise_rows,
                detail::add_noise_block{router, logits, context, noisy});
  }
  /// See `noisy_top_k::backward`.
  static void backward(noisy_top_k const& router, Backend const& on, matrix_view<float const> logits,
                       route_context const& context, const_routing_view out, matrix_view<float const> grad_weights,
                       matrix_view<float> grad_logits) {
    on.for_each((logits.rows() + detail::noise_rows - 1) / detail::noise_rows,
                detail::noisy_gradient_block{router, logits, context, out, grad_weights, grad_logits});
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
