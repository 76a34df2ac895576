// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A gate with a light twin: scores of the hidden state, and scores of the token ids.
#include <fairlead/concepts/gate.hpp>
#include <fairlead/core/stage.hpp>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/route/token_features.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Compute two scores for each expert: of the backbone, E_i . h_t, and of the token ids, Ehat_i . D(ids).
///
/// Columns [0, experts) of the logits are the backbone's, columns [experts, 2 experts) those of the light router, which
/// the first stage distils from the backbone (`distillation_loss`) and the second routes by (`two_stage`). From
/// `switch_step` on the light router is frozen: `backward` adds nothing to its blocks, and `frozen` lets the layer keep
/// optimizers, weight decay included, away from them.
///
/// The parameters are the backbone's blocks, the features' blocks, then "centroids" @shape{experts x features.width}.
/// The paper starts all centroids as orthogonal rows with gain 0.1; here they are normal with the same expected length,
/// 0.1: that is `deviation = 0.1 / sqrt(width)` for the backbone's field too.
/// @tparam Features what the light router sees (`token_features_on`): `token_embedding`, `bigram_embedding`,
///         `convolution_embedding`
/// @tparam Backbone gate of the hidden state: one logit an expert (`has_plain_gate`)
/// @determinism the same bits at any number of threads if the backbone's are; a light score depends on the token ids of
///         its sequence alone, not on its place in the batch
/// @source{StableMoE, section 3.2}
template <class Features = token_embedding, class Backbone = linear_gate<>>
struct distilled_gate {
  Backbone backbone{};                      ///< scores of the hidden state
  Features features{};                      ///< what the light router sees of a token
  std::uint64_t switch_step = never_step;   ///< `route_context::step` from which the light router is frozen
  double deviation = 0.0;                   ///< of the initial light centroids; 0 = 0.1 / sqrt(features.width)

  /// Whether rows must stand in the order of the text (`bigram_embedding`, `convolution_embedding`).
  static constexpr bool reads_neighbours = needs_text_order<Features>;

  /// @returns experts, the half of the logits
  [[nodiscard]] index_t experts() const noexcept { return backbone.experts; }
  /// @returns blocks of backbone, features and centroids
  [[nodiscard]] fairlead::parameter_layout parameter_layout() const {
    fairlead::parameter_layout layout = backbone.parameter_layout();
    layout.add(features.parameter_layout());
    layout.add("centroids", experts(), features.width,
               deviation > 0.0 ? deviation : 0.1 / std::sqrt(static_cast<double>(features.width)));
    return layout;
  }
  /// @param block block number in the layout
  /// @param step step of a training pass
  /// @returns whether the block belongs to the light router and the second stage has begun
  [[nodiscard]] bool frozen(index_t block, std::uint64_t step) const {
    return is_second_stage(step, switch_step) && block >= static_cast<index_t>(backbone.parameter_layout().blocks().size());
  }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `forward` and `backward`
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens) const noexcept {
    return std::max<std::size_t>(backbone.workspace_bytes(tokens),
                                 2 * fairlead::workspace_bytes<float>(tokens * features.width) + features.workspace_bytes(tokens) +
                                     fairlead::workspace_bytes<float>(detail::padded_experts(experts()) * features.width));
  }

  /// @brief Compute both halves of the logits.
  /// @param on host backend
  /// @param parameters @shape{parameter_layout().size()}
  /// @param tokens hidden states. @shape{tokens x width}
  /// @param context token ids and mask
  /// @param[out] logits overwritten. @shape{tokens x 2 experts}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) on an id outside the vocabulary
  /// @complexity O(tokens x experts x (width + features.width)) and the features, no allocation
  template <host_backend Backend>
    requires has_plain_gate<Backbone, Backend> && token_features_on<Features, Backend>
  void forward(Backend const& on, std::span<float const> parameters, matrix_view<float const> tokens,
               route_context const& context, matrix_view<float> logits, workspace& ws) const {
    sections const at = check(parameters, tokens, logits);
    backbone.forward(on, parameters.first(at.features), tokens, half(logits, 0), ws);
    workspace::scope const give_back(ws);
    auto const seen = rows(ws, tokens.rows());
    features.forward(on, parameters.subspan(at.features, at.centroids - at.features), context, seen, ws);
    index_t const stride = detail::padded_experts(experts());
    matrix_view<float> const turned(ws.take<float>(stride * features.width).data(), features.width, stride);
    detail::turn_centroids(centroids(parameters, at), turned);
    on.for_each(detail::pieces_of(tokens.rows(), detail::feature_row_piece),
                detail::centroid_scores{seen, turned, half(logits, 1)});
  }
  /// @brief Add the gradients of all parameters and of the hidden states.
  /// @param on host backend
  /// @param parameters @shape{parameter_layout().size()}
  /// @param tokens hidden states. @shape{tokens x width}
  /// @param context what `forward` saw
  /// @param grad_logits @shape{tokens x 2 experts}
  /// @param[in,out] grad_parameters added to; nothing for the light router in the second stage
  /// @param[in,out] grad_tokens added to, from the backbone's half alone. @shape{tokens x width}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity as `forward`
  template <host_backend Backend>
    requires has_plain_gate<Backbone, Backend> && token_features_on<Features, Backend>
  void backward(Backend const& on, std::span<float const> parameters, matrix_view<float const> tokens,
                route_context const& context, matrix_view<float const> grad_logits, std::span<float> grad_parameters,
                matrix_view<float> grad_tokens, workspace& ws) const {
    sections const at = check(parameters, tokens, grad_logits);
    FAIRLEAD_EXPECTS(grad_parameters.size() == parameters.size(), "one gradient a parameter", grad_parameters.size());
    backbone.backward(on, parameters.first(at.features), tokens, half(grad_logits, 0), grad_parameters.first(at.features), grad_tokens, ws);
    if (is_second_stage(context.step, switch_step)) { return; }
    workspace::scope const give_back(ws);
    auto const seen = rows(ws, tokens.rows());
    auto const grad_seen = rows(ws, tokens.rows());
    std::size_t const size = at.centroids - at.features;
    features.forward(on, parameters.subspan(at.features, size), context, seen, ws);
    matrix_view<float> const grad_centroids(grad_parameters.data() + at.centroids, experts(), features.width);
    on.for_each(experts(), detail::centroid_gradient{half(grad_logits, 1), seen, grad_centroids});
    on.for_each(detail::pieces_of(tokens.rows(), detail::feature_row_piece),
                detail::feature_gradient{half(grad_logits, 1), centroids(parameters, at), grad_seen});
    features.backward(on, parameters.subspan(at.features, size), context, matrix_view<float const>(grad_seen),
                      grad_parameters.subspan(at.features, size), ws);
  }

 private:
  // Where the sections begin; the backbone's is at 0.
  struct sections {
    std::size_t features, centroids;
  };
  template <class Value>
  [[nodiscard]] matrix_view<Value> half(matrix_view<Value> logits, index_t which) const {
    return {logits.data() == nullptr ? nullptr : logits.data() + which * experts(), logits.rows(), experts(), logits.stride()};
  }
  [[nodiscard]] matrix_view<float> rows(workspace& ws, index_t tokens) const {
    return {ws.take<float>(tokens * features.width).data(), tokens, features.width};
  }
  [[nodiscard]] matrix_view<float const> centroids(std::span<float const> parameters, sections at) const {
    return {parameters.data() + at.centroids, experts(), features.width};
  }
  [[nodiscard]] sections check(std::span<float const> parameters, matrix_view<float const> tokens,
                               matrix_view<float const> logits) const {
    auto const first = backbone.parameter_layout().size();
    auto const second = first + features.parameter_layout().size();
    FAIRLEAD_EXPECTS(static_cast<index_t>(parameters.size()) == second + experts() * features.width,
                     "the parameters are those of parameter_layout()", parameters.size(), second);
    FAIRLEAD_EXPECTS(logits.cols() == 2 * experts() && tokens.rows() == logits.rows(),
                     "one row a token and two logits an expert", logits.cols(), experts(), tokens.rows(), logits.rows());
    return {static_cast<std::size_t>(first), static_cast<std::size_t>(second)};
  }
};
static_assert(gate_on<distilled_gate<>, serial> && has_context_gate<distilled_gate<bigram_embedding>, serial> &&
              has_context_gate<distilled_gate<convolution_embedding>, serial>);
static_assert(has_frozen_blocks<distilled_gate<>>);

FAIRLEAD_NAMESPACE_END
