// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Counts that follow the load, and the best of many random ways to lay them out.
#include <fairlead/concepts/apportionment.hpp>
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/planner.hpp>
#include <fairlead/place/density_score.hpp>
#include <fairlead/place/detail/row_packing.hpp>
#include <fairlead/place/greedy_max_replicas.hpp>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Where the replicas of an expert may sit inside their ranks.
enum class slot_rule {
  any_slot,        ///< anywhere: gradients of replicas must be added up in an order of experts
  same_local_slot  ///< all in the same local slot, which an order of local slots needs; some counts cannot be laid out so
};

/// @brief Draw random placements for counts that follow the load, and keep the one that confines the least load.
///
/// The counts come from `Apportionment`; an expert gets at most one replica a rank, since a second one on the same rank
/// gives a scheduler nothing, and what is over goes to the next experts in need. Draw t then
/// - `any_slot`: deals the experts, in random order, onto the ranks with the most free slots, ties at random;
/// - `same_local_slot`: packs the experts into rows of local slots, each row a partition of its ranks, and shuffles the
///   ranks of each row and experts of equal count.
///
/// The best table is the one whose densest set of ranks (`Score`) is least dense: the optimal largest load of a rank when
/// copies may be split freely. The search ends when the value reaches the bound, or after `draws`. The paper does not give a number of draws, nor say what happens when
/// counts cannot be packed into rows.
/// @tparam Apportionment the counts: an `apportionment`
/// @tparam Score how a placement is judged: a `density_score`
/// @tparam Rule where replicas may sit
/// @source{2511.16947, asymmetric placement}
template <apportionment Apportionment = greedy_max_replicas, density_score Score = flow_score, slot_rule Rule = slot_rule::any_slot>
struct monte_carlo_placement {
  Apportionment counts{};       ///< decides the numbers of replicas
  Score score{};                ///< judges a placement
  index_t draws = 256;          ///< placements to draw at the most, >= 1
  std::uint64_t seed = 0;       ///< of the draws
  index_t packing_tries = 100000;  ///< steps of the search for a packing into rows

  /// What a second replica is for.
  static constexpr replica_meaning meaning = replica_meaning::host;

  /// @brief Place the experts for a load.
  /// @param cluster the cluster, ragged or not
  /// @param load the loads; only `totals` are looked at
  /// @param now not looked at
  /// @param[out] next expert of each slot. @shape{cluster.slots()}
  /// @param ws scratch, see `workspace_bytes`
  /// @returns `value`: density of the densest set of ranks; `bound`: the mean load of a hosting rank or the largest
  ///          load / replicas, a lower bound for these counts (both rounded up if the score rounds up); `ok` if they are equal, else `iteration_limit`; `iterations`:
  ///          draws. With all slots none: `infeasible` if there are fewer slots than experts, or no packing into rows was
  ///          found; `unsupported` if the score cannot judge so many ranks
  /// @throws contract_violation (level 1) on a shape mismatch or without a draw
  /// @complexity draws x (slots + experts x ranks, and the score), no allocation
  /// @determinism exact for equal seeds
  report plan(topology const& cluster, load_estimate const& load, std::span<expert_id const> now, std::span<expert_id> next,
              workspace& ws) const {
    (void)now;
    FAIRLEAD_EXPECTS(static_cast<index_t>(next.size()) == cluster.slots(), "one entry a slot of the cluster", next.size(), cluster.slots());
    FAIRLEAD_EXPECTS(draws >= 1, "a search needs a draw", draws);
    workspace::scope const scope(ws);
    auto const experts = static_cast<index_t>(load.totals.size());
    std::fill(next.begin(), next.end(), expert_id::none);
    if (experts == 0) { return {}; }
    std::span<index_t> const replicas = ws.take<index_t>(experts);
    report const counted = counts.apportion(load.totals, cluster.slots(), detail::nodes_with_slots(cluster), replicas, ws);
    if (counted.status == status::infeasible) { return {.status = status::infeasible}; }
    level_off(load.totals, cluster.hosting_ranks(), replicas);

    std::span<std::int32_t> const order = ws.take<std::int32_t>(experts);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&replicas](std::int32_t a, std::int32_t b) {
      index_t const x = replicas[static_cast<std::size_t>(a)];
      index_t const y = replicas[static_cast<std::size_t>(b)];
      return x != y ? x > y : a < b;
    });
    index_t const rows = detail::most_slots(cluster);
    std::span<index_t> const room = ws.take<index_t>(rows);
    std::span<std::int32_t> const row_of = ws.take<std::int32_t>(experts);
    std::span<std::int32_t> const ranks = ws.take<std::int32_t>(cluster.ranks());
    std::span<std::int32_t> const free = ws.take<std::int32_t>(cluster.ranks());
    std::span<std::int32_t> const taken = ws.take<std::int32_t>(cluster.ranks());
    if constexpr (Rule == slot_rule::same_local_slot) {
      for (index_t row = 0; row < rows; ++row) { room[static_cast<std::size_t>(row)] = detail::ranks_with_row(cluster, row, ranks); }
      index_t tries = packing_tries;
      if (!detail::pack_rows(order, replicas, room, row_of, tries)) { return {.status = status::infeasible}; }
    }

    metrics::density least{.load = 0, .ranks = cluster.hosting_ranks()};
    for (index_t const one : load.totals) { least.load += one; }
    for (std::size_t e = 0; e < replicas.size(); ++e) {
      metrics::density const own{.load = load.totals[e], .ranks = replicas[e]};
      if (metrics::denser(own, least)) { least = own; }
    }
    if constexpr (rounds_up_density<Score>) { least = {.load = least.ceiling(), .ranks = 1}; }
    std::span<expert_id> const drawn = ws.take<expert_id>(cluster.slots());
    std::span<std::int32_t> const mixed = ws.take<std::int32_t>(experts);
    metrics::density best;
    index_t draw = 0;
    while (draw < draws) {
      detail::random_words random(seed, static_cast<std::uint64_t>(draw));
      std::fill(drawn.begin(), drawn.end(), expert_id::none);
      std::copy(order.begin(), order.end(), mixed.begin());
      if constexpr (Rule == slot_rule::same_local_slot) {
        fill_rows(cluster, order, mixed, replicas, row_of, ranks, drawn, random);
      } else {
        random.shuffle(mixed);
        detail::deal_onto_ranks(cluster, mixed, replicas, free, ranks, taken, drawn, random);
      }
      metrics::density const seen = score.evaluate(cluster, drawn, load.totals, draw == 0 ? nullptr : &best, ws);
      if (seen.status != status::ok) {
        std::fill(next.begin(), next.end(), expert_id::none);
        return {.status = seen.status};
      }
      if (draw++ == 0 || metrics::denser(best, seen)) {
        best = seen;
        std::copy(drawn.begin(), drawn.end(), next.begin());
        if (!metrics::denser(best, least)) { break; }
      }
    }
    bool const reached = !metrics::denser(best, least);
    return {.status = reached ? status::ok : status::iteration_limit, .iterations = draw, .value = best.value(), .bound = least.value()};
  }

  /// @brief Scratch of `plan`.
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return fairlead::workspace_bytes<index_t>(experts) + 3 * fairlead::workspace_bytes<std::int32_t>(experts) +
           fairlead::workspace_bytes<index_t>(detail::most_slots(cluster)) + 3 * fairlead::workspace_bytes<std::int32_t>(cluster.ranks()) +
           fairlead::workspace_bytes<expert_id>(cluster.slots()) + counts.workspace_bytes(experts, cluster.slots()) +
           score.workspace_bytes(cluster, experts);
  }

 private:
  /// At most one replica a rank; what that frees goes one by one to the expert with the most load a replica that has room.
  static void level_off(std::span<index_t const> totals, index_t ranks, std::span<index_t> replicas) {
    index_t over = 0;
    for (index_t& count : replicas) {
      over += std::max<index_t>(count - ranks, 0);
      count = std::min(count, ranks);
    }
    for (; over > 0; --over) {
      std::size_t best = replicas.size();
      for (std::size_t e = 0; e < replicas.size(); ++e) {
        if (replicas[e] >= ranks) { continue; }
        if (best == replicas.size() || metrics::denser({.load = totals[e], .ranks = replicas[e]}, {.load = totals[best], .ranks = replicas[best]})) {
          best = e;
        }
      }
      if (best == replicas.size()) { return; }
      ++replicas[best];
    }
  }

  /// Experts of equal count change places, then each row hands its shuffled ranks to its experts.
  static void fill_rows(topology const& cluster, std::span<std::int32_t const> order, std::span<std::int32_t> mixed,
                        std::span<index_t const> replicas, std::span<std::int32_t const> row_of, std::span<std::int32_t> ranks,
                        std::span<expert_id> drawn, detail::random_words& random) {
    for (std::size_t first = 0; first < mixed.size();) {
      std::size_t last = first;
      while (last < mixed.size() && replicas[static_cast<std::size_t>(mixed[last])] == replicas[static_cast<std::size_t>(mixed[first])]) { ++last; }
      random.shuffle(mixed.subspan(first, last - first));
      first = last;
    }
    index_t const rows = detail::most_slots(cluster);
    for (index_t row = 0; row < rows; ++row) {
      auto const count = static_cast<std::size_t>(detail::ranks_with_row(cluster, row, ranks));
      random.shuffle(ranks.first(count));
      std::size_t at = 0;
      for (std::size_t i = 0; i < order.size(); ++i) {
        if (row_of[static_cast<std::size_t>(order[i])] != row) { continue; }
        for (index_t k = 0; k < replicas[static_cast<std::size_t>(order[i])]; ++k) {
          auto const rank = static_cast<std::size_t>(ranks[at++]);
          drawn[static_cast<std::size_t>(cluster.slot_offsets()[rank] + row)] = static_cast<expert_id>(mixed[i]);
        }
      }
    }
  }
};
static_assert(load_planner<monte_carlo_placement<>>);
/// Every row is a partition of its ranks.
template <class Apportionment, class Score>
inline constexpr bool replicas_share_local_slot<monte_carlo_placement<Apportionment, Score, slot_rule::same_local_slot>> = true;

FAIRLEAD_NAMESPACE_END
