// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Hash routing: experts by vocabulary id, and tables for it: random, or balanced by frequency.
#include <fairlead/core/workspace.hpp>
#include <fairlead/route/fixed_choice.hpp>
#include <fairlead/route/unit_score.hpp>

#include <algorithm>
#include <numeric>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Hash routing without a gate: a token id always goes to the experts of its row, with equal weights; nothing is
/// learned, and the load follows the frequencies of the ids. With a gate: `hash_table_top_k`.
/// @source{StableMoE code, HashLayer; roller2021}
using hash_choice = table_choice<row_by_token_id, unit_score, sum_over_chosen>;

/// @brief Fill a table with distinct random experts for each id, every set as likely; named by (seed, id) alone.
/// @source{roller2021, random assignment}
struct random_hash_table {
  index_t experts = 0;     ///< number of experts, >= 1
  std::uint64_t seed = 0;  ///< names the table

  /// @brief Draw the rows.
  /// @param[out] table distinct experts a row. @shape{vocabulary x k, k <= experts}
  /// @throws contract_violation (level 1) on wrong sizes
  /// @complexity O(vocabulary x k^2), no allocation
  /// @determinism exact
  void fill(matrix_view<expert_id> table) const {
    FAIRLEAD_EXPECTS(experts >= 1 && experts <= 65536 && table.cols() <= experts,
                     "a table needs 1 ... 65536 experts and at most as many columns", experts, table.cols());
    for (index_t id = 0; id < table.rows(); ++id) {
      // Floyd's sample: the j-th draw is among the first n + 1 numbers, a repeated one is replaced by the new last one.
      for (index_t j = 0; j < table.cols(); ++j) {
        index_t const last = experts - table.cols() + j;
        auto const words = philox::draw(seed, (std::uint64_t{0x48415348} << 32U) + static_cast<std::uint64_t>(j),
                                        static_cast<std::uint64_t>(id));
        auto const drawn = static_cast<expert_id>(philox::below(words[0], static_cast<std::uint32_t>(last + 1)));
        expert_id const* const row = table.row(id);
        table(id, j) = std::find(row, row + j, drawn) == row + j ? drawn : static_cast<expert_id>(last);
      }
    }
  }
};

/// @brief Fill a table so that expected loads are even: ids by falling frequency, each to its least loaded experts.
///
/// With one expert an id, the largest load is at most the mean load plus the largest frequency: an id cannot be split.
/// Ids that were never seen (frequency 0) are dealt out among themselves, as many to each expert: they may turn up later.
/// @source{roller2021, balanced assignment; the rule is that of scheduling, longest processing time first}
struct balanced_hash_table {
  index_t experts = 0;  ///< number of experts, >= 1

  /// @param vocabulary number of ids
  /// @returns scratch bytes of `fill`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t vocabulary) const noexcept {
    return fairlead::workspace_bytes<index_t>(vocabulary) + 2 * fairlead::workspace_bytes<index_t>(experts);
  }
  /// @brief Deal the ids out.
  /// @param frequencies how often each id occurs, >= 0. @shape{vocabulary}
  /// @param[out] table distinct experts a row, the least loaded first. @shape{vocabulary x k, k <= experts}
  /// @param ws at least `workspace_bytes(vocabulary)`
  /// @throws contract_violation (level 1) on wrong sizes, (level 2) on negative frequencies
  /// @complexity O(vocabulary x (log vocabulary + experts)), no allocation
  /// @determinism exact: ties go to the lower id and the lower expert
  void fill(std::span<index_t const> frequencies, matrix_view<expert_id> table, workspace& ws) const {
    FAIRLEAD_EXPECTS(experts >= 1 && table.cols() <= experts, "a table needs experts and at most as many columns",
                     experts, table.cols());
    FAIRLEAD_EXPECTS(static_cast<index_t>(frequencies.size()) == table.rows(), "one frequency a row of the table",
                     frequencies.size(), table.rows());
    workspace::scope const scope(ws);
    std::span<index_t> const ids = ws.take<index_t>(table.rows());
    std::span<index_t> const loads = ws.take<index_t>(experts), order = ws.take<index_t>(experts);
    std::iota(ids.begin(), ids.end(), index_t{0});
    std::fill(loads.begin(), loads.end(), index_t{0});
    bool seen = true;
    std::iota(order.begin(), order.end(), index_t{0});
    std::sort(ids.begin(), ids.end(), [&](index_t a, index_t b) {
      index_t const fa = frequencies[static_cast<std::size_t>(a)], fb = frequencies[static_cast<std::size_t>(b)];
      return fa != fb ? fa > fb : a < b;
    });
    for (index_t const id : ids) {
      index_t const copies = frequencies[static_cast<std::size_t>(id)];
      FAIRLEAD_EXPECTS_2(copies >= 0, "frequencies must not be negative", id, copies);
      if (seen && copies == 0) {  // they come last; loads of the others would put them all on one expert
        std::fill(loads.begin(), loads.end(), index_t{0});
        seen = false;
      }
      std::partial_sort(order.begin(), order.begin() + table.cols(), order.end(), [&](index_t a, index_t b) {
        index_t const la = loads[static_cast<std::size_t>(a)], lb = loads[static_cast<std::size_t>(b)];
        return la != lb ? la < lb : a < b;
      });
      for (index_t j = 0; j < table.cols(); ++j) {
        index_t const expert = order[static_cast<std::size_t>(j)];
        table(id, j) = static_cast<expert_id>(expert);
        loads[static_cast<std::size_t>(expert)] += seen ? copies : 1;
      }
    }
  }
};

static_assert(router_on<hash_choice, serial> && causal<hash_choice>);

FAIRLEAD_NAMESPACE_END
