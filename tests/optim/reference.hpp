// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <fairlead/core/parameters.hpp>
#include <fairlead/core/philox.hpp>

#include <vector>

namespace optim_test {

// Two blocks, the second without decay, longer than one piece of work and not a multiple of a vector.
inline fairlead::parameter_layout two_blocks() {
  fairlead::parameter_layout layout;
  layout.add("matrix", 131, 257, 1.0).add("bias", 1, 263, 1.0, false);
  return layout;
}
inline std::vector<float> normals(fairlead::index_t size, std::uint64_t stream) {
  std::vector<float> values;
  for (fairlead::index_t i = 0; i < size; ++i) {
    values.push_back(static_cast<float>(fairlead::philox::normal(7, stream, static_cast<std::uint64_t>(i))));
  }
  return values;
}

}  // namespace optim_test
