// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that splits the copies of an expert over its replicas.
#include <fairlead/core/placement.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/core/token_schedule.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Decides how many copies of each (source rank, expert) go to which replica.
///
/// Required of a model `scheduler`:
/// - `scheduler.schedule(load, where, out, ws)`: load @shape{ranks x experts}, out @shape{ranks x where.replicas()}.
///   Every rank calls it with equal arguments and gets the equal result. Conserves the load (`conserves`). Returns
///   `status::lost_expert`, with all of `out` zero, if an expert with load has no replica.
/// - `scheduler.workspace_bytes(where)`: scratch it needs.
template <class Scheduler>
concept token_scheduler = requires(Scheduler const& scheduler, load_view load, placement const& where,
                                   token_schedule_view out, workspace& ws) {
  { scheduler.schedule(load, where, out, ws) } -> std::same_as<report>;
  { scheduler.workspace_bytes(where) } -> std::convertible_to<std::size_t>;
};

FAIRLEAD_NAMESPACE_END
