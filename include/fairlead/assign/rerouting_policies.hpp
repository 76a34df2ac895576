// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The choices of a rerouting planner: when a rank is overloaded, when to reroute at all, and who takes what.
#include <fairlead/assign/detail/ratio.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Says above how many copies a rank is overloaded.
///
/// Required of a model `rule`: `rule.of(total, ranks)` with total >= 0 copies on ranks >= 1 gives at least 1. Integers
/// only: every rank has to find the same number.
template <class Rule>
concept rerouting_capacity = requires(Rule const& rule, index_t total, index_t ranks) {
  { rule.of(total, ranks) } -> std::same_as<index_t>;
};

/// @brief Says whether to reroute at all.
///
/// Required of a model `gate`: `gate.open(native_load, totals, hosting, total)` where `native_load` @shape{ranks} are the
/// copies of each rank without rerouting, `totals` @shape{experts}, `hosting` the number of ranks with slots and `total` > 0
/// the number of copies.
template <class Gate>
concept rerouting_gate = requires(Gate const& gate, std::span<index_t const> loads, index_t hosting, index_t total) {
  { gate.open(loads, loads, hosting, total) } -> std::same_as<bool>;
};

/// @brief A ratio times the mean load of a rank, rounded up: with a ratio of 1 all copies fit.
/// @source{2601.17111, algorithm 2; this library rounds up where the released code rounds down}
struct ceil_capacity {
  index_t numerator = 1;    ///< of the ratio, >= denominator
  index_t denominator = 1;  ///< of the ratio, >= 1
  /// @param total copies
  /// @param ranks ranks that share them, >= 1
  /// @returns max(1, ceil(numerator total / (denominator ranks)))
  [[nodiscard]] index_t of(index_t total, index_t ranks) const {
    FAIRLEAD_EXPECTS(denominator >= 1 && numerator >= denominator, "a capacity ratio is at least 1", numerator, denominator);
    return std::max<index_t>(detail::ceil_ratio(numerator, total, denominator, ranks), 1);
  }
};
static_assert(rerouting_capacity<ceil_capacity>);

/// @brief The capacity of the released code: the mean is rounded down first. For comparison.
///
/// When the ranks do not divide the copies, a ratio of 1 leaves up to ranks - 1 copies without a place, and each costs the
/// transfer of a whole expert.
/// @source{LeastLoadedEP, planner}
struct floor_capacity {
  index_t numerator = 1;    ///< of the ratio, >= denominator
  index_t denominator = 1;  ///< of the ratio, >= 1
  /// @param total copies
  /// @param ranks ranks that share them, >= 1
  /// @returns max(1, floor(numerator floor(total / ranks) / denominator)); max(1, total) if there are fewer copies than ranks
  [[nodiscard]] index_t of(index_t total, index_t ranks) const {
    FAIRLEAD_EXPECTS(denominator >= 1 && numerator >= denominator, "a capacity ratio is at least 1", numerator, denominator);
    index_t const mean = total / ranks;
    return std::max<index_t>(mean > 0 ? detail::floor_ratio(numerator, mean, denominator) : total, 1);
  }
};
static_assert(rerouting_capacity<floor_capacity>);

/// @brief Reroute every time.
struct always_reroute {
  /// @returns true
  [[nodiscard]] constexpr bool open(std::span<index_t const>, std::span<index_t const>, index_t, index_t) const noexcept {
    return true;
  }
};
static_assert(rerouting_gate<always_reroute>);

/// @brief Reroute when the busiest rank has at least a ratio times the mean of the ranks.
/// @source{2601.17111, section 4: lambda = 1.3; its algorithm 4 prints the ratio over experts, its code and figure 7 use ranks}
struct rank_ratio {
  index_t numerator = 13;    ///< of the ratio, >= 0
  index_t denominator = 10;  ///< of the ratio, >= 1
  /// @param native_load copies of each rank. @shape{ranks}
  /// @param hosting ranks with slots
  /// @param total copies
  /// @returns max(native_load) hosting >= ratio total
  [[nodiscard]] bool open(std::span<index_t const> native_load, std::span<index_t const>, index_t hosting, index_t total) const {
    return detail::at_least(*std::max_element(native_load.begin(), native_load.end()), hosting, numerator, denominator, total);
  }
};
static_assert(rerouting_gate<rank_ratio>);

/// @brief Reroute when the busiest expert has at least a ratio times the mean of the experts.
/// @source{2601.17111, algorithm 4 as printed}
struct expert_ratio {
  index_t numerator = 13;    ///< of the ratio, >= 0
  index_t denominator = 10;  ///< of the ratio, >= 1
  /// @param totals copies of each expert. @shape{experts}
  /// @param total copies
  /// @returns max(totals) experts >= ratio total
  [[nodiscard]] bool open(std::span<index_t const>, std::span<index_t const> totals, index_t, index_t total) const {
    return detail::at_least(*std::max_element(totals.begin(), totals.end()), static_cast<index_t>(totals.size()), numerator,
                            denominator, total);
  }
};
static_assert(rerouting_gate<expert_ratio>);

/// @brief What becomes of a last remainder smaller than the least chunk.
enum class tail_rule {
  spill,               ///< it leaves if it fits somewhere, as the published algorithm does
  absorb_native,       ///< it stays with the expert, whose rank may exceed the capacity; what the paper's text says
  absorb_least_excess  ///< it goes to the least loaded rank that has the weights anyway; this library's choice
};

/// @brief Which rank with room takes a piece.
enum class recipient_order {
  by_load,            ///< the least loaded; ties: the lowest rank
  by_load_then_node,  ///< the least loaded; ties: one on the expert's node, then the lowest rank
  by_node_then_load   ///< the least loaded on the expert's node, then of the others; the authors only suggest it
};

/// @brief Who takes a remainder that no rank has room for.
enum class forced_rule {
  least_loaded_other,  ///< the least loaded of the other ranks, as published
  least_loaded_any     ///< the least loaded of all ranks: the expert's own needs no transfer
};

/// @brief When the ranks are put in order again while an expert is given away.
enum class recipient_scan {
  every_chunk,  ///< after every piece, as the paper prints it
  one_list      ///< once for an expert that leaves entirely, as the released code does; for comparison
};

/// @brief Which copies of an expert go to which of its ranks.
enum class position_order {
  source_rank_order,     ///< by source rank: low ranks' copies fill the first segment, as published
  recipient_local_first  ///< a rank that computes the expert keeps its own copies first: fewer rows travel, equal loads
};

FAIRLEAD_NAMESPACE_END
