// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of `expert_on` and `trainable_on`.
#include <fairlead/concepts/expert.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/detail/expert_examiner.hpp>
#include <fairlead/laws/verdict.hpp>

#include <cstdint>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief What to check with.
struct expert_options {
  std::vector<index_t> counts{3, 0, 5, 1};  ///< rows of each group
  index_t padding = 2;                      ///< rows out of use after each group
  std::uint64_t seed = 1;                   ///< of parameters and inputs
  double scale = 0.5;                       ///< standard deviation of the parameters
  double row_tolerance = 0.0;      ///< how much a row may change with its company; 0 = no bit (a BLAS: 1e-5)
  double gradient_tolerance = 0.0;  ///< relative error against differences; 0 = 1e-6 in double, 2e-2 in fp32
};

/// @brief Check the laws of experts.
///
/// Rows: an output row depends on its own input row and its group's parameters only (alone, one call a group, groups
/// in another order, other rows changed). Memory: rows and columns out of use are not touched, scratch is given back,
/// empty groups, empty banks. Trainable experts also: gradients of parameters and inputs equal central differences,
/// are added to what was there, are zero for an empty group, and are repeatable. Check a `double` instance where there
/// is one: differences are then exact to six digits.
/// @tparam Expert the model
/// @tparam Backend a backend of host memory
/// @param expert the expert, small: every parameter is varied
/// @param options groups, seed and tolerances
/// @param on backend
/// @returns the first broken law
/// @complexity O(parameters x cost of a forward); allocates
template <class Expert, host_backend Backend = serial>
  requires expert_on<Expert, Backend>
[[nodiscard]] verdict check_expert(Expert const& expert, expert_options const& options = {}, Backend const& on = {}) {
  detail::expert_examiner<Expert, Backend> examiner(
      expert, on, options.counts, options.padding, options.seed, options.scale, options.row_tolerance,
      options.gradient_tolerance != 0.0 ? options.gradient_tolerance : (sizeof(typename Expert::value_type) == 8 ? 1e-6 : 2e-2));
  if (verdict const rows = examiner.rows(); !rows) { return rows; }
  if constexpr (trainable_on<Expert, Backend>) { return examiner.gradients(); }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
