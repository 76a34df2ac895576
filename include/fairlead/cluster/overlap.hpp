// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How much transfer of parameters fits under computation.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Least tokens a rank for which fetching the next layer's experts hides behind this layer's computation.
///
/// Gated experts in 16 bits and even loads: computing S k 6 H H' / F takes at least as long as fetching 3 C H H' 2 / B.
/// The paper states 17 thousand tokens, which its own hardware figures do not give.
/// @param slots_per_rank C, experts that a rank fetches a layer
/// @param flops_per_s F, rate of matrix products of a rank. @unit{1/s}
/// @param fan_out k, experts a token, >= 1
/// @param bytes_per_s B, bandwidth of a rank. @unit{B/s}
/// @returns C F / (k B)
/// @throws contract_violation (level 1) if fan_out < 1 or the bandwidth is not positive
/// @source{2602.11686, equation 1}
[[nodiscard]] inline double overlap_tokens(index_t slots_per_rank, double flops_per_s, index_t fan_out,
                                           double bytes_per_s) {
  FAIRLEAD_EXPECTS(fan_out >= 1 && bytes_per_s > 0.0, "a token needs an expert and the network a bandwidth", fan_out,
                   bytes_per_s);
  return static_cast<double>(slots_per_rank) * flops_per_s / (static_cast<double>(fan_out) * bytes_per_s);
}

/// @brief How many experts can be copied under the part of a layer that is not experts.
/// @param other_s time of that part, >= 0. @unit{s}
/// @param bytes_per_s bandwidth of the copies. @unit{B/s}
/// @param expert_bytes size of an expert, > 0. @unit{B}
/// @returns other_s x bytes_per_s / expert_bytes, rounded down
/// @throws contract_violation (level 1) on a negative time or a size that is not positive
/// @source{Hecate, overlap degree}
[[nodiscard]] inline index_t overlap_degree(double other_s, double bytes_per_s, double expert_bytes) {
  FAIRLEAD_EXPECTS(other_s >= 0.0 && bytes_per_s >= 0.0 && expert_bytes > 0.0,
                   "times and rates must not be negative, experts have a size", other_s, bytes_per_s, expert_bytes);
  return static_cast<index_t>(std::min(other_s * bytes_per_s / expert_bytes, 2147483647.0));
}

FAIRLEAD_NAMESPACE_END
