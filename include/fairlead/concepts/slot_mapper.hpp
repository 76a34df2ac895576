// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that fits a new slot table to the one in use, so that less has to move.
#include <fairlead/core/report.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Renames the ranks and slots of a new table to keep as many weights as possible where they are.
///
/// Required of a model `mapper`:
/// - `mapper.map(cluster, now, next, ws)`: permutes `next` @shape{cluster.slots()}: whole ranks that have equally many slots
///   change places (inside their node, if the mapper says so), and experts change slots inside a rank. `now` has the same
///   shape; none = empty. Which experts share a rank does not change. `value` is the number of slots whose expert has to be
///   fetched; never more than for the table as given.
/// - `mapper.workspace_bytes(cluster, experts)`: scratch it needs; the call allocates nothing.
template <class Mapper>
concept slot_mapper = requires(Mapper const& mapper, topology const& cluster, index_t experts, std::span<expert_id const> now,
                               std::span<expert_id> next, workspace& ws) {
  { mapper.map(cluster, now, next, ws) } -> std::same_as<report>;
  { mapper.workspace_bytes(cluster, experts) } -> std::convertible_to<std::size_t>;
};

FAIRLEAD_NAMESPACE_END
