// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of `gshard_top_2`: its pair is a token choice, the drop a loop over tokens.
#include <fairlead/route/gshard_top_2.hpp>
#include <fairlead/route/token_choice.cuh>
