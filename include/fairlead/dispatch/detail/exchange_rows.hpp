// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Views of a plan and of its wire.
#include <fairlead/core/exchange_plan.hpp>
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/dispatch/wire_buffers.hpp>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Outer row of each copy. @shape{tokens x fan_out}
template <class Space>
[[nodiscard]] matrix_view<std::int32_t const> rows_of_copies(exchange_plan<Space> const& plan) {
  return plan.copy_to_outer.as_matrix(plan.tokens, plan.fan_out);
}
/// Weight of each copy. @shape{tokens x fan_out}
template <class Space>
[[nodiscard]] matrix_view<float const> weights_of_copies(exchange_plan<Space> const& plan) {
  return plan.weights.as_matrix(plan.tokens, plan.fan_out);
}
/// The rows that came back; they were sent with this width.
template <class Space, class Value>
[[nodiscard]] matrix_view<Value> returned_rows(exchange_plan<Space> const& plan, wire_buffers<Value, Space>& wire, index_t width) {
  FAIRLEAD_EXPECTS(wire.outer.size() == plan.outer_rows * width, "tokens and outputs must be as wide as the rows that travelled", wire.outer.size(), plan.outer_rows, width);
  return wire.outer.as_matrix(plan.outer_rows, width);
}
/// Experts may compute padding rows, so that their gradients must be zero too.
template <class Backend, class Space, class Value>
void clear_padding(Backend const& on, exchange_plan<Space> const& plan, matrix_view<Value> rows) {
  auto const groups = plan.groups();
  for (index_t g = 0; g < groups.size(); ++g) {
    for (index_t row = groups.first(g) + groups.count(g); row < plan.slot_offsets[g + 1]; ++row) {
      on.fill_zero(rows.row(row), static_cast<std::size_t>(rows.cols()) * sizeof(Value));
    }
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
