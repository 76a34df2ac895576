// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief In which order the copies of a rank are served: who keeps a place when an expert's capacity runs out.
#include <fairlead/core/order.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Lists the copies of a routing in the order in which they are served.
///
/// Required of a model `order`: `order.sequence(routing, context, sequence, ws)` writes a permutation of
/// 0 ... tokens * fan_out - 1 (copy number = token * fan_out + choice); `order.workspace_bytes(copies)` says its
/// scratch. The order also decides the rows' order inside an expert. Host memory.
template <class Order>
concept service_order = requires(Order const& order, const_routing_view routing, route_context const& context,
                                 std::span<std::int32_t> sequence, workspace& ws, index_t copies) {
  { order.sequence(routing, context, sequence, ws) } -> std::same_as<void>;
  { order.workspace_bytes(copies) } -> std::convertible_to<std::size_t>;
};

/// @brief Serve copies by (token, choice): arrival order. The default, and the only one without a sort.
struct token_order {
  /// @brief List 0, 1, 2, ...
  void sequence(const_routing_view, route_context const&, std::span<std::int32_t> sequence, workspace&) const {
    for (std::size_t i = 0; i < sequence.size(); ++i) { sequence[i] = static_cast<std::int32_t>(i); }
  }
  /// @returns 0
  [[nodiscard]] std::size_t workspace_bytes(index_t) const noexcept { return 0; }
};
static_assert(service_order<token_order>);

/// @brief Serve all first choices before all second choices; tokens in order inside a choice (GShard, Tutel, Flaxformer).
struct choice_major_order {
  /// @brief List by (choice, token).
  void sequence(const_routing_view routing, route_context const&, std::span<std::int32_t> sequence, workspace&) const {
    std::size_t at = 0;
    for (index_t choice = 0; choice < routing.fan_out(); ++choice) {
      for (index_t token = 0; token < routing.tokens(); ++token) {
        sequence[at++] = static_cast<std::int32_t>(token * routing.fan_out() + choice);
      }
    }
  }
  /// @returns 0
  [[nodiscard]] std::size_t workspace_bytes(index_t) const noexcept { return 0; }
};
static_assert(service_order<choice_major_order>);

/// @brief Serve tokens by decreasing weight of their first choice, all first choices before all second ones.
///
/// Batch prioritised routing (BPR). Ties: lower token first.
/// @complexity O(T log T + T k)
/// @source{V-MoE, batch prioritised routing}
struct batch_prioritized_order {
  /// @brief List by (choice, first weight descending, token).
  void sequence(const_routing_view routing, route_context const&, std::span<std::int32_t> sequence, workspace& ws) const {
    workspace::scope const scope(ws);
    index_t const tokens = routing.tokens();
    auto const by_weight = ws.take<std::int32_t>(tokens);
    for (std::size_t t = 0; t < by_weight.size(); ++t) { by_weight[t] = static_cast<std::int32_t>(t); }
    std::sort(by_weight.begin(), by_weight.end(), [&](std::int32_t a, std::int32_t b) {
      return comes_before(routing.weights(a, 0), a, routing.weights(b, 0), b);
    });
    std::size_t at = 0;
    for (index_t choice = 0; choice < routing.fan_out(); ++choice) {
      for (std::int32_t const token : by_weight) {
        sequence[at++] = static_cast<std::int32_t>(token * routing.fan_out() + choice);
      }
    }
  }
  /// @param copies tokens x fan_out
  /// @returns bytes for one number a token
  [[nodiscard]] std::size_t workspace_bytes(index_t copies) const noexcept {
    return fairlead::workspace_bytes<std::int32_t>(copies);
  }
};
static_assert(service_order<batch_prioritized_order>);

/// @brief Serve copies by decreasing weight (Megatron and DeepSpeed "probs"). Ties: lower copy first.
/// @complexity O(T k log(T k))
struct weight_order {
  /// @brief List by (weight descending, copy).
  void sequence(const_routing_view routing, route_context const&, std::span<std::int32_t> sequence, workspace&) const {
    index_t const fan_out = routing.fan_out();
    for (std::size_t i = 0; i < sequence.size(); ++i) { sequence[i] = static_cast<std::int32_t>(i); }
    std::sort(sequence.begin(), sequence.end(), [&](std::int32_t a, std::int32_t b) {
      return comes_before(routing.weights(a / fan_out, a % fan_out), a, routing.weights(b / fan_out, b % fan_out), b);
    });
  }
  /// @returns 0
  [[nodiscard]] std::size_t workspace_bytes(index_t) const noexcept { return 0; }
};
static_assert(service_order<weight_order>);

/// @brief Serve copies in a random order that (seed, step, global token, choice) fixes (DeepSpeed's random token selection).
/// @complexity O(T k log(T k))
/// @determinism equal for equal (seed, step, first_token), on every machine
struct random_order {
  /// @brief List by (random key, copy).
  void sequence(const_routing_view routing, route_context const& context, std::span<std::int32_t> sequence,
                workspace& ws) const {
    workspace::scope const scope(ws);
    index_t const fan_out = routing.fan_out();
    auto const keys = ws.take<std::uint32_t>(static_cast<index_t>(sequence.size()));
    for (std::size_t i = 0; i < sequence.size(); ++i) {
      sequence[i] = static_cast<std::int32_t>(i);
      index_t const copy = context.first_token * fan_out + static_cast<index_t>(i);
      keys[i] = philox::draw(context.seed, context.step * 8 + stream, static_cast<std::uint64_t>(copy))[0];
    }
    std::sort(sequence.begin(), sequence.end(), [&](std::int32_t a, std::int32_t b) {
      auto const key_a = keys[static_cast<std::size_t>(a)];
      auto const key_b = keys[static_cast<std::size_t>(b)];
      return key_a != key_b ? key_a < key_b : a < b;
    });
  }
  /// @param copies tokens x fan_out
  /// @returns bytes for one key a copy
  [[nodiscard]] std::size_t workspace_bytes(index_t copies) const noexcept {
    return fairlead::workspace_bytes<std::uint32_t>(copies);
  }

 private:
  static constexpr std::uint64_t stream = 5;  // apart from the routers' draws of the same step
};
static_assert(service_order<random_order>);

FAIRLEAD_NAMESPACE_END
