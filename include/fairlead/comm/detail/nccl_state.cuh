// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The private side of the NCCL communicator.
#include <fairlead/cuda/memory.cuh>
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/core/bfloat16.hpp>

#include <nccl.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Thrown when NCCL reports a failure.
class nccl_error : public std::runtime_error {
 public:
  /// @param code what NCCL returned
  /// @param text the whole message
  nccl_error(ncclResult_t code, std::string const& text) : std::runtime_error(text), code_(code) {}
  /// @returns the native code
  [[nodiscard]] ncclResult_t code() const noexcept { return code_; }

 private:
  ncclResult_t code_;
};

namespace nccl::detail {

inline void check(ncclResult_t code, ncclComm_t native, char const* doing) {
  if (code != ncclSuccess && code != ncclInProgress) [[unlikely]] {
    throw nccl_error(code, std::string(doing) + ": " + ncclGetErrorString(code) + ": " + ncclGetLastError(native));
  }
}

template <class Value>
concept reducible = std::same_as<Value, float> || std::same_as<Value, double> || std::same_as<Value, bfloat16> ||
                    (std::integral<Value> && !std::same_as<Value, bool> &&
                     (sizeof(Value) == 1 || sizeof(Value) == 4 || sizeof(Value) == 8));

template <reducible Value>
constexpr ncclDataType_t type_of() {
  if constexpr (std::same_as<Value, float>) {
    return ncclFloat32;
  } else if constexpr (std::same_as<Value, double>) {
    return ncclFloat64;
  } else if constexpr (std::same_as<Value, bfloat16>) {
    return ncclBfloat16;
  } else if constexpr (sizeof(Value) == 1) {
    return std::is_signed_v<Value> ? ncclInt8 : ncclUint8;
  } else if constexpr (sizeof(Value) == 4) {
    return std::is_signed_v<Value> ? ncclInt32 : ncclUint32;
  } else {
    return std::is_signed_v<Value> ? ncclInt64 : ncclUint64;
  }
}

constexpr ncclRedOp_t native_reduction(reduction op) {
  return op == reduction::sum ? ncclSum : op == reduction::maximum ? ncclMax : ncclMin;
}

// A group must be closed even when a call inside it throws, or the thread's next collective would never start.
class group {
 public:
  group() { check(ncclGroupStart(), nullptr, "opening a group"); }
  group(group const&) = delete;
  group& operator=(group const&) = delete;
  ~group() {
    if (open_) { (void)ncclGroupEnd(); }
  }
  void end() {
    open_ = false;
    check(ncclGroupEnd(), nullptr, "queueing a group");
  }

 private:
  bool open_ = true;
};

struct message {
  void const* out;   // null for a receipt
  void* in;          // null for a send
  std::size_t bytes;
  int peer;
  cudaStream_t stream;
};

// Shared by the copies of the communicator and by its pending operations.
struct communicator_state {
  ncclComm_t native = nullptr;
  int rank = 0;
  int size = 0;
  std::vector<message> posted;
  cudaStream_t barrier_stream = nullptr;
  buffer<std::int32_t, device_space> barrier_flag;

  communicator_state() = default;
  communicator_state(communicator_state const&) = delete;
  communicator_state& operator=(communicator_state const&) = delete;
  ~communicator_state() {
    if (barrier_stream != nullptr) { (void)cudaStreamDestroy(barrier_stream); }
    if (native != nullptr) { (void)ncclCommDestroy(native); }
  }

  void check(ncclResult_t code, char const* doing) const { detail::check(code, native, doing); }

  void finish() {
    check(ncclCommUserRank(native, &rank), "asking for the rank");
    check(ncclCommCount(native, &size), "asking for the number of ranks");
    posted.reserve(static_cast<std::size_t>(2 * size));
    kernels::check(cudaStreamCreateWithFlags(&barrier_stream, cudaStreamNonBlocking), "creating a stream");
    barrier_flag.resize(1);
    kernels::check(cudaMemsetAsync(barrier_flag.data(), 0, sizeof(std::int32_t), barrier_stream), "clearing the barrier's flag");
  }

  void post(message const& one) {
    if (one.bytes != 0) { posted.push_back(one); }
  }

  void queue_posted() {
    if (posted.empty()) { return; }
    // Cleared first: a failure must not be repeated by every later call.
    std::vector<message> batch;
    batch.swap(posted);
    {
      group one;
      for (message const& m : batch) {
        check(m.out != nullptr ? ncclSend(m.out, m.bytes, ncclInt8, m.peer, native, m.stream)
                               : ncclRecv(m.in, m.bytes, ncclInt8, m.peer, native, m.stream),
              m.out != nullptr ? "sending" : "receiving");
      }
      one.end();
    }
    batch.clear();
    batch.swap(posted);  // the memory goes back: no allocation after warm-up
  }

  void barrier() {
    check(ncclAllReduce(barrier_flag.data(), barrier_flag.data(), 1, ncclInt32, ncclSum, native, barrier_stream), "barrier");
    kernels::check(cudaStreamSynchronize(barrier_stream), "waiting in a barrier");
    ncclResult_t state = ncclSuccess;
    check(ncclCommGetAsyncError(native, &state), "asking for asynchronous failures");
    check(state, "a collective failed on the device");
  }
};

template <class Body>
void run_threads(int ranks, Body body) {
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(ranks));
  {
    std::vector<std::jthread> threads;
    threads.reserve(failures.size());
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&failures, &body, rank] {
        try {
          body(rank);
        } catch (...) {
          failures[static_cast<std::size_t>(rank)] = std::current_exception();
        }
      });
    }
  }
  for (std::exception_ptr const& failure : failures) {
    if (failure) { std::rethrow_exception(failure); }
  }
}

}  // namespace nccl::detail
FAIRLEAD_NAMESPACE_END
