// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of a rule that says how many copies an expert takes.
#include <fairlead/core/ids.hpp>

#include <concepts>
#include <limits>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Whose tokens a capacity is computed from, and whose copies compete for the places.
enum class capacity_scope {
  none,     ///< no limit
  rank,     ///< each source rank fills its own places; no rank sees another's tokens
  global,   ///< the copies of all ranks compete, source ranks served in rank order
  receiver  ///< as `global`, but the number of places follows the tokens of the rank that holds the expert
};

/// What `places` returns when an expert takes everything.
inline constexpr index_t unlimited_places = std::numeric_limits<index_t>::max();

/// @brief Says how many copies an expert takes.
///
/// Required of a model `policy`:
/// - `Policy::scope`, a constant of type `capacity_scope`.
/// - `policy.places(tokens, experts, fan_out, ranks)`: places per expert, >= 0, or `unlimited_places`. What `tokens`
///   counts follows the scope: rank - the tokens of the source rank that asks; global - the tokens of all ranks
///   together; receiver - the tokens of the rank that holds the expert; none - ignored. `experts` counts all experts,
///   `ranks` all ranks. Zero tokens are legal.
///
/// The order of service and what happens to a copy that finds no place are policies of their own.
template <class Policy>
concept capacity_policy =
    // The address tells a static member from a field, whose value nobody knows at compile time.
    requires { { &Policy::scope } -> std::same_as<capacity_scope const*>; } &&
    requires { typename std::integral_constant<capacity_scope, Policy::scope>; } &&
    requires(Policy const& policy, index_t size) {
      { policy.places(size, size, size, size) } -> std::same_as<index_t>;
    };

/// @brief Opt-in: `policy.closes(expert)` says that an expert has no places at all, whatever `places` says; all its copies
/// are overflow.
template <class Policy>
concept closes_experts = requires(Policy const& policy, index_t expert) {
  { policy.closes(expert) } -> std::same_as<bool>;
};

FAIRLEAD_NAMESPACE_END
