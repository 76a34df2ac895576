// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief From counts to copies: the slot of each (token, choice), and the expert of each slot.
#include <fairlead/core/report.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/core/token_schedule.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Name the slot that serves each copy of one source rank.
///
/// Slots of all ranks together act as virtual experts, for dispatchers that know nothing of replicas. The rule is that
/// of `token_schedule_view`, which dispatch follows too: the copies of an expert, in service order, go to its replicas in
/// order, each as many as the schedule says. Frameworks that let tokens race for quotas with atomics get a different
/// assignment every run; counting is as cheap and always gives the same.
///
/// A token with two choices has two experts, hence two slots. Weights and gradients belong to (token, choice), not to
/// slots: the router never sees a slot. Without gradient of its own: scatter along the same table.
/// @source{LAER-MoE, token assignment kernel; the order is this library's}
struct token_slots {
  /// @brief Assign all copies of a source.
  /// @param routing experts of each token; an expert of none is skipped. @shape{tokens x fan_out}
  /// @param sequence copy numbers (token * fan_out + choice) in service order; empty = ascending. @shape{tokens * fan_out}
  /// @param where the placement
  /// @param quota copies a replica of this source: its row of a schedule. @shape{where.replicas()}
  /// @param[out] slots slot of each copy; none if it has no expert, or comes after all that its expert's quotas hold. @shape{tokens * fan_out}
  /// @param ws scratch
  /// @returns `status::ok`; `value` is the number of copies that got a slot
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) on an expert or a copy number out of range
  /// @complexity O(tokens x fan_out + experts + replicas + ranks) time, no allocation
  /// @determinism exact: a function of its arguments
  report assign(const_routing_view routing, std::span<std::int32_t const> sequence, placement const& where,
                std::span<count_t const> quota, std::span<slot_id> slots, workspace& ws) const {
    index_t const copies = routing.tokens() * routing.fan_out();
    FAIRLEAD_EXPECTS(static_cast<index_t>(slots.size()) == copies, "slots needs room for one id a copy", slots.size(), copies);
    FAIRLEAD_EXPECTS(sequence.empty() || static_cast<index_t>(sequence.size()) == copies, "the service order needs every copy once", sequence.size(), copies);
    FAIRLEAD_EXPECTS(static_cast<index_t>(quota.size()) == where.replicas(), "one quota a replica is needed", quota.size(), where.replicas());
    workspace::scope const scope(ws);
    auto const slot_of = ws.take<slot_id>(where.replicas());
    auto const replica_of = ws.take<std::int32_t>(where.experts());
    auto const left = ws.take<count_t>(where.experts());
    slots_of_replicas(where, slot_of);
    for (index_t e = 0; e < where.experts(); ++e) {
      auto const at = static_cast<std::size_t>(e);
      replica_of[at] = static_cast<std::int32_t>(where.replica_offset(static_cast<expert_id>(e)));
      left[at] = where.replicas(static_cast<expert_id>(e)).empty() ? 0 : quota[static_cast<std::size_t>(replica_of[at])];
    }
    index_t assigned = 0;
    for (index_t i = 0; i < copies; ++i) {
      index_t const copy = sequence.empty() ? i : sequence[static_cast<std::size_t>(i)];
      FAIRLEAD_EXPECTS_2(copy >= 0 && copy < copies, "the service order holds an unknown copy", i, copy);
      expert_id const expert = routing.experts(copy / routing.fan_out(), copy % routing.fan_out());
      slot_id& slot = slots[static_cast<std::size_t>(copy)];
      slot = slot_id::none;
      if (expert == expert_id::none) { continue; }
      FAIRLEAD_EXPECTS_2(to_index(expert) >= 0 && to_index(expert) < where.experts(), "a token names an unknown expert", expert, where.experts());
      auto const e = static_cast<std::size_t>(expert);
      // Replicas without a quota are passed over once an expert, not once a copy.
      auto const end = static_cast<std::int32_t>(where.replica_offset(expert) + static_cast<index_t>(where.replicas(expert).size()));
      while (left[e] <= 0 && replica_of[e] + 1 < end) { left[e] = quota[static_cast<std::size_t>(++replica_of[e])]; }
      if (left[e] <= 0) { continue; }
      --left[e];
      slot = slot_of[static_cast<std::size_t>(replica_of[e])];
      ++assigned;
    }
    return {.value = static_cast<double>(assigned)};
  }

  /// @brief The inverse: the expert of each slot, empty ones included. Combine and gradients go back through it.
  /// @param where the placement
  /// @param[out] experts expert of each slot, or none. @shape{where.slots()}
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(slots + ranks) time, no allocation
  static void experts_of_slots(placement const& where, std::span<expert_id> experts) {
    FAIRLEAD_EXPECTS(static_cast<index_t>(experts.size()) == where.slots(), "one expert a slot is needed", experts.size(), where.slots());
    std::size_t at = 0;
    for (index_t rank = 0; rank < where.ranks(); ++rank) {
      for (expert_id const expert : where.experts_on(static_cast<rank_id>(rank))) { experts[at++] = expert; }
    }
  }

  /// @brief The slot of each replica, counted over all ranks: what the columns of a schedule stand for.
  /// @param where the placement
  /// @param[out] slots slot of each replica. @shape{where.replicas()}
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(slots + ranks) time, no allocation
  static void slots_of_replicas(placement const& where, std::span<slot_id> slots) {
    FAIRLEAD_EXPECTS(static_cast<index_t>(slots.size()) == where.replicas(), "one slot a replica is needed", slots.size(), where.replicas());
    index_t slot = 0;
    for (index_t rank = 0; rank < where.ranks(); ++rank) {
      for (index_t local = 0; local < where.slots(static_cast<rank_id>(rank)); ++local, ++slot) {
        index_t const column = where.replica_at(static_cast<rank_id>(rank), static_cast<local_slot_id>(local));
        if (column >= 0) { slots[static_cast<std::size_t>(column)] = static_cast<slot_id>(slot); }
      }
    }
  }

  /// @param where the placement
  /// @returns bytes for the slots of the replicas and a cursor an expert
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const noexcept {
    return fairlead::workspace_bytes<slot_id>(where.replicas()) + fairlead::workspace_bytes<std::int32_t>(where.experts()) +
           fairlead::workspace_bytes<count_t>(where.experts());
  }
};

FAIRLEAD_NAMESPACE_END
