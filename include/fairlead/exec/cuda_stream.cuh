// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Run everything in order on a CUDA stream.
#include <fairlead/cuda/memory.cuh>
#include <fairlead/concepts/execution_backend.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

namespace kernels {

/// @brief Call `f(i)` for each 0 <= i < n with a grid-stride loop.
/// @param n number of calls
/// @param f trivially copyable function object with a `FAIRLEAD_HD` (or device) call operator
template <class Function>
__global__ void for_each(index_t n, Function f) {
  index_t const step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) { f(i); }
}

}  // namespace kernels

/// @brief The backend of a CUDA stream; a copyable handle that does not own it.
///
/// Work is queued in order and calls return before it is done. The stream belongs to the device that was current when
/// the handle was made; that device must be current at every use, as CUDA asks. None of its members but `wait`
/// synchronises, and none allocates.
class cuda_stream {
 public:
  using memory_space = device_space;  ///< works on device memory

  /// @brief Use the default stream of the current device.
  /// @throws cuda_error without a device
  cuda_stream() : cuda_stream(cudaStream_t{}) {}
  /// @brief Use a stream that somebody else owns.
  /// @param stream a stream of the current device
  /// @throws cuda_error without a device
  explicit cuda_stream(cudaStream_t stream) : stream_(stream) {
    int device = 0;
    kernels::check(cudaGetDevice(&device), "asking for the current device");
    kernels::check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device),
                   "asking for the number of multiprocessors");
  }

  /// @brief Call `f(i)` for 0 <= i < n on the device.
  /// @tparam Function trivially copyable function object, callable on the device
  /// @param n number of calls, >= 0, 64 bits
  /// @param f function object
  /// @throws cuda_error if the launch is refused
  /// @complexity one launch of at most 8 blocks of 256 threads a multiprocessor, which loop
  template <class Function>
  void for_each(index_t n, Function f) const {
    static_assert(std::is_trivially_copyable_v<Function>, "a kernel argument must be trivially copyable");
    if (n <= 0) { return; }
    kernels::for_each<<<kernels::grid_size(n, block_threads, multiprocessors_ * blocks_each), block_threads, 0,
                        stream_>>>(n, f);
    kernels::check_launch("for_each");
  }
  /// @returns number of multiprocessors: components cut scratch memory into at most that many parts
  [[nodiscard]] index_t concurrency() const noexcept { return multiprocessors_; }
  /// @brief Copy bytes inside device memory, in stream order.
  void copy(void* to, void const* from, std::size_t bytes) const {
    transfer(to, from, bytes, cudaMemcpyDeviceToDevice, "copying in device memory");
  }
  /// @brief Clear bytes of device memory, in stream order.
  void fill_zero(void* to, std::size_t bytes) const {
    if (bytes != 0) { kernels::check(cudaMemsetAsync(to, 0, bytes, stream_), "clearing device memory"); }
  }
  /// @brief Copy to host memory, in stream order; visible after `wait()`. Does not block if `to` is pinned.
  void to_host(void* to, void const* from, std::size_t bytes) const {
    transfer(to, from, bytes, cudaMemcpyDeviceToHost, "copying to the host");
  }
  /// @brief Copy from host memory, in stream order. Pageable memory may be reused at once, pinned after `wait()`.
  void from_host(void* to, void const* from, std::size_t bytes) const {
    transfer(to, from, bytes, cudaMemcpyHostToDevice, "copying to the device");
  }
  /// @brief Block the host until all queued work is done.
  /// @throws cuda_error if a kernel failed
  void wait() const { kernels::check(cudaStreamSynchronize(stream_), "waiting for a stream"); }
  /// @returns the CUDA stream
  [[nodiscard]] cudaStream_t native() const noexcept { return stream_; }
  /// @returns multiprocessors of the device
  [[nodiscard]] int multiprocessors() const noexcept { return multiprocessors_; }

 private:
  static constexpr int block_threads = 256;
  static constexpr int blocks_each = 8;  // 8 x 256 threads fill a multiprocessor

  void transfer(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind, char const* doing) const {
    if (bytes != 0) { kernels::check(cudaMemcpyAsync(to, from, bytes, kind, stream_), doing); }
  }

  cudaStream_t stream_{};
  int multiprocessors_ = 1;
};
static_assert(device_backend<cuda_stream>);

/// Work is queued in order.
template <>
inline constexpr bool stream_ordered<cuda_stream> = true;

/// @brief Own a stream; move-only.
class cuda_stream_owner {
 public:
  /// @brief Create a stream of the current device that does not wait for the default stream.
  /// @throws cuda_error
  cuda_stream_owner() {
    kernels::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
  }
  /// @brief Take over what `other` holds; it holds nothing afterwards.
  cuda_stream_owner(cuda_stream_owner&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  /// @brief Exchange with `other`.
  cuda_stream_owner& operator=(cuda_stream_owner&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  cuda_stream_owner(cuda_stream_owner const&) = delete;
  cuda_stream_owner& operator=(cuda_stream_owner const&) = delete;
  /// Queued work still completes.
  ~cuda_stream_owner() {
    if (stream_ != nullptr && cudaStreamDestroy(stream_) != cudaSuccess) { (void)cudaGetLastError(); }
  }
  /// @returns the backend of this stream
  /// @pre its device is current
  [[nodiscard]] cuda_stream get() const { return cuda_stream(stream_); }

 private:
  cudaStream_t stream_ = nullptr;
};

FAIRLEAD_NAMESPACE_END
