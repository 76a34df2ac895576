// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of the named token-choice routers of `route/top_k.hpp`.
#include <fairlead/route/token_choice.cuh>
#include <fairlead/route/top_k.hpp>
