// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The slot of each copy of a rank, from its row of a schedule, on any backend.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/copy_pieces.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/schedule/column_table.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {

// Quotas of an expert's replicas to running sums.
struct running_sums {
  column_view where;
  count_t const* quota;
  count_t* ends;
  FAIRLEAD_HD void operator()(index_t expert) const {
    count_t sum = 0;
    for (std::int32_t c = where.first[expert]; c < where.first[expert + 1]; ++c) { ends[c] = sum += quota[c]; }
  }
};

}  // namespace detail

/// @brief Names the slot that serves each copy: `token_slots` over flat arrays, on any backend.
///
/// The copies of an expert, in service order, go to its replicas in order, each as many as the row says: the place of a copy
/// among those of its expert, by counting and prefix sums, then a search in the running sums of the quotas. It serves every
/// schedule: even parts on a node, min-max shares that a router has dealt to sources, and reroutings over `with_copies`.
/// @source{LAER-MoE, token assignment kernel, where tokens race for quotas; here the order is fixed}
struct copy_slots {
  /// @brief Assign all copies of a source.
  /// @param on backend; with `cuda_stream` include `schedule/copy_slots.cuh`
  /// @param copies expert of each copy, or none, by copy number. Backend memory. @shape{copies}
  /// @param sequence copy numbers in service order, or empty: ascending. Backend memory. @shape{copies}
  /// @param where the placement in the backend's memory
  /// @param quota copies a replica of this source, >= 0. Backend memory. @shape{columns}
  /// @param[out] slots slot of each copy; none if it has no expert, or comes after all that its expert's quotas hold.
  ///             Backend memory. @shape{copies}
  /// @param ws scratch in backend memory
  /// @throws contract_violation (level 1) on a shape mismatch; on a device on more than 12288 experts
  /// @complexity O(copies log(replicas of an expert) + experts + replicas) work, no allocation, no synchronisation
  /// @determinism the slots of `token_slots::assign`
  template <execution_backend Backend>
  void assign(Backend const& on, std::span<expert_id const> copies, std::span<std::int32_t const> sequence, column_view const& where,
              std::span<count_t const> quota, std::span<slot_id> slots, workspace& ws) const {
    FAIRLEAD_EXPECTS(slots.size() == copies.size(), "one slot a copy", slots.size(), copies.size());
    FAIRLEAD_EXPECTS(sequence.empty() || sequence.size() == copies.size(), "the service order needs every copy once", sequence.size(), copies.size());
    FAIRLEAD_EXPECTS(static_cast<index_t>(quota.size()) == where.columns, "one quota a replica is needed", quota.size(), where.columns);
    workspace::scope const scope(ws);
    auto const ends = ws.take<count_t>(where.columns);
    on.for_each(where.experts, detail::running_sums{where, quota.data(), ends.data()});
    implementation<copy_slots, Backend>::look_up(on, copies, sequence, where, ends.data(), slots, ws);
  }
  /// @param on backend
  /// @param experts number of experts
  /// @param columns number of replicas
  /// @returns bytes of scratch
  template <execution_backend Backend>
  [[nodiscard]] std::size_t workspace_bytes(Backend const& on, index_t experts, index_t columns) const noexcept {
    return fairlead::workspace_bytes<count_t>(columns) + fairlead::workspace_bytes<count_t>(on.concurrency() * experts) +
           fairlead::workspace_bytes<count_t>(2 * experts);
  }
};

/// @brief Host text of `copy_slots`: one pass on the calling thread.
template <host_backend Backend>
struct implementation<copy_slots, Backend> {
  /// See `copy_slots::assign`; `ends` are the running sums.
  static void look_up(Backend const&, std::span<expert_id const> copies, std::span<std::int32_t const> sequence, column_view const& where,
                      count_t const* ends, std::span<slot_id> slots, workspace& ws) {
    auto const dealt = ws.take<count_t>(where.experts);
    std::fill(dealt.begin(), dealt.end(), count_t{0});
    for (std::size_t i = 0; i < copies.size(); ++i) {
      std::size_t const copy = sequence.empty() ? i : static_cast<std::size_t>(sequence[i]);
      auto const expert = static_cast<std::int32_t>(copies[copy]);
      count_t const place = expert < 0 ? 0 : dealt[static_cast<std::size_t>(expert)]++;
      slots[copy] = static_cast<slot_id>(target_of(where.first, ends, where.slot, expert, place));
    }
  }
};

FAIRLEAD_NAMESPACE_END
