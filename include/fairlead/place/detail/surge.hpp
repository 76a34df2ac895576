// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// What loads may become: how far they moved in the past, how many hosts an expert needs for that, and samples of it.
//
// Everything is in shares of 2^30; floating point only multiplies correctly rounded values before they become integers.
#include <fairlead/core/numeric.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/place/detail/slot_table.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

inline constexpr index_t whole_share = index_t{1} << 30U;

// Loads as shares, rounded down; no load at all counts as equal loads.
inline void to_shares(std::span<index_t const> loads, std::span<index_t> shares) {
  slot_wide total = 0;
  for (index_t const load : loads) { total += load; }
  for (std::size_t e = 0; e < loads.size(); ++e) {
    shares[e] = total == 0 ? whole_share / static_cast<index_t>(loads.size())
                           : static_cast<index_t>(static_cast<slot_wide>(loads[e]) * whole_share / total);
  }
}

struct surge_rules {
  index_t window;     // samples looked at
  index_t horizon;    // samples between a plan and its use
  double own;         // mean surge = volatility * (own * mean share of the expert + fresh * even share)
  double fresh;
  double volatility;  // assumed when there is no past
};

// The mean surge of each expert. Recent samples weigh more, linearly. `first`, `second`: scratch of experts.
inline void mean_surges(matrix_view<index_t const> samples, std::span<index_t const> now, surge_rules const& rules,
                        std::span<index_t> first, std::span<index_t> second, std::span<index_t> surges) {
  auto const experts = static_cast<index_t>(now.size());
  index_t const rows = samples.rows();
  index_t const used = std::min(rules.window, rows);
  slot_wide moved = 0;
  index_t moved_weight = 0;
  index_t weight_sum = 0;
  std::fill(surges.begin(), surges.end(), 0);
  for (index_t age = 0; age < used; ++age) {
    index_t const row = rows - 1 - age;
    index_t const weight = used - age;
    to_shares({samples.row(row), now.size()}, first);
    for (std::size_t e = 0; e < now.size(); ++e) { surges[e] += weight * first[e]; }
    weight_sum += weight;
    if (row == 0) { continue; }
    to_shares({samples.row(std::max<index_t>(0, row - rules.horizon)), now.size()}, second);
    index_t change = 0;
    for (std::size_t e = 0; e < now.size(); ++e) { change += first[e] < second[e] ? second[e] - first[e] : first[e] - second[e]; }
    moved += static_cast<slot_wide>(weight) * change;
    moved_weight += weight;
  }
  // Half of the absolute changes is the share that went elsewhere.
  double const volatility = moved_weight > 0 ? static_cast<double>(static_cast<index_t>(moved / (2 * moved_weight))) / static_cast<double>(whole_share)
                                             : rules.volatility;
  auto const even = static_cast<double>(whole_share / std::max<index_t>(experts, 1));
  auto const fresh = static_cast<index_t>(volatility * rules.fresh * even);
  for (std::size_t e = 0; e < now.size(); ++e) {
    index_t const mean = weight_sum > 0 ? surges[e] / weight_sum : now[e];
    auto const own = static_cast<index_t>(volatility * rules.own * static_cast<double>(mean));
    surges[e] = std::max(own + fresh, whole_share >> 16U);
  }
}

// Expected excess over what k hosts carry at even load, relative to that, if the expert gains an exponential surge:
// E[(L + X - c)+] / c = (mean / c) exp(-(c - L) / mean) below c, and (L + mean) / c - 1 above. Units of 2^-30.
inline index_t expected_excess(index_t load, index_t surge, index_t hosts, index_t even) {
  index_t const carried = hosts * even;
  if (load >= carried) { return static_cast<index_t>(static_cast<slot_wide>(load + surge - carried) * whole_share / carried); }
  float const relative = numeric::quotient(static_cast<float>(surge), static_cast<float>(carried));
  float const distance = numeric::quotient(static_cast<float>(carried - load), static_cast<float>(surge));
  return static_cast<index_t>(relative * numeric::exp(-distance) * 0x1p30F);
}

// How many hosts each expert gets: one, then each slot where it lowers the expected excess most. Two small terms decide
// about slots that no surge needs: a rare surge of a whole rank's load, which asks for a second host of idle experts, and
// the load per host, which makes the balance of the others easier.
inline void count_hosts(std::span<index_t const> shares, std::span<index_t const> surges, index_t slots, index_t hosting_ranks,
                        std::span<index_t> gains, std::span<std::int32_t> hosts) {
  index_t const even = std::max<index_t>(whole_share / std::max<index_t>(hosting_ranks, 1), 1);
  auto const gain = [&](std::size_t e) {
    if (hosts[e] >= hosting_ranks) { return index_t{-1}; }
    index_t const saved = expected_excess(shares[e], surges[e], hosts[e], even) - expected_excess(shares[e], surges[e], hosts[e] + 1, even);
    index_t const rare = expected_excess(shares[e], even, hosts[e], even) - expected_excess(shares[e], even, hosts[e] + 1, even);
    auto const relief = static_cast<index_t>(static_cast<slot_wide>(shares[e]) * whole_share / even / hosts[e]);
    return std::max<index_t>(saved, 0) + (std::max<index_t>(rare, 0) + relief) / 8192;
  };
  std::fill(hosts.begin(), hosts.end(), 1);
  for (std::size_t e = 0; e < shares.size(); ++e) { gains[e] = gain(e); }
  for (auto slot = static_cast<index_t>(shares.size()); slot < slots; ++slot) {
    auto const best = static_cast<std::size_t>(std::max_element(gains.begin(), gains.end()) - gains.begin());
    if (gains[best] < 0) { break; }  // every expert is everywhere
    ++hosts[best];
    gains[best] = gain(best);
  }
}

// A sample of what may come: each expert gains an exponential surge. Not scaled back: objectives look at ratios.
inline void draw_surge(std::span<index_t const> shares, std::span<index_t const> surges, std::uint64_t seed, std::uint64_t number,
                       std::span<index_t> sample) {
  for (std::size_t e = 0; e < shares.size(); ++e) {
    auto const words = philox::draw(seed, 0x5A3B1E + number, e / 4);
    float const length = -numeric::log1p(philox::to_uniform(words[e % 4]) - 1.0F);
    sample[e] = shares[e] + static_cast<index_t>(static_cast<float>(surges[e]) * length);
  }
}

// A sample in which loads change once more as they changed between two rows of the past. `first`, `second`: scratch.
inline void repeat_change(matrix_view<index_t const> samples, index_t from, index_t to, std::span<index_t const> shares,
                          std::span<index_t> first, std::span<index_t> second, std::span<index_t> sample) {
  to_shares({samples.row(from), shares.size()}, first);
  to_shares({samples.row(to), shares.size()}, second);
  for (std::size_t e = 0; e < shares.size(); ++e) { sample[e] = std::max<index_t>(0, shares[e] + second[e] - first[e]); }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
