// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Slot routers that are nothing but keys: each token goes to the K servers with the largest ones.
#include <fairlead/edge/detail/select_servers.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Keys differ from token to token: `key(token, server)`.
struct token_keys {
  /// Route the tokens by `key`.
  template <tie_break Ties, class Key>
  static void route(slot_view const& view, Ties const& ties, Key const& key, matrix_view<expert_id> choice,
                    std::span<index_t> counts, workspace& ws) {
    detail::route_by_keys(view, ties, key, choice, counts, ws);
  }
};
/// @brief All tokens of a slot have the same keys: `key(server)`. Only ties tell them apart.
struct server_keys {
  /// Route the tokens by `key`.
  template <tie_break Ties, class Key>
  static void route(slot_view const& view, Ties const& ties, Key const& key, matrix_view<expert_id> choice,
                    std::span<index_t> counts, workspace& ws) {
    detail::route_by_server_keys(view, ties, key, choice, counts, ws);
  }
};
/// @brief One token after the other: `key(server, copies sent to it in this slot so far)`.
struct running_keys {
  /// Route the tokens by `key`.
  template <tie_break Ties, class Key>
  static void route(slot_view const& view, Ties const& ties, Key const& key, matrix_view<expert_id> choice,
                    std::span<index_t> counts, workspace& ws) {
    workspace::scope const scope(ws);
    auto const best = ws.take<double>(view.fan_out);
    std::fill(counts.begin(), counts.end(), index_t{0});
    for (index_t t = 0; t < view.tokens(); ++t) {
      detail::select_servers(view, t, ties, [&](index_t j) { return key(j, counts[static_cast<std::size_t>(j)]); }, best,
                             choice.row(t));
      detail::add_counts(choice.row(t), view.fan_out, counts);
    }
  }
};

/// @brief Makes a `slot_router` of a rule that derives from it and only says what its keys are.
///
/// ```cpp
/// struct fastest_first : fairlead::keyed_router<fastest_first, fairlead::server_keys> {
///   template <fairlead::energy_model Model>
///   auto keys(fairlead::slot_view const&, Model const& servers, std::span<double>) const {
///     return [&servers](fairlead::index_t server) { return servers.cap(server); };
///   }
/// };
/// ```
/// `rule.keys(view, servers, numbers)` is asked once a slot and returns a function object, which may keep references to its
/// arguments; `numbers` is one double a server, for what is worth computing once.
/// @tparam Rule the class that derives
/// @tparam Keys what the function object takes: `token_keys`, `server_keys` or `running_keys`
template <class Rule, class Keys>
struct keyed_router {
  /// @param servers number of servers
  /// @param fan_out servers a token
  /// @returns scratch bytes of `route`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t, index_t servers, index_t fan_out) const noexcept {
    return fairlead::workspace_bytes<double>(servers) + fairlead::workspace_bytes<double>(fan_out);
  }
  /// @brief Choose servers.
  /// @param view scores and state
  /// @param servers the energy model
  /// @param ties who wins with equal keys
  /// @param[out] choice @shape{tokens x fan_out}, best first
  /// @param[out] counts copies a server. @shape{servers}
  /// @param ws at least `workspace_bytes(tokens, servers, fan_out)`
  /// @throws contract_violation (level 1) on wrong shapes, fan_out or weights; (level 2) on scores that are not finite
  template <energy_model Model, tie_break Ties>
  void route(slot_view const& view, Model const& servers, Ties const& ties, matrix_view<expert_id> choice,
             std::span<index_t> counts, workspace& ws) const {
    detail::check_slot(view, servers.servers(), choice, counts);
    workspace::scope const scope(ws);
    auto const numbers = ws.take<double>(view.servers());
    Keys::route(view, ties, static_cast<Rule const&>(*this).keys(view, servers, numbers), choice, counts, ws);
  }
};

FAIRLEAD_NAMESPACE_END
