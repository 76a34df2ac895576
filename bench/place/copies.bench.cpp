// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Short-lived copies and moves: time of one decision over many different loads or tables, with what it achieves beside
// it.
#include "support/axes.hpp"

#include <fairlead/cluster/cost_presets.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/place/budgeted.hpp>
#include <fairlead/place/global_pack.hpp>
#include <fairlead/place/moves.hpp>
#include <fairlead/place/prefix_shadow.hpp>
#include <fairlead/place/slot_mapping.hpp>
#include <fairlead/place/sparse_copies.hpp>
#include <fairlead/place/subset_copy.hpp>
#include <fairlead/workload/drifting_load.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;

struct shape {
  index_t ranks;
  index_t experts;
  index_t slots_per_rank;
};
constexpr std::array<shape, 3> shapes{{{16, 64, 5}, {64, 256, 5}, {256, 256, 2}}};
constexpr index_t variants = 16;

std::string name_of(char const* what, shape s) {
  return fl_bench::text_of("place/", what, "/", s.ranks, "x", s.experts, "x", s.slots_per_rank);
}

// Loads of a drifting trace, as planners read them.
struct load_set {
  std::vector<fl::matrix<index_t>> by_source;
  std::vector<std::vector<index_t>> totals;
  explicit load_set(shape s) {
    fl::workload::drifting_load const drift{.ranks = s.ranks,
                                            .experts = s.experts,
                                            .copies = 16384,
                                            .skew = 1.0,
                                            .persistence = 0.5,
                                            .seed = fl_bench::axes::seed};
    for (auto const& load : drift.make(variants)) {
      fl::matrix<index_t> wide(s.ranks, s.experts);
      std::vector<index_t> sums(static_cast<std::size_t>(s.experts), 0);
      for (index_t r = 0; r < s.ranks; ++r) {
        for (index_t e = 0; e < s.experts; ++e) {
          wide(r, e) = load(r, e);
          sums[static_cast<std::size_t>(e)] += load(r, e);
        }
      }
      by_source.push_back(std::move(wide));
      totals.push_back(std::move(sums));
    }
  }
  [[nodiscard]] fl::load_estimate at(std::size_t i) const {
    return {.totals = totals[i], .by_source = by_source[i].view()};
  }
};

fl::topology cluster_of(shape s) { return {s.ranks, s.slots_per_rank, 8}; }

// Experts dealt out one after another, so that the plain placement has each of them once.
fl::placement dealt_out(shape s) {
  fl::topology const cluster = cluster_of(s);
  std::vector<expert_id> table(static_cast<std::size_t>(cluster.slots()), expert_id::none);
  for (index_t e = 0; e < s.experts; ++e) {
    table[static_cast<std::size_t>((e % s.ranks) * s.slots_per_rank + e / s.ranks)] = static_cast<expert_id>(e);
  }
  return fl::make_placement(cluster, s.experts, table);
}

template <class Planner>
void copies(benchmark::State& state, Planner const& planner, shape s) {
  fl::topology const cluster = cluster_of(s);
  fl::placement const base = dealt_out(s);
  load_set const loads(s);
  std::vector<fl::replica_copy> storage(static_cast<std::size_t>(planner.most_copies(cluster, s.experts)));
  fl::arena<> memory(planner.workspace_bytes(cluster, s.experts));
  double with = 0.0, without = 0.0, made = 0.0;
  std::size_t turn = 0;
  for (auto _ : state) {
    fl::copy_list list{storage};
    fl::workspace ws = memory.view();
    fl::report const ended = planner.copies(cluster, loads.at(turn % variants), base, list, ws);
    benchmark::DoNotOptimize(storage.data());
    with += ended.value;
    without += ended.bound;
    made += static_cast<double>(list.size);
    ++turn;
  }
  state.counters["modelled_speedup"] = without / with;
  state.counters["copies"] = made / static_cast<double>(turn);
}

// Tables of consecutive plans: each is packed for another load.
std::vector<std::vector<expert_id>> plans_of(shape s) {
  fl::topology const cluster = cluster_of(s);
  load_set const loads(s);
  fl::global_pack const pack;
  fl::arena<> memory(pack.workspace_bytes(cluster, s.experts));
  std::vector<std::vector<expert_id>> tables;
  for (std::size_t i = 0; i < static_cast<std::size_t>(variants); ++i) {
    std::vector<expert_id> table(static_cast<std::size_t>(cluster.slots()));
    fl::workspace ws = memory.view();
    (void)pack.plan(cluster, loads.at(i), {}, table, ws);
    tables.push_back(std::move(table));
  }
  return tables;
}

template <class Mapper>
void mapping(benchmark::State& state, Mapper const& mapper, shape s) {
  fl::topology const cluster = cluster_of(s);
  auto const tables = plans_of(s);
  fl::arena<> memory(mapper.workspace_bytes(cluster, s.experts));
  std::vector<expert_id> next(tables[0].size());
  double fetched = 0.0;
  std::size_t turn = 0;
  for (auto _ : state) {
    std::copy(tables[(turn + 1) % variants].begin(), tables[(turn + 1) % variants].end(), next.begin());
    fl::workspace ws = memory.view();
    fetched += mapper.map(cluster, tables[turn % variants], next, ws).value;
    benchmark::DoNotOptimize(next.data());
    ++turn;
  }
  state.counters["fetched"] = fetched / static_cast<double>(turn);
  state.counters["of_slots"] = static_cast<double>(cluster.slots());
}

void transfers(benchmark::State& state, shape s) {
  fl::topology const cluster = cluster_of(s);
  auto const tables = plans_of(s);
  fl::arena<> memory(fl::list_moves_bytes(cluster, cluster, s.experts));
  std::vector<fl::replica_move> list(static_cast<std::size_t>(cluster.slots()));
  double moves = 0.0, busiest = 0.0;
  std::size_t turn = 0;
  for (auto _ : state) {
    fl::workspace ws = memory.view();
    auto const told =
        fl::list_moves(cluster, tables[turn % variants], cluster, tables[(turn + 1) % variants], {}, list, ws);
    benchmark::DoNotOptimize(list.data());
    moves += static_cast<double>(told.moves);
    busiest += static_cast<double>(told.largest_sender);
    ++turn;
  }
  state.counters["moves"] = moves / static_cast<double>(turn);
  state.counters["largest_sender"] = busiest / static_cast<double>(turn);
}

void in_steps(benchmark::State& state, index_t budget, shape s) {
  fl::budgeted<fl::global_pack> const planner{{}, budget};
  fl::topology const cluster = cluster_of(s);
  load_set const loads(s);
  auto const tables = plans_of(s);
  fl::arena<> memory(planner.workspace_bytes(cluster, s.experts));
  std::vector<expert_id> next(tables[0].size());
  double value = 0.0, bound = 0.0, fetched = 0.0;
  std::size_t turn = 0;
  for (auto _ : state) {
    fl::workspace ws = memory.view();
    fl::report const ended = planner.plan(cluster, loads.at((turn + 1) % variants), tables[turn % variants], next, ws);
    benchmark::DoNotOptimize(next.data());
    value += ended.value;
    bound += ended.bound;
    fetched += static_cast<double>(ended.iterations);
    ++turn;
  }
  state.counters["max_over_mean"] = value / bound;
  state.counters["fetched"] = fetched / static_cast<double>(turn);
}

template <class... Arguments>
void add(std::string const& name, void (*work)(benchmark::State&, Arguments...), std::decay_t<Arguments>... arguments) {
  benchmark::RegisterBenchmark(name.c_str(), work, arguments...)->Unit(benchmark::kMicrosecond);
}

int const registered = [] {
  fl::expert_times const times{
      .net_bytes_per_s = 12.5e9, .flops_per_s = 200e12, .hidden_ratio = 2.0, .width = 1024.0, .bytes_per_element = 2.0};
  fl::subset_copy<> const subset{.network = {12.5e9},
                                 .row_bytes = 2048.0,
                                 .weight_bytes = 8.4e6,
                                 .gradient_bytes = 8.4e6,
                                 .seconds_per_copy = 4.2e-8,
                                 .tolerance = 0.5};
  fl::sparse_copies const sparse{
      .degree = 12, .memory_slots = 4, .row_bytes = 2048.0, .bytes_per_s = 12.5e9, .seconds_per_copy = 4.2e-8};
  for (shape const s : shapes) {
    add<fl::prefix_shadow const&, shape>(name_of("prefix_shadow/published", s), copies<fl::prefix_shadow>,
                                         fl::prefix_shadow{times}, s);
    add<fl::prefix_shadow const&, shape>(
        name_of("prefix_shadow/best_prefix", s), copies<fl::prefix_shadow>,
        fl::prefix_shadow{times, fl::shadow_work::hottest_expert, fl::shadow_search::best_prefix}, s);
    add<fl::subset_copy<> const&, shape>(name_of("subset_copy", s), copies<fl::subset_copy<>>, subset, s);
    add<fl::sparse_copies const&, shape>(name_of("sparse_copies", s), copies<fl::sparse_copies>, sparse, s);
    add<fl::identity_mapping const&, shape>(name_of("slot_mapping/identity", s), mapping<fl::identity_mapping>, {}, s);
    add<fl::greedy_mapping const&, shape>(name_of("slot_mapping/greedy", s), mapping<fl::greedy_mapping>, {}, s);
    add<fl::min_cost_mapping const&, shape>(name_of("slot_mapping/min_cost", s), mapping<fl::min_cost_mapping>, {}, s);
    add<shape>(name_of("list_moves", s), transfers, s);
    add<index_t, shape>(name_of("budgeted/8", s), in_steps, 8, s);
  }
  return 0;
}();

}  // namespace
