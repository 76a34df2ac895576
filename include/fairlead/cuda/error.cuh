// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief CUDA failures as exceptions, and the compiler settings that every `.cuh` needs.
#ifndef __CUDACC__
#  error "fairlead: a .cuh header needs nvcc (or clang in CUDA mode): put the include into a .cu file"
#endif
#if defined(__NVCC__) && !defined(__CUDACC_RELAXED_CONSTEXPR__)
#  error "fairlead: compile with --expt-relaxed-constexpr (link fairlead::cuda in CMake, which carries it)"
#endif
#include <fairlead/core/config.hpp>

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Thrown when the CUDA run time reports a failure.
class cuda_error : public std::runtime_error {
 public:
  /// @param code what the run time returned
  /// @param doing what was tried
  cuda_error(cudaError_t code, char const* doing)
      : std::runtime_error(std::string(doing) + ": " + cudaGetErrorName(code) + ": " + cudaGetErrorString(code)),
        code_(code) {}
  /// @returns the native code
  [[nodiscard]] cudaError_t code() const noexcept { return code_; }

 private:
  cudaError_t code_;
};

namespace kernels {

/// @brief Turn a CUDA status into an exception.
/// @param code what a run time function returned
/// @param doing what was tried, for the message
/// @throws cuda_error unless `code` is `cudaSuccess`
/// @complexity O(1), no synchronisation
inline void check(cudaError_t code, char const* doing) {
  if (code != cudaSuccess) [[unlikely]] {
    (void)cudaGetLastError();  // a failure that is not sticky must not be blamed on the next call
    throw cuda_error(code, doing);
  }
}

/// @brief Look for a failure of the launch that was just made.
/// @param kernel its name, for the message
/// @throws cuda_error if the launch was refused (a failure while the kernel runs appears at the next synchronisation)
/// @complexity O(1), no synchronisation
inline void check_launch(char const* kernel) { check(cudaGetLastError(), kernel); }

/// @brief Blocks of a grid-stride launch: enough for `n` items, at most `most`, at least one.
/// @param n number of items
/// @param per_block items of a block
/// @param most upper limit; the grid-stride loop covers the rest
/// @returns grid size
[[nodiscard]] constexpr unsigned grid_size(long long n, long long per_block, long long most = 1LL << 20) noexcept {
  long long const blocks = (n + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks > most ? most : blocks);
}

}  // namespace kernels

/// @brief Count the CUDA devices.
/// @returns number of usable devices; 0 without a driver, without a device, or on any error
/// @complexity O(1); initialises the driver at the first call
[[nodiscard]] inline int cuda_device_count() noexcept {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    (void)cudaGetLastError();
    return 0;
  }
  return count;
}

FAIRLEAD_NAMESPACE_END
