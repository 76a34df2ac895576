// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Leave a router's selection bias as it is.
#include <fairlead/concepts/bias_controller.hpp>

#include <cstddef>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief A bias controller that moves nothing: for inference, for a teacher, and for a bias that somebody else sets.
struct frozen_bias {
  /// Nothing is carried between global batches.
  struct state_type {
    /// @brief Visit no array.
    template <class Self, class Function>
    static void each_array(Self&, Function&&) noexcept {}
  };
  /// @returns an empty state
  [[nodiscard]] constexpr state_type make_state(index_t) const noexcept { return {}; }
  /// @brief Does nothing.
  template <execution_backend Backend, communicator Comm>
  void end_global_batch(Backend const&, Comm&, std::span<index_t const>, state_type&, std::span<float>) const noexcept {}
  /// @returns 0
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t, index_t, index_t) const noexcept { return 0; }
};

FAIRLEAD_NAMESPACE_END
