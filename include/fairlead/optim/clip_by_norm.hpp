// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Scale gradients down when their norm is too large.
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/concepts/execution_backend.hpp>

#include <array>
#include <cmath>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Which gradients make the norm; all are scaled.
enum class clip_norm {
  shared,     ///< those that every rank holds: no message, and experts do not change the step of the rest (BASE)
  everything  ///< experts, too, summed over ranks (StableMoE code)
};

/// @brief One array of gradients and whose it is.
/// @tparam Value element type
template <class Value>
struct gradient_array {
  std::span<Value> gradients;  ///< after the sum over ranks
  bool shared = true;          ///< whether every rank holds the same array (gate, dense layers)
  double replicas = 1.0;       ///< not shared: on how many ranks it stands, so that it counts once
};

/// @brief Scale all gradients by limit / norm if the norm is above the limit.
///
/// Call it once a global batch, after gradients are summed over ranks, with all arrays of the model: the factor is one for
/// all. A norm that is not finite scales nothing and is returned: skip that step.
/// @source{BASE, section 3.3: the norm of shared parameters only, limit 0.1}
struct clip_by_norm {
  double limit = 0.1;                    ///< largest norm, > 0
  clip_norm norm_of = clip_norm::shared; ///< which gradients make the norm

  /// @brief Compute the norm and scale.
  /// @param on backend of host memory
  /// @param comm communicator with `has_all_reduce` of double
  /// @param arrays all gradients of this rank, shared ones in the same order on every rank
  /// @returns the norm before scaling, equal on every rank
  /// @throws contract_violation (level 1) on a limit that is not positive
  /// @collective all ranks if `norm_of` is `everything`, else none
  /// @complexity O(gradients), no allocation
  /// @determinism sums in double, in the order of the arrays
  template <host_backend Backend, class Comm, class Value>
    requires has_all_reduce<Comm, double, Backend>
  double operator()(Backend const& on, Comm& comm, std::span<gradient_array<Value> const> arrays) const {
    FAIRLEAD_EXPECTS(limit > 0.0, "the limit must be positive", limit);
    double shared = 0.0;
    std::array<double, 1> own{0.0};
    for (auto const& array : arrays) {
      if (!array.shared && norm_of == clip_norm::shared) { continue; }
      double sum = 0.0;
      for (Value const g : array.gradients) { sum += static_cast<double>(g) * static_cast<double>(g); }
      if (array.shared) {
        shared += sum;
      } else {
        own[0] += sum / array.replicas;
      }
    }
    if (norm_of == clip_norm::everything) { comm.all_reduce(on, std::span<double>(own), reduction::sum).wait(); }
    double const norm = std::sqrt(shared + own[0]);
    if (std::isfinite(norm) && norm > limit) {
      auto const factor = static_cast<Value>(limit / norm);
      for (auto const& array : arrays) {
        for (Value& g : array.gradients) { g *= factor; }
      }
    }
    return norm;
  }
};

FAIRLEAD_NAMESPACE_END
