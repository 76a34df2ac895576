// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Private: exact shares of integer loads, and the steps that rules for replica counts have in common.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>
#include <fairlead/core/report.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail::replica_counts {

__extension__ typedef __int128 wide;                     // NOLINT(modernize-use-using): the extension marker needs typedef
__extension__ typedef unsigned __int128 unsigned_wide;   // NOLINT(modernize-use-using)

inline constexpr index_t most_slots = std::numeric_limits<std::int32_t>::max();

struct load_size {
  index_t total;
  index_t largest;
};

[[nodiscard]] inline load_size measure(std::span<index_t const> load) {
  load_size size{0, 0};
  for (index_t const value : load) {
    FAIRLEAD_EXPECTS_2(value >= 0 && value <= std::numeric_limits<index_t>::max() - size.total,
                       "loads must not be negative and must add up to less than 2^63", value, size.total);
    size.total += value;
    size.largest = std::max(size.largest, value);
  }
  return size;
}

// floor(load * factor / total), and what is left over if Remainder. 0 <= factor < 2^42, total > 0.
template <bool Remainder>
void divide(std::span<index_t const> load, load_size size, index_t factor, index_t* quotient, index_t* remainder) {
  constexpr index_t half = index_t{1} << 62;
  index_t const total = size.total;
  std::size_t const experts = load.size();
  if (total <= half && (factor == 0 || size.largest <= half / factor)) {
    // A quotient below 2^43 from fp64 is at most one off, and exact remainders tell in which direction; vectorises.
    double const scale = static_cast<double>(factor) / static_cast<double>(total);
    for (std::size_t e = 0; e < experts; ++e) {
      index_t const near = static_cast<index_t>(static_cast<double>(load[e]) * scale);
      index_t const left = load[e] * factor - near * total;
      index_t const step = (left >= total ? 1 : 0) - (left < 0 ? 1 : 0);
      quotient[e] = near + step;
      if constexpr (Remainder) { remainder[e] = left - step * total; }
    }
    return;
  }
  for (std::size_t e = 0; e < experts; ++e) {
    wide const product = static_cast<wide>(load[e]) * factor;
    quotient[e] = static_cast<index_t>(product / total);
    if constexpr (Remainder) { remainder[e] = static_cast<index_t>(product % total); }
  }
}

[[nodiscard]] inline index_t sum(std::span<index_t const> numbers) noexcept {
  index_t result = 0;
  for (index_t const number : numbers) { result += number; }
  return result;
}

// Counts that differ by at most one; the first experts take what is left over.
inline void spread_evenly(index_t slots, std::span<index_t> replicas) noexcept {
  auto const experts = static_cast<index_t>(replicas.size());
  if (experts == 0) { return; }
  std::fill(replicas.begin(), replicas.end(), slots / experts);
  for (std::size_t e = 0; e < static_cast<std::size_t>(slots % experts); ++e) { ++replicas[e]; }
}

// Adds `step` to the counts of the `chosen` largest keys, ties to the lowest index. Keys are >= 0, or -1: never chosen;
// at least `chosen` are >= 0. A search by halving over the values: each pass counts keys without a branch, and the search
// ends as soon as a value separates, after about log2(experts) passes on distinct keys.
inline void step_largest(std::span<index_t const> keys, index_t chosen, index_t step, std::span<index_t> replicas) noexcept {
  if (chosen <= 0) { return; }
  index_t below = -1;  // more than `chosen` keys are above it, or it is -1
  index_t above = 0;   // fewer than `chosen` keys are above it
  for (index_t const key : keys) { above = std::max(above, key); }
  index_t limit = below;
  index_t count = 0;
  for (index_t const key : keys) { count += key > limit ? 1 : 0; }
  while (count != chosen && above - below > 1) {
    limit = below + (above - below) / 2;
    count = 0;
    for (index_t const key : keys) { count += key > limit ? 1 : 0; }
    (count > chosen ? below : above) = limit;
  }
  if (count != chosen) {  // keys tie at `above`
    limit = above;
    count = 0;
    for (index_t const key : keys) { count += key > limit ? 1 : 0; }
  }
  for (std::size_t e = 0; e < keys.size(); ++e) { replicas[e] += keys[e] > limit ? step : 0; }
  for (std::size_t e = 0; e < keys.size() && count < chosen; ++e) {
    if (keys[e] == limit) {
      replicas[e] += step;
      ++count;
    }
  }
}

// The largest load of a replica when an expert's replicas share its load evenly.
[[nodiscard]] inline double largest_share(std::span<index_t const> load, std::span<index_t const> replicas) noexcept {
  double largest = 0.0;
  for (std::size_t e = 0; e < load.size(); ++e) {
    double const share = static_cast<double>(load[e]) / static_cast<double>(replicas[e]);
    largest = share > largest ? share : largest;
  }
  return largest;
}

// What every rule does before it looks at single loads: checks, no room, no load at all.
struct start {
  load_size size;
  bool settled;  // the counts are written and `ended` says how
  report ended;
};

[[nodiscard]] inline start begin(std::span<index_t const> load, index_t slots, std::span<index_t> replicas) {
  FAIRLEAD_EXPECTS(load.size() == replicas.size(), "one count an expert", load.size(), replicas.size());
  FAIRLEAD_EXPECTS(slots >= 0 && slots <= most_slots, "the number of slots must be in [0, 2^31)", slots);
  auto const experts = static_cast<index_t>(load.size());
  load_size const size = measure(load);
  if (slots < experts || (experts == 0 && slots > 0)) {
    std::fill(replicas.begin(), replicas.end(), index_t{0});
    return {size, true, {.status = status::infeasible}};
  }
  if (size.total == 0) {
    spread_evenly(slots, replicas);
    return {size, true, {}};
  }
  return {size, false, {}};
}

}  // namespace detail::replica_counts
FAIRLEAD_NAMESPACE_END
