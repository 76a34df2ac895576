// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concepts of something that sends the tokens of a time slot to servers, and of what decides ties.
#include <fairlead/concepts/energy_model.hpp>
#include <fairlead/core/time_slot.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Decides between servers with equal keys.
///
/// Required of a model `ties`: `ties.rank(view, token, server)`: among servers with equal keys the least rank wins, then the
/// lowest id. A function of its arguments alone, so that results can be repeated.
template <class Ties>
concept tie_break = requires(Ties const& ties, slot_view const& view, index_t number) {
  { ties.rank(view, number, number) } -> std::convertible_to<std::uint32_t>;
};

/// @brief Chooses K distinct servers for each token of a slot.
///
/// Required of a model `router`:
/// - `router.route(view, servers, ties, choice, counts, ws)`: writes `choice` @shape{tokens x fan_out}, distinct server ids in
///   each row, and `counts` @shape{servers}, how often each server was chosen. Reads the view, `servers` (the energy
///   model) and `ties`, and nothing else: no memory between slots, no look into the future.
/// - `router.workspace_bytes(tokens, servers, fan_out)`: scratch; the call allocates nothing, and needs no more for fewer tokens.
/// - No tokens are legal. Scores are finite.
template <class Router, class Model, class Ties>
concept slot_router = energy_model<Model> && tie_break<Ties> &&
                      requires(Router const& router, slot_view const& view, Model const& servers, Ties const& ties,
                               matrix_view<expert_id> choice, std::span<index_t> counts, index_t size, workspace& ws) {
                        { router.route(view, servers, ties, choice, counts, ws) } -> std::same_as<void>;
                        { router.workspace_bytes(size, size, size) } -> std::convertible_to<std::size_t>;
                      };

FAIRLEAD_NAMESPACE_END
