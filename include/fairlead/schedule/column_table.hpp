// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A placement as flat arrays of 32-bit numbers, in host or device memory: what kernels of this module read.
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/core/placement.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Pointers to the arrays of a placement; trivially copyable, an argument of kernels.
///
/// A column is a replica in the order of `placement::replicas`, as in a `token_schedule`.
struct column_view {
  std::int32_t ranks = 0;                     ///< number of ranks
  std::int32_t experts = 0;                   ///< number of experts
  std::int32_t columns = 0;                   ///< number of replicas
  std::int32_t lost = 0;                      ///< number of experts without a replica
  std::int32_t const* first = nullptr;        ///< first column of each expert, and the end. @shape{experts + 1}
  std::int32_t const* rank = nullptr;         ///< rank of each column, ascending inside an expert. @shape{columns}
  std::int32_t const* expert = nullptr;       ///< expert of each column. @shape{columns}
  std::int32_t const* slot = nullptr;         ///< slot of each column, counted over all ranks. @shape{columns}
  std::int32_t const* rank_first = nullptr;   ///< first entry of each rank in `rank_columns`, and the end. @shape{ranks + 1}
  std::int32_t const* rank_columns = nullptr; ///< columns of each rank that are an expert's first one there, ascending

  /// @param column a column
  /// @returns whether an earlier replica of the same expert sits on the same rank, so that this one adds no host
  [[nodiscard]] FAIRLEAD_HD bool is_twin(std::int32_t column) const {
    return column > first[expert[column]] && rank[column - 1] == rank[column];
  }
};

/// @param where a placement
/// @returns how many numbers `fill_columns` writes
[[nodiscard]] inline index_t column_numbers(placement const& where) noexcept {
  return where.experts() + 1 + 4 * where.replicas() + where.ranks() + 1;
}

/// @brief Write the arrays of a placement.
/// @param where the placement
/// @param numbers host memory. @shape{column_numbers(where)}
/// @returns a view of them
/// @throws contract_violation (level 1) if it does not count in 32 bits or there is too little room
/// @complexity O(ranks + experts + slots), plus sorting the slots of each rank, no allocation
inline column_view fill_columns(placement const& where, std::span<std::int32_t> numbers) {
  FAIRLEAD_EXPECTS(where.slots() < INT32_MAX && where.ranks() < INT32_MAX && where.experts() < INT32_MAX,
                   "a column table counts in 32 bits", where.slots(), where.ranks(), where.experts());
  FAIRLEAD_EXPECTS(static_cast<index_t>(numbers.size()) >= column_numbers(where), "too little room for the columns", numbers.size());
  auto const experts = static_cast<std::int32_t>(where.experts());
  auto const columns = static_cast<std::int32_t>(where.replicas());
  auto const ranks = static_cast<std::int32_t>(where.ranks());
  std::int32_t* const first = numbers.data();
  std::int32_t* const rank = first + experts + 1;
  std::int32_t* const expert = rank + columns;
  std::int32_t* const slot = expert + columns;
  std::int32_t* const rank_first = slot + columns;
  std::int32_t* const rank_columns = rank_first + ranks + 1;
  std::int32_t column = 0;
  std::int32_t lost = 0;
  for (std::int32_t e = 0; e < experts; ++e) {
    first[e] = column;
    lost += where.replicas(static_cast<expert_id>(e)).empty() ? 1 : 0;
    for (replica const& r : where.replicas(static_cast<expert_id>(e))) {
      rank[column] = static_cast<std::int32_t>(r.rank);
      expert[column++] = e;
    }
  }
  first[experts] = column;
  std::int32_t at = 0;
  std::int32_t used = 0;
  for (std::int32_t r = 0; r < ranks; ++r) {
    rank_first[r] = used;
    for (index_t local = 0; local < where.slots(static_cast<rank_id>(r)); ++local, ++at) {
      auto const c = static_cast<std::int32_t>(where.replica_at(static_cast<rank_id>(r), static_cast<local_slot_id>(local)));
      if (c < 0) { continue; }
      slot[c] = at;
      if (c > first[expert[c]] && rank[c - 1] == rank[c]) { continue; }
      rank_columns[used++] = c;
    }
    std::sort(rank_columns + rank_first[r], rank_columns + used);
  }
  rank_first[ranks] = used;
  return {ranks, experts, columns, lost, first, rank, expert, slot, rank_first, rank_columns};
}

/// @brief Own the arrays of a placement in a memory space.
/// @tparam Space where they live; `device_space` with a CUDA backend
template <memory_space Space = host_space>
class column_table {
 public:
  /// @brief Compile a placement, once for all micro-batches that use it.
  /// @param on backend of the memory space
  /// @param where the placement
  /// @throws contract_violation (level 1) as `fill_columns`; std::bad_alloc, or what the memory space throws
  /// @complexity as `fill_columns`, allocates; waits for a device to have the copy
  template <class Backend>
  column_table(Backend const& on, placement const& where) {
    std::vector<std::int32_t> all(static_cast<std::size_t>(column_numbers(where)));
    column_view const here = fill_columns(where, all);
    memory_.resize(static_cast<index_t>(all.size()));
    on.from_host(memory_.data(), all.data(), all.size() * sizeof(std::int32_t));
    on.wait();
    auto const there = [&](std::int32_t const* array) { return memory_.data() + (array - all.data()); };
    view_ = here;
    view_.first = there(here.first);
    view_.rank = there(here.rank);
    view_.expert = there(here.expert);
    view_.slot = there(here.slot);
    view_.rank_first = there(here.rank_first);
    view_.rank_columns = there(here.rank_columns);
  }
  /// @returns the arrays, valid as long as this object
  [[nodiscard]] column_view const& view() const noexcept { return view_; }

 private:
  buffer<std::int32_t, Space> memory_;
  column_view view_;
};

FAIRLEAD_NAMESPACE_END
