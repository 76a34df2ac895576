// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/exec/cuda_stream.cuh>

#include <cstdio>

template <class Value>
concept small = sizeof(Value) <= 8;  // C++20 in device code

template <small Value>
__global__ void fill(fairlead::matrix_view<Value> out) {
  if (fairlead::index_t const i = threadIdx.x; i < out.cols()) { out(0, i) = static_cast<Value>(i); }
}

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("compiled and linked; no device");
    return 0;
  }
  float* data = nullptr;
  if (cudaMallocManaged(&data, 4 * sizeof(float)) != cudaSuccess) { return 1; }
  fill<float><<<1, 32>>>(fairlead::matrix_view<float>(data, 1, 4));
  bool const good = cudaDeviceSynchronize() == cudaSuccess && data[3] == 3.0F;
  cudaFree(data);
  return good ? 0 : 1;
}
