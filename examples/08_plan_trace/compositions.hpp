// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Every planner with every scheduler: the list that the program runs through.
#include "evaluation.hpp"

#include <fairlead/cluster/cost_presets.hpp>
#include <fairlead/place/balanced_hierarchy.hpp>
#include <fairlead/place/balanced_pack.hpp>
#include <fairlead/place/bounded_swaps.hpp>
#include <fairlead/place/budgeted.hpp>
#include <fairlead/place/cayley.hpp>
#include <fairlead/place/even_replicas.hpp>
#include <fairlead/place/fixed_graph.hpp>
#include <fairlead/place/flow_search.hpp>
#include <fairlead/place/global_pack.hpp>
#include <fairlead/place/greedy_max_replicas.hpp>
#include <fairlead/place/hierarchical_pack.hpp>
#include <fairlead/place/joint_search.hpp>
#include <fairlead/place/layout_tuner.hpp>
#include <fairlead/place/lpt_permutation.hpp>
#include <fairlead/place/monte_carlo_placement.hpp>
#include <fairlead/place/node_symmetric_greedy.hpp>
#include <fairlead/place/paired_transfer.hpp>
#include <fairlead/place/prefix_shadow.hpp>
#include <fairlead/place/replicate_then_place.hpp>
#include <fairlead/place/row_partition.hpp>
#include <fairlead/place/sequential_quota.hpp>
#include <fairlead/place/sparse_copies.hpp>
#include <fairlead/place/spread_greedy.hpp>
#include <fairlead/place/spread_nodes.hpp>
#include <fairlead/place/subset_copy.hpp>
#include <fairlead/schedule/equal_split.hpp>
#include <fairlead/schedule/local_node_even.hpp>
#include <fairlead/schedule/min_max_flow.hpp>
#include <fairlead/schedule/nearest_copy.hpp>
#include <fairlead/schedule/nearest_flow.hpp>
#include <fairlead/schedule/proportional.hpp>
#include <fairlead/schedule/sole_replica.hpp>
#include <fairlead/schedule/split_then_route.hpp>
#include <fairlead/schedule/tiered.hpp>
#include <fairlead/schedule/water_fill.hpp>

#include <functional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace plan_trace {

/// @brief The token schedulers, from the simplest to the exact ones.
/// @param cluster the cluster
/// @returns a tuple of named schedulers
inline auto schedulers_of(fl::topology const& cluster) {
  return std::tuple{named{std::string("equal_split"), fl::equal_split{}},
                    named{std::string("proportional"), fl::split_then_route<fl::equal_shares, fl::proportional>{}},
                    named{std::string("local_node_even"), fl::local_node_even{.cluster = cluster}},
                    named{std::string("water_fill"), fl::split_then_route<fl::water_fill>{}},
                    named{std::string("min_max_flow"), fl::min_max_flow{}},
                    named{std::string("min_max + tiered"), fl::split_then_route<fl::min_max_flow, fl::tiered>{.router = {.cluster = cluster}}},
                    named{std::string("nearest_flow"), fl::nearest_flow<>{.cluster = cluster}}};
}

/// @brief The planners, with the systems that they come from.
/// @param given the command line
/// @returns a tuple of named planners
inline auto planners_of(options const& given) {
  using pq = fl::greedy_max_replicas;
  using pq_node = fl::node_symmetric_greedy;
  using even = fl::even_replicas;
  constexpr auto node = fl::exchange_scope::node;
  fl::flow_search<> search;  // fits changes over `horizon` records that ended in the window
  search.horizon = std::max<index_t>(given.lag, 1);
  search.window = given.window;
  return std::tuple{
      named{std::string("permutation (SmartMoE)"), fl::lpt_permutation{}},
      named{std::string("in order (SYMI)"), fl::proportional_in_order{}},
      named{std::string("transfer (FlexMoE)"), fl::paired_transfer{}},
      named{std::string("quota, spread (Lazarus)"), fl::replicate_then_place<fl::sequential_quota, fl::spread_nodes>{}, node},
      named{std::string("pq (LAER)"), fl::replicate_then_place<pq, fl::spread_greedy>{}, node},
      named{std::string("even (LAER)"), fl::replicate_then_place<even, fl::spread_greedy>{}, node},
      named{std::string("tuner (LAER)"), fl::layout_tuner<std::tuple<even, pq_node>>{.rules = {}, .keep = false}, node},
      named{std::string("tuner, three rules"), fl::layout_tuner<std::tuple<pq, pq_node, even>>{}, node},
      named{std::string("global (EPLB)"), fl::global_pack{}},
      named{std::string("hierarchy (EPLB)"), fl::hierarchical_pack{}, node},
      named{std::string("balanced hierarchy"), fl::balanced_hierarchy{}, node},
      named{std::string("joint (FlashLB)"), fl::joint_search<>{}},
      named{std::string("swaps (SwiftBalancer)"), fl::bounded_swaps{}},
      named{std::string("pq, 4 moves"), fl::budgeted<fl::global_pack>{.max_moves = 4}},
      named{std::string("rows (MicroMoE)"), fl::row_partition{}},
      named{std::string("cayley (MicroMoE)"), fl::cayley_placement{}},
      named{std::string("draws (MicroMoE)"), fl::monte_carlo_placement<>{.draws = 32}},
      named{std::string("cube (LPLB)"), fl::fixed_graph_duplicate<>{}, node},
      named<fl::flow_search<>>{.name = "flow_search", .policy = search, .more_history = search.horizon}};
}

/// @brief Run everything that is wanted.
/// @param now the setting
/// @param wanted whether a composition is to be run, by its name
/// @param started called with the name of what begins
/// @returns the outcomes
inline std::vector<outcome> run_all(setting const& now, std::function<bool(std::string const&)> const& wanted,
                                    std::function<void(std::string const&)> const& started) {
  std::vector<outcome> results;
  index_t const experts = now.loads.experts;
  fl::arena<> memory;
  started("static");
  run_on_base(now, {"static", "sole_replica"},
              [&](fl::load_view load, fl::load_estimate const&, fl::placement const& base, fl::matrix<fl::count_t>& schedule, outcome& result) {
                schedule = fl::matrix<fl::count_t>(load.rows(), base.replicas());
                fl::workspace ws;
                result.conserves = result.conserves && fl::sole_replica{}.schedule(load, base, schedule.view(), ws).status == fl::status::ok;
                return base;
              },
              wanted, results);

  // Copies for one micro-batch, planned from its own counts. Their slots do not count: they hold no optimizer state.
  auto const with_copies_of = [&](std::string const& name, auto const& planner) {
    started(name);
    run_on_base(now, {name, "nearest_copy"},
                [&](fl::load_view load, fl::load_estimate const& known, fl::placement const& base, fl::matrix<fl::count_t>& schedule, outcome& result) {
                  fl::nearest_copy const scheduler{.cluster = now.cluster};
                  std::vector<fl::replica_copy> room(static_cast<std::size_t>(planner.most_copies(now.cluster, experts)));
                  fl::copy_list copies{.storage = room};
                  memory.reserve(planner.workspace_bytes(now.cluster, experts));
                  fl::workspace ws = memory.view();
                  double const begin = seconds_now();
                  fl::report const planned = planner.copies(now.cluster, known, base, copies, ws);
                  double const middle = seconds_now();
                  fl::placement const where = fl::with_copies(base, copies.view());
                  schedule = fl::matrix<fl::count_t>(load.rows(), where.replicas());
                  memory.reserve(scheduler.workspace_bytes(where));
                  fl::workspace again = memory.view();
                  double const second = seconds_now();
                  fl::report const scheduled = scheduler.schedule(load, where, schedule.view(), again);
                  result.schedule_s += seconds_now() - second;
                  result.plan_s += middle - begin;
                  result.fetched += static_cast<double>(copies.size);
                  result.conserves = result.conserves && planned.status != fl::status::lost_expert && scheduled.status == fl::status::ok;
                  return where;
                },
                wanted, results);
  };
  double const row_bytes = now.given.row_bytes;
  double const copy_s = now.given.copy_us * 1e-6;
  double const rate = now.given.rank_gb_per_s * 1e9;
  double const expert_bytes = now.given.expert_mb * 1e6;
  // The machine of the command line in FasterMoE's terms: bytes and operations of its two-layer expert that take as long.
  double const width = row_bytes / 2.0;
  double const hidden_ratio = expert_bytes / (2.0 * width * width * 2.0);
  with_copies_of("shadow (FasterMoE)", fl::prefix_shadow{.times = {.net_bytes_per_s = rate,
                                                                   .flops_per_s = 4.0 * hidden_ratio * width * width / std::max(copy_s, 1e-12),
                                                                   .hidden_ratio = hidden_ratio,
                                                                   .width = width,
                                                                   .bytes_per_element = 2.0}});
  fl::subset_copy<> const subset{.network = {.rate = rate}, .row_bytes = row_bytes, .weight_bytes = expert_bytes,
                                 .gradient_bytes = expert_bytes, .seconds_per_copy = copy_s};
  with_copies_of("subset (Prophet)", subset);
  with_copies_of("sparse (Hecate)", fl::sparse_copies{.degree = now.given.slots_per_rank, .memory_slots = now.given.slots_per_rank,
                                                      .row_bytes = row_bytes, .bytes_per_s = rate, .seconds_per_copy = copy_s});

  started("least_loaded");
  fl::rerouting_memory rerouting_memory(experts, now.loads.ranks);
  auto const reroute = [&](std::string const& name, auto const& planner) {
    run_on_base(now, {name, "its own map"},
                [&](fl::load_view load, fl::load_estimate const& known, fl::placement const& base, fl::matrix<fl::count_t>& schedule, outcome& result) {
                  fl::rerouting plan = rerouting_memory.view();
                  memory.reserve(std::max(planner.workspace_bytes(experts, now.loads.ranks), fl::rerouting_map_bytes(experts, now.loads.ranks)));
                  fl::workspace ws = memory.view();
                  double const begin = seconds_now();
                  fl::report const planned = planner.plan(known.totals, base, plan, ws);
                  double const middle = seconds_now();
                  std::vector<fl::replica_copy> room(plan.transfers().size());
                  fl::copy_list copies{.storage = room};
                  fl::add_copies(plan.transfers(), copies);
                  fl::placement const where = fl::with_copies(base, copies.view());
                  schedule = fl::matrix<fl::count_t>(load.rows(), where.replicas());
                  double const second = seconds_now();
                  fl::workspace again = memory.view();
                  fl::schedule_of(plan, load, where, fl::position_order::recipient_local_first, schedule.view(), again);
                  result.schedule_s += seconds_now() - second;
                  result.plan_s += middle - begin;
                  result.fetched += static_cast<double>(copies.size);
                  result.conserves = result.conserves && planned.status == fl::status::ok;
                  return where;
                },
                wanted, results);
  };
  reroute("least_loaded (LLEP)", fl::least_loaded<>{});

  auto const schedulers = schedulers_of(now.cluster);
  std::apply([&](auto const&... planner) { ((started(planner.name), run_planner(now, planner, schedulers, wanted, results)), ...); },
             planners_of(now.given));
  return results;
}

}  // namespace plan_trace
