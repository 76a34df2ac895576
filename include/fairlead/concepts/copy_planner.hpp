// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that copies experts to further ranks for a while.
#include <fairlead/core/load.hpp>
#include <fairlead/core/plan.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Decides which experts get short-lived copies on which ranks, on top of a resident placement.
///
/// Required of a model `planner`:
/// - `planner.copies(cluster, load, base, out, ws)`: appends to `out` (which has room for `most_copies`) copies on ranks that
///   do not host the expert, none twice. `load.by_source` must be given. `value` is the modelled time of a step with the
///   copies, `bound` that without; `value <= bound`. @unit{s}
/// - `planner.most_copies(cluster, experts)`: how many it may append.
/// - `planner.workspace_bytes(cluster, experts)`: scratch it needs; the call allocates nothing.
template <class Planner>
concept copy_planner = requires(Planner const& planner, topology const& cluster, load_estimate const& load,
                                placement const& base, copy_list& out, index_t experts, workspace& ws) {
  { planner.copies(cluster, load, base, out, ws) } -> std::same_as<report>;
  { planner.most_copies(cluster, experts) } -> std::convertible_to<index_t>;
  { planner.workspace_bytes(cluster, experts) } -> std::convertible_to<std::size_t>;
};

FAIRLEAD_NAMESPACE_END
