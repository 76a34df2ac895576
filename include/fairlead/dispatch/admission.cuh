// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of `admission`: number the copies of each expert on the device.
#include <fairlead/cuda/counting.cuh>
#include <fairlead/cuda/memory.cuh>
#include <fairlead/dispatch/admission.hpp>

#include <cstdint>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {
struct set_count {  // not nested in a class: kernels take no type with private access
  count_t* to;
  count_t value;
  FAIRLEAD_HD void operator()(index_t) const { *to = value; }
};
}  // namespace detail

/// @brief The device text of `admission`.
///
/// Takes `token_order` and `choice_major_order`, whose sequences are formulas, and overflow actions that are decided
/// when the plan is made. The token mask of the context must be device memory.
template <class Capacity, class Order, class Overflow, cuda_backend Backend>
struct implementation<admission<Capacity, Order, Overflow>, Backend> {
  static_assert(std::is_same_v<Order, token_order> || std::is_same_v<Order, choice_major_order>,
                "fairlead: on a device copies are served in token_order or choice_major_order; for the orders that sort "
                "use a host backend");
  static_assert(!Overflow::reassigns,
                "fairlead: overflow actions that reassign copies (next_choice, reroute) have no device text; use drop, "
                "drop_and_renormalise or identity, or a host backend");

  /// @brief See `admission::admit`.
  static void run(Backend const& on, admission<Capacity, Order, Overflow> const& /*policy*/, const_routing_view routed,
                  route_context const& context, exchange_plan<device_space>& plan, workspace& ws) {
    index_t const experts = plan.experts;
    index_t const copies = plan.tokens * plan.fan_out;
    on.copy(plan.chosen.data(), routed.experts.data(), static_cast<std::size_t>(copies) * sizeof(expert_id));
    workspace::scope const scope(ws);
    index_t const tiles = on.concurrency();
    auto const scratch = ws.take<count_t>(experts * tiles);
    kernels::copy_order const order{nullptr, plan.tokens, plan.fan_out, std::is_same_v<Order, choice_major_order>};
    kernels::number_copies(on.native(), plan.chosen.data(), copies, experts, order, scratch.data(), tiles,
                           plan.count_row.data(), plan.positions.data());
    count_t* const valid = plan.count_row.data() + 2 * experts;
    if (context.token_mask.empty()) {
      on.for_each(1, detail::set_count{valid, static_cast<count_t>(plan.tokens)});
    } else {
      kernels::count_set<<<1, kernels::reduce_threads, 0, on.native()>>>(context.token_mask.data(), plan.tokens, valid);
      kernels::check_launch("count_set");
    }
    plan.dropped_copies = 0;
    plan.host_count_row.resize(2 * experts + 1);
    on.to_host(plan.host_count_row.data(), plan.count_row.data(), static_cast<std::size_t>(2 * experts + 1) * sizeof(count_t));
  }
};

FAIRLEAD_NAMESPACE_END
