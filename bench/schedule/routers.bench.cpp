// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Source routers on the shares of the exact split, and whole token schedulers, over distinct micro-batches on one core.
// Beside the time: share of copies that stay on their rank and on their node, non-zero counts an expert, load and the
// largest receive from one source over the mean.
#include "support/axes.hpp"
#include "support/assignment.hpp"

#include <fairlead/core/matrix.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/schedule/equal_split.hpp>
#include <fairlead/schedule/local_node_even.hpp>
#include <fairlead/schedule/min_max_flow.hpp>
#include <fairlead/schedule/nearest_copy.hpp>
#include <fairlead/schedule/nearest_flow.hpp>
#include <fairlead/schedule/proportional.hpp>
#include <fairlead/schedule/split_then_route.hpp>
#include <fairlead/schedule/staircase.hpp>
#include <fairlead/schedule/tiered.hpp>
#include <fairlead/workload/drifting_load.hpp>
#include <fairlead/workload/micro_batches.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace {

namespace fl = fairlead;
using fl::index_t;
using fl_bench::axes::split_case;

constexpr index_t ranks_per_node = 8;
constexpr index_t batches = 50;

struct problem {
  fl::placement where;
  fl::topology cluster;
  std::vector<fl::matrix<fl::count_t>> loads;
  explicit problem(split_case const& sizes)
      : where(fl::workload::random_hosts(sizes.ranks, sizes.experts, sizes.replicas, fl_bench::axes::seed)), cluster(sizes.ranks, 0, ranks_per_node),
        loads(fl::workload::drifting_load{.ranks = sizes.ranks, .experts = sizes.experts, .copies = 8192, .skew = sizes.skew,
                                          .persistence = sizes.redraw ? 0.0 : 0.95, .seed = fl_bench::axes::seed}.make(batches)) {}
};

void count_quality(benchmark::State& state, problem const& now, std::vector<fl::matrix<fl::count_t>> const& schedules) {
  double all = 0.0, on_rank = 0.0, on_node = 0.0, fragments = 0.0, imbalance = 0.0;
  auto const ranks = static_cast<std::size_t>(now.where.ranks());
  for (auto const& out : schedules) {
    std::vector<double> received(ranks, 0.0);
    double sum = 0.0;
    for (index_t e = 0; e < now.where.experts(); ++e) {
      index_t column = now.where.replica_offset(static_cast<fl::expert_id>(e));
      for (fl::replica const& copy : now.where.replicas(static_cast<fl::expert_id>(e))) {
        index_t const rank = fl::to_index(copy.rank);
        for (index_t source = 0; source < out.rows(); ++source) {
          auto const count = static_cast<double>(out(source, column));
          sum += count;
          received[static_cast<std::size_t>(rank)] += count;
          fragments += count > 0.0 ? 1.0 : 0.0;
          on_rank += source == rank ? count : 0.0;
          on_node += now.cluster.node_of(source) == now.cluster.node_of(rank) ? count : 0.0;
        }
        ++column;
      }
    }
    all += sum;
    imbalance += *std::max_element(received.begin(), received.end()) * static_cast<double>(ranks) / sum;
  }
  auto const runs = static_cast<double>(schedules.size());
  state.counters["on_rank"] = on_rank / all;
  state.counters["on_node"] = on_node / all;
  state.counters["fragments"] = fragments / runs / static_cast<double>(now.where.experts());
  state.counters["max_over_mean"] = imbalance / runs;
}

template <class Body>
void timed(benchmark::State& state, problem const& now, Body const& body) {
  std::vector<fl::matrix<fl::count_t>> schedules;
  for (index_t i = 0; i < batches; ++i) { schedules.emplace_back(now.where.ranks(), now.where.replicas()); }
  for (auto _ : state) {
    for (index_t i = 0; i < batches; ++i) { body(static_cast<std::size_t>(i), schedules[static_cast<std::size_t>(i)].view()); }
    double const begin = fl_bench::thread_seconds();
    for (index_t i = 0; i < batches; ++i) { body(static_cast<std::size_t>(i), schedules[static_cast<std::size_t>(i)].view()); }
    state.SetIterationTime((fl_bench::thread_seconds() - begin) / static_cast<double>(batches));
  }
  count_quality(state, now, schedules);
}

template <class Router>
void route(benchmark::State& state, split_case sizes, Router const& rule) {
  problem const now(sizes);
  fl::min_max_flow const split;
  fl::arena<> memory(std::max<std::size_t>(rule.workspace_bytes(now.where), split.workspace_bytes(now.where)));
  std::vector<std::vector<fl::count_t>> shares;
  std::vector<index_t> totals(static_cast<std::size_t>(sizes.experts));
  for (auto const& load : now.loads) {
    fl::sum_over_ranks(load.view(), totals);
    shares.emplace_back(static_cast<std::size_t>(now.where.replicas()));
    auto ws = memory.view();
    (void)split.split(totals, now.where, shares.back(), ws);
  }
  timed(state, now, [&](std::size_t i, fl::token_schedule_view out) {
    auto ws = memory.view();
    benchmark::DoNotOptimize(rule.route(now.loads[i].view(), now.where, shares[i], out, ws).value);
  });
}

template <class Scheduler>
void schedule(benchmark::State& state, split_case sizes, Scheduler const& rule) {
  problem const now(sizes);
  fl::arena<> memory(rule.workspace_bytes(now.where));
  timed(state, now, [&](std::size_t i, fl::token_schedule_view out) {
    auto ws = memory.view();
    benchmark::DoNotOptimize(rule.schedule(now.loads[i].view(), now.where, out, ws).value);
  });
}

int const registered = [] {
  for (auto const& sizes : fl_bench::axes::split_cases) {
    if (fl_bench::axes::quick() && !sizes.quick) { continue; }
    fl::topology const cluster(sizes.ranks, 0, ranks_per_node);
    auto const add = [&](char const* rule_name, auto const& body) {
      std::string const name = fl_bench::text_of("schedule/", rule_name, "/", sizes.name());
      benchmark::RegisterBenchmark(name.c_str(), body)->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(1);
    };
    auto const router = [&](char const* name, auto const& rule) {
      add(name, [=](benchmark::State& state) { route(state, sizes, rule); });
    };
    auto const whole = [&](char const* name, auto const& rule) {
      add(name, [=](benchmark::State& state) { schedule(state, sizes, rule); });
    };
    router("staircase", fl::staircase{});
    router("staircase_rotated", fl::staircase{.rotate = true});
    router("tiered", fl::tiered{cluster});
    router("proportional", fl::proportional{});
    whole("equal_split", fl::equal_split{});
    whole("local_node_even", fl::local_node_even{cluster});
    whole("nearest_copy", fl::nearest_copy{cluster});
    whole("min_max_then_tiered", fl::split_then_route<fl::min_max_flow, fl::tiered>{.router = {cluster}});
    whole("nearest_flow", fl::nearest_flow<>{.cluster = cluster});
    whole("nearest_flow_ranks_only", fl::nearest_flow<>{});
  }
  return 0;
}();

}  // namespace
