// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The k best keys of sixteen rows at once (host).
#include <fairlead/route/detail/select.hpp>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// `rows` are the first keys of `blocks * route_lanes` rows.
inline void select_blocks(float const* const* rows, index_t blocks, index_t experts, index_t fan_out,
                          chosen_block* out) noexcept {
  for (index_t b = 0; b < blocks; ++b) {
    for (int i = 0; i < route_lanes; ++i) {
      select_row(rows[b * route_lanes + i], experts, fan_out, route_lanes, out[b].keys + i, out[b].ids + i);
    }
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
