// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What happens to a copy that finds no place at its expert.
#include <fairlead/core/exchange_plan.hpp>
#include <fairlead/core/ids.hpp>

#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Says what becomes of overflow copies.
///
/// - `keeps_own_row`: the copy returns its own token, times its weight, instead of an expert's output;
/// - `renormalises`: the weights of the surviving copies of a token are divided by their sum;
/// - `reassigns`: the copy may go to another expert; decided on each source rank before loads are exchanged, so the
///   capacity must be of scope rank or none. Such a policy has `reassign(...)`, called once a rank with the copies in service
///   order.
template <class Overflow>
concept overflow_policy = requires {
  { Overflow::keeps_own_row } -> std::convertible_to<bool>;
  { Overflow::renormalises } -> std::convertible_to<bool>;
  { Overflow::reassigns } -> std::convertible_to<bool>;
};

/// @brief Drop overflow copies: weight 0, the residual connection around the layer carries the token (GShard, Switch).
struct drop {
  static constexpr bool keeps_own_row = false;  ///< contributes nothing
  static constexpr bool renormalises = false;   ///< the other weights stay as the router made them
  static constexpr bool reassigns = false;      ///< never changes the expert
};
static_assert(overflow_policy<drop>);

/// @brief Drop overflow copies and divide the weights of the survivors by their sum (DeepSpeed top-2).
struct drop_and_renormalise {
  static constexpr bool keeps_own_row = false;  ///< contributes nothing
  static constexpr bool renormalises = true;    ///< survivors sum to 1
  static constexpr bool reassigns = false;      ///< never changes the expert
};
static_assert(overflow_policy<drop_and_renormalise>);

/// @brief Let overflow copies return their own token (StableMoE: the slot is the identity function).
struct identity {
  static constexpr bool keeps_own_row = true;  ///< contributes weight x token
  static constexpr bool renormalises = false;  ///< weights stay
  static constexpr bool reassigns = false;     ///< never changes the expert
};
static_assert(overflow_policy<identity>);

/// @brief Read the fan_out choices as a preference list and serve each token by the first `served` that have room.
///
/// "No token left behind": all first choices are tried before any second one. The weight is that of the choice taken,
/// not renormalised. Choices that are not needed are left out; a plan does not count them as dropped, but a
/// `step_report`, which sees only what routers wrote and experts computed, does.
/// @source{mesh-TensorFlow, ntlb_top_2 routing}
struct next_choice {
  static constexpr bool keeps_own_row = false;  ///< an unserved token contributes nothing
  static constexpr bool renormalises = false;   ///< weights stay
  static constexpr bool reassigns = true;       ///< decided on the source rank
  index_t served = 1;                           ///< experts wanted for a token, 1 <= served <= fan_out

  /// @brief Decide which copies are served.
  /// @param fan_out choices a token
  /// @param places capacity per expert
  /// @param sequence copies in service order; order inside a choice is taken from it. @shape{tokens x fan_out}
  /// @param allowed one byte an expert, zero = never chosen; empty = all allowed. @shape{experts or 0}
  /// @param[in,out] chosen expert of each copy, none where not served. @shape{tokens x fan_out}
  /// @param[in,out] counts scratch, copies per expert; zero at the start. @shape{experts}
  /// @returns experts wanted and not found: for each token `served`, or as many as it has choices, less those served
  /// @complexity O(tokens x fan_out^2), no allocation
  index_t reassign(index_t fan_out, index_t places, std::span<std::int32_t const> sequence,
                   [[maybe_unused]] std::span<std::uint8_t const> allowed, std::span<expert_id> chosen, std::span<count_t> counts) const {
    FAIRLEAD_EXPECTS(served >= 1 && served <= fan_out, "next_choice serves between 1 and fan_out experts", served, fan_out);
    index_t wanted = 0;
    for (index_t choice = 0; choice < fan_out; ++choice) {
      for (std::int32_t const copy : sequence) {
        if (copy % fan_out != choice) { continue; }
        auto const first = static_cast<std::size_t>(copy - choice);
        expert_id& expert = chosen[static_cast<std::size_t>(copy)];
        index_t already = 0;  // earlier choices of this token still standing were served
        for (index_t j = 0; j < choice; ++j) { already += chosen[first + static_cast<std::size_t>(j)] != expert_id::none ? 1 : 0; }
        if (choice == 0) { wanted += wanted_by(chosen.subspan(first, static_cast<std::size_t>(fan_out))); }
        if (expert == expert_id::none) { continue; }
        if (already < served && counts[static_cast<std::size_t>(expert)] < places) {
          ++counts[static_cast<std::size_t>(expert)];
          --wanted;
        } else {
          expert = expert_id::none;
        }
      }
    }
    return wanted;
  }

 private:
  [[nodiscard]] index_t wanted_by(std::span<expert_id const> choices) const noexcept {
    index_t count = 0;
    for (expert_id const expert : choices) { count += expert != expert_id::none ? 1 : 0; }
    return count < served ? count : served;
  }
};
static_assert(overflow_policy<next_choice>);

/// @brief Send overflow copies to the least loaded expert that has room and that the token does not use yet.
///
/// The weight stays. Ties: lower expert. Copies are placed first where they want to be, then the overflow in service order.
struct reroute {
  static constexpr bool keeps_own_row = false;  ///< contributes nothing if there is no room anywhere
  static constexpr bool renormalises = false;   ///< weights stay
  static constexpr bool reassigns = true;       ///< decided on the source rank

  /// @brief Move overflow copies.
  /// @param fan_out choices a token
  /// @param places capacity per expert
  /// @param sequence copies in service order. @shape{tokens x fan_out}
  /// @param allowed one byte an expert, zero = never chosen; empty = all allowed. @shape{experts or 0}
  /// @param[in,out] chosen expert of each copy, none where no room was left. @shape{tokens x fan_out}
  /// @param[in,out] counts scratch, copies per expert; zero at the start. @shape{experts}
  /// @returns copies that found no expert
  /// @complexity O(tokens x fan_out + overflow x experts x fan_out), no allocation
  index_t reassign(index_t fan_out, index_t places, std::span<std::int32_t const> sequence,
                   std::span<std::uint8_t const> allowed, std::span<expert_id> chosen, std::span<count_t> counts) const {
    for (expert_id const expert : chosen) {
      if (expert != expert_id::none) { ++counts[static_cast<std::size_t>(expert)]; }
    }
    bool overflow = false;
    for (count_t& count : counts) {
      overflow = overflow || count > places;
    }
    if (!overflow) { return 0; }
    for (count_t& count : counts) { count = 0; }
    // First pass: those that fit where they want to be. Overflow is marked by an offset below none.
    for (std::int32_t const copy : sequence) {
      expert_id& expert = chosen[static_cast<std::size_t>(copy)];
      if (expert == expert_id::none) { continue; }
      if (counts[static_cast<std::size_t>(expert)] < places) {
        ++counts[static_cast<std::size_t>(expert)];
      } else {
        expert = static_cast<expert_id>(-2 - static_cast<std::int32_t>(expert));
      }
    }
    index_t lost = 0;
    for (std::int32_t const copy : sequence) {
      expert_id& expert = chosen[static_cast<std::size_t>(copy)];
      if (to_index(expert) >= -1) { continue; }
      std::size_t const first = static_cast<std::size_t>(copy / fan_out * fan_out);
      auto const mine = chosen.subspan(first, static_cast<std::size_t>(fan_out));
      index_t best = -1;
      for (index_t e = 0; e < static_cast<index_t>(counts.size()); ++e) {
        if (counts[static_cast<std::size_t>(e)] >= places) { continue; }
        if (!allowed.empty() && allowed[static_cast<std::size_t>(e)] == 0) { continue; }
        if (best >= 0 && counts[static_cast<std::size_t>(e)] >= counts[static_cast<std::size_t>(best)]) { continue; }
        bool used = false;
        for (expert_id const other : mine) { used = used || to_index(other) == e; }
        if (!used) { best = e; }
      }
      expert = best < 0 ? expert_id::none : static_cast<expert_id>(best);
      if (best < 0) {
        ++lost;
      } else {
        ++counts[static_cast<std::size_t>(best)];
      }
    }
    return lost;
  }
};
static_assert(overflow_policy<reroute>);

FAIRLEAD_NAMESPACE_END
