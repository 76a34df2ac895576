// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Count the copies of each expert and number them: the first half of a counting sort.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/load.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Below this many copies one thread is faster than handing out work.
inline constexpr index_t copies_per_count_chunk = index_t{1} << 15;

/// Parts a counting loop is cut into. Results do not depend on it.
template <class Backend>
[[nodiscard]] index_t count_chunks(Backend const& on, index_t copies) {
  return std::clamp<index_t>(copies / copies_per_count_chunk, 1, on.concurrency());
}

[[nodiscard]] inline std::size_t count_workspace_bytes(index_t experts, index_t concurrency) {
  return workspace_bytes<count_t>(experts * concurrency);
}

/// Numbers copies [first, last) of each expert from what `counts` says, in copy order.
inline void number_copies(expert_id const* chosen, index_t first, index_t last, count_t* counts, std::int32_t* positions) {
  for (index_t copy = first; copy < last; ++copy) {
    index_t const expert = to_index(chosen[copy]);
    positions[copy] = expert < 0 ? -1 : counts[expert]++;
  }
}

struct count_chunk {
  std::span<expert_id const> chosen;
  std::span<count_t> histograms;
  index_t experts;
  index_t chunks;
  void operator()(index_t chunk) const {
    auto const copies = static_cast<index_t>(chosen.size());
    count_t* const mine = histograms.data() + chunk * experts;
    for (index_t copy = copies * chunk / chunks; copy < copies * (chunk + 1) / chunks; ++copy) {
      index_t const expert = to_index(chosen[static_cast<std::size_t>(copy)]);
      if (expert >= 0) { ++mine[expert]; }
    }
  }
};

struct number_chunk {
  std::span<expert_id const> chosen;
  std::span<count_t> starts;
  std::span<std::int32_t> positions;
  index_t experts;
  index_t chunks;
  void operator()(index_t chunk) const {
    auto const copies = static_cast<index_t>(chosen.size());
    number_copies(chosen.data(), copies * chunk / chunks, copies * (chunk + 1) / chunks,
                  starts.data() + chunk * experts, positions.data());
  }
};

/// Positions in copy order and counts. @post counts[e] = copies of e; positions[c] < counts[chosen[c]], or -1
/// @complexity O(copies + experts x chunks), parallel over chunks of copies
template <host_backend Backend>
void count_copies(Backend const& on, std::span<expert_id const> chosen, std::span<count_t> counts,
                  std::span<std::int32_t> positions, workspace& ws) {
  auto const copies = static_cast<index_t>(chosen.size());
  auto const experts = static_cast<index_t>(counts.size());
  index_t const chunks = count_chunks(on, copies);
  std::fill(counts.begin(), counts.end(), 0);
  if (chunks == 1) {
    number_copies(chosen.data(), 0, copies, counts.data(), positions.data());
    return;
  }
  workspace::scope const scope(ws);
  auto const histograms = ws.take<count_t>(chunks * experts);
  std::fill(histograms.begin(), histograms.end(), 0);
  on.for_each(chunks, count_chunk{chosen, histograms, experts, chunks});
  for (index_t chunk = 0; chunk < chunks; ++chunk) {
    for (index_t e = 0; e < experts; ++e) {
      count_t& start = histograms[static_cast<std::size_t>(chunk * experts + e)];
      count_t const count = start;
      start = counts[static_cast<std::size_t>(e)];
      counts[static_cast<std::size_t>(e)] += count;
    }
  }
  on.for_each(chunks, number_chunk{chosen, histograms, positions, experts, chunks});
}

/// Positions in the order of `sequence` and counts.
inline void count_sequence(std::span<std::int32_t const> sequence, std::span<expert_id const> chosen,
                           std::span<count_t> counts, std::span<std::int32_t> positions) {
  std::fill(counts.begin(), counts.end(), 0);
  for (std::int32_t const copy : sequence) {
    auto const at = static_cast<std::size_t>(copy);
    index_t const expert = to_index(chosen[at]);
    positions[at] = expert < 0 ? -1 : counts[static_cast<std::size_t>(expert)]++;
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
