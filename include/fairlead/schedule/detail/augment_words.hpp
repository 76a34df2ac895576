// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Augmenting paths between at most 64 ranks, with sets of ranks in one word.
#include <fairlead/schedule/detail/augment.hpp>

#include <array>
#include <bit>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// What `augment` does, for at most 64 ranks of equal speed. A rank is expanded without a branch: the hosts of all experts
// with a share on it are united in one word. The hops of a path are looked up afterwards.
template <class Sum>
inline augment_counts augment_words(host_graph_view const& graph, count_t* share, Sum* load, even_cap<Sum>& cap, augment_scratch const& scratch) noexcept {
  augment_counts counts;
  std::int32_t const* const columns = graph.rank_columns.data();
  std::uint64_t const* const hosts = graph.rank_hosts.data();
  std::array<std::uint64_t, 64> found;  // by expansion: ranks that it reached first
  std::array<std::int32_t, 64> expanded;
  auto const bit = [](std::int32_t rank) { return std::uint64_t{1} << static_cast<unsigned>(rank); };
  auto const first_of = [](std::uint64_t set) { return static_cast<std::int32_t>(std::countr_zero(set)); };
  auto const with_room = [&] {
    std::uint64_t room = 0;
    for (std::int32_t rank = 0; rank < graph.ranks; ++rank) { room |= static_cast<std::uint64_t>(load[rank] < cap.lambda) << static_cast<unsigned>(rank); }
    return room;
  };
  std::uint64_t room = with_room();
  for (;;) {
    std::int32_t source = 0;  // the most crowded rank, as in `augment`
    for (std::int32_t rank = 1; rank < graph.ranks; ++rank) { source = load[rank] > load[source] ? rank : source; }
    if (load[source] <= cap.lambda) { return counts; }
    do {
      ++counts.searches;
      std::uint64_t seen = bit(source);
      std::uint64_t layer = seen;
      std::uint64_t arrived = 0;  // ranks with room in the layer that was reached last
      std::size_t steps = 0;
      while (layer != 0 && arrived == 0) {
        std::uint64_t next = 0;
        for (; layer != 0 && arrived == 0; layer &= layer - 1) {
          std::int32_t const u = first_of(layer);
          std::uint64_t reach = 0;
          for (std::int32_t k = graph.rank_first[static_cast<std::size_t>(u)]; k < graph.rank_first[static_cast<std::size_t>(u) + 1]; ++k) {
            reach |= share[columns[k]] != 0 ? hosts[k] : 0;
          }
          reach &= ~seen;
          seen |= reach;
          next |= reach;
          expanded[steps] = u;
          found[steps++] = reach;
          arrived = reach & room;
        }
        layer = next;
      }
      if (arrived == 0) {
        std::int32_t size = 0;
        counts.cut_load = 0;
        for (std::uint64_t rest = seen; rest != 0; rest &= rest - 1) {
          std::int32_t const rank = first_of(rest);
          scratch.cut[static_cast<std::size_t>(size++)] = rank;
          counts.cut_load += load[rank];
        }
        counts.cut_size = size;
        cap.raise({scratch.cut.data(), static_cast<std::size_t>(size)}, counts.cut_load);
        ++counts.raises;
        room = with_room();
        continue;
      }
      std::int32_t const sink = first_of(arrived);
      Sum amount = std::min<Sum>(load[source] - cap.lambda, cap.lambda - load[sink]);
      std::size_t hops = 0;
      std::size_t step = steps;
      for (std::int32_t v = sink; v != source; ++hops) {
        while ((found[--step] & bit(v)) == 0) {}
        std::int32_t const u = expanded[step];
        std::int32_t from = -1;  // the expert with the largest share there of those that v hosts too
        for (std::int32_t k = graph.rank_first[static_cast<std::size_t>(u)]; k < graph.rank_first[static_cast<std::size_t>(u) + 1]; ++k) {
          bool const leads = (hosts[k] & bit(v)) != 0 && share[columns[k]] > (from < 0 ? 0 : share[from]);
          from = leads ? columns[k] : from;
        }
        std::int32_t to = graph.first[static_cast<std::size_t>(graph.expert[static_cast<std::size_t>(from)])];
        while (graph.rank[static_cast<std::size_t>(to)] != v) { ++to; }
        amount = std::min<Sum>(amount, share[from]);
        scratch.out_of[hops] = from;
        scratch.into[hops] = to;
        v = u;
      }
      for (std::size_t hop = 0; hop < hops; ++hop) {
        share[scratch.out_of[hop]] = static_cast<count_t>(share[scratch.out_of[hop]] - amount);
        share[scratch.into[hop]] = static_cast<count_t>(share[scratch.into[hop]] + amount);
      }
      load[source] -= amount;
      load[sink] += amount;
      if (load[sink] >= cap.lambda) { room &= ~bit(sink); }
      ++counts.paths;
    } while (load[source] > cap.lambda);
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
