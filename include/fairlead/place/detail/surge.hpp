// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Private: what loads may become: how far they moved in the past, hosts that this asks for, and samples of it.
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
  index_t window;        // samples looked at
  index_t horizon;       // samples between a plan and its use
  double fresh_caution;  // factors of the mean surges
  double growth_caution;
};

// How an expert may gain load: with a probability an exponential surge that does not depend on its load, and with
// another one that is proportional to it. Probabilities and lengths in units of 2^-30.
struct surge_model {
  index_t fresh_chance;
  index_t fresh_mean;  // share of all load
  index_t growth_chance;
  index_t growth_factor;  // mean growth over the share before
};

// What gains of the past look like. A class of gains with sum S, sum of squares Q and n experts is described by mean
// length Q / (2 S), which is exact for exponential ones, and probability (S / n) / length: a few large jumps among many
// zeros stay large and rare. Experts below an even share make the first class, the others, relative to their share, the
// second. `before`, `after`: scratch of experts.
inline surge_model fit_surges(matrix_view<index_t const> samples, surge_rules const& rules, std::span<index_t> before,
                              std::span<index_t> after) {
  auto const experts = static_cast<index_t>(before.size());
  index_t const rows = samples.rows();
  index_t const even = whole_share / experts;
  slot_wide fresh_sum = 0, fresh_squares = 0, growth_sum = 0, growth_squares = 0;
  index_t fresh_count = 0, growth_count = 0;
  for (index_t age = 0; age < std::min(rules.window, rows - 1); ++age) {
    index_t const row = rows - 1 - age;
    to_shares({samples.row(row), before.size()}, after);
    to_shares({samples.row(std::max<index_t>(0, row - rules.horizon)), before.size()}, before);
    for (std::size_t e = 0; e < before.size(); ++e) {
      index_t const gain = std::max<index_t>(0, after[e] - before[e]);
      if (before[e] < even) {
        fresh_sum += gain, fresh_squares += static_cast<slot_wide>(gain) * gain, ++fresh_count;
      } else {
        auto const factor = static_cast<index_t>(static_cast<slot_wide>(gain) * whole_share / before[e]);
        growth_sum += factor, growth_squares += static_cast<slot_wide>(factor) * factor, ++growth_count;
      }
    }
  }
  // Without a past: one expert in eight gains a sixteenth of all load, one in two grows by a half.
  surge_model model{whole_share / 8, whole_share / 16, whole_share / 2, whole_share / 2};
  if (fresh_count + growth_count > 0) {
    auto const length = [&](slot_wide sum, slot_wide squares) {
      index_t const mean = sum == 0 ? 0 : static_cast<index_t>(squares / (2 * sum));
      return std::max(mean, whole_share >> 16U);
    };
    auto const chance = [&](slot_wide sum, index_t count, index_t mean) {
      return count == 0 ? 0 : std::min(whole_share, static_cast<index_t>(sum * whole_share / count / mean));
    };
    model.fresh_mean = length(fresh_sum, fresh_squares);
    model.fresh_chance = chance(fresh_sum, fresh_count, model.fresh_mean);
    model.growth_factor = length(growth_sum, growth_squares);
    model.growth_chance = chance(growth_sum, growth_count, model.growth_factor);
  }
  model.fresh_mean = static_cast<index_t>(static_cast<double>(model.fresh_mean) * rules.fresh_caution);
  model.growth_factor = static_cast<index_t>(static_cast<double>(model.growth_factor) * rules.growth_caution);
  return model;
}

inline index_t times(index_t a, index_t b) { return static_cast<index_t>(static_cast<slot_wide>(a) * b / whole_share); }

// Expected excess over what k hosts carry at even load, relative to that, if the expert gains an exponential surge:
// E[(L + X - c)+] / c = (mean / c) exp(-(c - L) / mean) below c, and (L + mean) / c - 1 above. Units of 2^-30.
inline index_t expected_excess(index_t load, index_t surge, index_t hosts, index_t even) {
  index_t const carried = hosts * even;
  if (load >= carried) {
    return static_cast<index_t>(static_cast<slot_wide>(load + surge - carried) * whole_share / carried);
  }
  if (surge <= 0) { return 0; }
  float const relative = numeric::quotient(static_cast<float>(surge), static_cast<float>(carried));
  float const distance = numeric::quotient(static_cast<float>(carried - load), static_cast<float>(surge));
  return static_cast<index_t>(relative * numeric::exp(-distance) * 0x1p30F);
}

// How many hosts each expert gets: one, then each slot where it lowers the expected excess most. Two small terms decide
// about slots that no surge needs: a rare surge of a whole rank's load, which asks for a second host of idle experts,
// and the load per host, which makes the balance of the others easier.
inline void count_hosts(std::span<index_t const> shares, surge_model const& model, index_t slots, index_t hosting_ranks,
                        std::span<index_t> gains, std::span<std::int32_t> hosts) {
  index_t const even = std::max<index_t>(whole_share / std::max<index_t>(hosting_ranks, 1), 1);
  auto const excess = [&](std::size_t e, index_t k) {
    index_t const rare = expected_excess(shares[e], even, k, even);
    index_t const fresh = expected_excess(shares[e], model.fresh_mean, k, even);
    index_t const growth = expected_excess(shares[e], times(model.growth_factor, shares[e]), k, even);
    return times(model.fresh_chance, fresh) + times(model.growth_chance, growth) + rare / 8192;
  };
  auto const gain = [&](std::size_t e) {
    if (hosts[e] >= hosting_ranks) { return index_t{-1}; }
    index_t const saved = excess(e, hosts[e]) - excess(e, hosts[e] + 1);
    auto const relief = static_cast<index_t>(static_cast<slot_wide>(shares[e]) * whole_share / even / hosts[e]);
    return std::max<index_t>(saved, 0) + relief / 8192;
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

// A sample of what may come: each expert may gain both kinds of surge. Not scaled back: objectives look at ratios.
inline void draw_surge(std::span<index_t const> shares, surge_model const& model, std::uint64_t seed,
                       std::uint64_t number, std::span<index_t> sample) {
  auto const happens = [](std::uint32_t word, index_t chance) { return static_cast<index_t>(word >> 2U) < chance; };
  auto const length = [](std::uint32_t word, index_t mean) {
    return static_cast<index_t>(static_cast<float>(mean) * -numeric::log1p(philox::to_uniform(word) - 1.0F));
  };
  for (std::size_t e = 0; e < shares.size(); ++e) {
    auto const words = philox::draw(seed, 0x5A3B1E + number, e);
    sample[e] = shares[e];
    if (happens(words[0], model.fresh_chance)) { sample[e] += length(words[1], model.fresh_mean); }
    if (happens(words[2], model.growth_chance)) {
      sample[e] += length(words[3], times(model.growth_factor, shares[e]));
    }
  }
}

// A sample in which loads change once more as they changed between two rows of the past. `first`, `second`: scratch.
inline void repeat_change(matrix_view<index_t const> samples, index_t from, index_t to, std::span<index_t const> shares,
                          std::span<index_t> first, std::span<index_t> second, std::span<index_t> sample) {
  to_shares({samples.row(from), shares.size()}, first);
  to_shares({samples.row(to), shares.size()}, second);
  for (std::size_t e = 0; e < shares.size(); ++e) {
    sample[e] = std::max<index_t>(0, shares[e] + second[e] - first[e]);
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
