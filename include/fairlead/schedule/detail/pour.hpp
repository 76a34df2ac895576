// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Raise the least loaded of some hosts to a common level.
#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

struct pour_host {
  index_t load;           // copies there before
  index_t speed;          // > 0
  std::int32_t rank;      // for ties
  std::int32_t replica;   // the caller's number
  index_t added;          // result
};

// Hosts of equal speed; they come back sorted by (load, rank).
inline void pour(std::span<pour_host> hosts, index_t amount) noexcept {
  if (hosts.size() == 1) {
    hosts[0].added = amount;
    return;
  }
  auto const before = [](pour_host const& a, pour_host const& b) { return a.load != b.load ? a.load < b.load : a.rank < b.rank; };
  if (hosts.size() == 2) {
    if (before(hosts[1], hosts[0])) { std::swap(hosts[0], hosts[1]); }
  } else {
    std::sort(hosts.begin(), hosts.end(), before);
  }
  // The lowest `wet` hosts share what is there; the next one joins when their level passes it.
  index_t sum = amount;
  index_t wet = 0;
  while (wet < static_cast<index_t>(hosts.size()) && sum > wet * hosts[static_cast<std::size_t>(wet)].load) {
    sum += hosts[static_cast<std::size_t>(wet++)].load;
  }
  if (wet == 0) {
    for (pour_host& host : hosts) { host.added = 0; }
    return;
  }
  index_t const level = sum / wet;
  index_t left = sum % wet;
  for (index_t k = 0; k < wet; ++k) { hosts[static_cast<std::size_t>(k)].added = level - hosts[static_cast<std::size_t>(k)].load; }
  for (std::size_t k = static_cast<std::size_t>(wet); k < hosts.size(); ++k) { hosts[k].added = 0; }
  // Whoever is at the level gets one more, lowest rank first.
  if (left > 0) {
    std::sort(hosts.begin(), hosts.begin() + wet, [](pour_host const& a, pour_host const& b) { return a.rank < b.rank; });
    for (std::size_t k = 0; left > 0; ++k, --left) { ++hosts[k].added; }
  }
}

// Hosts of any speed: level = load / speed, compared exactly.
inline void pour_by_speed(std::span<pour_host> hosts, index_t amount) noexcept {
  __extension__ using wide = __int128;
  std::sort(hosts.begin(), hosts.end(), [](pour_host const& a, pour_host const& b) {
    wide const left = wide{a.load} * b.speed;
    wide const right = wide{b.load} * a.speed;
    return left != right ? left < right : a.rank < b.rank;
  });
  index_t sum = amount;
  index_t speed = 0;
  std::size_t wet = 0;
  // Host `wet` is below the level sum / speed of the ones before it.
  while (wet < hosts.size() && (wet == 0 || wide{sum} * hosts[wet].speed > wide{hosts[wet].load} * speed)) {
    sum += hosts[wet].load;
    speed += hosts[wet++].speed;
  }
  index_t left = amount;
  for (std::size_t k = 0; k < hosts.size(); ++k) {
    // The level is no lower than a wet host's own; rounding down leaves less than one copy a host.
    hosts[k].added = k < wet ? static_cast<index_t>(wide{sum} * hosts[k].speed / speed) - hosts[k].load : 0;
    left -= hosts[k].added;
  }
  // Each copy left goes where the level stays lowest.
  while (left > 0) {
    std::size_t best = 0;
    for (std::size_t k = 1; k < hosts.size(); ++k) {
      wide const mine = wide{hosts[k].load + hosts[k].added + 1} * hosts[best].speed;
      wide const other = wide{hosts[best].load + hosts[best].added + 1} * hosts[k].speed;
      if (mine < other || (mine == other && hosts[k].rank < hosts[best].rank)) { best = k; }
    }
    ++hosts[best].added;
    --left;
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
