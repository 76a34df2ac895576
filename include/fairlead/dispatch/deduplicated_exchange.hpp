// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Dispatch a token once to each rank, however many of its experts are there.
#include <fairlead/dispatch/detail/deduplication.hpp>
#include <fairlead/dispatch/exchange.hpp>

#include <optional>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Rows and weight gradients in flight of a `deduplicated_exchange`.
/// @tparam Value row element
template <class Value>
struct deduplicated_wire : wire_buffers<Value, host_space> {
  buffer<float> row_gradients;    ///< gradient of the weight of each buffer row. @shape{buffer_rows}
  buffer<float> outer_gradients;  ///< of each sent copy. @shape{outer_rows}
  buffer<float> inner_gradients;  ///< of each received copy. @shape{inner_rows}
};

/// @brief Two operations that are waited for together.
template <class Rows, class Weights>
struct deduplicated_pending {
  std::optional<Rows> rows{};        ///< rows under way, empty on one rank
  std::optional<Weights> weights{};  ///< weight gradients under way
  /// @returns whether anything is under way
  [[nodiscard]] explicit operator bool() const noexcept { return rows.has_value(); }
  /// @brief Wait for both.
  void wait() {
    if (rows) { rows->wait(); }
    if (weights) { weights->wait(); }
  }
};

/// @brief The exchange in which all copies of a token that go to one rank share one row.
///
/// The receiving rank weights and sums the outputs of a token's experts before one row returns. It saves wire bytes when
/// tokens often have several experts on one rank (large fan-out, few ranks), and costs one small exchange of row
/// numbers and weights in `plan` and one of weight gradients in backward. Same stages and results as `exchange`, to
/// rounding: sums run over a rank's slots first, then over ranks in the order of the token's choices. Host backends.
/// @tparam Capacity places per expert
/// @tparam Order service order
/// @tparam Overflow what becomes of copies without a place
/// @source{DeepEP, dispatch without expansion}
template <class Capacity = dropless, class Order = token_order, class Overflow = drop>
struct deduplicated_exchange {
  Capacity capacity{};    ///< places per expert
  Order order{};          ///< who is served first
  Overflow overflow{};    ///< what becomes of copies without a place
  index_t alignment = 1;  ///< groups of the expert buffer start at multiples of this many rows

  /// What is planned; host memory only.
  template <memory_space Space>
    requires std::is_same_v<Space, host_space>
  using plan_type = deduplicated_plan;
  /// What is in flight; host memory only.
  template <class Value, memory_space Space>
    requires std::is_same_v<Space, host_space>
  using wire_type = deduplicated_wire<Value>;
  /// A started movement of rows, and of weight gradients.
  template <class Comm, class Backend, class Value>
  using pending_type =
      deduplicated_pending<typename exchange<>::template pending_type<Comm, Backend, Value>::value_type,
                           typename exchange<>::template pending_type<Comm, Backend, float>::value_type>;

  /// @brief See `admission::admit`.
  template <host_backend Backend>
  void admit(Backend const& on, const_routing_view routed, route_context const& context, index_t experts,
             deduplicated_plan& plan, workspace& ws) const {
    plain().admit(on, routed, context, experts, plan, ws);
  }
  /// @brief See `admission::limit`.
  void limit(matrix_view<count_t const> gathered, placement const& where, index_t fan_out, matrix_view<count_t> kept) const {
    plain().limit(gathered, where, fan_out, kept);
  }
  /// @returns bytes of scratch for `admit` and `plan`
  [[nodiscard]] std::size_t workspace_bytes(index_t copies, index_t experts, index_t concurrency) const {
    return plain().workspace_bytes(copies, experts, concurrency);
  }
  /// @brief See `exchange::reserve`.
  template <class Value>
  void reserve(deduplicated_plan& plan, deduplicated_wire<Value>& wire, placement const& where, index_t rank,
               index_t tokens, index_t fan_out, index_t rows, index_t width) const {
    plain().reserve(plan, static_cast<wire_buffers<Value, host_space>&>(wire), where, rank, tokens, fan_out, rows, width);
    index_t const copies = tokens * fan_out;
    for (auto* const offsets : {&plan.wire_outer_offsets, &plan.wire_inner_offsets, &plan.sent_offsets, &plan.received_offsets}) {
      offsets->resize(where.ranks() + 1);
    }
    plan.wire_token.resize(copies);
    plan.first_copy_to_wire.resize(copies);
    plan.buffer_to_wire.resize(rows);
    plan.wire_first.resize(rows + 1);
    plan.wire_to_buffer.resize(rows);
    plan.row_weights.resize(rows);
    plan.sent.resize(2 * copies + where.ranks());
    plan.received.resize(2 * rows + where.ranks());
    wire.row_gradients.resize(rows);
    wire.outer_gradients.resize(copies);
    wire.inner_gradients.resize(rows);
  }

  /// @brief See `exchange::plan`; ranks also tell each other which rows their copies share.
  /// @collective all ranks
  template <host_backend Backend, class Comm>
  void plan(Backend const& on, Comm& comm, const_routing_view routed, placement const& where,
            const_token_schedule_view schedule, deduplicated_plan& plan, workspace& ws) const {
    plain().plan(on, comm, routed, where, schedule, plan, ws);
    if (plan.ranks == 1) { return; }
    detail::number_wire_rows(plan);
    comm.all_to_all_v(on, static_cast<std::int32_t const*>(plan.sent.data()), std::as_const(plan.sent_offsets).span(),
                      plan.received.data(), std::as_const(plan.received_offsets).span()).wait();
    detail::read_wire_rows(plan);
  }

  /// @brief See `exchange::start_dispatch`.
  template <host_backend Backend, class Comm, class Value>
  [[nodiscard]] pending_type<Comm, Backend, Value> start_dispatch(Backend const& on, Comm& comm,
                                                                  deduplicated_plan const& plan,
                                                                  matrix_view<Value const> tokens,
                                                                  deduplicated_wire<Value>& wire) const {
    FAIRLEAD_EXPECTS(tokens.rows() == plan.tokens, "the plan is for another number of tokens", tokens.rows(), plan.tokens);
    if (plan.ranks == 1) { return {}; }
    fit(plan, tokens.cols(), wire);
    gather_rows{}(on, tokens, sent_tokens(plan), outer(plan, wire, tokens.cols()));
    return {send(on, comm, wire.outer, wire.outer_elements, wire.inner, wire.inner_elements), {}};
  }
  /// @brief See `exchange::finish_dispatch`.
  template <host_backend Backend, class Pending, class Value>
  void finish_dispatch(Backend const& on, deduplicated_plan const& plan, Pending& pending, matrix_view<Value const> tokens,
                       deduplicated_wire<Value>& wire, matrix_view<Value> rows) const {
    if (!pending) {
      plain().finish_dispatch(on, plan, pending.rows, tokens, wire, rows);
      return;
    }
    pending.wait();
    gather_rows{}(on, matrix_view<Value const>(inner(plan, wire, rows.cols())), plan.buffer_to_wire.span(), rows);
  }
  /// @brief See `exchange::start_combine`; the rows of a token are weighted and summed before they travel.
  template <host_backend Backend, class Comm, class Value>
  [[nodiscard]] pending_type<Comm, Backend, Value> start_combine(Backend const& on, Comm& comm,
                                                                 deduplicated_plan const& plan,
                                                                 matrix_view<Value const> rows,
                                                                 deduplicated_wire<Value>& wire) const {
    if (plan.ranks == 1) { return {}; }
    return send_back(on, comm, plan, rows, plan.row_weights.data(), wire);
  }
  /// @brief See `exchange::finish_combine`.
  template <host_backend Backend, class Pending, class Value>
  void finish_combine(Backend const& on, deduplicated_plan const& plan, Pending& pending, matrix_view<Value const> rows,
                      matrix_view<Value const> tokens, deduplicated_wire<Value>& wire, matrix_view<Value> out) const {
    if (!pending) {
      plain().finish_combine(on, plan, pending.rows, rows, tokens, wire, out);
      return;
    }
    pending.wait();
    sum_returned(on, plan, wire, tokens, out);
  }
  /// @brief See `exchange::start_combine_backward`; grad_weights is complete after `finish_dispatch_backward`.
  template <host_backend Backend, class Comm, class Value>
  [[nodiscard]] pending_type<Comm, Backend, Value> start_combine_backward(
      Backend const& on, Comm& comm, deduplicated_plan const& plan, matrix_view<Value const> grad_out,
      matrix_view<Value const> tokens, matrix_view<Value> rows, deduplicated_wire<Value>& wire,
      matrix_view<float> grad_weights) const {
    FAIRLEAD_EXPECTS(grad_out.rows() == plan.tokens, "the plan is for another number of tokens", grad_out.rows(), plan.tokens);
    if (plan.ranks == 1) {
      (void)plain().start_combine_backward(on, comm, plan, grad_out, tokens, rows, wire, grad_weights);
      return {};
    }
    for (index_t token = 0; token < plan.tokens; ++token) {
      for (index_t j = 0; j < plan.fan_out; ++j) {
        bool const own = plan.copy_to_outer[token * plan.fan_out + j] == own_row;
        grad_weights(token, j) = own ? static_cast<float>(detail::ordered_dot<Value>(grad_out.row(token), tokens.row(token), grad_out.cols())) : 0.0F;
      }
    }
    fit(plan, grad_out.cols(), wire);
    gather_rows{}(on, grad_out, sent_tokens(plan), outer(plan, wire, grad_out.cols()));
    return {send(on, comm, wire.outer, wire.outer_elements, wire.inner, wire.inner_elements), {}};
  }
  /// @brief See `exchange::finish_combine_backward`; `rows` must still hold the experts' outputs.
  template <host_backend Backend, class Pending, class Value>
  void finish_combine_backward(Backend const& on, deduplicated_plan const& plan, Pending& pending,
                               deduplicated_wire<Value>& wire, matrix_view<Value> rows) const {
    if (!pending) { return; }
    pending.wait();
    wire.row_gradients.resize(plan.buffer_rows);
    detail::for_blocks(on, plan.buffer_rows,
                       detail::spread_gradients<Value>{&plan, inner(plan, wire, rows.cols()), rows, wire.row_gradients.data()});
  }
  /// @brief See `exchange::start_dispatch_backward`; the gradients of the weights travel too.
  template <host_backend Backend, class Comm, class Value>
  [[nodiscard]] pending_type<Comm, Backend, Value> start_dispatch_backward(Backend const& on, Comm& comm,
                                                                           deduplicated_plan const& plan,
                                                                           matrix_view<Value const> grad_rows,
                                                                           deduplicated_wire<Value>& wire) const {
    if (plan.ranks == 1) { return {}; }
    wire.inner_gradients.resize(plan.inner_rows);
    wire.outer_gradients.resize(plan.outer_rows);
    for (index_t copy = 0; copy < plan.inner_rows; ++copy) { wire.inner_gradients[copy] = wire.row_gradients[plan.inner_to_buffer[copy]]; }
    auto pending = send_back(on, comm, plan, grad_rows, nullptr, wire);
    pending.weights.emplace(comm.all_to_all_v(on, static_cast<float const*>(wire.inner_gradients.data()), plan.inner_offsets.span(),
                                              wire.outer_gradients.data(), plan.outer_offsets.span()));
    return pending;
  }
  /// @brief See `exchange::finish_dispatch_backward`; completes `grad_weights`.
  template <host_backend Backend, class Pending, class Value>
  void finish_dispatch_backward(Backend const& on, deduplicated_plan const& plan, Pending& pending,
                                matrix_view<Value const> grad_rows, matrix_view<Value const> grad_out,
                                deduplicated_wire<Value>& wire, matrix_view<float> grad_weights,
                                matrix_view<Value> grad_tokens) const {
    if (!pending) {
      plain().finish_dispatch_backward(on, plan, pending.rows, grad_rows, grad_out, wire, grad_weights, grad_tokens);
      return;
    }
    pending.wait();
    for (index_t copy = 0; copy < plan.tokens * plan.fan_out; ++copy) {
      std::int32_t const row = plan.copy_to_outer[copy];
      if (row >= 0) { grad_weights(copy / plan.fan_out, copy % plan.fan_out) = wire.outer_gradients[row]; }
    }
    if constexpr (Overflow::renormalises) {
      implementation<exchange<Capacity, Order, Overflow>, Backend>::renormalise_backward(on, plan, grad_weights);
    }
    sum_returned(on, plan, wire, grad_out, grad_tokens);
  }

 private:
  [[nodiscard]] exchange<Capacity, Order, Overflow> plain() const { return {capacity, order, overflow, alignment}; }
  [[nodiscard]] static std::span<std::int32_t const> sent_tokens(deduplicated_plan const& plan) {
    return plan.wire_token.span().first(static_cast<std::size_t>(plan.wire_outer_rows));
  }
  template <class Value>
  [[nodiscard]] static matrix_view<Value> outer(deduplicated_plan const& plan, deduplicated_wire<Value>& wire, index_t width) {
    return wire.outer.as_matrix(plan.wire_outer_rows, width);
  }
  template <class Value>
  [[nodiscard]] static matrix_view<Value> inner(deduplicated_plan const& plan, deduplicated_wire<Value>& wire, index_t width) {
    return wire.inner.as_matrix(plan.wire_inner_rows, width);
  }
  template <class Value>
  static void fit(deduplicated_plan const& plan, index_t width, deduplicated_wire<Value>& wire) {
    wire.outer.resize(plan.wire_outer_rows * width);
    wire.inner.resize(plan.wire_inner_rows * width);
    wire.outer_elements.resize(plan.ranks + 1);
    wire.inner_elements.resize(plan.ranks + 1);
    for (index_t r = 0; r <= plan.ranks; ++r) {
      wire.outer_elements[r] = plan.wire_outer_offsets[r] * width;
      wire.inner_elements[r] = plan.wire_inner_offsets[r] * width;
    }
  }
  template <class Backend, class Comm, class Value>
  [[nodiscard]] static auto send(Backend const& on, Comm& comm, buffer<Value> const& from, buffer<index_t> const& from_offsets,
                                 buffer<Value>& to, buffer<index_t> const& to_offsets) {
    return comm.all_to_all_v(on, static_cast<Value const*>(from.data()), from_offsets.span(), to.data(), to_offsets.span());
  }
  template <class Backend, class Comm, class Value>
  [[nodiscard]] static auto send_back(Backend const& on, Comm& comm, deduplicated_plan const& plan,
                                      matrix_view<Value const> rows, float const* weights, deduplicated_wire<Value>& wire)
      -> pending_type<Comm, Backend, Value> {
    fit(plan, rows.cols(), wire);
    detail::for_blocks(on, plan.wire_inner_rows,
                       detail::sum_wire_rows<Value>{plan.wire_first.data(), plan.wire_to_buffer.data(), weights, rows, inner(plan, wire, rows.cols())});
    return {send(on, comm, wire.inner, wire.inner_elements, wire.outer, wire.outer_elements), {}};
  }
  /// out[t] = returned rows of t, plus weight * own[t] for copies that kept their own row.
  template <class Backend, class Value>
  static void sum_returned(Backend const& on, deduplicated_plan const& plan, deduplicated_wire<Value>& wire,
                           matrix_view<Value const> own, matrix_view<Value> out) {
    combine_rows{}(on, matrix_view<Value const>(outer(plan, wire, out.cols())), plan.first_copy_to_wire.as_matrix(plan.tokens, plan.fan_out),
                   matrix_view<float const>{}, matrix_view<Value const>{}, out);
    if constexpr (Overflow::keeps_own_row) {
      add_own_rows{}(on, own, plan.copy_to_outer.as_matrix(plan.tokens, plan.fan_out), plan.weights.as_matrix(plan.tokens, plan.fan_out), out);
    }
  }
};

FAIRLEAD_NAMESPACE_END
