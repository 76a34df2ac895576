// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Several auxiliary losses as one.
#include <fairlead/concepts/balance_signal.hpp>

#include <algorithm>
#include <tuple>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Add up the losses of several signals; made by `all_of(a, b, ...)`.
/// @tparam Signals models of `balance_signal_on`
template <class... Signals>
struct signals {
  std::tuple<Signals...> parts{};  ///< the losses

  /// The states of the parts, in their order.
  using state_type = std::tuple<signal_state_t<Signals>...>;

  /// @param experts number of experts
  /// @returns the states of the parts
  [[nodiscard]] state_type make_state(index_t experts) const {
    return std::apply([experts](Signals const&... part) { return state_type(part.make_state(experts)...); }, parts);
  }
  /// @brief Take in the loads of a micro-batch.
  /// @param global_counts copies per expert over all ranks, before capacity. @shape{experts}
  /// @param global_tokens valid tokens over all ranks
  /// @param[in,out] state states of the parts
  void accumulate(std::span<index_t const> global_counts, index_t global_tokens, state_type& state) const {
    each(state, [&](auto const& part, auto& own) { part.accumulate(global_counts, global_tokens, own); });
  }
  /// @brief Add the gradients of all parts.
  /// @returns the sum of their losses
  /// @complexity the sum of the parts, no allocation of its own
  template <execution_backend Backend>
    requires(balance_signal_on<Signals, Backend> && ...)
  double add_gradient(Backend const& on, matrix_view<float const> logits, const_routing_view routing,
                      route_context const& context, state_type const& state, double scale,
                      matrix_view<float> grad_logits, workspace& ws) const {
    double sum = 0.0;
    each(state, [&](auto const& part, auto const& own) {
      sum += part.add_gradient(on, logits, routing, context, own, scale, grad_logits, ws);
    });
    return sum;
  }
  /// @brief A new global batch begins.
  /// @param[in,out] state states of the parts
  void end_global_batch(state_type& state) const {
    each(state, [](auto const& part, auto& own) { part.end_global_batch(own); });
  }
  /// @param tokens rows of a call, >= 0
  /// @param experts number of experts
  /// @returns scratch of the part that needs most: they run one after the other
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t experts) const {
    return std::apply(
        [=](Signals const&... part) {
          std::size_t most = 0;
          ((most = std::max<std::size_t>(most, part.workspace_bytes(tokens, experts))), ...);
          return most;
        },
        parts);
  }

 private:
  template <class State, class Function>
  void each(State& state, Function function) const {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (function(std::get<I>(parts), std::get<I>(state)), ...);
    }(std::index_sequence_for<Signals...>{});
  }
};

/// @brief Combine auxiliary losses: `all_of(switch_loss{.coefficient = 1e-2}, z_loss{})`.
/// @param parts the losses
/// @returns their sum as one signal
template <class... Signals>
  requires(requires { typename signal_state_t<Signals>; } && ...)
[[nodiscard]] constexpr signals<Signals...> all_of(Signals... parts) {
  return {std::tuple<Signals...>(std::move(parts)...)};
}

FAIRLEAD_NAMESPACE_END
