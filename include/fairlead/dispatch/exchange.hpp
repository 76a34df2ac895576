// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Dispatch every copy as a row of its own through one all-to-all, and combine on the way back.
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/concepts/dispatcher.hpp>
#include <fairlead/core/token_schedule.hpp>
#include <fairlead/dispatch/admission.hpp>
#include <fairlead/dispatch/capacity.hpp>
#include <fairlead/dispatch/detail/exchange_rows.hpp>
#include <fairlead/dispatch/detail/place_copies.hpp>
#include <fairlead/dispatch/detail/plan_tables.hpp>
#include <fairlead/dispatch/rows.hpp>
#include <fairlead/dispatch/wire_buffers.hpp>

#include <optional>
#include <span>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The exchange in which each kept copy travels as one row: the plain all-to-all dispatcher.
///
/// Stages, all collective and in this order: `admit`, (gather counts), `limit`, (schedule), `plan`, `start_dispatch`,
/// `finish_dispatch`, `start_combine`, `finish_combine`; backward: `start_combine_backward`, `finish_combine_backward`,
/// `start_dispatch_backward`, `finish_dispatch_backward`. Weights apply at combine, on the token's rank. On one rank
/// rows move straight between tokens and expert buffer. See `deduplicated_exchange` when tokens often have several
/// experts on one rank.
/// @tparam Capacity places per expert
/// @tparam Order service order
/// @tparam Overflow what becomes of copies without a place
/// @determinism every stage is deterministic; sums run over choices in order
template <class Capacity = dropless, class Order = token_order, class Overflow = drop>
struct exchange {
  Capacity capacity{};   ///< places per expert
  Order order{};         ///< who is served first, and the row order inside an expert
  Overflow overflow{};   ///< what becomes of copies without a place
  index_t alignment = 1; ///< groups of the expert buffer start at multiples of this many rows

  /// What is planned. @tparam Space memory space of the indices
  template <memory_space Space>
  using plan_type = exchange_plan<Space>;
  /// What is in flight.
  template <class Value, memory_space Space>
  using wire_type = wire_buffers<Value, Space>;
  /// A started movement of rows; empty on one rank. @tparam Comm communicator
  template <class Comm, class Backend, class Value>
  using pending_type = std::optional<decltype(std::declval<Comm&>().all_to_all_v(
      std::declval<Backend const&>(), static_cast<Value const*>(nullptr), std::span<index_t const>{},
      static_cast<Value*>(nullptr), std::span<index_t const>{}))>;

  /// @brief See `admission::admit`.
  template <execution_backend Backend, class Space>
  void admit(Backend const& on, const_routing_view routed, route_context const& context, index_t experts,
             exchange_plan<Space>& plan, workspace& ws) const {
    entry().admit(on, routed, context, experts, plan, ws);
  }
  /// @brief See `admission::limit`.
  void limit(matrix_view<count_t const> gathered, placement const& where, index_t fan_out, matrix_view<count_t> kept) const {
    entry().limit(gathered, where, fan_out, kept);
  }
  /// @returns bytes of scratch for `admit` and `plan`
  [[nodiscard]] std::size_t workspace_bytes(index_t copies, index_t experts, index_t concurrency) const {
    return entry().workspace_bytes(copies, experts, concurrency) +
           fairlead::workspace_bytes<std::int32_t>(copies / detail::tokens_per_place_block + 2);
  }

  /// @brief Make room for the worst step, so that later ones allocate nothing.
  /// @param[out] plan a plan
  /// @param[out] wire its wire
  /// @param where the placement
  /// @param rank this rank
  /// @param tokens most tokens of this rank
  /// @param fan_out copies a token
  /// @param rows most rows of this rank's expert buffer, padding included
  /// @param width most columns of a row
  template <class Space, class Value>
  void reserve(exchange_plan<Space>& plan, wire_buffers<Value, Space>& wire, placement const& where, index_t rank,
               index_t tokens, index_t fan_out, index_t rows, index_t width) const {
    detail::reserve_plan(where, rank, tokens, fan_out, rows, plan);
    if constexpr (Overflow::renormalises) { plan.weight_sums.resize(tokens); }
    wire.reserve(where.ranks(), where.ranks() == 1 ? rows : tokens * fan_out, rows, width);
  }

  /// @brief Give every copy and every received row its place.
  /// @param on backend
  /// @param comm knows the rank; nothing is sent
  /// @param routed the routing that `admit` saw
  /// @param where placement
  /// @param schedule who computes what. @shape{ranks x where.replicas()}
  /// @param[in,out] plan what `admit` filled
  /// @param ws scratch
  /// @complexity O(copies + rows + ranks x slots), allocates only when the plan outgrows its buffers
  template <execution_backend Backend, class Comm, class Space>
  void plan(Backend const& on, Comm const& comm, const_routing_view routed, placement const& where,
            const_token_schedule_view schedule, exchange_plan<Space>& plan, workspace& ws) const {
    FAIRLEAD_EXPECTS(alignment >= 1, "the alignment must be positive", alignment);
    FAIRLEAD_EXPECTS(where.ranks() == static_cast<index_t>(comm.size()), "the placement is for another number of ranks", where.ranks(), comm.size());
    FAIRLEAD_EXPECTS(where.experts() == plan.experts, "the placement is for another number of experts", where.experts(), plan.experts);
    FAIRLEAD_EXPECTS(schedule.rows() == where.ranks() && schedule.cols() == where.replicas(), "a schedule has one row a rank and one column a replica", schedule.rows(), schedule.cols());
    FAIRLEAD_EXPECTS(routed.tokens() == plan.tokens && routed.fan_out() == plan.fan_out, "plan with the routing that was admitted", routed.tokens(), plan.tokens);
    plan.ranks = comm.size();
    plan.rank = comm.rank();
    plan.placement_fingerprint = where.fingerprint();
    detail::plan_rows(where, schedule, alignment, plan);
    plan.outer_to_copy.resize(plan.outer_rows);
    plan.buffer_to_inner.resize(plan.buffer_rows);
    plan.inner_to_buffer.resize(plan.inner_rows);
    if constexpr (Overflow::renormalises) { plan.weight_sums.resize(plan.tokens); }
    implementation<exchange, Backend>::place(on, routed, where.replicas(), where.slots(static_cast<rank_id>(plan.rank)), plan, ws);
  }

  /// @brief Send the rows of the kept copies on their way.
  /// @param on backend
  /// @param comm communicator with `has_all_to_all_v`
  /// @param plan the plan
  /// @param tokens @shape{plan.tokens x width}
  /// @param[out] wire rows in flight
  /// @returns what to hand to `finish_dispatch`
  /// @collective all ranks
  template <execution_backend Backend, class Comm, class Space, class Value>
  [[nodiscard]] pending_type<Comm, Backend, Value> start_dispatch(Backend const& on, Comm& comm,
                                                                  exchange_plan<Space> const& plan,
                                                                  matrix_view<Value const> tokens,
                                                                  wire_buffers<Value, Space>& wire) const {
    FAIRLEAD_EXPECTS(tokens.rows() == plan.tokens, "the plan is for another number of tokens", tokens.rows(), plan.tokens);
    wire.fit(plan, tokens.cols());
    if (plan.ranks == 1) { return std::nullopt; }
    auto const rows = wire.outer.as_matrix(plan.outer_rows, tokens.cols());
    gather_rows{.divisor = plan.fan_out}(on, tokens, plan.outer_to_copy.span(), rows);
    return send<Comm>(on, comm, wire.outer, wire.outer_elements, wire.inner, wire.inner_elements);
  }
  /// @brief Put the received rows into the expert buffer; padding rows become zero.
  /// @param on backend
  /// @param plan the plan
  /// @param pending what `start_dispatch` returned
  /// @param tokens @shape{plan.tokens x width}, read on one rank only
  /// @param wire rows in flight
  /// @param[out] rows the expert buffer. @shape{plan.buffer_rows x width}
  template <execution_backend Backend, class Pending, class Space, class Value>
  void finish_dispatch(Backend const& on, exchange_plan<Space> const& plan, Pending& pending,
                       matrix_view<Value const> tokens, wire_buffers<Value, Space>& wire, matrix_view<Value> rows) const {
    if (!pending) {
      gather_rows{.divisor = plan.fan_out}(on, tokens, plan.outer_to_copy.span(), rows);
      return;
    }
    pending->wait();
    receive(on, plan, wire, rows);
  }

  /// @brief Send the experts' outputs back.
  /// @param on backend
  /// @param comm communicator
  /// @param plan the plan
  /// @param rows what the experts computed. @shape{plan.buffer_rows x width}
  /// @param[out] wire rows in flight
  /// @returns what to hand to `finish_combine`
  /// @collective all ranks
  template <execution_backend Backend, class Comm, class Space, class Value>
  [[nodiscard]] pending_type<Comm, Backend, Value> start_combine(Backend const& on, Comm& comm,
                                                                 exchange_plan<Space> const& plan,
                                                                 matrix_view<Value const> rows,
                                                                 wire_buffers<Value, Space>& wire) const {
    wire.fit(plan, rows.cols());
    if (plan.ranks == 1) { return std::nullopt; }
    return send_back<Comm>(on, comm, plan, rows, wire);
  }
  /// @brief Sum the returned rows of each token, times their weights.
  /// @param on backend
  /// @param plan the plan
  /// @param pending what `start_combine` returned
  /// @param rows the expert buffer, read on one rank only
  /// @param tokens the input, for overflow actions that return it. @shape{plan.tokens x width}
  /// @param wire rows in flight; the returned rows stay in it for `start_combine_backward`
  /// @param[out] out overwritten. @shape{plan.tokens x width}
  template <execution_backend Backend, class Pending, class Space, class Value>
  void finish_combine(Backend const& on, exchange_plan<Space> const& plan, Pending& pending,
                      matrix_view<Value const> rows, matrix_view<Value const> tokens, wire_buffers<Value, Space>& wire,
                      matrix_view<Value> out) const {
    check_own_rows(tokens.cols(), out.cols());
    if (pending) {
      pending->wait();
      rows = detail::returned_rows(plan, wire, out.cols());
    }
    combine_rows{}(on, rows, detail::rows_of_copies(plan), detail::weights_of_copies(plan), tokens, out);
  }

  /// @brief Send the gradients of the returned rows to the experts, and take the gradients of the weights.
  /// @param on backend
  /// @param comm communicator
  /// @param plan the plan
  /// @param grad_out @shape{plan.tokens x width}
  /// @param tokens the input
  /// @param[in,out] rows the expert buffer of the forward pass: on one rank it becomes its own gradient
  /// @param[in,out] wire the wire of the forward pass, which holds the returned rows
  /// @param[out] grad_weights of the weights in the plan. @shape{plan.tokens x fan_out}
  /// @returns what to hand to `finish_combine_backward`
  /// @collective all ranks
  template <execution_backend Backend, class Comm, class Space, class Value>
  [[nodiscard]] pending_type<Comm, Backend, Value> start_combine_backward(
      Backend const& on, Comm& comm, exchange_plan<Space> const& plan, matrix_view<Value const> grad_out,
      matrix_view<Value const> tokens, matrix_view<Value> rows, wire_buffers<Value, Space>& wire,
      matrix_view<float> grad_weights) const {
    FAIRLEAD_EXPECTS(grad_out.rows() == plan.tokens, "the plan is for another number of tokens", grad_out.rows(), plan.tokens);
    check_own_rows(tokens.cols(), grad_out.cols());
    if (plan.ranks > 1) { rows = detail::returned_rows(plan, wire, grad_out.cols()); }
    combine_rows_backward{}(on, grad_out, detail::rows_of_copies(plan), detail::weights_of_copies(plan), tokens, rows, grad_weights);
    if constexpr (Overflow::renormalises) { implementation<exchange, Backend>::renormalise_backward(on, plan, grad_weights); }
    if (plan.ranks == 1) {
      detail::clear_padding(on, plan, rows);
      return std::nullopt;
    }
    return send<Comm>(on, comm, wire.outer, wire.outer_elements, wire.inner, wire.inner_elements);
  }
  /// @brief Put the received gradients into the expert buffer.
  /// @param on backend
  /// @param plan the plan
  /// @param pending what `start_combine_backward` returned
  /// @param wire rows in flight
  /// @param[out] rows gradient of the experts' outputs. @shape{plan.buffer_rows x width}
  template <execution_backend Backend, class Pending, class Space, class Value>
  void finish_combine_backward(Backend const& on, exchange_plan<Space> const& plan, Pending& pending,
                               wire_buffers<Value, Space>& wire, matrix_view<Value> rows) const {
    if (!pending) { return; }  // on one rank the gradients are in `rows` already
    pending->wait();
    receive(on, plan, wire, rows);
  }

  /// @brief Send the gradients of the dispatched rows back to the tokens.
  /// @param on backend
  /// @param comm communicator
  /// @param plan the plan
  /// @param grad_rows gradient of the expert buffer. @shape{plan.buffer_rows x width}
  /// @param[out] wire rows in flight
  /// @returns what to hand to `finish_dispatch_backward`
  /// @collective all ranks
  template <execution_backend Backend, class Comm, class Space, class Value>
  [[nodiscard]] pending_type<Comm, Backend, Value> start_dispatch_backward(Backend const& on, Comm& comm,
                                                                           exchange_plan<Space> const& plan,
                                                                           matrix_view<Value const> grad_rows,
                                                                           wire_buffers<Value, Space>& wire) const {
    return start_combine(on, comm, plan, grad_rows, wire);
  }
  /// @brief Sum the gradients of each token's copies.
  /// @param on backend
  /// @param plan the plan
  /// @param pending what `start_dispatch_backward` returned
  /// @param grad_rows gradient of the expert buffer, read on one rank only
  /// @param grad_out gradient of the layer's output, for overflow actions that returned the token
  /// @param wire rows in flight
  /// @param grad_weights unused: complete since `start_combine_backward`
  /// @param[out] grad_tokens overwritten. @shape{plan.tokens x width}
  template <execution_backend Backend, class Pending, class Space, class Value>
  void finish_dispatch_backward(Backend const& on, exchange_plan<Space> const& plan, Pending& pending,
                                matrix_view<Value const> grad_rows, matrix_view<Value const> grad_out,
                                wire_buffers<Value, Space>& wire, [[maybe_unused]] matrix_view<float> grad_weights,
                                matrix_view<Value> grad_tokens) const {
    if (pending) {
      pending->wait();
      grad_rows = detail::returned_rows(plan, wire, grad_tokens.cols());
    }
    // A copy that kept its own row has a weight; its gradient is added below, not taken from a row.
    combine_rows{}(on, grad_rows, detail::rows_of_copies(plan), matrix_view<float const>{}, matrix_view<Value const>{}, grad_tokens);
    if constexpr (Overflow::keeps_own_row) { add_own_rows{}(on, grad_out, detail::rows_of_copies(plan), detail::weights_of_copies(plan), grad_tokens); }
  }

 private:
  static void check_own_rows([[maybe_unused]] index_t in, [[maybe_unused]] index_t out) {
    if constexpr (Overflow::keeps_own_row) { FAIRLEAD_EXPECTS(in == out, "a token that stands in for an output must be as wide", in, out); }
  }
  [[nodiscard]] admission<Capacity, Order, Overflow> entry() const { return {capacity, order, overflow}; }
  template <class Comm, class Backend, class Value, class Space>
  [[nodiscard]] static auto send(Backend const& on, Comm& comm, buffer<Value, Space> const& from,
                                 buffer<index_t> const& from_offsets, buffer<Value, Space>& to,
                                 buffer<index_t> const& to_offsets) -> pending_type<Comm, Backend, Value> {
    return pending_type<Comm, Backend, Value>(
        comm.all_to_all_v(on, static_cast<Value const*>(from.data()), from_offsets.span(), to.data(), to_offsets.span()));
  }
  template <class Comm, class Backend, class Value, class Space>
  [[nodiscard]] static auto send_back(Backend const& on, Comm& comm, exchange_plan<Space> const& plan,
                                      matrix_view<Value const> rows, wire_buffers<Value, Space>& wire)
      -> pending_type<Comm, Backend, Value> {
    gather_rows{}(on, rows, plan.inner_to_buffer.span(), wire.inner.as_matrix(plan.inner_rows, rows.cols()));
    return send<Comm>(on, comm, wire.inner, wire.inner_elements, wire.outer, wire.outer_elements);
  }
  template <class Backend, class Space, class Value>
  static void receive(Backend const& on, exchange_plan<Space> const& plan, wire_buffers<Value, Space> const& wire,
                      matrix_view<Value> rows) {
    gather_rows{}(on, wire.inner.as_matrix(plan.inner_rows, rows.cols()), plan.buffer_to_inner.span(), rows);
  }
};

FAIRLEAD_NAMESPACE_END

#include <fairlead/dispatch/detail/exchange_text.hpp>
