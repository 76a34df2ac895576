// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of `exchange`: fill the index arrays of a plan on the device.
#include <fairlead/cuda/counting.cuh>
#include <fairlead/cuda/memory.cuh>
#include <fairlead/dispatch/admission.cuh>
#include <fairlead/dispatch/exchange.hpp>
#include <fairlead/dispatch/rows.cuh>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {
template <class Place>
struct place_token {
  Place place;
  FAIRLEAD_HD void operator()(index_t token) const { (void)place(token); }
};
}  // namespace detail

/// @brief The device text of `exchange`. Nothing here waits for the device.
template <class Capacity, class Order, class Overflow, cuda_backend Backend>
struct implementation<exchange<Capacity, Order, Overflow>, Backend> {
  /// @brief Fill the index arrays of a plan from its tables.
  ///
  /// The host must have waited for the counts of `admit`, as it has when it knows the schedule.
  static void place(Backend const& on, const_routing_view routed, index_t replicas, index_t slots,
                    exchange_plan<device_space>& plan, workspace& /*ws*/) {
    using placer = detail::place_copies<Overflow::keeps_own_row, Overflow::renormalises>;
    index_t const runs = plan.ranks * slots;
    plan.device_tables.resize(plan.tables.size());
    on.from_host(plan.device_tables.data(), plan.tables.data(), static_cast<std::size_t>(plan.tables.size()) * sizeof(std::int32_t));
    auto const tables = detail::plan_tables::split(plan.device_tables.span(), plan.experts, replicas, runs);
    if (plan.ranks == 1) { fill_no_row(on, plan.outer_to_copy); }
    fill_no_row(on, plan.buffer_to_inner);
    placer const place{tables.expert_first.data(), tables.run_end.data(),   tables.run_base.data(), plan.chosen.data(),
                       plan.positions.data(),      routed.weights.data(),   routed.weights.stride(), plan.fan_out,
                       plan.weights.data(),        plan.weight_sums.data(), plan.copy_to_outer.data(),
                       plan.outer_to_copy.data()};
    on.for_each(plan.tokens, detail::place_token<placer>{place});
    plan.dropped_copies = -plan.sent_copies;
    for (index_t e = 0; e < plan.experts; ++e) { plan.dropped_copies += plan.host_count_row[e]; }
    if (plan.ranks > 1 && runs > 0) {
      kernels::regroup_runs<<<static_cast<unsigned>(runs), 128, 0, on.native()>>>(
          tables.regroup_inner.data(), tables.regroup_buffer.data(), tables.regroup_count.data(),
          plan.buffer_to_inner.data(), plan.inner_to_buffer.data());
      kernels::check_launch("regroup_runs");
    }
  }

  /// @brief From gradients of renormalised weights to gradients of the router's weights, in place.
  static void renormalise_backward(Backend const& on, exchange_plan<device_space> const& plan, matrix_view<float> grad) {
    on.for_each(plan.tokens,
                detail::renormalise_backward{plan.weights.data(), plan.weight_sums.data(), plan.copy_to_outer.data(),
                                             plan.fan_out, grad.data(), grad.stride()});
  }

 private:
  static void fill_no_row(Backend const& on, buffer<std::int32_t, device_space>& rows) {
    if (rows.size() == 0) { return; }
    static_assert(no_row == -1, "filled byte by byte");
    kernels::check(cudaMemsetAsync(rows.data(), 0xFF, static_cast<std::size_t>(rows.size()) * sizeof(std::int32_t), on.native()),
                   "clearing row numbers");
  }
};

FAIRLEAD_NAMESPACE_END
