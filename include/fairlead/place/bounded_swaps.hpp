// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Improve the table in use by a bounded number of swaps, each the one that helps the busiest rank most.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/planner.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/place/detail/share_loads.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief At most `max_swaps` changes a plan, so that moving weights stays cheap and predictable.
///
/// A change is a swap of a slot of the busiest rank with a slot of another rank (two fetches), or gives one slot to
/// another expert (one fetch): an expert of the busiest rank gets a further replica elsewhere, or one of its replicas
/// there makes place. Of all of them the one is taken that leaves the smallest largest load, then the fewest ranks at
/// it, then swaps before gifts, then the lowest slots. Every expert keeps a replica and no change puts an expert twice
/// on a rank. It ends when no change helps or at the cap. Loads are those of equal shares.
///
/// A table in use that is empty or has lost an expert is replaced by an even one first, which is not bounded. The
/// original is known from its public description only; candidates and tie rules are this library's choice.
/// @source{vLLM, bounded swaps of its load balancer (SwiftBalancer)}
struct bounded_swaps {
  /// How a scheduler has to read the replicas.
  static constexpr replica_meaning meaning = replica_meaning::equal_share;

  index_t max_swaps = 4;  ///< changes a plan, >= 0: at most twice as many experts are fetched

  /// @brief Scratch that `plan` needs.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return detail::share_loads::bytes(cluster, experts) + detail::distinct_pack_bytes(cluster, experts);
  }

  /// @brief Improve the table in use.
  /// @param cluster the cluster
  /// @param load totals are looked at
  /// @param now the table in use, or empty. @shape{cluster.slots()}
  /// @param[out] next the new table. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns `value` the largest load of a rank with equal shares, `bound` the mean, `iterations` the changes made; ok
  /// when the mean is reached, iteration_limit at the cap, no_improvement if a further change does not help
  /// @throws contract_violation (level 1) on a shape mismatch, a negative cap or a small workspace
  /// @complexity O(max_swaps x slots of a rank x slots x (ranks + replicas of two experts)), no allocation
  /// @determinism exact integers (shares rounded down to 1/1024 copy): equal on every rank
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now,
              std::span<expert_id> next, workspace& ws) const {
    detail::check_plan_arguments(cluster, load, now, next);
    FAIRLEAD_EXPECTS(max_swaps >= 0, "bounded_swaps: the number of swaps must not be negative", max_swaps);
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(load.totals.size());
    std::fill(next.begin(), next.end(), expert_id::none);
    if (experts > cluster.slots()) { return {.status = status::infeasible}; }
    if (experts == 0) { return {}; }
    detail::share_loads state(cluster, load.totals, ws);
    if (detail::is_whole_table(cluster, now, state.replicas)) {
      std::copy(now.begin(), now.end(), next.begin());
    } else {
      detail::even_table(cluster, load.totals, state.replicas, next, ws);
    }
    state.measure(load.totals, next);
    report result{.status = status::iteration_limit, .bound = detail::mean_rank_load(cluster, load.totals)};
    auto const mean = static_cast<index_t>(result.bound * static_cast<double>(state.fraction));
    for (; result.iterations < max_swaps; ++result.iterations) {
      if (state.largest() <= mean) {
        result.status = status::ok;
        break;
      }
      change const best = find(cluster, load.totals, next, state);
      if (best.first < 0) {
        result.status = status::no_improvement;
        break;
      }
      next[static_cast<std::size_t>(best.first)] = best.first_new;
      next[static_cast<std::size_t>(best.second)] = best.second_new;
      state.measure(load.totals, next);
    }
    result.value = detail::largest_share_load(cluster, load.totals, next, state.replicas);
    return result;
  }

 private:
  struct change {
    index_t first = -1;  // slot on the busiest rank
    index_t second = -1;
    expert_id first_new = expert_id::none;
    expert_id second_new = expert_id::none;
  };

  struct score {
    index_t largest;
    index_t ranks;  // at that load
    bool operator<(score const& other) const {
      return largest != other.largest ? largest < other.largest : ranks < other.ranks;
    }
  };

  static score measure(std::span<index_t const> rank_load) {
    score result{0, 0};
    for (index_t const load : rank_load) {
      if (load > result.largest) { result = {load, 0}; }
      result.ranks += load == result.largest ? 1 : 0;
    }
    return result;
  }

  // Rank loads if `expert` had `delta` more replicas; the caller adds or removes the replica itself.
  static void rescale(std::span<index_t const> load, std::span<expert_id const> slots, detail::share_loads& state,
                      expert_id expert, std::int32_t delta) {
    if (expert == expert_id::none) { return; }
    auto const e = static_cast<std::size_t>(expert);
    index_t const by = state.share(load[e], state.replicas[e] + delta) -
                       state.share(load[e], state.replicas[e]);
    for (std::size_t slot = 0; slot < slots.size(); ++slot) {
      if (slots[slot] == expert) { state.rank_load[static_cast<std::size_t>(state.rank_of[slot])] += by; }
    }
    state.replicas[e] += delta;
  }

  // What the loads become when `slot` gets `becomes` in place of what it holds; undone by the caller with the same
  // call.
  static void give(std::span<index_t const> load, std::span<expert_id> slots, detail::share_loads& state,
                   std::size_t slot, expert_id becomes) {
    expert_id const was = slots[slot];
    auto const rank = static_cast<std::size_t>(state.rank_of[slot]);
    if (was != expert_id::none) {
      auto const e = static_cast<std::size_t>(was);
      state.rank_load[rank] -= state.share(load[e], state.replicas[e]);
      slots[slot] = expert_id::none;
      rescale(load, slots, state, was, -1);
    }
    if (becomes != expert_id::none) {
      auto const e = static_cast<std::size_t>(becomes);
      rescale(load, slots, state, becomes, 1);
      slots[slot] = becomes;
      state.rank_load[rank] += state.share(load[e], state.replicas[e]);
    }
  }

  static change find(topology const& cluster, std::span<index_t const> load, std::span<expert_id> slots,
                     detail::share_loads& state) {
    auto const busiest = std::max_element(state.rank_load.begin(), state.rank_load.end()) - state.rank_load.begin();
    auto const rank = static_cast<std::size_t>(busiest);
    score best = measure(state.rank_load);
    change found;
    auto const take = [&](change const& candidate) {
      score const now = measure(state.rank_load);
      if (now < best) { best = now, found = candidate; }
    };
    auto const first = cluster.slot_offsets()[rank];
    auto const last = cluster.slot_offsets()[rank + 1];
    for (index_t mine = first; mine < last; ++mine) {
      auto const a = static_cast<std::size_t>(mine);
      expert_id const x = slots[a];
      if (x == expert_id::none) { continue; }
      index_t const share_x =
          state.share(load[static_cast<std::size_t>(x)], state.replicas[static_cast<std::size_t>(x)]);
      for (std::size_t b = 0; b < slots.size(); ++b) {
        expert_id const y = slots[b];
        auto const there = static_cast<std::size_t>(state.rank_of[b]);
        if (there == rank || x == y) { continue; }
        bool const x_fits = !detail::hosts_expert(cluster, slots, state.rank_of[b], x);
        bool const y_fits = y == expert_id::none || !detail::hosts_expert(cluster, slots, busiest, y);
        if (x_fits && y_fits) {  // numbers of replicas stay: only two ranks change
          index_t const share_y = y == expert_id::none
                                      ? 0
                                      : state.share(load[static_cast<std::size_t>(y)],
                                                                   state.replicas[static_cast<std::size_t>(y)]);
          state.rank_load[rank] += share_y - share_x;
          state.rank_load[there] += share_x - share_y;
          take({mine, static_cast<index_t>(b), y, x});
          state.rank_load[rank] -= share_y - share_x;
          state.rank_load[there] -= share_x - share_y;
        }
      }
    }
    for (index_t mine = first; mine < last; ++mine) {
      auto const a = static_cast<std::size_t>(mine);
      expert_id const x = slots[a];
      if (x == expert_id::none) { continue; }
      for (std::size_t b = 0; b < slots.size(); ++b) {
        expert_id const y = slots[b];
        if (state.rank_of[b] == busiest || x == y) { continue; }
        if (!detail::hosts_expert(cluster, slots, state.rank_of[b], x) &&
            (y == expert_id::none || state.replicas[static_cast<std::size_t>(y)] > 1)) {
          give(load, slots, state, b, x);
          take({mine, static_cast<index_t>(b), x, x});
          give(load, slots, state, b, y);
        }
        if (y != expert_id::none && state.replicas[static_cast<std::size_t>(x)] > 1 &&
            !detail::hosts_expert(cluster, slots, busiest, y)) {
          give(load, slots, state, a, y);
          take({mine, static_cast<index_t>(b), y, y});
          give(load, slots, state, a, x);
        }
      }
    }
    return found;
  }
};
static_assert(load_planner<bounded_swaps>);
/// Starts from the table in use, and keeps it when nothing better is found.
template <>
inline constexpr bool incremental<bounded_swaps> = true;
/// It bounds what a new table moves.
template <>
inline constexpr bool budgets_moves<bounded_swaps> = true;

FAIRLEAD_NAMESPACE_END
