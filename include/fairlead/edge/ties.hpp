// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Who wins among servers with equal keys: the lowest id, the next in turn, or chance.
#include <fairlead/concepts/slot_router.hpp>
#include <fairlead/core/philox.hpp>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Opt-in statement: ties go to the lowest id whatever token and slot, so that routers need not ask.
template <class Ties>
inline constexpr bool breaks_ties_by_id = false;

/// @brief The lowest id wins. Routers that look at queues alone then send whole slots to the first servers while all are
/// empty.
struct ties_by_id {
  /// @param server the server
  /// @returns its id
  [[nodiscard]] constexpr std::uint32_t rank(slot_view const&, index_t, index_t server) const noexcept {
    return static_cast<std::uint32_t>(server);
  }
};
/// @brief By id, always.
template <>
inline constexpr bool breaks_ties_by_id<ties_by_id> = true;
static_assert(tie_break<ties_by_id>);

/// @brief The servers take turns: the first choice moves on by one with every token.
struct ties_rotating {
  /// @param view counts the tokens of all slots, and the servers
  /// @param token row of the slot
  /// @param server the server
  /// @returns how far the server is behind the one whose turn it is
  [[nodiscard]] constexpr std::uint32_t rank(slot_view const& view, index_t token, index_t server) const noexcept {
    auto const servers = static_cast<std::uint64_t>(view.servers());
    std::uint64_t const turn = (view.first_token + static_cast<std::uint64_t>(token)) % servers;
    return static_cast<std::uint32_t>((static_cast<std::uint64_t>(server) + servers - turn) % servers);
  }
};
static_assert(tie_break<ties_rotating>);

/// @brief Chance decides, repeatably: a random number for each (token, server).
/// @determinism a function of seed, token and server
struct ties_seeded {
  std::uint64_t seed = 1;  ///< seed of the draws, apart from that of the controller

  /// @param view counts the tokens of all slots
  /// @param token row of the slot
  /// @param server the server
  /// @returns random bits
  [[nodiscard]] constexpr std::uint32_t rank(slot_view const& view, index_t token, index_t server) const noexcept {
    return philox::draw(seed, view.first_token + static_cast<std::uint64_t>(token), static_cast<std::uint64_t>(server))[0];
  }
};
static_assert(tie_break<ties_seeded>);

FAIRLEAD_NAMESPACE_END
