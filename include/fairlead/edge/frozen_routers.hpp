// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Slot routers for comparison that look at the slot's beginning: gate alone, chance, queues, energy, back-pressure.
#include <fairlead/core/philox.hpp>
#include <fairlead/edge/cubic_energy.hpp>
#include <fairlead/edge/keyed_router.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief The K largest gate scores, whatever waits. Overloads the servers that the gate likes.
/// @complexity O(tokens x servers x fan_out), no allocation
/// @source{2512.06784, baseline B as summaries report it}
struct score_first : keyed_router<score_first, token_keys> {
  /// @param view scores
  /// @returns the score of a token for a server
  template <energy_model Model>
  [[nodiscard]] auto keys(slot_view const& view, Model const&, std::span<double>) const {
    return [&view](index_t token, index_t server) { return static_cast<double>(view.scores(token, server)); };
  }
};
static_assert(slot_router<score_first, cubic_energy, ties_by_id>);

/// @brief K servers by chance, each set equally likely.
/// @complexity O(tokens x fan_out^2), no allocation
/// @determinism a function of the slot's seed and the token's number
/// @source{2512.06784, baseline A as summaries report it; floyd1987, sampling without replacement}
struct random_servers {
  /// Keeps the draws apart from other uses of the same seed.
  static constexpr std::uint64_t stream = 0x72616E646F6D7376U;

  /// @returns 0
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t, index_t, index_t) const noexcept { return 0; }
  /// See `keyed_router::route`; there are no keys, and so no ties.
  template <energy_model Model, tie_break Ties>
  void route(slot_view const& view, Model const& servers, Ties const&, matrix_view<expert_id> choice,
             std::span<index_t> counts, workspace&) const {
    detail::check_slot(view, servers.servers(), choice, counts);
    std::fill(counts.begin(), counts.end(), index_t{0});
    for (index_t t = 0; t < view.tokens(); ++t) {
      expert_id* const row = choice.row(t);
      std::uint64_t const token = view.first_token + static_cast<std::uint64_t>(t);
      for (index_t k = 0; k < view.fan_out; ++k) {
        // Floyd: draw below a bound that grows by one; a server that is taken already is replaced by the new last one.
        index_t const last = view.servers() - view.fan_out + k;
        std::uint32_t const word = philox::draw(view.seed + stream, token, static_cast<std::uint64_t>(k))[0];
        auto server = static_cast<expert_id>(philox::below(word, static_cast<std::uint32_t>(last + 1)));
        if (std::find(row, row + k, server) != row + k) { server = static_cast<expert_id>(last); }
        row[k] = server;
      }
      detail::add_counts(row, view.fan_out, counts);
    }
  }
};
static_assert(slot_router<random_servers, cubic_energy, ties_by_id>);

/// @brief The K shortest token queues at the slot's beginning: all tokens of a slot choose the same, but for ties.
/// @complexity O(servers x fan_out + tokens x fan_out) with ties by id, else O(tokens x servers x fan_out); no allocation
/// @source{2512.06784, baseline C as summaries report it}
struct queue_first : keyed_router<queue_first, server_keys> {
  /// @param view backlogs
  /// @returns -Q of a server
  template <energy_model Model>
  [[nodiscard]] auto keys(slot_view const& view, Model const&, std::span<double>) const {
    return [&view](index_t server) { return -view.backlog[static_cast<std::size_t>(server)]; };
  }
};
static_assert(slot_router<queue_first, cubic_energy, ties_by_id>);

/// @brief The K shortest virtual energy queues at the slot's beginning.
/// @complexity as `queue_first`
/// @source{2512.06784, baseline D as summaries report it}
struct energy_first : keyed_router<energy_first, server_keys> {
  /// @param view virtual energy queues
  /// @returns -Z of a server
  template <energy_model Model>
  [[nodiscard]] auto keys(slot_view const& view, Model const&, std::span<double>) const {
    return [&view](index_t server) { return -view.energy_debt[static_cast<std::size_t>(server)]; };
  }
};
static_assert(slot_router<energy_first, cubic_energy, ties_by_id>);

/// @brief Back-pressure: the K largest of (copies at the router - Q) times the rate that the server can sustain.
///
/// Servers with more waiting than the router has get tokens only after all others, the shorter queues first. Max-weight for
/// the two-hop network router -> server. Neither the paper nor its summaries have it: this library's choice.
/// @complexity as `queue_first`
/// @source{tassiulas1992, maximum weight policy}
struct max_weight : keyed_router<max_weight, server_keys> {
  /// @param view backlogs
  /// @param servers what they sustain
  /// @param weights where the keys go
  /// @returns the weight of a server
  template <energy_model Model>
  [[nodiscard]] auto keys(slot_view const& view, Model const& servers, std::span<double> weights) const {
    auto const at_router = static_cast<double>(view.tokens() * view.fan_out);
    for (std::size_t j = 0; j < weights.size(); ++j) {
      double const pressure = at_router - view.backlog[j];
      // A rate times a negative pressure would prefer the slow server.
      weights[j] = pressure > 0.0 ? pressure * servers.sustained(static_cast<index_t>(j)) : pressure;
    }
    return [weights](index_t server) { return weights[static_cast<std::size_t>(server)]; };
  }
};
static_assert(slot_router<max_weight, cubic_energy, ties_by_id>);

FAIRLEAD_NAMESPACE_END
