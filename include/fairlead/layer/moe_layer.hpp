// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Compose a Mixture-of-Experts layer from its parts.
#include <fairlead/concepts/expert.hpp>
#include <fairlead/concepts/gate.hpp>
#include <fairlead/concepts/parameter_store.hpp>
#include <fairlead/concepts/planner.hpp>
#include <fairlead/concepts/token_scheduler.hpp>
#include <fairlead/dispatch/exchange.hpp>
#include <fairlead/layer/detail/stages.hpp>
#include <fairlead/layer/options.hpp>
#include <fairlead/layer/state.hpp>
#include <fairlead/place/contiguous.hpp>
#include <fairlead/schedule/sole_replica.hpp>
#include <fairlead/shard/local_parameters.hpp>

#include <span>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief A Mixture-of-Experts layer as a value that names its parts; every call is resolved at compile time.
///
/// `output[t] = sum over the chosen experts of weight * expert(tokens[t])`, plus the shared expert. There is no
/// residual connection: that belongs to the model around the layer. Parts are exchanged by naming another one:
/// @code
/// fairlead::moe_layer layer{
///     .gate = fairlead::linear_gate<>{.width = 64, .experts = 8},
///     .router = fairlead::top_k{.experts = 8, .k = 2},
///     .expert = fairlead::gated_ffn<>{.width = 64, .hidden = 128}};
/// auto state = layer.make_state(on, comm, {.max_tokens = 1024});
/// auto record = layer.make_record(state);
/// auto report = layer.forward(state, tokens, output, record);
/// layer.backward(state, record, grad_output, grad_tokens);
/// layer.reduce_gradients(state);
/// @endcode
/// All members that take a state are collective: every rank calls them in the same order, with any number of tokens,
/// zero included. `forward` and `backward` are sequences of the stages below; a pipeline calls the stages itself and
/// interleaves several records. Re-planning and weight movement belong between steps.
/// @tparam Gate makes logits from tokens (`gate_on`)
/// @tparam Router chooses experts (`router_on`)
/// @tparam Expert what an expert computes (`expert_on`)
/// @tparam Signal auxiliary loss (`balance_signal_on`)
/// @tparam Planner where experts sit (`fairlead::planner`)
/// @tparam Scheduler how copies are split over replicas (`token_scheduler`)
/// @tparam Dispatcher capacity and the movement of rows (`dispatcher_on`)
/// @tparam Shared an expert for all tokens, or `no_shared_expert`
/// @tparam Store who owns expert parameters (`store_policy_on`)
template <class Gate, class Router, class Expert, class Signal = no_signal, class Planner = contiguous_placement,
          class Scheduler = sole_replica, class Dispatcher = exchange<>, class Shared = no_shared_expert,
          class Store = local_parameters>
struct moe_layer {
  Gate gate;                ///< makes logits from tokens
  Router router;            ///< chooses experts
  Signal signal{};          ///< auxiliary loss
  Planner planner{};        ///< where experts sit
  Scheduler scheduler{};    ///< how copies are split over replicas
  Dispatcher dispatcher{};  ///< capacity and the movement of rows
  Expert expert;            ///< what an expert computes
  Shared shared{};          ///< an expert for all tokens
  Store store{};            ///< who owns expert parameters

  using value_type = typename Expert::value_type;  ///< element type of rows
  using router_type = Router;                      ///< type of `router`
  using signal_type = Signal;                      ///< type of `signal`
  using dispatcher_type = Dispatcher;              ///< type of `dispatcher`
  /// Type of the store that `store` makes.
  template <class Backend, class Comm>
  using store_of = decltype(std::declval<Store const&>().template make<value_type>(
      std::declval<Backend const&>(), std::declval<Comm&>(), std::declval<placement const&>(),
      std::declval<parameter_layout const&>(), std::uint64_t{}));
  /// State of this layer.
  template <class Backend, class Comm>
  using state_type = layer_state<moe_layer, Backend, Comm>;
  /// Record of one forward pass. @tparam Backend execution backend @tparam Comm communicator
  template <class Backend, class Comm>
  using record_type = step_record<moe_layer, Backend, Comm>;
  /// Whether there is a shared expert.
  static constexpr bool has_shared = !std::is_same_v<Shared, no_shared_expert>;

  /// @brief Place the experts, allocate and initialise everything.
  /// @param on backend; copied
  /// @param comm communicator; copied
  /// @param limits sizes, equal on every rank
  /// @returns the state of this rank
  /// @throws contract_violation (level 1) if the parts do not fit each other, or ranks disagree (level 3)
  /// @collective all ranks
  /// @determinism initial values follow limits.seed, the component and the logical expert; not the number of ranks
  template <class Backend, class Comm>
  [[nodiscard]] state_type<Backend, Comm> make_state(Backend const& on, Comm comm, layer_limits limits) const {
    return detail::make_state(*this, on, std::move(comm), limits);
  }
  /// @brief Allocate what one forward pass leaves for its backward pass.
  /// @returns a record; reuse it for every step
  template <class Backend, class Comm>
  [[nodiscard]] record_type<Backend, Comm> make_record(state_type<Backend, Comm> const& state) const {
    return detail::make_record(*this, state);
  }

  /// @brief Compute the layer.
  /// @param state the state
  /// @param tokens must stay unchanged until `backward`. @shape{tokens x width}
  /// @param[out] output overwritten. @shape{tokens x output_width}
  /// @param[out] record for `backward`
  /// @param context phase, masks, seed and step
  /// @returns loads, drops and traffic of all ranks
  /// @collective all ranks
  /// @complexity no allocation once the record has seen a step of this size or was made for the worst case
  template <class Backend, class Comm>
  step_report forward(state_type<Backend, Comm>& state, matrix_view<value_type const> tokens,
                      matrix_view<value_type> output, record_type<Backend, Comm>& record,
                      route_context const& context) const {
    FAIRLEAD_EXPECTS(output.rows() == tokens.rows(), "one output row a token", output.rows(), tokens.rows());
    route(state, tokens, record, context);
    plan(state, record);
    start_dispatch(state, record);
    finish_dispatch(state, record);
    compute(state, record);
    start_combine(state, record);
    finish_combine(state, record, output);
    return record.report;
  }
  /// @brief Compute the layer in a training step: seed and step come from the state.
  /// @param state the state
  /// @param tokens @shape{tokens x width}
  /// @param[out] output @shape{tokens x output_width}
  /// @param[out] record for `backward`
  /// @returns loads, drops and traffic of all ranks
  /// @collective all ranks
  template <class Backend, class Comm>
  step_report forward(state_type<Backend, Comm>& state, matrix_view<value_type const> tokens,
                      matrix_view<value_type> output, record_type<Backend, Comm>& record) const {
    return forward(state, tokens, output, record, default_context(state, phase::train));
  }
  /// @brief The context that `forward` uses when none is given. To recompute, set the phase of the record's context.
  /// @returns seed of the limits, step of the state, token numbers apart for each rank
  template <class Backend, class Comm>
  [[nodiscard]] static route_context default_context(state_type<Backend, Comm> const& state, phase why) {
    return {.phase = why, .seed = state.limits.seed, .step = state.step,
            .first_token = static_cast<index_t>(state.comm.rank()) * state.limits.max_tokens};
  }

  /// @brief Compute all gradients of a training step.
  ///
  /// Parameter gradients are added to those in the state, so that several micro-batches accumulate. They are sums over
  /// this rank's tokens of what `grad_output` says: a loss that is a mean divides by the tokens of all ranks. The
  /// auxiliary loss is this rank's part of a mean over the tokens of all ranks already.
  /// @param state the state
  /// @param record what `forward` filled; it is used up
  /// @param grad_output @shape{tokens x output_width}
  /// @param[out] grad_tokens overwritten. @shape{tokens x width}
  /// @param signal_scale weight of the auxiliary loss: the loss scale, over the micro-batches of a global batch
  /// @collective all ranks
  template <class Backend, class Comm>
  void backward(state_type<Backend, Comm>& state, record_type<Backend, Comm>& record,
                matrix_view<value_type const> grad_output, matrix_view<value_type> grad_tokens,
                double signal_scale = 1.0) const {
    start_combine_backward(state, record, grad_output);
    finish_combine_backward(state, record);
    compute_backward(state, record);
    start_dispatch_backward(state, record);
    finish_dispatch_backward(state, record, grad_output, grad_tokens);
    route_backward(state, record, grad_output, grad_tokens, signal_scale);
  }

  /// @brief Stage 1: logits and routing. Local.
  template <class Backend, class Comm>
  void route(state_type<Backend, Comm>& state, matrix_view<value_type const> tokens, record_type<Backend, Comm>& record,
             route_context const& context) const {
    detail::route(*this, state, tokens, record, context);
  }
  /// @brief Stage 2: gather counts (the one synchronisation with the host), apply capacities, schedule, plan. Collective.
  template <class Backend, class Comm>
  void plan(state_type<Backend, Comm>& state, record_type<Backend, Comm>& record) const { detail::plan(*this, state, record); }
  /// @brief Stage 3: send token rows on their way. Collective.
  template <class Backend, class Comm>
  void start_dispatch(state_type<Backend, Comm>& state, record_type<Backend, Comm>& record) const {
    record.pending.emplace(dispatcher.start_dispatch(state.on, state.comm, record.plan, record.tokens, record.wire));
  }
  /// @brief Stage 4: wait for the rows and group them by expert.
  template <class Backend, class Comm>
  void finish_dispatch(state_type<Backend, Comm>& state, record_type<Backend, Comm>& record) const {
    dispatcher.finish_dispatch(state.on, record.plan, *record.pending, record.tokens, record.wire,
                               record.expert_in.as_matrix(record.plan.buffer_rows, expert.input_width()));
    record.pending.reset();
  }
  /// @brief Stage 5: run the experts, and the shared expert. Collective only if the parameter store is.
  template <class Backend, class Comm>
  void compute(state_type<Backend, Comm>& state, record_type<Backend, Comm>& record) const {
    detail::compute(*this, state, record);
  }
  /// @brief Stage 6: send outputs back. Collective.
  template <class Backend, class Comm>
  void start_combine(state_type<Backend, Comm>& state, record_type<Backend, Comm>& record) const {
    record.pending.emplace(dispatcher.start_combine(state.on, state.comm, record.plan, detail::outputs(*this, record), record.wire));
  }
  /// @brief Stage 7: wait, and sum the rows of each token.
  template <class Backend, class Comm>
  void finish_combine(state_type<Backend, Comm>& state, record_type<Backend, Comm>& record,
                      matrix_view<value_type> output) const {
    detail::finish_combine(*this, state, record, output);
  }
  /// @brief Backward stage 1: send gradients of the returned rows. Collective.
  template <class Backend, class Comm>
  void start_combine_backward(state_type<Backend, Comm>& state, record_type<Backend, Comm>& record,
                              matrix_view<value_type const> grad_output) const {
    detail::start_combine_backward(*this, state, record, grad_output);
  }
  /// @brief Backward stage 2: wait, and group the gradients by expert.
  template <class Backend, class Comm>
  void finish_combine_backward(state_type<Backend, Comm>& state, record_type<Backend, Comm>& record) const {
    dispatcher.finish_combine_backward(state.on, record.plan, *record.pending, record.wire,
                                       record.expert_out.as_matrix(record.plan.buffer_rows, expert.output_width()));
    record.pending.reset();
  }
  /// @brief Backward stage 3: gradients of the experts. Collective only if the parameter store is.
  template <class Backend, class Comm>
  void compute_backward(state_type<Backend, Comm>& state, record_type<Backend, Comm>& record) const {
    detail::compute_backward(*this, state, record);
  }
  /// @brief Backward stage 4: send gradients of token rows home. Collective.
  template <class Backend, class Comm>
  void start_dispatch_backward(state_type<Backend, Comm>& state, record_type<Backend, Comm>& record) const {
    record.pending.emplace(dispatcher.start_dispatch_backward(
        state.on, state.comm, record.plan, detail::gradients_of_inputs(*this, record), record.wire));
  }
  /// @brief Backward stage 5: wait, and sum the gradients of each token's copies.
  template <class Backend, class Comm>
  void finish_dispatch_backward(state_type<Backend, Comm>& state, record_type<Backend, Comm>& record,
                                matrix_view<value_type const> grad_output, matrix_view<value_type> grad_tokens) const {
    detail::finish_dispatch_backward(*this, state, record, grad_output, grad_tokens);
  }
  /// @brief Backward stage 6: gradients of router, auxiliary loss, gate and shared expert. Local.
  template <class Backend, class Comm>
  void route_backward(state_type<Backend, Comm>& state, record_type<Backend, Comm>& record,
                      matrix_view<value_type const> grad_output, matrix_view<value_type> grad_tokens,
                      double signal_scale = 1.0) const {
    detail::route_backward(*this, state, record, grad_output, grad_tokens, signal_scale);
  }

  /// @brief Sum gradients over ranks as each parameter's scope says; once a global batch, after the last `backward`.
  /// @param state the state
  /// @collective all ranks
  template <class Backend, class Comm>
  void reduce_gradients(state_type<Backend, Comm>& state) const { detail::reduce_gradients(*this, state); }
  /// @brief Clear all gradients.
  template <class Backend, class Comm>
  void zero_gradients(state_type<Backend, Comm>& state) const { detail::zero_gradients(state); }
  /// @brief Visit every parameter array this rank's optimizer updates.
  /// @param state the state
  /// @param f called with `parameter_array<value_type> const&`: gate, shared expert, then experts by local slot; layouts
  ///        mark the blocks that the gate says are frozen since the last training pass
  template <class Backend, class Comm, class Function>
  void each_parameter(state_type<Backend, Comm>& state, Function&& f) const {
    detail::each_parameter(*this, state, f);
  }
  /// @brief Update router and signal state from the loads of the global batch; once, after the optimizer step.
  /// @collective all ranks, for routers whose `observe` is
  /// @determinism equal on every rank: it uses the gathered counts
  template <class Backend, class Comm>
  void end_global_batch(state_type<Backend, Comm>& state) const {
    std::span<index_t const> const counts(state.global_counts);
    if constexpr (has_collective_observe<Router, Backend, Comm>) {
      router.observe(state.on, state.comm, counts, state.router);
    } else if constexpr (has_observe<Router>) {
      router.observe(counts, state.router);
    }
    signal.end_global_batch(state.signal);
    std::fill(state.global_counts.begin(), state.global_counts.end(), 0);
  }

 private:
  template <class, class, class>
  friend struct layer_state;
  template <class, class, class>
  friend struct step_record;
  // State and record ask this before anything else, so that a misfit is the first error of a compiler.
  template <class Backend, class Comm>
  static constexpr bool check_parts() {
    static_assert(execution_backend<Backend>, "on: give an execution backend such as fairlead::serial");
    static_assert(communicator<Comm>, "comm: give a communicator such as fairlead::alone or fairlead::inproc::communicator");
    static_assert(std::is_same_v<typename Comm::memory_space, typename Backend::memory_space>,
                  "communicator and backend must work on the same memory: a device backend needs a device communicator such as fairlead::nccl::communicator");
    static_assert(gate_on<Gate, Backend>, ".gate must model fairlead::gate_on (concepts/gate.hpp), e.g. fairlead::linear_gate");
    static_assert(router_on<Router, Backend>, ".router must model fairlead::router_on (concepts/router.hpp), e.g. fairlead::top_k");
    static_assert(expert_on<Expert, Backend>, ".expert must model fairlead::expert_on (concepts/expert.hpp), e.g. fairlead::gated_ffn");
    static_assert(balance_signal_on<Signal, Backend>, ".signal must model fairlead::balance_signal_on (concepts/balance_signal.hpp), e.g. fairlead::no_signal");
    static_assert(fairlead::planner<Planner>, ".planner must model fairlead::planner (concepts/planner.hpp), e.g. fairlead::contiguous_placement");
    static_assert(token_scheduler<Scheduler>, ".scheduler must model fairlead::token_scheduler (concepts/token_scheduler.hpp), e.g. fairlead::sole_replica");
    static_assert(has_all_to_all_v<Comm, value_type, Backend> && has_all_gather<Comm, count_t, Backend> && has_all_reduce<Comm, value_type, Backend>,
                  "the communicator needs all_to_all_v, all_gather and all_reduce for the layer's types");
    static_assert(dispatcher_on<Dispatcher, Comm, Backend, value_type>, ".dispatcher must model fairlead::dispatcher_on (concepts/dispatcher.hpp), e.g. fairlead::exchange");
    static_assert(store_policy_on<Store, Backend, Comm, value_type>, ".store must model fairlead::store_policy_on (concepts/parameter_store.hpp), e.g. fairlead::local_parameters");
    if constexpr (has_shared) { static_assert(expert_on<Shared, Backend>, ".shared must model fairlead::expert_on, or be left out"); }
    return true;
  }
};

FAIRLEAD_NAMESPACE_END
