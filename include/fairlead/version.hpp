// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The one place that holds the version number; CMake reads it from here.
#define FAIRLEAD_VERSION_MAJOR 0  ///< first part of the version
#define FAIRLEAD_VERSION_MINOR 1  ///< second part of the version
#define FAIRLEAD_VERSION_PATCH 0  ///< third part of the version
