// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Fit a new slot table to the one in use: swap whole ranks and keep slots, so that fewer experts are fetched.
#include <fairlead/concepts/slot_mapper.hpp>
#include <fairlead/place/detail/min_cost_matching.hpp>
#include <fairlead/place/detail/slot_mapping.hpp>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Which ranks may change places; they always need equally many slots.
enum class exchange_scope {
  cluster,  ///< all of them: right when links are alike, or the plan does not look at nodes
  node      ///< those of one node: keeps what a plan says about nodes
};

/// @brief Leave every rank what the plan gives it; only keep experts in the slots that they have.
///
/// A rank that already has an expert fetches nothing for it, whatever the slot; a rank with two slots for a new expert
/// fetches it once.
struct identity_mapping {
  /// @brief Fit a table to the one in use.
  /// @param cluster the cluster
  /// @param now the table in use, or empty. @shape{cluster.slots()}
  /// @param[in,out] next the new table. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns `value` = (rank, expert) pairs to be fetched = `bound`
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(slots + experts) time, no allocation
  /// @determinism exact
  report map(topology const& cluster, std::span<expert_id const> now, std::span<expert_id> next, workspace& ws) const {
    auto const fetched = static_cast<double>(detail::map_slots(cluster, now, next, nothing{}, ws));
    return {.value = fetched, .bound = fetched};
  }
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes of scratch
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    return detail::slot_mapping_bytes(cluster, experts);
  }

 private:
  struct nothing {
    void operator()(index_t, std::span<expert_id>, workspace&) const noexcept {}
  };
};
static_assert(slot_mapper<identity_mapping>);

/// @brief Give each rank's new content to the rank that already has most of it, best pairs first.
///
/// What reconfiguration after failures does. Never worse than `identity_mapping`: if it would be, ranks stay.
/// @source{Lazarus, reconfiguration: mapping of nodes to plan nodes}
struct greedy_mapping {
  exchange_scope scope = exchange_scope::cluster;  ///< which ranks may change places

  /// @brief Fit a table to the one in use.
  /// @param cluster the cluster
  /// @param now the table in use, or empty. @shape{cluster.slots()}
  /// @param[in,out] next the new table. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns `value` = (rank, expert) pairs to be fetched
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(slots^2 + ranks^2 x largest overlap) time, O(ranks^2) scratch, no allocation
  /// @determinism exact; ties: lowest rank of the plan, then lowest rank of the cluster
  report map(topology const& cluster, std::span<expert_id const> now, std::span<expert_id> next, workspace& ws) const {
    exchange const step{cluster, now, next, scope == exchange_scope::node};
    return {.value = static_cast<double>(detail::map_slots(cluster, now, next, step, ws))};
  }
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes of scratch
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    return detail::slot_mapping_bytes(cluster, experts) + detail::rank_exchange_bytes(cluster, experts) +
           fairlead::workspace_bytes<std::int32_t>(cluster.ranks());
  }

 private:
  struct best_pairs {
    void operator()(std::int32_t const* cost, index_t n, std::span<std::int32_t> target, workspace& ws) const {
      workspace::scope const undo(ws);
      std::span<std::int32_t> const taken = ws.take<std::int32_t>(n);
      std::fill(taken.begin(), taken.end(), 0);
      std::fill(target.begin(), target.end(), -1);
      auto const size = static_cast<std::size_t>(n);
      std::int32_t best = 0;
      for (std::size_t at = 0; at < size * size; ++at) { best = std::min(best, cost[at]); }
      for (std::int32_t level = best; level <= 0; ++level) {
        for (std::size_t i = 0; i < size; ++i) {
          for (std::size_t j = 0; target[i] < 0 && j < size; ++j) {
            if (taken[j] == 0 && cost[i * size + j] == level) {
              target[i] = static_cast<std::int32_t>(j);
              taken[j] = 1;
            }
          }
        }
      }
    }
  };
  struct exchange {
    topology const& cluster;
    std::span<expert_id const> now;
    std::span<expert_id> next;
    bool inside_node;
    void operator()(index_t experts, std::span<expert_id> rows, workspace& ws) const {
      detail::exchange_ranks(cluster, now, next, inside_node, experts, rows, best_pairs{}, ws);
    }
  };
};
static_assert(slot_mapper<greedy_mapping>);

/// @brief The least possible number of fetches over all ways to swap ranks: an exact matching.
///
/// Swaps ranks of equally many slots only, inside their node if `scope` says so. Which experts share a rank, and with
/// `node` which share a node, stays as planned.
/// @source{Lazarus, reconfiguration; exact instead of greedy}
struct min_cost_mapping {
  exchange_scope scope = exchange_scope::cluster;  ///< which ranks may change places

  /// @brief Fit a table to the one in use.
  /// @param cluster the cluster
  /// @param now the table in use, or empty. @shape{cluster.slots()}
  /// @param[in,out] next the new table. @shape{cluster.slots()}
  /// @param ws scratch
  /// @returns `value` = (rank, expert) pairs to be fetched = `bound`: no other swap of ranks needs fewer
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(slots^2 + ranks^3) time, O(ranks^2) scratch, no allocation
  /// @determinism exact integers; among equal optima the one as given, else that of a fixed order of search
  report map(topology const& cluster, std::span<expert_id const> now, std::span<expert_id> next, workspace& ws) const {
    exchange const step{cluster, now, next, scope == exchange_scope::node};
    auto const fetched = static_cast<double>(detail::map_slots(cluster, now, next, step, ws));
    return {.value = fetched, .bound = fetched};
  }
  /// @param cluster the cluster
  /// @param experts number of experts
  /// @returns bytes of scratch
  [[nodiscard]] std::size_t workspace_bytes(topology const& cluster, index_t experts) const noexcept {
    return detail::slot_mapping_bytes(cluster, experts) + detail::rank_exchange_bytes(cluster, experts) +
           detail::min_cost_matching_bytes(cluster.ranks());
  }

 private:
  struct matching {
    void operator()(std::int32_t const* cost, index_t n, std::span<std::int32_t> target, workspace& ws) const {
      detail::min_cost_matching(cost, n, target, ws);
    }
  };
  struct exchange {
    topology const& cluster;
    std::span<expert_id const> now;
    std::span<expert_id> next;
    bool inside_node;
    void operator()(index_t experts, std::span<expert_id> rows, workspace& ws) const {
      detail::exchange_ranks(cluster, now, next, inside_node, experts, rows, matching{}, ws);
    }
  };
};
static_assert(slot_mapper<min_cost_mapping>);

FAIRLEAD_NAMESPACE_END
