// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How an exact min-max split starts and what it says.
#include <fairlead/core/load.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/schedule/split_conditions.hpp>

#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Whether a split starts from nothing or from what its output holds.
enum class split_start {
  cold,  ///< from nothing: a function of the loads alone
  warm   ///< from the shares of an earlier split, scaled to the new loads: less changes from batch to batch
};

/// @brief What an exact min-max split says about its result.
///
/// The certificate: everything that the ranks of `cut` carry is there in any split, so that no split has a largest load
/// below `numerator` / `denominator` rounded up to what whole copies allow; the result attains it.
struct [[nodiscard]] min_max_report {
  report summary;                             ///< status; searches; `value` = max (base + copies) / speed; `bound` = `value`
  std::span<std::int32_t const> cut{};        ///< the ranks of the certificate, in the solver's scratch
  index_t numerator = 0;                      ///< load that cannot leave the ranks of the cut
  index_t denominator = 1;                    ///< number of ranks in the cut; the sum of their speeds with speeds
  index_t paths = 0;                          ///< augmenting paths
  index_t raises = 0;                         ///< times that a cut raised the bound
};

FAIRLEAD_NAMESPACE_END
