// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Closed forms of the traffic of optimizer state that is tied to replicas, or spread over all ranks.
#include <fairlead/core/ids.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Time and volume of one optimizer step of one layer: state beside fixed replicas against state spread evenly
/// over all ranks with replicas that change every step.
///
/// One rank a node; each instance is charged on its own, so instances of one expert on one rank count twice. State is
/// in host memory, reached at `host_bytes_per_s`.
/// @source{2504.19925, section 3 and appendix A.1}
struct optimizer_traffic {
  index_t experts = 0;               ///< E, experts of the layer
  index_t ranks = 0;                 ///< N, >= 1
  index_t slots_per_rank = 0;        ///< s
  double gradient_bytes = 0.0;       ///< G, gradients of an expert. @unit{B}
  double weight_bytes = 0.0;         ///< W, weights of an expert. @unit{B}
  double optimizer_bytes = 0.0;      ///< O, optimizer state of an expert. @unit{B}
  double host_bytes_per_s = 0.0;     ///< between device and host, > 0. @unit{B/s}
  double network_bytes_per_s = 0.0;  ///< of a rank, > 0. @unit{B/s}

  /// @param bytes of an expert: gradients or weights. @unit{B}
  /// @returns time of a rank when state sits with a fixed, even placement: E/N X/host + (sN - E)/N X/network. @unit{s}
  [[nodiscard]] constexpr double tied_s(double bytes) const noexcept {
    return per_rank(experts) * bytes / host_bytes_per_s + per_rank(instances() - experts) * bytes / network_bytes_per_s;
  }
  /// @param bytes of an expert: gradients or weights. @unit{B}
  /// @returns time of a rank when state is spread over all ranks: E/N X/host + (sN - s)/N X/network. @unit{s}
  [[nodiscard]] constexpr double spread_s(double bytes) const noexcept {
    return per_rank(experts) * bytes / host_bytes_per_s +
           per_rank(instances() - slots_per_rank) * bytes / network_bytes_per_s;
  }
  /// @returns gradients and weights together, tied. @unit{s}
  [[nodiscard]] constexpr double tied_step_s() const noexcept { return tied_s(gradient_bytes) + tied_s(weight_bytes); }
  /// @returns gradients and weights together, spread. @unit{s}
  [[nodiscard]] constexpr double spread_step_s() const noexcept {
    return spread_s(gradient_bytes) + spread_s(weight_bytes);
  }
  /// @returns how much longer the spread step takes, relative: (E - s) / (sN - E (1 - network / host))
  [[nodiscard]] constexpr double extra() const noexcept {
    return static_cast<double>(experts - slots_per_rank) /
           (static_cast<double>(instances()) -
            static_cast<double>(experts) * (1.0 - network_bytes_per_s / host_bytes_per_s));
  }
  /// @returns the same with the optimizer state in device memory: (E - s) / (sN - E)
  [[nodiscard]] constexpr double extra_on_device() const noexcept {
    return static_cast<double>(experts - slots_per_rank) / static_cast<double>(instances() - experts);
  }
  /// @param groups k, number of groups of ranks that share the state
  /// @param bytes of an expert: gradients or weights. @unit{B}
  /// @returns upper bound of a rank's time with the state spread inside groups: E/N X/host + k (sN - s)/N X/network.
  /// @unit{s}
  [[nodiscard]] constexpr double grouped_s(index_t groups, double bytes) const noexcept {
    return per_rank(experts) * bytes / host_bytes_per_s +
           static_cast<double>(groups) * per_rank(instances() - slots_per_rank) * bytes / network_bytes_per_s;
  }
  /// @returns volume of gradients and weights in a step, the same for both designs: s N (G + W). @unit{B}
  [[nodiscard]] constexpr double moved_bytes() const noexcept {
    return static_cast<double>(instances()) * (gradient_bytes + weight_bytes);
  }
  /// @returns least volume when each (expert, rank) pair is served once and experts sit in consecutive slots: at most E
  ///          + N - 1 pairs. @unit{B}
  [[nodiscard]] constexpr double deduplicated_bytes() const noexcept {
    index_t const pairs = experts + ranks - 1 < instances() ? experts + ranks - 1 : instances();
    return static_cast<double>(pairs) * (gradient_bytes + weight_bytes);
  }
  /// @returns optimizer state of the layer: E O. @unit{B}
  [[nodiscard]] constexpr double state_bytes() const noexcept { return static_cast<double>(experts) * optimizer_bytes; }
  /// @returns time to move the weights of one expert to another rank. @unit{s}
  [[nodiscard]] constexpr double move_weights_s() const noexcept { return weight_bytes / network_bytes_per_s; }
  /// @returns time to move the optimizer state of one expert to another rank. @unit{s}
  [[nodiscard]] constexpr double move_state_s() const noexcept { return optimizer_bytes / network_bytes_per_s; }

 private:
  [[nodiscard]] constexpr index_t instances() const noexcept { return slots_per_rank * ranks; }
  [[nodiscard]] constexpr double per_rank(index_t count) const noexcept {
    return static_cast<double>(count) / static_cast<double>(ranks);
  }
};

FAIRLEAD_NAMESPACE_END
