// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that says when a placement should be planned anew.
#include <fairlead/core/load.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Why a placement should be planned anew.
enum class replan_reason {
  none,         ///< it should not
  interval,     ///< enough micro-batches have passed
  imbalance,    ///< ranks are too unequally loaded under the shares in use
  density,      ///< no shares at all would load ranks equally enough
  lost_expert   ///< an expert with load has no replica
};

/// @brief Says when a placement should be planned anew.
///
/// Required of a model `trigger`:
/// - `trigger.make_state(experts)`: what it carries from micro-batch to micro-batch, of type `Trigger::state_type`.
/// - `trigger.observe(load, state)`: a micro-batch has passed, and this is what is expected now; once a micro-batch. Views
///   are not kept.
/// - `trigger.should_replan(where, state, ws)`: why the placement in use should be planned anew. Asking twice gives the
///   same answer; nothing is decided by asking.
/// - `trigger.replanned(state)`: a new placement was planned and kept, or the old one was found good enough: count anew.
/// - `trigger.workspace_bytes(where)`: scratch of `should_replan`; neither call allocates.
/// - Equal arguments and states give equal answers, so that all ranks re-plan together.
template <class Trigger>
concept replan_trigger = requires(Trigger const& trigger, index_t experts, typename Trigger::state_type& state,
                                  load_estimate const& load, placement const& where, workspace& ws) {
  { trigger.make_state(experts) } -> std::same_as<typename Trigger::state_type>;
  trigger.observe(load, state);
  { trigger.should_replan(where, state, ws) } -> std::same_as<replan_reason>;
  trigger.replanned(state);
  { trigger.workspace_bytes(where) } -> std::convertible_to<std::size_t>;
};

FAIRLEAD_NAMESPACE_END
