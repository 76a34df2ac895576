// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Macros that every header needs: namespace, host/device marker, contract level.
#include <fairlead/version.hpp>

/// How much checking is compiled in: 0 none, 1 O(1) checks (default), 2 also O(n) checks, 3 also checks that communicate.
#ifndef FAIRLEAD_CONTRACT_LEVEL
#  define FAIRLEAD_CONTRACT_LEVEL 1
#endif
#if FAIRLEAD_CONTRACT_LEVEL < 0 || FAIRLEAD_CONTRACT_LEVEL > 3
#  error "FAIRLEAD_CONTRACT_LEVEL must be 0, 1, 2 or 3"
#endif

/// Marks a function that both host and device code may call; empty outside nvcc.
#if defined(__CUDACC__)
#  define FAIRLEAD_HD __host__ __device__
#else
#  define FAIRLEAD_HD
#endif

// ABI version and contract level are part of the inline namespace: translation units compiled with different
// levels then hold different entities instead of violating the one-definition rule.
#define FAIRLEAD_DETAIL_CAT_(a, b, c, d) a##b##c##d
#define FAIRLEAD_DETAIL_CAT(a, b, c, d) FAIRLEAD_DETAIL_CAT_(a, b, c, d)
#define FAIRLEAD_ABI FAIRLEAD_DETAIL_CAT(v, FAIRLEAD_VERSION_MAJOR, _contracts, FAIRLEAD_CONTRACT_LEVEL)

/// Opens namespace `fairlead` and its inline ABI namespace.
#define FAIRLEAD_NAMESPACE_BEGIN \
  namespace fairlead {           \
  inline namespace FAIRLEAD_ABI {
/// Closes what `FAIRLEAD_NAMESPACE_BEGIN` opened.
#define FAIRLEAD_NAMESPACE_END \
  }                            \
  }
