// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief From placement and schedule to the tables that give each copy and each received row its place.
#include <fairlead/core/exchange_plan.hpp>
#include <fairlead/core/load.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/token_schedule.hpp>

#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// The parts of `exchange_plan::tables`, which is one array so that a device needs one copy.
struct plan_tables {
  std::span<std::int32_t> expert_first;  ///< first run of each expert. @shape{experts + 1}
  std::span<std::int32_t> run_end;       ///< first position that no longer goes to a replica. @shape{replicas}
  std::span<std::int32_t> run_base;      ///< outer row = base + position; may be negative. @shape{replicas}
  std::span<std::int32_t> regroup_inner;   ///< @shape{ranks x local slots}, by (slot, source)
  std::span<std::int32_t> regroup_buffer;  ///< @shape{ranks x local slots}
  std::span<std::int32_t> regroup_count;   ///< @shape{ranks x local slots}

  [[nodiscard]] static index_t size(index_t experts, index_t replicas, index_t runs) {
    return experts + 1 + 2 * replicas + 3 * runs;
  }
  [[nodiscard]] static plan_tables split(std::span<std::int32_t> all, index_t experts, index_t replicas, index_t runs) {
    plan_tables t;
    auto const take = [&all](index_t count) {
      auto const part = all.first(static_cast<std::size_t>(count));
      all = all.subspan(static_cast<std::size_t>(count));
      return part;
    };
    t.expert_first = take(experts + 1);
    t.run_end = take(replicas);
    t.run_base = take(replicas);
    t.regroup_inner = take(runs);
    t.regroup_buffer = take(runs);
    t.regroup_count = take(runs);
    return t;
  }
};

inline std::int32_t to_row(index_t row) {
  FAIRLEAD_EXPECTS(row <= std::numeric_limits<std::int32_t>::max(), "a rank handles at most 2^31 - 1 rows at once", row);
  return static_cast<std::int32_t>(row);
}

/// Sizes and offsets of the expert buffer: rows a slot receives from all sources.
template <class Space>
void plan_groups(placement const& where, const_token_schedule_view schedule, index_t alignment, exchange_plan<Space>& plan) {
  auto const me = static_cast<rank_id>(plan.rank);
  index_t const slots = where.slots(me);
  plan.slot_offsets.resize(slots + 1);
  plan.slot_counts.resize(slots);
  index_t offset = 0;
  for (index_t slot = 0; slot < slots; ++slot) {
    index_t const replica = where.replica_at(me, static_cast<local_slot_id>(slot));
    index_t rows = 0;
    if (replica >= 0) {
      for (index_t source = 0; source < plan.ranks; ++source) { rows += schedule(source, replica); }
    }
    plan.slot_offsets[slot] = offset;
    plan.slot_counts[slot] = rows;
    offset += (rows + alignment - 1) / alignment * alignment;
  }
  plan.slot_offsets[slots] = offset;
  plan.buffer_rows = offset;
  (void)to_row(offset);
}

/// Sizes and offsets of both sides of the wire when every copy travels as a row of its own, and all tables.
/// @complexity O(ranks x slots a rank + replicas + experts), allocates only when the plan grows
template <class Space>
void plan_rows(placement const& where, const_token_schedule_view schedule, index_t alignment, exchange_plan<Space>& plan) {
  auto const me = static_cast<rank_id>(plan.rank);
  index_t const ranks = plan.ranks;
  index_t const slots = where.slots(me);
  plan_groups(where, schedule, alignment, plan);
  plan.tables.resize(plan_tables::size(plan.experts, where.replicas(), ranks * slots));
  auto const tables = plan_tables::split(plan.tables.span(), plan.experts, where.replicas(), ranks * slots);

  plan.outer_offsets.resize(ranks + 1);
  index_t outer = 0;
  for (index_t to = 0; to < ranks; ++to) {
    plan.outer_offsets[to] = outer;
    auto const rank = static_cast<rank_id>(to);
    for (index_t slot = 0; slot < where.slots(rank); ++slot) {
      index_t const replica = where.replica_at(rank, static_cast<local_slot_id>(slot));
      if (replica < 0) { continue; }
      // On one rank the expert buffer itself is the outer side.
      tables.run_base[static_cast<std::size_t>(replica)] = to_row(ranks == 1 ? plan.slot_offsets[slot] : outer);
      outer += schedule(plan.rank, replica);
    }
  }
  plan.outer_offsets[ranks] = outer;
  plan.sent_copies = outer;
  plan.outer_rows = ranks == 1 ? plan.buffer_rows : outer;
  (void)to_row(outer);

  for (index_t e = 0; e < plan.experts; ++e) {
    auto const expert = static_cast<expert_id>(e);
    index_t const first = where.replica_offset(expert);
    tables.expert_first[static_cast<std::size_t>(e)] = to_row(first);
    std::int32_t position = 0;
    for (index_t r = first; r < first + static_cast<index_t>(where.replicas(expert).size()); ++r) {
      auto const at = static_cast<std::size_t>(r);
      tables.run_base[at] -= position;
      position += schedule(plan.rank, r);
      tables.run_end[at] = position;
    }
  }
  tables.expert_first[static_cast<std::size_t>(plan.experts)] = to_row(where.replicas());

  plan.inner_offsets.resize(ranks + 1);
  index_t inner = 0;
  for (index_t source = 0; source < ranks; ++source) {
    plan.inner_offsets[source] = inner;
    for (index_t slot = 0; slot < slots; ++slot) {
      index_t const replica = where.replica_at(me, static_cast<local_slot_id>(slot));
      count_t const rows = replica < 0 ? 0 : schedule(source, replica);
      auto const run = static_cast<std::size_t>(slot * ranks + source);
      tables.regroup_inner[run] = to_row(inner);
      tables.regroup_count[run] = rows;
      inner += rows;
    }
  }
  plan.inner_offsets[ranks] = inner;
  plan.inner_rows = ranks == 1 ? plan.buffer_rows : inner;
  (void)to_row(inner);
  for (index_t slot = 0; slot < slots; ++slot) {
    index_t row = plan.slot_offsets[slot];
    for (index_t source = 0; source < ranks; ++source) {
      auto const run = static_cast<std::size_t>(slot * ranks + source);
      tables.regroup_buffer[run] = to_row(row);
      row += tables.regroup_count[run];
    }
  }
}

/// Room for the worst step of a rank, in all arrays of a plan but those of one overflow action.
template <class Space>
void reserve_plan(placement const& where, index_t rank, index_t tokens, index_t fan_out, index_t rows, exchange_plan<Space>& plan) {
  index_t const copies = tokens * fan_out;
  index_t const slots = where.slots(static_cast<rank_id>(rank));
  index_t const tables = plan_tables::size(where.experts(), where.replicas(), where.ranks() * slots);
  plan.outer_offsets.resize(where.ranks() + 1);
  plan.inner_offsets.resize(where.ranks() + 1);
  plan.slot_offsets.resize(slots + 1);
  plan.slot_counts.resize(slots);
  plan.chosen.resize(copies);
  plan.weights.resize(copies);
  plan.positions.resize(copies);
  plan.copy_to_outer.resize(copies);
  plan.outer_to_copy.resize(where.ranks() == 1 ? rows : copies);
  plan.buffer_to_inner.resize(rows);
  plan.inner_to_buffer.resize(rows);
  plan.count_row.resize(2 * where.experts() + 1);
  plan.tables.resize(tables);
  if constexpr (!std::is_same_v<Space, host_space>) { plan.device_tables.resize(tables); }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
