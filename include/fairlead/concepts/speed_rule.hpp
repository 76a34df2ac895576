// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of a rule for how many copies each server serves in a time slot.
#include <fairlead/concepts/energy_model.hpp>
#include <fairlead/core/time_slot.hpp>

#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Decides how many copies each server serves in a slot, once the tokens are routed.
///
/// Required of a model `rule`: `rule.speeds(view, servers, counts, service)`: counts are copies sent to each server in this
/// slot; writes `service`, copies, not negative, may be fractional. @shape{servers} each. The controller limits what it
/// writes to the cap of the server and to the copies that are there.
template <class Rule, class Model>
concept speed_rule = energy_model<Model> &&
                     requires(Rule const& rule, slot_view const& view, Model const& servers,
                              std::span<index_t const> counts, std::span<double> service) {
                       { rule.speeds(view, servers, counts, service) } -> std::same_as<void>;
                     };

FAIRLEAD_NAMESPACE_END
