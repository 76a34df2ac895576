// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Experts that return the token itself: chosen and weighed, never dispatched.
#include <fairlead/dispatch/capacity.hpp>
#include <fairlead/dispatch/overflow.hpp>

#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Close the experts from `first` on: none of their copies is dispatched.
///
/// With the overflow action `identity` a copy for a closed expert adds weight x token to the output, with the gradients
/// of both, and takes no row, no exchange and no product: an identity (copy) expert. With `drop` it adds nothing: a zero
/// expert, for which `zero_experts` is the cheaper way, since closed experts keep their parameters and their slots.
/// The plan counts their copies as dropped, as overflow with `identity` always is.
/// Example: `exchange<identity_experts<>, token_order, identity>{.capacity = {.first = 64}}` with a router over 72.
/// @tparam Capacity capacity of the others; with overflow `identity` their overflow returns the token too
/// @source{SGLang and vLLM, zero experts of type identity}
template <class Capacity = dropless>
struct identity_experts {
  /// Whose copies compete for the places of the others.
  static constexpr capacity_scope scope = Capacity::scope;

  Capacity capacity{};  ///< places of the experts that are not closed
  index_t first = 0;    ///< experts from here on are closed, >= 0

  /// @param expert expert number
  /// @returns whether it has no places at all
  [[nodiscard]] constexpr bool closes(index_t expert) const noexcept { return expert >= first; }
  /// @param tokens what the scope counts
  /// @param experts all experts, closed ones included
  /// @param fan_out experts a token
  /// @param ranks all ranks
  /// @returns places of an expert that is not closed
  /// @throws contract_violation (level 1) on a bad size
  [[nodiscard]] constexpr index_t places(index_t tokens, index_t experts, index_t fan_out, index_t ranks) const {
    FAIRLEAD_EXPECTS(first >= 0, "the first closed expert must not be negative", first);
    return capacity.places(tokens, experts, fan_out, ranks);
  }
};
static_assert(capacity_policy<identity_experts<>> && closes_experts<identity_experts<megatron_capacity>>);

FAIRLEAD_NAMESPACE_END
