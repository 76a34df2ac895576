// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The one customisation point between a policy and its text for a kind of memory.
#include <fairlead/core/config.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The text of a policy's operation for one backend.
///
/// A policy's named member forwards to `implementation<Policy, Backend>`. The policy's `.hpp` specialises it for
/// backends of host memory, its `.cuh` for backends of device memory, so that there is no second policy class and no
/// CUDA in an `.hpp`. A backend without a specialisation meets the `static_assert` below.
/// @tparam Policy the policy, or a tag for a free operation
/// @tparam Backend the execution backend
template <class Policy, class Backend>
struct implementation {
  static_assert(sizeof(Policy) == 0,
                "fairlead: this component has no text for this backend's memory space here. For a device backend "
                "include the component's .cuh (or <fairlead/cuda.cuh>); for a host backend include its .hpp.");
};

FAIRLEAD_NAMESPACE_END
