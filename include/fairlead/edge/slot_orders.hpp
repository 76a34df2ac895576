// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Whether copies can be served in the slot of their arrival, and which tokens of a slot are let in.
#include <fairlead/concepts/slot_admission.hpp>
#include <fairlead/core/contract.hpp>

#include <algorithm>
#include <concepts>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Says whether a copy may be served in the slot of its arrival, at compile time: `Order::serves_arrivals`.
template <class Order>
concept slot_order = requires {
  { Order::serves_arrivals } -> std::convertible_to<bool>;
};

/// @brief Arrivals first, then service: Q' = Q + A - d with d <= Q + A. The paper does not say which; this is the default.
struct serve_same_slot {
  /// Whether a copy may be served in the slot of its arrival.
  static constexpr bool serves_arrivals = true;
};
/// @brief Service first, then arrivals: Q' = Q - d + A with d <= Q.
struct serve_next_slot {
  /// Whether a copy may be served in the slot of its arrival.
  static constexpr bool serves_arrivals = false;
};
static_assert(slot_order<serve_same_slot> && slot_order<serve_next_slot>);

/// @brief Let every token in. Beyond the stability region queues then grow without bound.
/// @source{2512.06784, every token gets its servers}
struct accept_all {
  /// @param offer what arrived
  /// @returns all arrivals
  [[nodiscard]] constexpr index_t admit(slot_offer const& offer) const noexcept { return offer.arrivals; }
};
static_assert(slot_admission<accept_all>);

/// @brief Let tokens in while all queues together hold no more copies than a bound; the later ones of a slot are dropped.
///
/// This library's addition, never on by itself; what is dropped is in the slot's report.
struct bounded_backlog {
  index_t max_copies = 0;  ///< most copies in all queues, counted before service, >= 0

  /// @param offer what arrived and what waits
  /// @returns how many tokens are let in; as many as the state has room for, at most
  /// @throws contract_violation (level 1) if the bound is negative
  [[nodiscard]] constexpr index_t admit(slot_offer const& offer) const {
    FAIRLEAD_EXPECTS(max_copies >= 0, "the bound on waiting copies must not be negative", max_copies);
    index_t const free_copies = std::max<index_t>(max_copies - offer.waiting_copies, 0);
    return std::min({offer.arrivals, free_copies / offer.fan_out, offer.room});
  }
};
static_assert(slot_admission<bounded_backlog>);

FAIRLEAD_NAMESPACE_END
