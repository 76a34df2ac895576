// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The exact min-max split as a few synchronous waves: many problems at once, each by one block of a device.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/schedule/column_table.hpp>
#include <fairlead/schedule/detail/shares.hpp>
#include <fairlead/schedule/detail/waves.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief How a split by waves ended; plain numbers that a kernel writes.
struct wave_report {
  fairlead::status status;  ///< ok, lost_expert, or iteration_limit: valid shares that are not proved best
  index_t waves;            ///< waves, raises included
  index_t raises;           ///< times that a set of ranks proved a higher bound
  index_t largest;          ///< copies of the busiest rank: the least possible when `status` is ok
  /// Equality of all members.
  friend constexpr bool operator==(wave_report const&, wave_report const&) = default;
};

/// @brief Split copies over replicas so that the largest load of a rank is the least possible one, in parallel.
///
/// Same optimum as `min_max_flow`, other shares. All copies start in even parts. A wave measures every rank's distance to
/// a rank with room, then all crowded ranks push what they have too much one step nearer, the farthest first. Ranks that
/// reach no room prove a higher bound. A few waves suffice: at most 19 on random placements of 8 to 4096 ranks, at most 55
/// on random trees of 512 ranks. Each lowers the number of copies above the bound or raises the bound, so it ends.
///
/// Everything is integers, and members of a block only add and take minima where they meet: device and host agree bit for
/// bit, however many threads run. Sizes of launches depend on sizes of arrays only and nothing is read back: the call can
/// be captured in a CUDA graph. On a host, `min_max_flow` is faster. Equal speeds and no base loads.
/// @source{2511.16947, MicroMoE, LPP 1 and equation 3} - the waves are this library's, in the manner of a preflow with exact
/// distances; the bound rises by discrete Newton steps.
struct min_max_waves {
  index_t most_waves = 4096;  ///< a guard: some dozens are the most that tests have needed

  /// @brief Split many problems on one placement.
  /// @param on backend; with `cuda_stream` include `schedule/min_max_waves.cuh`
  /// @param where the placement in the backend's memory (`column_table`)
  /// @param totals copies an expert, in [0, 2^31). Backend memory. @shape{problems x experts}
  /// @param[out] shares copies a replica. Backend memory. @shape{problems x columns}
  /// @param[out] reports one a problem, in backend memory. @shape{problems}
  /// @param ws scratch in backend memory, `batch_workspace_bytes`
  /// @throws contract_violation (level 1) on a shape mismatch; cuda_error if a launch is refused
  /// @complexity O(waves x (ranks + experts + replicas x replicas of an expert)) a problem, no allocation, no
  ///             synchronisation
  /// @determinism equal shares and reports on every backend
  template <execution_backend Backend>
  void solve_batch(Backend const& on, column_view const& where, matrix_view<index_t const> totals, matrix_view<count_t> shares,
                   std::span<wave_report> reports, workspace& ws) const {
    FAIRLEAD_EXPECTS(totals.cols() == where.experts && shares.cols() == where.columns,
                     "a problem has one total an expert and one share a replica", totals.cols(), shares.cols());
    FAIRLEAD_EXPECTS(shares.rows() == totals.rows() && static_cast<index_t>(reports.size()) == totals.rows(),
                     "shares and reports have one row a problem", shares.rows(), reports.size(), totals.rows());
    FAIRLEAD_EXPECTS(most_waves >= 0, "the number of waves must not be negative", most_waves);
    implementation<min_max_waves, Backend>::solve(on, *this, where, totals, shares, reports, ws);
  }
  /// @param problems number of problems
  /// @param ranks number of ranks
  /// @param experts number of experts
  /// @param columns number of replicas
  /// @returns bytes of scratch for `solve_batch` on any backend
  [[nodiscard]] std::size_t batch_workspace_bytes(index_t problems, index_t ranks, index_t experts, index_t columns) const noexcept {
    return fairlead::workspace_bytes<std::byte>(problems * static_cast<index_t>(detail::wave_memory::bytes(ranks, experts, columns)));
  }

  /// @brief Split one problem on the host. A model of `replica_split`.
  /// @param totals copies an expert, in [0, 2^31). @shape{experts}
  /// @param where the placement
  /// @param[out] shares copies a replica. @shape{where.replicas()}
  /// @param ws scratch
  /// @returns status as in `wave_report`; `iterations` are waves; `value` is the largest load of a rank, `bound` equals it
  ///          when the status is ok, else 0
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2) on a total out of range
  /// @complexity as `solve_batch`, plus O(ranks + experts + slots log slots); no allocation
  report split(std::span<index_t const> totals, placement const& where, std::span<count_t> shares, workspace& ws) const {
    detail::check_split(totals, where, shares);
    workspace::scope const scope(ws);
    column_view const columns = fill_columns(where, ws.take<std::int32_t>(column_numbers(where)));
    wave_report end{};
    solve_batch(serial{}, columns, {totals.data(), 1, columns.experts}, {shares.data(), 1, columns.columns}, {&end, 1}, ws);
    auto const largest = static_cast<double>(end.largest);
    return {.status = end.status, .iterations = end.waves, .value = largest, .bound = end.status == status::ok ? largest : 0.0};
  }
  /// @param where a placement
  /// @returns bytes of scratch for `split`
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const noexcept {
    return fairlead::workspace_bytes<std::int32_t>(column_numbers(where)) +
           batch_workspace_bytes(1, where.ranks(), where.experts(), where.replicas());
  }
};

/// @brief Host text of `min_max_waves`: problems side by side on the backend's threads.
template <host_backend Backend>
struct implementation<min_max_waves, Backend> {
  /// See `min_max_waves::solve_batch`.
  static void solve(Backend const& on, min_max_waves const& policy, column_view const& where, matrix_view<index_t const> totals,
                    matrix_view<count_t> shares, std::span<wave_report> reports, workspace& ws) {
    workspace::scope const scope(ws);
    auto const bytes = static_cast<index_t>(detail::wave_memory::bytes(where.ranks, where.experts, where.columns));
    auto const memory = ws.take<std::byte>(totals.rows() * bytes);
    on.for_each(totals.rows(), [&](index_t problem) {
      auto const m = detail::wave_memory::in(memory.data() + problem * bytes, where.ranks, where.experts);
      auto const end = detail::run_waves(detail::team_of_one{}, where, totals.row(problem), policy.most_waves, m);
      std::copy_n(m.shares, where.columns, shares.row(problem));
      reports[static_cast<std::size_t>(problem)] = {end.how, end.waves, end.raises, end.largest};
    });
  }
};
static_assert(replica_split<min_max_waves>);
/// Distinct hosts are all it sees.
template <>
inline constexpr bool schedules_meaning<min_max_waves, replica_meaning::capacity_unit> = false;
/// The largest load is proved least possible.
template <>
inline constexpr bool optimal_split<min_max_waves> = true;

FAIRLEAD_NAMESPACE_END
