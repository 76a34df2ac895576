// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The bodies of the layer's stages.
#include <fairlead/concepts/expert.hpp>
#include <fairlead/concepts/gate.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/layer/state.hpp>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// Streams of the initial values: experts use their own number, the rest lies above all experts.
inline constexpr std::uint64_t gate_stream = std::uint64_t{1} << 40U;
inline constexpr std::uint64_t shared_stream = gate_stream + 1;

template <class Value>
struct add_contiguous {
  Value* to;
  Value const* from;
  FAIRLEAD_HD void operator()(index_t i) const { to[i] += from[i]; }
};
template <class Value>
struct add_elements {
  Value* to;
  index_t to_stride;
  Value const* from;
  index_t cols;
  FAIRLEAD_HD void operator()(index_t i) const { to[i / cols * to_stride + i % cols] += from[i]; }
};

/// to += from, where `from` is contiguous.
template <class Backend, class Value>
void add_rows(Backend const& on, matrix_view<Value> to, Value const* from) {
  if (to.contiguous()) {  // no division inside the loop
    for_each_element(on, to.rows() * to.cols(), add_contiguous<Value>{to.data(), from});
    return;
  }
  for_each_element(on, to.rows() * to.cols(), add_elements<Value>{to.data(), to.stride(), from, to.cols()});
}

template <class Value, class Space, class Backend>
void make_replicated(Backend const& on, parameter_layout const& layout, std::uint64_t seed, std::uint64_t stream,
                     replicated_parameters<Value, Space>& parameters) {
  parameters.layout = layout;
  parameters.values.resize(layout.size());
  parameters.gradients.resize(layout.size());
  buffer<Value> host(layout.size());
  initialise<Value>(layout, seed, stream, host.span());
  auto const bytes = static_cast<std::size_t>(layout.size()) * sizeof(Value);
  on.from_host(parameters.values.data(), host.data(), bytes);
  on.fill_zero(parameters.gradients.data(), bytes);
  on.wait();
}

template <class Layer>
[[nodiscard]] index_t alignment_of(Layer const& layer) {
  if constexpr (requires { layer.dispatcher.alignment; }) {
    return layer.dispatcher.alignment;
  } else {
    return 1;
  }
}

/// Most rows a rank's expert buffer holds, padding included.
template <class Layer>
[[nodiscard]] index_t most_buffer_rows(Layer const& layer, layer_limits const& limits, placement const& where, index_t rank) {
  index_t const received = limits.max_rows > 0 ? limits.max_rows : where.ranks() * limits.max_tokens * layer.router.fan_out();
  return received + where.slots(static_cast<rank_id>(rank)) * (alignment_of(layer) - 1);
}

template <class Layer, class Backend, class Comm>
[[nodiscard]] layer_state<Layer, Backend, Comm> make_state(Layer const& layer, Backend const& on, Comm comm, layer_limits limits) {
  using value_type = typename Layer::value_type;
  using state_type = layer_state<Layer, Backend, Comm>;
  index_t const experts = layer.router.experts();
  index_t const fan_out = layer.router.fan_out();
  index_t const ranks = comm.size();
  FAIRLEAD_EXPECTS(limits.max_tokens >= 0 && limits.max_rows >= 0, "limits must not be negative", limits.max_tokens, limits.max_rows);
  if constexpr (requires { layer.gate.switch_step == layer.router.switch_step; }) {
    FAIRLEAD_EXPECTS(layer.gate.switch_step == layer.router.switch_step, "gate and router must change stage at the same step",
                     layer.gate.switch_step, layer.router.switch_step);
  }
  FAIRLEAD_EXPECTS(experts >= 1 && fan_out >= 1 && fan_out <= experts, "the router needs 1 <= fan_out <= experts", experts, fan_out);
  placement where = layer.planner.initial(ranks, experts);
  FAIRLEAD_EXPECTS(where.ranks() == ranks && where.experts() == experts, "the planner made a placement of other sizes", where.ranks(), where.experts(), ranks, experts);
  FAIRLEAD_EXPECTS(!where.has_lost_expert(), "the planner left an expert without a slot");
  auto store = layer.store.template make<value_type>(on, comm, where, layer.expert.parameter_layout(), limits.seed);
  state_type state{.on = on, .comm = std::move(comm), .limits = limits, .where = std::move(where),
                   .store = std::move(store), .signal = layer.signal.make_state(experts)};
  if constexpr (has_state<typename Layer::router_type>) { state.router = layer.router.make_state(); }
  make_replicated(on, layer.gate.parameter_layout(), limits.seed, gate_stream, state.gate);
  make_replicated(on, layer.shared.parameter_layout(), limits.seed, shared_stream, state.shared);
  state.expert_layout = layer.expert.parameter_layout();
  if constexpr (Layer::has_shared) {
    FAIRLEAD_EXPECTS(layer.shared.input_width() == layer.expert.input_width() && layer.shared.output_width() == layer.expert.output_width(),
                     "the shared expert must be as wide as the others", layer.shared.input_width(), layer.shared.output_width());
  }
  state.global_counts.assign(static_cast<std::size_t>(experts), 0);
  state.totals.assign(static_cast<std::size_t>(experts), 0);
  state.rank_copies.assign(static_cast<std::size_t>(ranks), 0);
  state.gathered_raw.resize(ranks * (2 * experts + 1));
  state.gathered = matrix<count_t>(ranks, 2 * experts + 1);
  state.kept = matrix<count_t>(ranks, experts);
  state.schedule = matrix<count_t>(ranks, state.where.replicas());

  index_t const tokens = limits.max_tokens;
  index_t const rows = most_buffer_rows(layer, limits, state.where, state.comm.rank());
  std::size_t bytes = layer.gate.workspace_bytes(tokens);
  bytes = std::max<std::size_t>(bytes, layer.router.workspace_bytes(tokens));
  bytes = std::max<std::size_t>(bytes, layer.signal.workspace_bytes(tokens, experts));
  bytes = std::max<std::size_t>(bytes, layer.dispatcher.workspace_bytes(tokens * fan_out, experts, on.concurrency()));
  bytes = std::max<std::size_t>(bytes, layer.expert.workspace_bytes(rows, on.concurrency()));
  if constexpr (Layer::has_shared) { bytes = std::max<std::size_t>(bytes, layer.shared.workspace_bytes(tokens, on.concurrency())); }
  state.scratch.reserve(bytes);
  state.host_scratch.reserve(layer.scheduler.workspace_bytes(state.where));
#if FAIRLEAD_CONTRACT_LEVEL >= 3
  if constexpr (host_backend<Backend> && has_all_gather<Comm, std::int64_t, Backend>) {
    std::array<std::int64_t, 4> const mine{static_cast<std::int64_t>(state.where.fingerprint()), limits.max_tokens, static_cast<std::int64_t>(limits.seed), layer.expert.parameter_layout().size()};
    buffer<std::int64_t> all(ranks * 4);
    state.comm.all_gather(on, std::span<std::int64_t const>(mine), all.span()).wait();
    for (index_t i = 0; i < all.size(); ++i) {
      FAIRLEAD_EXPECTS_3(all[i] == mine[static_cast<std::size_t>(i % 4)], "ranks disagree on placement, limits, seed or expert", i / 4, i % 4);
    }
  }
#endif
  return state;
}

template <class Layer, class Backend, class Comm>
[[nodiscard]] step_record<Layer, Backend, Comm> make_record(Layer const& layer, layer_state<Layer, Backend, Comm> const& state) {
  step_record<Layer, Backend, Comm> record{};
  record.signal = state.signal;
  index_t const fan_out = layer.router.fan_out();
  index_t const tokens = state.limits.max_tokens;
  index_t const rows = most_buffer_rows(layer, state.limits, state.where, state.comm.rank());
  index_t const width = std::max(layer.expert.input_width(), layer.expert.output_width());
  record.logits.resize(tokens * logit_columns(layer.router));
  record.routing.resize(tokens, fan_out);
  record.grad_weights.resize(tokens * fan_out);
  record.grad_logits.resize(tokens * logit_columns(layer.router));
  record.expert_in.resize(rows * layer.expert.input_width());
  record.kept.resize(rows * layer.expert.kept_width());
  record.expert_out.resize(rows * layer.expert.output_width());
  record.grad_in.resize(rows * layer.expert.input_width());
  if constexpr (Layer::has_shared) {
    record.shared_kept.resize(tokens * layer.shared.kept_width());
    record.shared_out.resize(tokens * width);
  }
  if constexpr (requires { layer.dispatcher.reserve(record.plan, record.wire, state.where, index_t{}, index_t{}, index_t{}, index_t{}, index_t{}); }) {
    layer.dispatcher.reserve(record.plan, record.wire, state.where, state.comm.rank(), tokens, fan_out, rows, width);
  }
  return record;
}

template <class Layer, class State, class Record>
void route(Layer const& layer, State& state, matrix_view<typename Layer::value_type const> tokens, Record& record,
           route_context const& context) {
  index_t const count = tokens.rows();
  index_t const columns = logit_columns(layer.router);
  FAIRLEAD_EXPECTS(count <= state.limits.max_tokens, "more tokens than the limits the state was made for", count, state.limits.max_tokens);
  FAIRLEAD_EXPECTS(tokens.cols() == layer.expert.input_width(), "tokens must be as wide as the experts' input", tokens.cols(), layer.expert.input_width());
  record.context = context;
  record.tokens = tokens;
  record.report = {};
  record.differentiable = false;
  if (context.phase == phase::train) {
    ++state.step;
    state.trained_step = context.step;
  }
  record.logits.resize(count * columns);
  record.routing.resize(count, layer.router.fan_out());
  record.grad_weights.resize(count * layer.router.fan_out());
  auto ws = state.scratch.view();
  auto const logits = record.logits.as_matrix(count, columns);
  auto const parameters = std::as_const(state.gate.values).span();
  if constexpr (has_context_gate<std::remove_cvref_t<decltype(layer.gate)>, std::remove_cvref_t<decltype(state.on)>>) {
    layer.gate.forward(state.on, parameters, tokens, context, logits, ws);
  } else {
    layer.gate.forward(state.on, parameters, tokens, logits, ws);
  }
  using router_type = typename Layer::router_type;
  matrix_view<float const> const seen(logits);
  if constexpr (has_learning_route<router_type, std::remove_cvref_t<decltype(state.on)>>) {
    if (context.phase == phase::train) {
      layer.router.route_and_learn(state.on, seen, context, state.router, record.routing.view(), ws);
      return;
    }
  }
  if constexpr (has_state<router_type>) {
    layer.router.route(state.on, seen, context, std::as_const(state.router), record.routing.view(), ws);
  } else {
    layer.router.route(state.on, seen, context, record.routing.view(), ws);
  }
}

/// Bytes that one copy moves in dispatch and combine.
template <class Layer>
[[nodiscard]] index_t row_bytes(Layer const& layer) {
  return (layer.expert.input_width() + layer.expert.output_width()) * static_cast<index_t>(sizeof(typename Layer::value_type));
}

template <class Layer, class State, class Record>
void plan(Layer const& layer, State& state, Record& record) {
  auto const& on = state.on;
  index_t const experts = layer.router.experts();
  auto ws = state.scratch.view();
  record.plan.ranks = state.comm.size();
  record.plan.rank = state.comm.rank();
  layer.dispatcher.admit(on, std::as_const(record.routing).view(), record.context, experts, record.plan, ws);

  using backend_type = std::remove_cvref_t<decltype(on)>;
  count_t* gathered = state.gathered.data();
  if constexpr (!host_backend<backend_type>) { gathered = state.gathered_raw.data(); }
  index_t const cells = state.gathered.rows() * state.gathered.cols();
  state.comm.all_gather(on, std::as_const(record.plan.count_row).span(), std::span<count_t>(gathered, static_cast<std::size_t>(cells))).wait();
  if constexpr (!host_backend<backend_type>) {
    on.to_host(state.gathered.data(), gathered, static_cast<std::size_t>(cells) * sizeof(count_t));
  }
  on.wait();

  auto host_ws = state.host_scratch.view();
  auto const all = std::as_const(state.gathered).view();
  layer.dispatcher.limit(all, state.where, layer.router.fan_out(), state.kept.view());
  auto const scheduled = layer.scheduler.schedule(std::as_const(state.kept).view(), state.where, state.schedule.view(), host_ws);
  FAIRLEAD_EXPECTS_2(!scheduled || conserves(std::as_const(state.kept).view(), state.where, std::as_const(state.schedule).view()),
                     "the scheduler must send each kept copy exactly once");
  layer.dispatcher.plan(on, state.comm, std::as_const(record.routing).view(), state.where, std::as_const(state.schedule).view(), record.plan, ws);
  record.report = summarise(all, state.where, std::as_const(state.schedule).view(), row_bytes(layer), state.totals, state.rank_copies);
  record.report.status = scheduled.status;

  index_t growths = 0;
  auto const fit = [&growths](auto& memory, index_t size) { growths += memory.resize(size) ? 1 : 0; };
  index_t const rows = record.plan.buffer_rows;
  fit(record.expert_in, rows * layer.expert.input_width());
  fit(record.kept, record.context.phase == phase::evaluate ? 0 : rows * layer.expert.kept_width());
  fit(record.expert_out, rows * layer.expert.output_width());
  growths += state.scratch.reserve(layer.expert.workspace_bytes(rows, on.concurrency())) ? 1 : 0;
  record.report.growths = growths;

  if (record.context.phase == phase::train) {
    layer.signal.accumulate(state.totals, record.report.tokens, state.signal);
    record.signal = state.signal;
    for (std::size_t e = 0; e < state.totals.size(); ++e) { state.global_counts[e] += state.totals[e]; }
  }
}

template <class Layer, class Record>
[[nodiscard]] auto outputs(Layer const& layer, Record const& record) {
  return matrix_view<typename Layer::value_type const>(record.expert_out.as_matrix(record.plan.buffer_rows, layer.expert.output_width()));
}
template <class Layer, class Record>
[[nodiscard]] auto gradients_of_inputs(Layer const& layer, Record const& record) {
  return matrix_view<typename Layer::value_type const>(record.grad_in.as_matrix(record.plan.buffer_rows, layer.expert.input_width()));
}

/// Columns of kept activations: none when nothing will be differentiated.
template <class Expert>
[[nodiscard]] index_t kept_cols(Expert const& expert, route_context const& context) {
  return context.phase == phase::evaluate ? 0 : expert.kept_width();
}

/// All tokens as one group.
struct one_group {
  std::array<index_t, 2> offsets;
  std::array<index_t, 1> counts;
  explicit one_group(index_t rows) : offsets{0, rows}, counts{rows} {}
  [[nodiscard]] row_groups groups() const { return {offsets, counts}; }
};

template <class Layer, class State, class Record>
void compute(Layer const& layer, State& state, Record& record) {
  using value_type = typename Layer::value_type;
  FAIRLEAD_EXPECTS(record.plan.placement_fingerprint == state.where.fingerprint(), "the record was planned for another placement");
  auto ws = state.scratch.view();
  index_t const rows = record.plan.buffer_rows;
  state.store.acquire(state.on, state.comm);
  layer.expert.forward(state.on, std::as_const(state.store).values(), record.plan.groups(),
                       std::as_const(record.expert_in).as_matrix(rows, layer.expert.input_width()),
                       record.kept.as_matrix(rows, kept_cols(layer.expert, record.context)),
                       record.expert_out.as_matrix(rows, layer.expert.output_width()), ws);
  state.store.release(state.on, state.comm);
  if constexpr (Layer::has_shared) {
    index_t const tokens = record.tokens.rows();
    index_t const kept = kept_cols(layer.shared, record.context);
    record.shared_kept.resize(tokens * kept);
    record.shared_out.resize(tokens * layer.shared.output_width());
    std::array<value_type const*, 1> const parameters{state.shared.values.data()};
    one_group const all(tokens);
    auto shared_ws = state.scratch.view();
    layer.shared.forward(state.on, std::span<value_type const* const>(parameters), all.groups(), record.tokens,
                         record.shared_kept.as_matrix(tokens, kept),
                         record.shared_out.as_matrix(tokens, layer.shared.output_width()), shared_ws);
  }
}

template <class Layer, class State, class Record>
void finish_combine(Layer const& layer, State& state, Record& record, matrix_view<typename Layer::value_type> output) {
  FAIRLEAD_EXPECTS(output.rows() == record.tokens.rows() && output.cols() == layer.expert.output_width(),
                   "one output row a token, as wide as the experts' output", output.rows(), output.cols());
  FAIRLEAD_EXPECTS(output.empty() || static_cast<void const*>(output.data()) != record.tokens.data() || record.context.phase == phase::evaluate,
                   "a training pass keeps its input: give the output memory of its own");
  layer.dispatcher.finish_combine(state.on, record.plan, *record.pending, outputs(layer, record), record.tokens, record.wire, output);
  record.pending.reset();
  if constexpr (Layer::has_shared) { add_rows(state.on, output, std::as_const(record.shared_out).data()); }
  record.differentiable = record.context.phase != phase::evaluate;
}

template <class Layer, class State, class Record>
void start_combine_backward(Layer const& layer, State& state, Record& record, matrix_view<typename Layer::value_type const> grad_output) {
  FAIRLEAD_EXPECTS(record.context.phase != phase::evaluate, "an evaluation keeps nothing for a backward pass");
  FAIRLEAD_EXPECTS(record.differentiable, "a record serves one backward pass after one complete forward pass");
  FAIRLEAD_EXPECTS(grad_output.rows() == record.plan.tokens && grad_output.cols() == layer.expert.output_width(),
                   "one gradient row a token, as wide as the experts' output", grad_output.rows(), grad_output.cols());
  record.differentiable = false;
  record.pending.emplace(layer.dispatcher.start_combine_backward(
      state.on, state.comm, record.plan, grad_output, record.tokens,
      record.expert_out.as_matrix(record.plan.buffer_rows, layer.expert.output_width()), record.wire,
      record.grad_weights.as_matrix(record.plan.tokens, record.plan.fan_out)));
}

template <class Layer, class State, class Record>
void finish_dispatch_backward(Layer const& layer, State& state, Record& record, matrix_view<typename Layer::value_type const> grad_output,
                              matrix_view<typename Layer::value_type> grad_tokens) {
  FAIRLEAD_EXPECTS(grad_tokens.rows() == record.plan.tokens && grad_tokens.cols() == layer.expert.input_width(),
                   "one gradient row a token, as wide as the token", grad_tokens.rows(), grad_tokens.cols());
  FAIRLEAD_EXPECTS(grad_tokens.empty() || grad_tokens.data() != grad_output.data(), "grad_tokens needs memory of its own");
  layer.dispatcher.finish_dispatch_backward(state.on, record.plan, *record.pending, gradients_of_inputs(layer, record), grad_output,
                                            record.wire, record.grad_weights.as_matrix(record.plan.tokens, record.plan.fan_out), grad_tokens);
  record.pending.reset();
}

template <class Layer, class State, class Record>
void compute_backward(Layer const& layer, State& state, Record& record) {
  using backend_type = std::remove_cvref_t<decltype(state.on)>;
  static_assert(trainable_on<std::remove_cvref_t<decltype(layer.expert)>, backend_type>, "backward needs an expert that models fairlead::trainable_on");
  static_assert(has_gradient_on<std::remove_cvref_t<decltype(layer.router)>, backend_type>, "backward needs a router that models fairlead::has_gradient_on");
  FAIRLEAD_EXPECTS(record.plan.placement_fingerprint == state.where.fingerprint(), "the record was planned for another placement");
  index_t const rows = record.plan.buffer_rows;
  record.grad_in.resize(rows * layer.expert.input_width());
  auto ws = state.scratch.view();
  state.store.acquire(state.on, state.comm);
  layer.expert.backward(state.on, std::as_const(state.store).values(), state.store.gradients(), record.plan.groups(),
                        std::as_const(record.expert_in).as_matrix(rows, layer.expert.input_width()),
                        std::as_const(record.kept).as_matrix(rows, layer.expert.kept_width()), outputs(layer, record),
                        record.grad_in.as_matrix(rows, layer.expert.input_width()), ws);
  state.store.release(state.on, state.comm);
}

template <class Layer, class State, class Record>
void route_backward(Layer const& layer, State& state, Record& record,
                    matrix_view<typename Layer::value_type const> grad_output,
                    matrix_view<typename Layer::value_type> grad_tokens, double signal_scale) {
  using value_type = typename Layer::value_type;
  index_t const tokens = record.tokens.rows();
  index_t const columns = logit_columns(layer.router);
  index_t const fan_out = layer.router.fan_out();
  record.grad_logits.resize(tokens * columns);
  auto ws = state.scratch.view();
  auto const logits = std::as_const(record.logits).as_matrix(tokens, columns);
  auto const grad_logits = record.grad_logits.as_matrix(tokens, columns);
  auto const grad_weights = std::as_const(record.grad_weights).as_matrix(tokens, fan_out);
  auto const routed = std::as_const(record.routing).view();
  if constexpr (has_state<typename Layer::router_type>) {
    layer.router.backward(state.on, logits, record.context, std::as_const(state.router), routed, grad_weights, grad_logits, ws);
  } else {
    layer.router.backward(state.on, logits, record.context, routed, grad_weights, grad_logits, ws);
  }
  record.signal_loss = layer.signal.add_gradient(state.on, logits, routed, record.context, std::as_const(record.signal),
                                                 signal_scale, grad_logits, ws);
  auto const parameters = std::as_const(state.gate.values).span();
  matrix_view<float const> const seen(grad_logits);
  if constexpr (has_context_gate<std::remove_cvref_t<decltype(layer.gate)>, std::remove_cvref_t<decltype(state.on)>>) {
    layer.gate.backward(state.on, parameters, record.tokens, record.context, seen, state.gate.gradients.span(), grad_tokens, ws);
  } else {
    layer.gate.backward(state.on, parameters, record.tokens, seen, state.gate.gradients.span(), grad_tokens, ws);
  }
  if constexpr (Layer::has_shared) {
    auto shared_ws = state.scratch.view();
    std::array<value_type const*, 1> const shared_parameters{state.shared.values.data()};
    std::array<value_type*, 1> const gradients{state.shared.gradients.data()};
    one_group const all(tokens);
    record.shared_out.resize(tokens * layer.shared.input_width());
    layer.shared.backward(state.on, std::span<value_type const* const>(shared_parameters), std::span<value_type* const>(gradients),
                          all.groups(), record.tokens,
                          std::as_const(record.shared_kept).as_matrix(tokens, layer.shared.kept_width()), grad_output,
                          record.shared_out.as_matrix(tokens, layer.shared.input_width()), shared_ws);
    add_rows(state.on, grad_tokens, std::as_const(record.shared_out).data());
  }
}

template <class Layer, class State>
void reduce_gradients(Layer const&, State& state) {
  state.comm.all_reduce(state.on, state.gate.gradients.span(), reduction::sum).wait();
  if constexpr (Layer::has_shared) { state.comm.all_reduce(state.on, state.shared.gradients.span(), reduction::sum).wait(); }
  state.store.reduce_gradients(state.on, state.comm);
}

template <class State>
void zero_gradients(State& state) {
  using value_type = typename State::value_type;
  state.on.fill_zero(state.gate.gradients.data(), static_cast<std::size_t>(state.gate.gradients.size()) * sizeof(value_type));
  state.on.fill_zero(state.shared.gradients.data(), static_cast<std::size_t>(state.shared.gradients.size()) * sizeof(value_type));
  state.store.zero_gradients(state.on);
}

template <class Layer, class State, class Function>
void each_parameter(Layer const& layer, State& state, Function& f) {
  using value_type = typename Layer::value_type;
  using array_type = parameter_array<value_type>;
  if constexpr (has_frozen_blocks<std::remove_cvref_t<decltype(layer.gate)>>) {
    // The step that made the gradients decides: the last update before a switch still counts.
    auto const blocks = static_cast<index_t>(state.gate.layout.blocks().size());
    for (index_t block = 0; block < blocks; ++block) { state.gate.layout.freeze(block, layer.gate.frozen(block, state.trained_step)); }
  }
  f(array_type{parameter_scope::replicated, expert_id::none, &state.gate.layout, state.gate.values.span(), state.gate.gradients.span()});
  if constexpr (Layer::has_shared) {
    f(array_type{parameter_scope::replicated, expert_id::none, &state.shared.layout, state.shared.values.span(), state.shared.gradients.span()});
  }
  parameter_layout const& layout = state.expert_layout;
  state.store.each([&f, &layout](expert_id expert, std::span<value_type> values, std::span<value_type> gradients) {
    f(array_type{parameter_scope::expert, expert, &layout, values, gradients});
  });
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
