// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Count each rank's copies an expert and give every rank all counts, in the backend's memory.
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/core/load.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief From the experts of a rank's copies to the load of all ranks: a histogram and one all-gather of 4 ranks x experts
/// bytes.
///
/// The first step of scheduling where no dispatcher has counted yet. With a device backend the counts never visit the host.
struct gather_load {
  /// @brief Count and gather.
  /// @param on backend; with `cuda_stream` include `schedule/gather_load.cuh`
  /// @param comm communicator of the same memory
  /// @param copies expert of each copy of this rank, or none. Backend memory. @shape{copies}
  /// @param[out] load copies per source and expert, contiguous. Backend memory. @shape{comm.size() x experts}
  /// @param ws scratch in backend memory
  /// @throws contract_violation (level 1) on a shape mismatch, (level 2, host) on an unknown expert
  /// @complexity O(copies + experts) and one all-gather, no allocation of its own
  /// @collective all ranks, with equal numbers of experts
  template <execution_backend Backend, has_all_gather<count_t, Backend> Comm>
  void gather(Backend const& on, Comm& comm, std::span<expert_id const> copies, matrix_view<count_t> load, workspace& ws) const {
    FAIRLEAD_EXPECTS(load.rows() == static_cast<index_t>(comm.size()), "one row a rank", load.rows(), comm.size());
    FAIRLEAD_EXPECTS(load.stride() == load.cols() || load.rows() <= 1, "the rows are gathered in one piece: no gaps", load.stride(), load.cols());
    workspace::scope const scope(ws);
    auto const counts = ws.take<count_t>(2 * load.cols());
    implementation<gather_load, Backend>::count(on, copies, load.cols(), counts, ws);
    comm.all_gather(on, std::span<count_t const>(counts.first(static_cast<std::size_t>(load.cols()))),
                    std::span<count_t>(load.data(), static_cast<std::size_t>(load.rows() * load.cols()))).wait();
  }
  /// @param on backend
  /// @param experts number of experts
  /// @returns bytes of scratch
  template <execution_backend Backend>
  [[nodiscard]] std::size_t workspace_bytes(Backend const& on, index_t experts) const noexcept {
    return fairlead::workspace_bytes<count_t>(2 * experts) + fairlead::workspace_bytes<count_t>(on.concurrency() * experts);
  }
};

/// @brief Host text of `gather_load`: counts on the calling thread.
template <host_backend Backend>
struct implementation<gather_load, Backend> {
  /// See `gather_load::gather`; the first `experts` of `counts` are filled.
  static void count(Backend const&, std::span<expert_id const> copies, index_t experts, std::span<count_t> counts, workspace&) {
    std::fill(counts.begin(), counts.end(), count_t{0});
    for (expert_id const expert : copies) {
      FAIRLEAD_EXPECTS_2(to_index(expert) < experts, "a copy names an unknown expert", expert, experts);
      if (to_index(expert) >= 0) { ++counts[static_cast<std::size_t>(expert)]; }
    }
  }
};

FAIRLEAD_NAMESPACE_END
