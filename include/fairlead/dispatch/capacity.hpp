// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How many copies an expert takes: the formulas in use, each with the rounding of its framework.
#include <fairlead/concepts/capacity_policy.hpp>
#include <fairlead/core/contract.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {

/// Largest double below which every integer is a double: larger capacities mean no limit.
inline constexpr double capacity_ceiling = 9007199254740992.0;

/// Truncate as Python's int() does; negative capacities do not exist.
[[nodiscard]] constexpr index_t whole_places(double places) noexcept {
  if (!(places > 0.0)) { return 0; }
  return places >= capacity_ceiling ? unlimited_places : static_cast<index_t>(places);
}
/// Round up.
[[nodiscard]] constexpr index_t places_above(double places) noexcept {
  index_t const below = whole_places(places);
  return below != unlimited_places && static_cast<double>(below) < places ? below + 1 : below;
}
/// Round to nearest, halves to the even neighbour, as Python's round() does, whatever the rounding mode.
[[nodiscard]] constexpr index_t nearest_places(double places) noexcept {
  index_t const below = whole_places(places);
  if (below == unlimited_places) { return below; }
  double const rest = places - static_cast<double>(below);
  return rest > 0.5 || (rest == 0.5 && below % 2 != 0) ? below + 1 : below;
}
constexpr void expect_capacity_sizes(index_t tokens, index_t experts, index_t fan_out, index_t ranks) {
  FAIRLEAD_EXPECTS(tokens >= 0 && experts >= 1 && fan_out >= 0 && ranks >= 1,
                   "a capacity needs tokens >= 0, experts >= 1, fan_out >= 0 and ranks >= 1", tokens, experts, fan_out,
                   ranks);
}

}  // namespace detail

/// @brief Take everything: no copy is ever dropped.
struct dropless {
  static constexpr capacity_scope scope = capacity_scope::none;  ///< no limit
  /// @returns `unlimited_places`
  /// @complexity O(1)
  [[nodiscard]] constexpr index_t places(index_t /*tokens*/, index_t /*experts*/, index_t /*fan_out*/,
                                         index_t /*ranks*/) const noexcept {
    return unlimited_places;
  }
};
static_assert(capacity_policy<dropless>);

/// @brief Take ceil(tokens * fan_out / experts * factor) copies of each source rank.
///
/// At most `tokens`: a token chooses an expert once. Quotient and product are rounded to double one after the other,
/// so that 3 * 1.1 = 3.3000000000000003; a factor that gives a whole number only in exact arithmetic can give one more.
/// @source{Megatron-core, moe_utils get_capacity}
struct megatron_capacity {
  static constexpr capacity_scope scope = capacity_scope::rank;  ///< each source rank for itself
  double factor = 1.0;                                           ///< places in units of the mean load, >= 0
  /// @param tokens tokens of this source rank, >= 0
  /// @param experts all experts, >= 1
  /// @param fan_out experts a token, >= 0
  /// @param ranks all ranks, >= 1 (without effect)
  /// @returns places per expert
  /// @throws contract_violation (level 1) on a bad size or a negative factor
  /// @complexity O(1)
  [[nodiscard]] constexpr index_t places(index_t tokens, index_t experts, index_t fan_out, index_t ranks) const {
    detail::expect_capacity_sizes(tokens, experts, fan_out, ranks);
    FAIRLEAD_EXPECTS(factor >= 0.0, "a capacity factor must not be negative", factor);
    double const mean = static_cast<double>(tokens * fan_out) / static_cast<double>(experts);
    return std::min(detail::places_above(mean * factor), tokens);
  }
};
static_assert(capacity_policy<megatron_capacity>);

/// @brief Take max(ceil(tokens / experts * (factor * fan_out)), minimum) copies of each source rank.
///
/// At most `tokens` (the framework crashed beyond it). The framework holds factor * fan_out in an fp32 tensor, so the
/// product is rounded to fp32 before the ceiling; `megatron_capacity` rounds in double and can differ by one.
/// @source{DeepSpeed, sharded_moe _capacity}
struct deepspeed_capacity {
  static constexpr capacity_scope scope = capacity_scope::rank;  ///< each source rank for itself
  double factor = 1.0;                                           ///< places in units of the mean load, >= 0
  index_t minimum = 4;                                           ///< places at least (while there are tokens), >= 0
  /// @param tokens tokens of this source rank, >= 0
  /// @param experts all experts, >= 1
  /// @param fan_out experts a token, >= 0
  /// @param ranks all ranks, >= 1 (without effect)
  /// @returns places per expert
  /// @throws contract_violation (level 1) on a bad size, a negative factor or minimum
  /// @complexity O(1)
  [[nodiscard]] constexpr index_t places(index_t tokens, index_t experts, index_t fan_out, index_t ranks) const {
    detail::expect_capacity_sizes(tokens, experts, fan_out, ranks);
    FAIRLEAD_EXPECTS(factor >= 0.0 && minimum >= 0, "factor and minimum must not be negative", factor, minimum);
    float const per_expert = static_cast<float>(static_cast<double>(tokens) / static_cast<double>(experts));
    float const scaled = per_expert * static_cast<float>(factor * static_cast<double>(fan_out));
    return std::min(std::max(detail::places_above(static_cast<double>(scaled)), minimum), tokens);
  }
};
static_assert(capacity_policy<deepspeed_capacity>);

/// @brief Take fan_out * int(factor * ceil(tokens / experts)) copies of each source rank, rounded up to an alignment.
///
/// At most `tokens` before the alignment. Factor 0 follows the largest load: no limit, as nothing is dropped. A negative
/// factor -f follows the largest load up to the capacity of f, which drops the same copies as f. What a padded buffer
/// then holds is `padded_places` (`dispatch/padded_places.hpp`). Where ranks hold different numbers of tokens, the
/// framework takes the largest for all (inequivalent_tokens): a padded exchange needs one size; ragged ones do not.
/// @source{Tutel, impls/fast_dispatch}
struct tutel_capacity {
  static constexpr capacity_scope scope = capacity_scope::rank;  ///< each source rank for itself
  double factor = 1.0;                                           ///< places in units of the mean load; see above for <= 0
  index_t alignment = 1;                                         ///< places are a multiple of it, >= 1
  /// @param tokens tokens of this source rank, >= 0
  /// @param experts all experts, >= 1
  /// @param fan_out experts a token, >= 0
  /// @param ranks all ranks, >= 1 (without effect)
  /// @returns places per expert
  /// @throws contract_violation (level 1) on a bad size, factor or alignment
  /// @complexity O(1)
  [[nodiscard]] constexpr index_t places(index_t tokens, index_t experts, index_t fan_out, index_t ranks) const {
    detail::expect_capacity_sizes(tokens, experts, fan_out, ranks);
    FAIRLEAD_EXPECTS(factor == factor, "a capacity factor must be a number", factor);
    FAIRLEAD_EXPECTS(alignment >= 1, "the alignment must be positive", alignment);
    if (factor == 0.0) { return unlimited_places; }
    index_t const mean = (tokens + experts - 1) / experts;
    index_t const each = detail::whole_places((factor < 0.0 ? -factor : factor) * static_cast<double>(mean));
    index_t const capacity = each >= tokens ? (fan_out == 0 ? 0 : tokens) : std::min(fan_out * each, tokens);
    return (capacity + alignment - 1) / alignment * alignment;
  }
};
static_assert(capacity_policy<tutel_capacity>);

/// @brief Take int(factor * (fan_out * tokens / experts)) copies of all ranks together.
///
/// A result of 0 means no limit, as in the framework - also when a small positive factor rounds to 0.
/// @source{MegaBlocks, layers/moe expert_capacity}
struct megablocks_capacity {
  static constexpr capacity_scope scope = capacity_scope::global;  ///< over all source ranks
  double factor = 1.0;                                             ///< places in units of the mean load, 0 = no limit
  /// @param tokens tokens of all ranks together, >= 0
  /// @param experts all experts, >= 1
  /// @param fan_out experts a token, >= 0
  /// @param ranks all ranks, >= 1 (without effect: `tokens` is global)
  /// @returns places per expert, `unlimited_places` if the formula gives 0
  /// @throws contract_violation (level 1) on a bad size or a negative factor
  /// @complexity O(1)
  [[nodiscard]] constexpr index_t places(index_t tokens, index_t experts, index_t fan_out, index_t ranks) const {
    detail::expect_capacity_sizes(tokens, experts, fan_out, ranks);
    FAIRLEAD_EXPECTS(factor >= 0.0, "a capacity factor must not be negative", factor);
    index_t const capacity =
        detail::whole_places(factor * (static_cast<double>(tokens * fan_out) / static_cast<double>(experts)));
    return capacity == 0 ? unlimited_places : std::min(capacity, tokens);
  }
};
static_assert(capacity_policy<megablocks_capacity>);

/// @brief Take max(min(tokens, int(tokens * factor / experts)), minimum) copies of each group; a group is a rank.
///
/// At most `tokens`, also under the minimum. Fan-out has no part in it: a factor for two choices is twice as large.
/// @source{mesh-TensorFlow, transformer/moe.py}
struct mesh_capacity {
  static constexpr capacity_scope scope = capacity_scope::rank;  ///< each source rank for itself
  double factor = 1.0;                                           ///< places in units of tokens / experts, >= 0
  index_t minimum = 4;                                           ///< places at least (while there are tokens), >= 0
  /// @param tokens tokens of this source rank, >= 0
  /// @param experts all experts, >= 1
  /// @param fan_out experts a token (without effect)
  /// @param ranks all ranks, >= 1 (without effect)
  /// @returns places per expert
  /// @throws contract_violation (level 1) on a bad size, a negative factor or minimum
  /// @complexity O(1)
  [[nodiscard]] constexpr index_t places(index_t tokens, index_t experts, index_t fan_out, index_t ranks) const {
    detail::expect_capacity_sizes(tokens, experts, fan_out, ranks);
    FAIRLEAD_EXPECTS(factor >= 0.0 && minimum >= 0, "factor and minimum must not be negative", factor, minimum);
    index_t const capacity =
        detail::whole_places(static_cast<double>(tokens) * factor / static_cast<double>(experts));
    return std::min(std::max(capacity, minimum), tokens);
  }
};
static_assert(capacity_policy<mesh_capacity>);

/// @brief Take max(round(factor * tokens / experts), minimum) copies of each group; a group is a rank.
///
/// Halves round to the even neighbour (12.5 gives 12). At most `tokens`. Fan-out has no part in it.
/// @source{Flaxformer, architectures/moe/routing.py}
struct flaxformer_capacity {
  static constexpr capacity_scope scope = capacity_scope::rank;  ///< each source rank for itself
  double factor = 1.0;                                           ///< places in units of tokens / experts, >= 0
  index_t minimum = 4;                                           ///< places at least (while there are tokens), >= 0
  /// @param tokens tokens of this source rank, >= 0
  /// @param experts all experts, >= 1
  /// @param fan_out experts a token (without effect)
  /// @param ranks all ranks, >= 1 (without effect)
  /// @returns places per expert
  /// @throws contract_violation (level 1) on a bad size, a negative factor or minimum
  /// @complexity O(1)
  [[nodiscard]] constexpr index_t places(index_t tokens, index_t experts, index_t fan_out, index_t ranks) const {
    detail::expect_capacity_sizes(tokens, experts, fan_out, ranks);
    FAIRLEAD_EXPECTS(factor >= 0.0 && minimum >= 0, "factor and minimum must not be negative", factor, minimum);
    index_t const capacity =
        detail::nearest_places(factor * static_cast<double>(tokens) / static_cast<double>(experts));
    return std::min(std::max(capacity, minimum), tokens);
  }
};
static_assert(capacity_policy<flaxformer_capacity>);

/// @brief Take int(tokens * factor) copies at the rank that holds the expert, whoever sent them.
///
/// Not clamped: the receiver knows its own tokens, while copies come from all ranks. A large factor (100) is no limit.
/// @source{StableMoE code, modules/moe_layer.py}
struct stable_capacity {
  static constexpr capacity_scope scope = capacity_scope::receiver;  ///< at the rank that holds the expert
  double factor = 2.0;                                               ///< places in units of the receiver's tokens, >= 0
  /// @param tokens tokens of the rank that holds the expert, >= 0
  /// @param experts all experts, >= 1 (without effect)
  /// @param fan_out experts a token (without effect)
  /// @param ranks all ranks, >= 1 (without effect)
  /// @returns places per expert
  /// @throws contract_violation (level 1) on a bad size or a negative factor
  /// @complexity O(1)
  [[nodiscard]] constexpr index_t places(index_t tokens, index_t experts, index_t fan_out, index_t ranks) const {
    detail::expect_capacity_sizes(tokens, experts, fan_out, ranks);
    FAIRLEAD_EXPECTS(factor >= 0.0, "a capacity factor must not be negative", factor);
    return detail::whole_places(static_cast<double>(tokens) * factor);
  }
};
static_assert(capacity_policy<stable_capacity>);

/// @brief Take a number of copies that the user states.
/// @tparam Scope whose copies compete for the places; not `none` (that is `dropless`)
template <capacity_scope Scope = capacity_scope::rank>
  requires(Scope != capacity_scope::none)
struct fixed_capacity {
  static constexpr capacity_scope scope = Scope;  ///< whose copies compete for the places
  index_t count = 0;                              ///< places per expert, >= 0; larger than the tokens is legal
  /// @returns `count`
  /// @throws contract_violation (level 1) on a negative count
  /// @complexity O(1)
  [[nodiscard]] constexpr index_t places(index_t /*tokens*/, index_t /*experts*/, index_t /*fan_out*/,
                                         index_t /*ranks*/) const {
    FAIRLEAD_EXPECTS(count >= 0, "a capacity must not be negative", count);
    return count;
  }
};
static_assert(capacity_policy<fixed_capacity<>>);

FAIRLEAD_NAMESPACE_END
