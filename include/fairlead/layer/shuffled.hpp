// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Exchange tokens at random between ranks before a layer, and send the results home.
#include <fairlead/layer/detail/shuffle_text.hpp>
#include <fairlead/layer/moe_layer.hpp>

#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief What a shuffled layer keeps between steps: the state of the layer inside. Move-only.
template <class Layer, class Backend, class Comm>
struct shuffled_state {
  typename Layer::template state_type<Backend, Comm> inner;  ///< state of the layer
};

/// @brief What backward needs of one forward pass of a shuffled layer. Move-only; several may be live.
///
/// As with `step_record`, input tokens must stay unchanged until backward is done if nothing was exchanged (evaluation,
/// one rank).
template <class Layer, class Backend, class Comm>
struct shuffled_record {
  using value_type = typename Layer::value_type;  ///< element type of rows

  typename Layer::template record_type<Backend, Comm> inner;  ///< record of the layer, about the tokens it saw
  shuffle_plan plan{};                 ///< who went where
  bool exchanged = false;              ///< whether rows travelled
  buffer<value_type> own{};            ///< rows of this rank in the order of sending
  buffer<value_type> tokens{};         ///< rows the layer saw. @shape{plan.received x input width}
  buffer<value_type> outputs{};        ///< its outputs, in backward their gradients. @shape{plan.received x output width}
  buffer<value_type> grad_tokens{};    ///< gradients of `tokens`
  buffer<std::uint8_t> own_mask{};     ///< masks of this rank's rows in the order of sending
  buffer<std::uint8_t> token_mask{};   ///< masks of the rows that the layer saw
  buffer<std::int32_t> own_ids{};      ///< token ids of this rank's rows in the order of sending
  buffer<std::int32_t> token_ids{};    ///< token ids of the rows that the layer saw
};

/// @brief A layer that sees, on each rank, a random sample of the tokens of all ranks.
///
/// For layers whose routing is decided batch by batch on each rank (`balanced_choice`): neighbours in a text want the same
/// experts, and without an exchange the assignment would have to pull them apart. In training and recomputation every
/// rank permutes its tokens by a random permutation that (seed, step, first token, rank) name, and sends each rank an even
/// share; the layer runs on what arrived; outputs travel back, and their order is restored. Token ids and masks travel
/// too. Each rank sees floor or ceil of tokens / ranks tokens, so that ranks with few tokens, or none, do an even part.
/// Evaluation and a single rank exchange nothing. What depends on the place of a row in its batch does not fit: gates that
/// read neighbouring ids (`bigram_embedding`, `convolution_embedding`: refused), routers that read a table by batch row
/// (`external_ids`); losses by sequence and capacities by group would see random neighbours.
///
/// The members are those of `moe_layer` without its stages, and `state.inner` is the state of the layer inside. Costs two
/// exchanges of rows each way more than the layer, and one of three numbers a rank.
/// @code
/// fairlead::shuffled layer{.layer = fairlead::moe_layer{...}};
/// @endcode
/// @tparam Layer a `moe_layer`
/// @source{BASE, section 3.2.1; fairseq base_layer}
template <class Layer>
struct shuffled {
  static_assert(!needs_text_order<decltype(Layer::gate)>,
                "a gate that reads the token ids before a token's own needs rows in the order of the text, and shuffled "
                "exchanges them at random: take token_embedding, or the layer without shuffled");

  Layer layer;  ///< the layer

  using value_type = typename Layer::value_type;    ///< element type of rows
  using router_type = typename Layer::router_type;  ///< type of the layer's router
  /// State of this layer.
  template <class Backend, class Comm>
  using state_type = shuffled_state<Layer, Backend, Comm>;
  /// Record of one forward pass. @tparam Backend execution backend @tparam Comm communicator
  template <class Backend, class Comm>
  using record_type = shuffled_record<Layer, Backend, Comm>;

  /// @brief See `moe_layer::make_state`; `limits.max_tokens` bounds the tokens of a rank before the exchange.
  /// @param on backend of host memory; copied
  /// @param comm communicator; copied
  /// @param limits sizes, equal on every rank
  /// @returns the state of this rank
  /// @collective all ranks
  template <host_backend Backend, class Comm>
  [[nodiscard]] state_type<Backend, Comm> make_state(Backend const& on, Comm comm, layer_limits limits) const {
    static_assert(has_all_gather<Comm, std::int64_t, Backend> && has_all_to_all_v<Comm, std::uint8_t, Backend> &&
                      has_all_to_all_v<Comm, std::int32_t, Backend>,
                  "the communicator needs all_gather and all_to_all_v for integers, too");
    return {layer.make_state(on, std::move(comm), limits)};
  }
  /// @brief Allocate what one forward pass leaves for its backward pass.
  /// @param state the state
  /// @returns a record; reuse it for every step
  template <class Backend, class Comm>
  [[nodiscard]] record_type<Backend, Comm> make_record(state_type<Backend, Comm> const& state) const {
    record_type<Backend, Comm> record{.inner = layer.make_record(state.inner)};
    if (state.inner.comm.size() > 1) { detail::reserve_shuffle(layer, state, record); }
    return record;
  }

  /// @brief Compute the layer on exchanged tokens.
  /// @param state the state
  /// @param tokens @shape{tokens x width}
  /// @param[out] output overwritten, row by row as `tokens`. @shape{tokens x output_width}
  /// @param[out] record for `backward`
  /// @param context phase, masks, seed and step; seed and step equal on every rank
  /// @returns what the layer said; the rows of the exchanges here are not in it
  /// @throws contract_violation (level 1) if some ranks with tokens give ids or masks and others do not
  /// @collective all ranks
  /// @complexity that of the layer, two exchanges of rows, O(tokens) random numbers; allocates only as the layer does
  /// @determinism the permutation follows (context.seed, context.step, context.first_token, rank): recomputation repeats it
  template <class Backend, class Comm>
  step_report forward(state_type<Backend, Comm>& state, matrix_view<value_type const> tokens,
                      matrix_view<value_type> output, record_type<Backend, Comm>& record,
                      route_context const& context) const {
    record.exchanged = context.phase != phase::evaluate && state.inner.comm.size() > 1;
    if (!record.exchanged) { return layer.forward(state.inner, tokens, output, record.inner, context); }
    FAIRLEAD_EXPECTS(output.rows() == tokens.rows(), "one output row a token", output.rows(), tokens.rows());
    FAIRLEAD_EXPECTS(tokens.cols() == layer.expert.input_width() && output.cols() == layer.expert.output_width(),
                     "rows must be as wide as the experts", tokens.cols(), output.cols());
    FAIRLEAD_EXPECTS(tokens.rows() <= state.inner.limits.max_tokens, "more tokens than the limits the state was made for",
                     tokens.rows(), state.inner.limits.max_tokens);
    route_context const inside = detail::plan_shuffle(state.inner, tokens.rows(), context, record);
    index_t const received = record.plan.received;
    auto const seen = detail::send_away(state.inner, tokens, record, record.tokens);
    record.outputs.resize(received * output.cols());
    auto const outputs = record.outputs.as_matrix(received, output.cols());
    step_report const report = layer.forward(state.inner, matrix_view<value_type const>(seen), outputs, record.inner, inside);
    detail::send_home(state.inner, matrix_view<value_type const>(outputs), record, output);
    return report;
  }
  /// @brief Compute the layer in a training step: seed and step come from the state.
  /// @param state the state
  /// @param tokens @shape{tokens x width}
  /// @param[out] output @shape{tokens x output_width}
  /// @param[out] record for `backward`
  /// @returns what the layer said
  /// @collective all ranks
  template <class Backend, class Comm>
  step_report forward(state_type<Backend, Comm>& state, matrix_view<value_type const> tokens,
                      matrix_view<value_type> output, record_type<Backend, Comm>& record) const {
    return forward(state, tokens, output, record, default_context(state, phase::train));
  }
  /// @brief The context that `forward` uses when none is given; see `moe_layer::default_context`.
  /// @returns the context
  template <class Backend, class Comm>
  [[nodiscard]] static route_context default_context(state_type<Backend, Comm> const& state, phase why) {
    return Layer::default_context(state.inner, why);
  }

  /// @brief Compute all gradients of a training step; see `moe_layer::backward`.
  /// @param state the state
  /// @param record what `forward` filled; it is used up
  /// @param grad_output @shape{tokens x output_width}
  /// @param[out] grad_tokens overwritten. @shape{tokens x width}
  /// @param signal_scale weight of the auxiliary loss
  /// @collective all ranks
  template <class Backend, class Comm>
  void backward(state_type<Backend, Comm>& state, record_type<Backend, Comm>& record,
                matrix_view<value_type const> grad_output, matrix_view<value_type> grad_tokens,
                double signal_scale = 1.0) const {
    if (!record.exchanged) { return layer.backward(state.inner, record.inner, grad_output, grad_tokens, signal_scale); }
    FAIRLEAD_EXPECTS(grad_output.rows() == record.plan.tokens() && grad_tokens.rows() == record.plan.tokens(),
                     "one gradient row a token", grad_output.rows(), grad_tokens.rows(), record.plan.tokens());
    FAIRLEAD_EXPECTS(grad_output.cols() == layer.expert.output_width() && grad_tokens.cols() == layer.expert.input_width(),
                     "gradients must be as wide as the experts", grad_output.cols(), grad_tokens.cols());
    auto const grad_outputs = detail::send_away(state.inner, grad_output, record, record.outputs);
    record.grad_tokens.resize(record.plan.received * grad_tokens.cols());
    auto const grad_seen = record.grad_tokens.as_matrix(record.plan.received, grad_tokens.cols());
    layer.backward(state.inner, record.inner, matrix_view<value_type const>(grad_outputs), grad_seen, signal_scale);
    detail::send_home(state.inner, matrix_view<value_type const>(grad_seen), record, grad_tokens);
  }

  /// @brief See `moe_layer::reduce_gradients`.
  /// @param state the state
  /// @collective all ranks
  template <class Backend, class Comm>
  void reduce_gradients(state_type<Backend, Comm>& state) const { layer.reduce_gradients(state.inner); }
  /// @brief Clear all gradients.
  /// @param state the state
  template <class Backend, class Comm>
  void zero_gradients(state_type<Backend, Comm>& state) const { layer.zero_gradients(state.inner); }
  /// @brief See `moe_layer::each_parameter`.
  /// @param state the state
  /// @param f called with `parameter_array<value_type> const&`
  template <class Backend, class Comm, class Function>
  void each_parameter(state_type<Backend, Comm>& state, Function&& f) const { layer.each_parameter(state.inner, f); }
  /// @brief See `moe_layer::end_global_batch`.
  /// @param state the state
  /// @collective all ranks, for routers whose `observe` is
  template <class Backend, class Comm>
  void end_global_batch(state_type<Backend, Comm>& state) const { layer.end_global_batch(state.inner); }
};

FAIRLEAD_NAMESPACE_END
