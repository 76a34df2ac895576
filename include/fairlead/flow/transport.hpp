// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The engine of the exact solvers: tokens choose at prices, shortest paths on the graph of experts move the rest.
///
/// Solvers of other modules bring what their experts take (a `Demand`): `balanced_flow` capacities, `convex_choice` costs.
/// Its names are in `detail` because they may change with any version; the solvers on it are what users call.
#include <fairlead/flow/detail/transport_solve.hpp>
