// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// What the CUDA tests share: skipping without a device, and moving arrays through any backend.
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/cuda/memory.cuh>
#include <fairlead/exec/cuda_stream.cuh>

#include "support/catch.hpp"

#include <cmath>
#include <vector>

// The words "no device" are what makes ctest count the executable as skipped.
#define FAIRLEAD_NEEDS_DEVICES(count)                                    \
  if (fairlead::cuda_device_count() < (count)) {                         \
    WARN("no device: this test needs " << (count) << " CUDA device(s)"); \
    return;                                                              \
  }

namespace fairlead_test {

// An array in the memory space of a backend, filled from the host.
template <class Backend, class Value>
fairlead::buffer<Value, typename Backend::memory_space> upload(Backend const& on, std::vector<Value> const& values) {
  fairlead::buffer<Value, typename Backend::memory_space> result(static_cast<fairlead::index_t>(values.size()));
  on.from_host(result.data(), values.data(), values.size() * sizeof(Value));
  return result;
}

template <class Backend, class Value>
std::vector<Value> download(Backend const& on, Value const* values, fairlead::index_t count) {
  std::vector<Value> result(static_cast<std::size_t>(count));
  on.to_host(result.data(), values, result.size() * sizeof(Value));
  on.wait();
  return result;
}
template <class Backend, class Value, class Space>
std::vector<Value> download(Backend const& on, fairlead::buffer<Value, Space> const& values) {
  return download(on, values.data(), values.size());
}

template <class Value = float>
std::vector<Value> normals(fairlead::index_t count, std::uint64_t stream) {
  std::vector<Value> result(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < result.size(); ++i) {
    result[i] = static_cast<Value>(static_cast<float>(fairlead::philox::normal(7, stream, i)));
  }
  return result;
}

// Largest |a - b| / (1 + |b|); infinity where shapes or NaN disagree.
template <class A, class B>
double distance(std::vector<A> const& a, std::vector<B> const& b) {
  if (a.size() != b.size()) { return INFINITY; }
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    double const x = static_cast<double>(a[i]);
    double const y = static_cast<double>(b[i]);
    if (x == y || (std::isnan(x) && std::isnan(y))) { continue; }
    double const d = std::abs(x - y) / (1 + std::abs(y));
    if (!(d <= worst)) { worst = std::isnan(d) ? INFINITY : d; }
  }
  return worst;
}

}  // namespace fairlead_test
