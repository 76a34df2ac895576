// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Let capacities count inside groups of consecutive tokens instead of a whole rank.
#include <fairlead/concepts/capacity_policy.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/dispatch/capacity.hpp>
#include <fairlead/dispatch/overflow.hpp>
#include <fairlead/dispatch/service_order.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Serve group after group of consecutive tokens; inside a group as another order says.
/// @tparam Order the order inside a group
/// @source{mesh-TensorFlow, transformer/moe.py, group_size}
template <service_order Order = choice_major_order>
struct grouped_order {
  index_t group = 1024;  ///< tokens of a group, >= 1; the last one may be smaller
  Order order{};         ///< the order inside a group

  /// @brief List by (group, order).
  /// @param routing what the router wrote
  /// @param context its context
  /// @param[out] sequence copies in service order. @shape{tokens x fan_out}
  /// @param ws at least `workspace_bytes(copies)`
  /// @throws contract_violation (level 1) on a bad group
  void sequence(const_routing_view routing, route_context const& context, std::span<std::int32_t> sequence, workspace& ws) const {
    FAIRLEAD_EXPECTS(group >= 1, "a group has at least one token", group);
    index_t const fan_out = routing.fan_out();
    for (index_t first = 0; first < routing.tokens(); first += group) {
      index_t const count = std::min(group, routing.tokens() - first);
      auto const part = sequence.subspan(static_cast<std::size_t>(first * fan_out), static_cast<std::size_t>(count * fan_out));
      route_context inner = context;
      inner.first_token += first;
      if (!context.token_mask.empty()) {
        inner.token_mask = context.token_mask.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
      }
      if (!context.token_ids.empty()) {
        inner.token_ids = context.token_ids.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
      }
      order.sequence({routing.experts.rows(first, count), routing.weights.rows(first, count)}, inner, part, ws);
      for (std::int32_t& copy : part) { copy += static_cast<std::int32_t>(first * fan_out); }
    }
  }
  /// @param copies tokens x fan_out
  /// @returns what the order needs for all of them
  [[nodiscard]] std::size_t workspace_bytes(index_t copies) const { return order.workspace_bytes(copies); }
};
static_assert(service_order<grouped_order<>>);

/// @brief Drop what finds no place in its group: each group of tokens has places of its own at every expert.
///
/// The capacity sees the tokens of the group (padding included, as in the source). Goes with a service order that serves
/// group after group (`grouped_order` of the same group, or `token_order`) and with `dropless` as the rank's capacity:
/// `exchange<dropless, grouped_order<>, drop_in_groups<mesh_capacity>>`.
/// @tparam Capacity places of an expert in a group; a capacity of scope rank
/// @source{mesh-TensorFlow, transformer/moe.py; Flaxformer, architectures/moe}
template <capacity_policy Capacity = mesh_capacity>
  requires(Capacity::scope == capacity_scope::rank)
struct drop_in_groups {
  static constexpr bool keeps_own_row = false;  ///< contributes nothing
  static constexpr bool renormalises = false;   ///< the other weights stay as the router made them
  static constexpr bool reassigns = true;       ///< decided on the source rank

  index_t group = 1024;  ///< tokens of a group, >= 1; the last one may be smaller
  Capacity capacity{};   ///< places of each expert in a group

  /// @brief Drop the overflow of each group.
  /// @param fan_out choices a token
  /// @param places capacity per expert of the rank, over all groups
  /// @param sequence copies in service order, group after group. @shape{tokens x fan_out}
  /// @param allowed one byte an expert (without effect)
  /// @param[in,out] chosen expert of each copy, none where dropped. @shape{tokens x fan_out}
  /// @param[in,out] counts scratch, copies per expert. @shape{experts}
  /// @returns copies dropped
  /// @throws contract_violation (level 1) on a bad group, (level 2) if the order mixes groups
  /// @complexity O(tokens x fan_out + groups x experts), no allocation
  index_t reassign(index_t fan_out, [[maybe_unused]] index_t places, std::span<std::int32_t const> sequence,
                   [[maybe_unused]] std::span<std::uint8_t const> allowed, std::span<expert_id> chosen,
                   std::span<count_t> counts) const {
    FAIRLEAD_EXPECTS(group >= 1, "a group has at least one token", group);
    auto const copies = static_cast<index_t>(chosen.size());
    auto const experts = static_cast<index_t>(counts.size());
    index_t dropped = 0;
    index_t current = -1;
    index_t room = 0;
    for (std::int32_t const copy : sequence) {
      index_t const mine = copy / fan_out / group;
      if (mine != current) {
        FAIRLEAD_EXPECTS_2(mine > current, "serve group after group: use grouped_order with the same group", mine, current);
        current = mine;
        room = capacity.places(std::min(group, copies / fan_out - mine * group), experts, fan_out, 1);
        std::fill(counts.begin(), counts.end(), 0);
      }
      expert_id& expert = chosen[static_cast<std::size_t>(copy)];
      if (expert == expert_id::none) { continue; }
      if (counts[static_cast<std::size_t>(expert)] < room) {
        ++counts[static_cast<std::size_t>(expert)];
      } else {
        expert = expert_id::none;
        ++dropped;
      }
    }
    return dropped;
  }
};
static_assert(overflow_policy<drop_in_groups<>>);

FAIRLEAD_NAMESPACE_END
