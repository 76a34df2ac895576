// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The host text of `exchange`; the class includes it.
#include <fairlead/dispatch/exchange.hpp>

#include <algorithm>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The host text of `exchange`.
template <class Capacity, class Order, class Overflow, host_backend Backend>
struct implementation<exchange<Capacity, Order, Overflow>, Backend> {
  /// @brief Fill the index arrays of a plan from its tables.
  static void place(Backend const& on, const_routing_view routed, index_t replicas, index_t slots,
                    exchange_plan<host_space>& plan, workspace& ws) {
    workspace::scope const scope(ws);
    index_t const runs = plan.ranks * slots;
    auto const tables = detail::plan_tables::split(plan.tables.span(), plan.experts, replicas, runs);
    index_t const blocks = (plan.tokens + detail::tokens_per_place_block - 1) / detail::tokens_per_place_block;
    auto const dropped = ws.take<std::int32_t>(blocks);
    if (plan.ranks == 1) { fill_padding(plan, plan.outer_to_copy); }
    bool one_replica = replicas == plan.experts;
    for (index_t e = 0; e < plan.experts && one_replica; ++e) { one_replica = tables.expert_first[static_cast<std::size_t>(e)] == e; }
    if (one_replica && !Overflow::renormalises) {
      using placer = detail::place_sole_copies<Overflow::keeps_own_row>;
      placer const place{tables.run_end.data(),     tables.run_base.data(), plan.chosen.data(),
                         plan.positions.data(),     routed.weights.data(),  plan.fan_out,
                         plan.weights.data(),       plan.copy_to_outer.data(), plan.outer_to_copy.data()};
      on.for_each(blocks, detail::place_block<placer>{place, plan.tokens, dropped.data()});
    } else {
      using placer = detail::place_copies<Overflow::keeps_own_row, Overflow::renormalises>;
      placer const place{tables.expert_first.data(), tables.run_end.data(),   tables.run_base.data(), plan.chosen.data(),
                         plan.positions.data(),      routed.weights.data(),   routed.weights.stride(), plan.fan_out,
                         plan.weights.data(),        plan.weight_sums.data(), plan.copy_to_outer.data(),
                         plan.outer_to_copy.data()};
      on.for_each(blocks, detail::place_block<placer>{place, plan.tokens, dropped.data()});
    }
    for (std::int32_t const count : dropped) { plan.dropped_copies += count; }
    if (plan.ranks > 1) { fill_padding(plan, plan.buffer_to_inner); }
    if (plan.ranks > 1) {
      on.for_each(runs, detail::regroup_rows{tables.regroup_inner.data(), tables.regroup_buffer.data(),
                                             tables.regroup_count.data(), plan.buffer_to_inner.data(),
                                             plan.inner_to_buffer.data()});
    }
  }

  /// @brief Mark the rows between groups: nothing else of `rows` stays unwritten.
  static void fill_padding(exchange_plan<host_space> const& plan, buffer<std::int32_t>& rows) {
    auto const groups = plan.groups();
    for (index_t g = 0; g < groups.size(); ++g) {
      index_t const end = groups.first(g) + groups.count(g);
      std::fill_n(rows.data() + end, groups.offsets[static_cast<std::size_t>(g) + 1] - end, no_row);
    }
  }
  /// @brief From gradients of renormalised weights to gradients of the router's weights, in place.
  static void renormalise_backward(Backend const& on, exchange_plan<host_space> const& plan, matrix_view<float> grad) {
    detail::for_blocks(on, plan.tokens,
                       detail::renormalise_backward{plan.weights.data(), plan.weight_sums.data(),
                                                    plan.copy_to_outer.data(), plan.fan_out, grad.data(), grad.stride()});
  }
};

FAIRLEAD_NAMESPACE_END
