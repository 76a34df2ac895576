// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Exchanges of two replicas that make the heaviest rank lighter.
#include <fairlead/place/detail/share_packing.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail::packing {

// Exchanges a replica of the heaviest rank for a lighter one of another, such that the heavier of the two becomes as
// light as possible (or light enough), until that helps no more, `goal` is reached or `limit` exchanges are made.
// `share` is the weight by what stands in `s.placed`, `sum` takes the loads of ranks. Overwrites `s.weight`. Returns
// the largest sum.
inline std::uint64_t exchange_pairs(packing_scratch const& s, std::uint32_t ranks, std::uint64_t const* share,
                                    std::uint64_t* sum, std::uint64_t goal, std::uint64_t limit) {
  std::uint64_t* const weight = s.weight;  // by slot
  for (std::uint32_t b = 0; b < ranks; ++b) {
    sum[b] = 0;
    for (std::uint32_t i = s.bins[b].first; i < s.bins[b].first + s.fill[b]; ++i) {
      weight[i] = share[s.placed[i]];
      sum[b] += weight[i];
    }
  }
  for (std::uint64_t step = 0;; ++step) {
    auto const a = static_cast<std::uint32_t>(std::max_element(sum, sum + ranks) - sum);
    if (sum[a] <= goal || step == limit) { return sum[a]; }
    std::uint32_t const a_begin = s.bins[a].first;
    std::uint32_t const a_end = a_begin + s.fill[a];
    std::uint64_t pair = sum[a];
    std::uint32_t from = 0;
    std::uint32_t to = 0;
    std::uint32_t with = a;
    for (std::uint32_t b = 0; b < ranks && pair > goal; ++b) {
      if (b == a || (sum[a] + sum[b]) / 2 >= pair) { continue; }  // halving the difference is the most there is
      std::uint32_t const b_begin = s.bins[b].first;
      std::uint32_t const b_end = b_begin + s.fill[b];
      std::uint64_t last = ~std::uint64_t{0};
      for (std::uint32_t i = a_begin; i < a_end; ++i) {
        if (weight[i] == last) { continue; }
        last = weight[i];
        std::uint64_t const rest = sum[a] - weight[i];
        std::uint64_t const grown = sum[b] + weight[i];
        for (std::uint32_t j = b_begin; j < b_end; ++j) {
          std::uint64_t const heavier = std::max(rest + weight[j], grown - weight[j]);
          if (heavier < pair) {
            pair = heavier;
            from = i;
            to = j;
            with = b;
          }
        }
      }
    }
    if (with == a) { return sum[a]; }
    std::uint64_t const difference = weight[from] - weight[to];
    sum[a] -= difference;
    sum[with] += difference;
    std::swap(s.placed[from], s.placed[to]);
    std::swap(weight[from], weight[to]);
  }
}

}  // namespace detail::packing
FAIRLEAD_NAMESPACE_END
