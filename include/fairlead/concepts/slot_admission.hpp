// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of a rule for how many tokens of a time slot are let in.
#include <fairlead/core/ids.hpp>

#include <concepts>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief What an admission policy knows.
struct slot_offer {
  index_t arrivals = 0;        ///< tokens that arrived in this slot
  index_t fan_out = 1;         ///< copies that a token makes
  index_t waiting_copies = 0;  ///< copies in all queues
  index_t waiting_tokens = 0;  ///< tokens of which a copy waits
  index_t room = 0;            ///< tokens for which the state still has room
};

/// @brief Lets tokens into a slot, the first ones of the arrivals; the others are dropped and reported.
///
/// Required of a model `admission`: `admission.admit(offer)`: how many tokens are let in, 0 to `offer.arrivals`.
template <class Admission>
concept slot_admission = requires(Admission const& admission, slot_offer const& offer) {
  { admission.admit(offer) } -> std::convertible_to<index_t>;
};

FAIRLEAD_NAMESPACE_END
