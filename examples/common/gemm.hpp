// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The matrix product that the examples use: CBLAS where the build found one.
#if defined(FAIRLEAD_EXAMPLE_BLAS)
#  include <fairlead/exec/gemm_blas.hpp>
#else
#  include <fairlead/exec/gemm_reference.hpp>
#endif

namespace examples {
namespace fl = fairlead;

#if defined(FAIRLEAD_EXAMPLE_BLAS)
using gemm_policy = fl::gemm::blas;
#else
using gemm_policy = fl::gemm::reference;
#endif

}  // namespace examples
