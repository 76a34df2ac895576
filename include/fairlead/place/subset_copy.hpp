// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Copy the experts of the busiest ranks to most ranks, one after another, and keep the best number of them.
#include <fairlead/cluster/bandwidth.hpp>
#include <fairlead/concepts/copy_planner.hpp>
#include <fairlead/place/detail/copy_load.hpp>

#include <algorithm>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Which of the copies tried are kept.
enum class kept_copies {
  best,          ///< those up to the least modelled time, as the paper says
  counted_steps  ///< as the released code: as many as there were improving steps, too few after a step that did not
                 ///< improve
};

/// @brief Lightweight placement: parameters of the busiest rank's heaviest expert go to all ranks but a few, gradients
/// come home, optimizer state never moves.
///
/// Modelled time of s copied experts: 4 R x / B + 3 H / t + the two transfers s (D - n) bytes / (D B), each less what
/// it hides under, where R is the most rows that a rank receives from others, H the most that one computes, D the
/// number of ranks with slots. It stops when the loads of the ranks differ by less than `tolerance` x rows / experts,
/// or the busiest rank has no further expert to copy. Tokens of an expert stay on their rank if it has the expert, else
/// they go to its first replica.
///
/// The paper has one expert a rank; with several this library copies the heaviest of the busiest rank. Messages of the
/// exchange have the size of all rows that the busiest receiver gets, those of transfers the size of an expert: the
/// paper does not say. A kept prefix that is no better than no copies is dropped, also with `counted_steps`.
/// @tparam Bandwidth bandwidth as a function of the message: `flat_bandwidth`, `step_bandwidth`
/// @source{2411.10003, sections IV and V (code: load-balancing/search_algorithm.py)}
template <class Bandwidth = flat_bandwidth>
struct subset_copy {
  Bandwidth network{};                   ///< bandwidth of a rank
  double row_bytes = 0.0;                ///< one row of activations. @unit{B}
  double weight_bytes = 0.0;             ///< weights of an expert. @unit{B}
  double gradient_bytes = 0.0;           ///< gradients of an expert. @unit{B}
  double seconds_per_copy = 0.0;         ///< time to compute a row forward. @unit{s}
  double tolerance = 3.0;                ///< loads this even are left alone, in rows an expert; >= 0
  index_t excluded = 0;                  ///< ranks left out of each copy: those with the fewest tokens for it, >= 0
  double hidden_weights_s = 0.0;         ///< forward time under which weights travel unseen, >= 0. @unit{s}
  double hidden_gradients_s = 0.0;       ///< backward time under which gradients travel unseen, >= 0. @unit{s}
  kept_copies keep = kept_copies::best;  ///< which prefix of the copies tried is kept

  /// @brief Choose the copies of one step or a few.
  /// @param cluster the cluster
  /// @param load `totals` and `by_source`
  /// @param base the resident placement; the first replica of an expert is its home
  /// @param[in,out] out the copies are appended
  /// @param ws scratch
  /// @returns `iterations` = experts copied, `value` = modelled time with, `bound` = without copies;
  ///          `status::no_improvement` if none helps, `status::lost_expert` without copies if an expert with load has
  ///          no replica
  /// @throws contract_violation (level 1) on a shape mismatch, a negative count of excluded ranks, or a full list
  /// @complexity O(E (D + E) + E D excluded) time, O(E + D) scratch, no allocation
  /// @determinism integers and a fixed order of fp64 operations; ties: lowest rank, lowest expert
  report copies(topology const& cluster, load_estimate const& load, placement const& base, copy_list& out,
                workspace& ws) const {
    static_assert(bandwidth_curve<Bandwidth>, "Bandwidth needs bytes_per_s(bytes): see cluster/bandwidth.hpp");
    detail::check_copy_arguments(cluster, load, base, true);
    FAIRLEAD_EXPECTS(excluded >= 0 && tolerance >= 0.0, "neither the excluded ranks nor the tolerance may be negative",
                     excluded, tolerance);
    if (detail::loses_load(load, base)) { return {.status = status::lost_expert}; }
    workspace::scope const undo(ws);
    index_t const ranks = cluster.ranks();
    index_t const experts = base.experts();
    std::span<index_t> const computed = ws.take<index_t>(ranks);
    std::span<index_t> const received = ws.take<index_t>(ranks);
    std::span<std::uint8_t> const tried = ws.take<std::uint8_t>(experts);
    std::span<std::uint8_t> const left_out = ws.take<std::uint8_t>(ranks);
    std::span<index_t> const sizes = ws.take<index_t>(experts + 1);
    std::span<double> const times = ws.take<double>(experts + 1);
    std::fill(tried.begin(), tried.end(), std::uint8_t{0});
    index_t rows = 0;
    for (index_t const total : load.totals) { rows += total; }
    start(load, base, computed, received);

    auto const hosting = static_cast<double>(cluster.hosting_ranks());
    index_t steps = 0;
    index_t kept = 0;
    index_t counted = 0;
    sizes[0] = out.size;
    times[0] = time_of(computed, received, 0, hosting);
    while (steps < experts) {
      index_t busiest = -1;
      index_t least = -1;
      for (index_t rank = 0; rank < ranks; ++rank) {
        if (cluster.slots(rank) == 0) { continue; }
        if (busiest < 0 || computed[static_cast<std::size_t>(rank)] > computed[static_cast<std::size_t>(busiest)]) {
          busiest = rank;
        }
        if (least < 0 || computed[static_cast<std::size_t>(rank)] < computed[static_cast<std::size_t>(least)]) {
          least = rank;
        }
      }
      if (busiest < 0) { break; }
      auto const spread =
          static_cast<double>(computed[static_cast<std::size_t>(busiest)] - computed[static_cast<std::size_t>(least)]);
      if (spread * static_cast<double>(experts) < tolerance * static_cast<double>(rows)) { break; }
      std::int32_t const expert = heaviest_on(busiest, load, base, tried);
      if (expert < 0) { break; }
      tried[static_cast<std::size_t>(expert)] = 1;
      if (!copy_out(cluster, load, base, expert, busiest, computed, received, left_out, out)) { break; }
      ++steps;
      sizes[static_cast<std::size_t>(steps)] = out.size;
      times[static_cast<std::size_t>(steps)] = time_of(computed, received, steps, hosting);
      if (times[static_cast<std::size_t>(steps)] < times[static_cast<std::size_t>(kept)]) {
        kept = steps;
        ++counted;
      }
    }
    if (keep == kept_copies::counted_steps) { kept = counted; }
    if (!(times[static_cast<std::size_t>(kept)] < times[0])) { kept = 0; }
    out.size = sizes[static_cast<std::size_t>(kept)];
    return {.status = kept == 0 ? status::no_improvement : status::ok,
            .iterations = kept,
            .value = times[static_cast<std::size_t>(kept)],
            .bound = times[0]};
  }
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns most copies that it appends
  [[nodiscard]] index_t most_copies(topology const& cluster, index_t experts) const noexcept {
    return experts * cluster.hosting_ranks();
  }
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes of scratch
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    return 2 * fairlead::workspace_bytes<index_t>(cluster.ranks()) +
           fairlead::workspace_bytes<std::uint8_t>(cluster.ranks()) + fairlead::workspace_bytes<std::uint8_t>(experts) +
           fairlead::workspace_bytes<index_t>(experts + 1) + fairlead::workspace_bytes<double>(experts + 1);
  }

 private:
  [[nodiscard]] double time_of(std::span<index_t const> computed, std::span<index_t const> received, index_t copied,
                               double hosting) const {
    index_t most_computed = 0;
    index_t most_received = 0;
    for (index_t const count : computed) { most_computed = std::max(most_computed, count); }
    for (index_t const count : received) { most_received = std::max(most_received, count); }
    double const bytes = static_cast<double>(most_received) * row_bytes;
    double time = 3.0 * seconds_per_copy * static_cast<double>(most_computed);
    if (bytes > 0.0) { time += 4.0 * bytes / network.bytes_per_s(bytes); }
    double const share =
        static_cast<double>(copied) * std::max(hosting - static_cast<double>(excluded), 0.0) / std::max(hosting, 1.0);
    if (copied > 0 && weight_bytes > 0.0) {
      time += std::max(share * weight_bytes / network.bytes_per_s(weight_bytes) - hidden_weights_s, 0.0);
    }
    if (copied > 0 && gradient_bytes > 0.0) {
      time += std::max(share * gradient_bytes / network.bytes_per_s(gradient_bytes) - hidden_gradients_s, 0.0);
    }
    return time;
  }
  static void start(load_estimate const& load, placement const& base, std::span<index_t> computed,
                    std::span<index_t> received) {
    std::fill(computed.begin(), computed.end(), index_t{0});
    std::fill(received.begin(), received.end(), index_t{0});
    for (std::int32_t e = 0; e < base.experts(); ++e) {
      auto const homes = base.replicas(static_cast<expert_id>(e));
      if (homes.empty()) { continue; }
      auto const home = static_cast<std::size_t>(homes.front().rank);
      for (index_t source = 0; source < base.ranks(); ++source) {
        bool const stays = detail::hosts(base, source, e);
        computed[stays ? static_cast<std::size_t>(source) : home] += load.by_source(source, e);
        if (!stays) { received[home] += load.by_source(source, e); }
      }
    }
  }
  [[nodiscard]] static std::int32_t heaviest_on(index_t rank, load_estimate const& load, placement const& base,
                                                std::span<std::uint8_t const> tried) {
    std::int32_t best = -1;
    for (expert_id const expert : base.experts_on(static_cast<rank_id>(rank))) {
      if (expert == expert_id::none || tried[static_cast<std::size_t>(expert)] != 0) { continue; }
      if (to_index(base.replicas(expert).front().rank) != rank) {
        continue;
      }  // its tokens come to its first replica only
      if (best < 0 || detail::heavier{load.totals.data()}(static_cast<std::int32_t>(expert), best)) {
        best = static_cast<std::int32_t>(expert);
      }
    }
    return best;
  }
  // Appends the copies of one expert and moves its tokens; false if no rank is left that could get it.
  [[nodiscard]] bool copy_out(topology const& cluster, load_estimate const& load, placement const& base,
                              std::int32_t expert, index_t home, std::span<index_t> computed,
                              std::span<index_t> received, std::span<std::uint8_t> left_out, copy_list& out) const {
    index_t free = 0;
    for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
      bool const can = cluster.slots(rank) > 0 && !detail::hosts(base, rank, expert);
      left_out[static_cast<std::size_t>(rank)] = can ? 0 : 1;
      free += can ? 1 : 0;
    }
    if (free <= excluded) { return false; }
    for (index_t n = 0; n < excluded; ++n) {
      index_t fewest = -1;
      for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
        if (left_out[static_cast<std::size_t>(rank)] == 0 &&
            (fewest < 0 || load.by_source(rank, expert) < load.by_source(fewest, expert))) {
          fewest = rank;
        }
      }
      left_out[static_cast<std::size_t>(fewest)] = 1;
    }
    for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
      if (left_out[static_cast<std::size_t>(rank)] != 0) { continue; }
      out.add({static_cast<expert_id>(expert), static_cast<rank_id>(rank)});
      index_t const tokens = load.by_source(rank, expert);
      computed[static_cast<std::size_t>(rank)] += tokens;
      computed[static_cast<std::size_t>(home)] -= tokens;
      received[static_cast<std::size_t>(home)] -= tokens;
    }
    return true;
  }
};
static_assert(copy_planner<subset_copy<>>);
static_assert(copy_planner<subset_copy<step_bandwidth>>);

FAIRLEAD_NAMESPACE_END
