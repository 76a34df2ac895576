// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The steps of the exact min-max split.
#include <fairlead/core/workspace.hpp>
#include <fairlead/schedule/detail/augment.hpp>
#include <fairlead/schedule/detail/augment_words.hpp>
#include <fairlead/schedule/detail/pair_exchange.hpp>
#include <fairlead/schedule/host_graph.hpp>
#include <fairlead/schedule/min_max_report.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

[[nodiscard]] inline std::size_t min_max_bytes(index_t ranks, index_t experts, index_t columns) noexcept {
  return 2 * fairlead::workspace_bytes<std::int64_t>(ranks + 1) + 5 * fairlead::workspace_bytes<std::int32_t>(ranks) +
         fairlead::workspace_bytes<std::int32_t>(experts) +
         // the graph without failed ranks
         2 * fairlead::workspace_bytes<std::int32_t>(columns) + fairlead::workspace_bytes<std::int32_t>(ranks + 1) +
         fairlead::workspace_bytes<std::int32_t>(4 * ranks) + fairlead::workspace_bytes<std::uint64_t>(ranks <= word_ranks ? columns : 0);
}

// Give an expert's load to its first live column; the sweep then evens it out.
template <class Sum>
struct cold_start {
  std::int32_t const* rank;
  std::int32_t nobody;
  index_t const* totals;
  count_t* share;
  Sum* load;
  void operator()(std::int32_t expert, std::int32_t column, std::int32_t degree) const noexcept {
    std::int32_t live = column;
    while (rank[live] == nobody && live + 1 < column + degree) { ++live; }
    std::fill_n(share + column, degree, count_t{0});
    auto const total = static_cast<count_t>(totals[expert]);
    share[live] = total;
    load[rank[live]] += total;
  }
};

// Scale the old shares to the new total; what rounding leaves goes to the first live column.
template <class Sum>
struct warm_start {
  std::int32_t const* rank;
  std::int32_t nobody;
  index_t const* totals;
  count_t* share;
  Sum* load;
  void operator()(std::int32_t expert, std::int32_t column, std::int32_t degree) const noexcept {
    std::int64_t before = 0;
    std::int32_t live = -1;
    for (std::int32_t c = column + degree; c-- > column;) {
      if (rank[c] == nobody || share[c] < 0) { share[c] = 0; }
      before += share[c];
      live = rank[c] == nobody ? live : c;
    }
    live = live < 0 ? column : live;
    index_t left = totals[expert];
    // One correctly rounded division and one product a column: equal on every machine, and never above the total.
    double const scale = before > 0 ? static_cast<double>(left) / static_cast<double>(before) : 0.0;
    for (std::int32_t c = column; c < column + degree; ++c) {
      auto const part = static_cast<count_t>(std::min<index_t>(left, static_cast<index_t>(static_cast<double>(share[c]) * scale)));
      share[c] = part;
      left -= part;
      load[rank[c]] += part;
    }
    share[live] = static_cast<count_t>(share[live] + left);
    load[rank[live]] += static_cast<Sum>(left);
  }
};

struct keep_shares {
  void operator()(std::int32_t, std::int32_t, std::int32_t) const noexcept {}
};

// What is known before the shares are made.
struct load_facts {
  std::int64_t total = 0;     // copies of all experts
  std::int64_t base = 0;      // base loads of live ranks
  std::int64_t largest = 0;   // largest base load of a live rank
  std::int64_t live = 0;      // ranks that can host: number, or sum of speeds
  std::int64_t pinned = 0;    // the largest (load of an expert / its columns), rounded up
  std::int64_t pinned_load = 0;  // its load
  std::int32_t pinned_degree = 0;  // its columns
  std::int32_t busiest = -1;  // a rank with the largest base load
};

[[nodiscard]] inline load_facts gather_facts(host_graph_view const& graph, std::span<index_t const> totals, split_conditions const& conditions) {
  load_facts facts;
  auto const degrees = static_cast<std::int32_t>(graph.degree_first.size()) - 1;
  for (std::int32_t degree = 0; degree < degrees; ++degree) {
    std::int32_t const begin = graph.degree_first[static_cast<std::size_t>(degree)];
    std::int32_t const end = graph.degree_first[static_cast<std::size_t>(degree) + 1];
    if (begin == end) { continue; }
    index_t sum = 0;
    index_t most = -1;
    index_t least = 0;
    for (std::int32_t k = begin; k < end; ++k) {
      index_t const total = totals[static_cast<std::size_t>(graph.by_degree[static_cast<std::size_t>(k)])];
      sum += total;
      most = std::max(most, total);
      least = std::min(least, total);
    }
    FAIRLEAD_EXPECTS(least >= 0 && most <= INT32_MAX, "loads must be in [0, 2^31): schedule fewer tokens at once", least, most);
    facts.total += sum;
    if (degree > 0 && (most + degree - 1) / degree > facts.pinned) {
      facts.pinned = (most + degree - 1) / degree;
      facts.pinned_load = most;
      facts.pinned_degree = degree;
    }
  }
  for (std::int32_t rank = 0; rank < graph.ranks; ++rank) {
    auto const r = static_cast<std::size_t>(rank);
    std::int64_t const speed = conditions.speed.empty() ? 1 : conditions.speed[r];
    FAIRLEAD_EXPECTS_2(speed >= 0 && speed <= (1 << 20), "speeds must be in [0, 2^20]", rank, speed);
    if (speed == 0) { continue; }
    facts.live += speed;
    if (!conditions.base.empty()) {
      FAIRLEAD_EXPECTS_2(conditions.base[r] >= 0 && conditions.base[r] <= INT32_MAX, "base loads must be in [0, 2^31)", rank, conditions.base[r]);
      facts.base += conditions.base[r];
      if (conditions.base[r] > facts.largest) { facts.largest = conditions.base[r], facts.busiest = rank; }
    }
  }
  return facts;
}

// Name the ranks that prove the bound: the last closed set, or all ranks, or the hosts of one expert, or one rank.
inline void name_cut(host_graph_view const& graph, std::span<index_t const> totals, split_conditions const& conditions, load_facts const& facts, augment_counts const& counts,
                     bool all, std::span<std::int32_t> cut, min_max_report& result) noexcept {
  std::size_t size = static_cast<std::size_t>(counts.cut_size);
  result.numerator = counts.cut_load;
  auto const base = [&](std::int32_t rank) { return conditions.base.empty() ? 0 : conditions.base[static_cast<std::size_t>(rank)]; };
  if (size == 0 && all) {
    for (std::int32_t rank = 0; rank < graph.ranks; ++rank) {
      if (conditions.speed.empty() || conditions.speed[static_cast<std::size_t>(rank)] > 0) { cut[size++] = rank; }
    }
    result.numerator = facts.total + facts.base;
    result.denominator = std::max<index_t>(facts.live, 1);
  } else if (size == 0 && facts.pinned >= facts.largest) {
    std::int32_t k = graph.degree_first[static_cast<std::size_t>(facts.pinned_degree)];
    while (totals[static_cast<std::size_t>(graph.by_degree[static_cast<std::size_t>(k)])] != facts.pinned_load) { ++k; }
    auto const e = static_cast<std::size_t>(graph.by_degree[static_cast<std::size_t>(k)]);
    result.numerator = facts.pinned_load;
    for (std::int32_t c = graph.first[e]; c < graph.first[e + 1]; ++c) {
      std::int32_t const rank = graph.rank[static_cast<std::size_t>(c)];
      if (rank == graph.ranks) { continue; }
      cut[size++] = rank;
      result.numerator += base(rank);
    }
    result.denominator = static_cast<index_t>(size);
  } else if (size == 0) {
    cut[size++] = facts.busiest;
    result.numerator = facts.largest;
  } else {
    result.denominator = static_cast<index_t>(size);
  }
  result.cut = cut.first(size);
  result.paths = counts.paths;
  result.raises = counts.raises;
}

// Sweeps end early when few ranks are above the cap, at most one in `sweep_share`: paths are then cheaper.
inline constexpr std::size_t sweep_share = 32;
inline constexpr std::size_t sweep_limit = 16;
// A further round of sweeps and tree pass, and how many crowded ranks it has to settle to be worth it.
inline constexpr int round_sweeps = 2;
inline constexpr std::size_t round_gain = 3;
// Crowded ranks from which on all of them pass copies on at once before paths are searched one by one.
inline constexpr std::size_t drain_from = 32;

// Sweeps, tree and paths with equal speeds. Sum: std::int32_t when all loads together stay below 2^30, else 64 bits.
template <class Sum>
[[nodiscard]] inline min_max_report solve_even(host_graph_view const& graph, std::span<index_t const> totals, split_conditions const& conditions,
                                               std::int32_t sweeps, split_start start, load_facts const& facts, std::span<count_t> shares,
                                               augment_scratch const& scratch, std::span<Sum> load) {
  count_t* const share = shares.data();
  even_pull<Sum> const pull{};
  auto const ranks = static_cast<std::size_t>(graph.ranks);
  std::fill(load.begin(), load.end(), Sum{0});
  for (std::size_t r = 0; r < ranks && !conditions.base.empty(); ++r) {
    load[r] = !conditions.speed.empty() && conditions.speed[r] == 0 ? Sum{0} : static_cast<Sum>(conditions.base[r]);
  }
  load[ranks] = Sum{1} << (sizeof(Sum) == 4 ? 30 : 42);  // nobody is never the less busy one
  if (start == split_start::cold) {
    sweep(graph, share, load.data(), pull, cold_start<Sum>{graph.rank.data(), graph.ranks, totals.data(), share, load.data()});
  } else {
    sweep(graph, share, load.data(), pull, warm_start<Sum>{graph.rank.data(), graph.ranks, totals.data(), share, load.data()});
  }
  std::int64_t const mean = facts.live == 0 ? 0 : (facts.total + facts.base + facts.live - 1) / facts.live;
  even_cap<Sum> cap{static_cast<Sum>(std::max({mean, facts.pinned, facts.largest}))};
  auto const crowded = [&] {
    std::size_t count = 0;
    for (std::size_t r = 0; r < ranks; ++r) { count += load[r] > cap.lambda ? 1 : 0; }
    return count;
  };
  std::size_t const few = std::min(ranks / sweep_share, sweep_limit);
  for (std::int32_t done = 0; done < sweeps && crowded() > few; ++done) { sweep(graph, share, load.data(), pull, keep_shares{}); }
  if (static_cast<std::int64_t>(cap.lambda) * facts.live - facts.total - facts.base < facts.live && crowded() > 0) {
    settle_tree(graph, share, load.data(), cap.lambda);  // all ranks have to end at the cap: a tree says how in one pass
    // Where shares on the tree ran out, a few more sweeps and another pass often settle it. With many ranks and few hosts an
    // expert a search costs as much as a sweep, so this goes on as long as every round saves some.
    bool const long_ways = graph.ranks > word_ranks && graph.columns < 3 * graph.experts;
    std::size_t left = long_ways ? crowded() : 0;
    for (std::size_t before = left + round_gain; left > 1 && left + round_gain <= before;) {
      before = left;
      for (int done = 0; done < round_sweeps; ++done) { sweep(graph, share, load.data(), pull, keep_shares{}); }
      settle_tree(graph, share, load.data(), cap.lambda);
      left = crowded();
    }
  }
  augment_counts counts;
  if (crowded() > 0) {
    if (graph.ranks <= word_ranks) {
      counts = augment_words(graph, share, load.data(), cap, scratch);
    } else {
      for (std::size_t left = crowded(); left > 0; left = crowded()) {
        if (left > drain_from) {  // as long as every pass halves what is too much
          std::int64_t excess = drain_towards_room(graph, share, load.data(), cap, scratch);
          for (std::int64_t before = 2 * excess; excess > 0 && excess <= before / 2;) {
            before = excess;
            excess = drain_towards_room(graph, share, load.data(), cap, scratch);
          }
        }
        augment(graph, share, load.data(), cap, scratch, true, counts);
      }
    }
  }
  min_max_report result;
  name_cut(graph, totals, conditions, facts, counts, cap.lambda == mean, scratch.cut, result);
  result.summary = {.iterations = counts.searches, .value = static_cast<double>(cap.lambda), .bound = static_cast<double>(cap.lambda)};
  return result;
}

// The same with speeds; loads a unit of speed are compared by products.
[[nodiscard]] inline min_max_report solve_weighted(host_graph_view const& graph, std::span<index_t const> totals, split_conditions const& conditions,
                                                   std::int32_t sweeps, split_start start, load_facts const& facts, std::span<count_t> shares,
                                                   augment_scratch const& scratch, std::span<std::int64_t> load, std::span<std::int64_t> speed) {
  count_t* const share = shares.data();
  auto const ranks = static_cast<std::size_t>(graph.ranks);
  for (std::size_t r = 0; r < ranks; ++r) {
    speed[r] = conditions.speed[r];
    load[r] = conditions.base.empty() || speed[r] == 0 ? 0 : conditions.base[r];
  }
  speed[ranks] = 1;
  load[ranks] = std::int64_t{1} << 42;
  weighted_pull const pull{speed.data()};
  if (start == split_start::cold) {
    sweep(graph, share, load.data(), pull, cold_start<std::int64_t>{graph.rank.data(), graph.ranks, totals.data(), share, load.data()});
  } else {
    sweep(graph, share, load.data(), pull, warm_start<std::int64_t>{graph.rank.data(), graph.ranks, totals.data(), share, load.data()});
  }
  for (std::int32_t done = 0; done < sweeps; ++done) { sweep(graph, share, load.data(), pull, keep_shares{}); }
  weighted_cap cap{speed.data(), facts.total + facts.base, std::max<std::int64_t>(facts.live, 1)};
  augment_counts counts;
  augment(graph, share, load.data(), cap, scratch, false, counts);
  min_max_report result;
  name_cut(graph, totals, conditions, facts, counts, true, scratch.cut, result);
  if (counts.raises > 0) {
    result.denominator = 0;
    for (std::int32_t const rank : result.cut) { result.denominator += speed[static_cast<std::size_t>(rank)]; }
  }
  double value = 0.0;
  for (std::size_t r = 0; r < ranks; ++r) {
    if (speed[r] > 0) { value = std::max(value, static_cast<double>(load[r]) / static_cast<double>(speed[r])); }
  }
  result.summary = {.iterations = counts.searches, .value = value, .bound = value};
  return result;
}

// The same graph without the columns of failed ranks, in scratch.
[[nodiscard]] inline host_graph_view without_failed(host_graph_view const& graph, std::span<count_t const> speed, augment_scratch const& scratch,
                                                    workspace& ws) {
  auto const rank = ws.take<std::int32_t>(graph.columns);
  auto const columns = ws.take<std::int32_t>(graph.columns);
  auto const first = ws.take<std::int32_t>(graph.ranks + 1);
  auto const tree = ws.take<std::int32_t>(4 * static_cast<index_t>(graph.ranks));
  for (std::size_t c = 0; c < rank.size(); ++c) {
    std::int32_t const r = graph.rank[c];
    rank[c] = r != graph.ranks && speed[static_cast<std::size_t>(r)] == 0 ? graph.ranks : r;
  }
  host_graph_view live = graph;
  live.rank = rank;
  live.rank_first = first;
  live.rank_columns = columns;
  list_columns_of_ranks(live, first, columns);
  if (graph.ranks <= word_ranks) {
    auto const hosts = ws.take<std::uint64_t>(graph.columns);
    live.rank_hosts = hosts;
    list_hosts_of_ranks(live, hosts);
  }
  live.tree = tree.first(static_cast<std::size_t>(4 * span_ranks(live, scratch.queue, scratch.rank_seen, scratch.expert_seen, tree)));
  return live;
}

[[nodiscard]] inline bool loses_load(host_graph_view const& graph, std::span<index_t const> totals) noexcept {
  for (std::int32_t e = 0; e < graph.experts; ++e) {
    auto const at = static_cast<std::size_t>(e);
    bool hosted = totals[at] == 0;
    for (std::int32_t c = graph.first[at]; c < graph.first[at + 1] && !hosted; ++c) { hosted = graph.rank[static_cast<std::size_t>(c)] != graph.ranks; }
    if (!hosted) { return true; }
  }
  return false;
}

[[nodiscard]] inline min_max_report solve_min_max(host_graph_view const& placed, std::span<index_t const> totals, split_conditions const& conditions,
                                                  std::int32_t sweeps, split_start start, std::span<count_t> shares, workspace& ws) {
  workspace::scope const scope(ws);
  augment_scratch const scratch{.queue = ws.take<std::int32_t>(placed.ranks),
                                .rank_seen = ws.take<std::int32_t>(placed.ranks),
                                .expert_seen = ws.take<std::int32_t>(placed.experts),
                                .into = ws.take<std::int32_t>(placed.ranks),
                                .out_of = ws.take<std::int32_t>(placed.ranks),
                                .cut = ws.take<std::int32_t>(placed.ranks)};
  auto const load = ws.take<std::int64_t>(placed.ranks + 1);
  load_facts const facts = gather_facts(placed, totals, conditions);
  FAIRLEAD_EXPECTS(facts.total + facts.base < (std::int64_t{1} << 42), "all loads together must be below 2^42", facts.total, facts.base);
  bool even = true;
  bool failed = false;
  for (count_t const speed : conditions.speed) {
    failed = failed || speed == 0;
    even = even && (speed == 0 || speed == 1);
  }
  host_graph_view const graph = failed ? without_failed(placed, conditions.speed, scratch, ws) : placed;
  // Experts without any column come first in `by_degree`.
  bool const may_lose = failed || (graph.degree_first.size() > 1 && graph.degree_first[1] > 0);
  if (may_lose && loses_load(graph, totals)) {
    std::fill(shares.begin(), shares.end(), count_t{0});
    return {.summary = {.status = status::lost_expert}};
  }
  if (!even) {
    return solve_weighted(graph, totals, conditions, sweeps, start, facts, shares, scratch, load, ws.take<std::int64_t>(placed.ranks + 1));
  }
  if (facts.total + facts.base < (std::int64_t{1} << 30)) {
    // The narrow sums lie in the memory of the wide ones.
    std::span<std::int32_t> const narrow(reinterpret_cast<std::int32_t*>(load.data()), load.size());
    return solve_even<std::int32_t>(graph, totals, conditions, sweeps, start, facts, shares, scratch, narrow);
  }
  return solve_even<std::int64_t>(graph, totals, conditions, sweeps, start, facts, shares, scratch, load);
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
