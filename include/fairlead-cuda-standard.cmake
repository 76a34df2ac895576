# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# CMake before 3.26 does not know that nvcc 12 and later compile C++20. Included by this project and, through its
# package file, by every consumer of fairlead::cuda: the rule is looked up in the scope of the target that compiles.
if(CMAKE_CUDA_COMPILER_ID STREQUAL "NVIDIA" AND NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
endif()
