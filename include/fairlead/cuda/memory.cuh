// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The memory spaces of CUDA: memory of the current device, and pinned host memory.
#include <fairlead/cuda/error.cuh>
#include <fairlead/core/buffer.hpp>

#include <concepts>
#include <cstddef>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Memory of the device that is current when the block is made.
///
/// `cudaMalloc` and `cudaFree` may synchronise the device: allocate at warm-up, in capacity, and keep.
struct device_space {
  /// @param bytes size in bytes, > 0
  /// @returns a block aligned to at least 256 bytes
  /// @throws cuda_error
  [[nodiscard]] static void* allocate(std::size_t bytes) {
    void* block = nullptr;
    kernels::check(cudaMalloc(&block, bytes), "allocating device memory");
    return block;
  }
  /// @param block what `allocate` returned
  static void deallocate(void* block, std::size_t /*bytes*/) noexcept {
    if (cudaFree(block) != cudaSuccess) { (void)cudaGetLastError(); }
  }
};
static_assert(memory_space<device_space>);

/// @brief Page-locked host memory: copies between it and a device do not block the host. For staging areas.
///
/// A distinct memory space: host code may touch it, but only after the copy that fills it was waited for.
struct pinned_space {
  /// @param bytes size in bytes, > 0
  /// @returns a block aligned to at least 64 bytes
  /// @throws cuda_error
  [[nodiscard]] static void* allocate(std::size_t bytes) {
    void* block = nullptr;
    kernels::check(cudaMallocHost(&block, bytes), "allocating pinned host memory");
    return block;
  }
  /// @param block what `allocate` returned
  static void deallocate(void* block, std::size_t /*bytes*/) noexcept {
    if (cudaFreeHost(block) != cudaSuccess) { (void)cudaGetLastError(); }
  }
};
static_assert(memory_space<pinned_space>);

/// @brief A backend of device memory that tells its CUDA stream, as `cuda_stream` does: what every `.cuh` text asks for.
template <class Backend>
concept cuda_backend = std::same_as<typename Backend::memory_space, device_space> && requires(Backend const& on) {
  { on.native() } -> std::convertible_to<cudaStream_t>;
};

FAIRLEAD_NAMESPACE_END
