// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Planners, each a symbol of its own for no_indirect_calls.py; run, it counts what they allocate: nothing.
#include <fairlead/cluster/cost_presets.hpp>
#include <fairlead/place/balanced_hierarchy.hpp>
#include <fairlead/place/bounded_swaps.hpp>
#include <fairlead/place/budgeted.hpp>
#include <fairlead/place/divisor_rules.hpp>
#include <fairlead/place/even_replicas.hpp>
#include <fairlead/place/flow_search.hpp>
#include <fairlead/place/global_pack.hpp>
#include <fairlead/place/greedy_max_replicas.hpp>
#include <fairlead/place/hierarchical_pack.hpp>
#include <fairlead/place/keep_or_plan.hpp>
#include <fairlead/place/largest_remainder.hpp>
#include <fairlead/place/layout_tuner.hpp>
#include <fairlead/place/node_symmetric_greedy.hpp>
#include <fairlead/place/prefix_shadow.hpp>
#include <fairlead/place/sequential_quota.hpp>
#include <fairlead/place/sparse_copies.hpp>
#include <fairlead/place/subset_copy.hpp>

#include <tuple>

#include "codegen/planning.hpp"

template <class Planner>
[[gnu::noinline]] fl::report hot_plan(Planner const& planner, fl::topology const& cluster, fl::load_estimate const& load,
                                      std::span<fl::expert_id const> now, std::span<fl::expert_id> next, fl::workspace& ws) {
  return planner.plan(cluster, load, now, next, ws);
}
template <class Rule>
[[gnu::noinline]] fl::report hot_apportion(Rule const& rule, std::span<index_t const> load, index_t slots, index_t nodes,
                                           std::span<index_t> replicas, fl::workspace& ws) {
  return rule.apportion(load, slots, nodes, replicas, ws);
}
template <class Mapper>
[[gnu::noinline]] fl::report hot_map(Mapper const& mapper, fl::topology const& cluster, std::span<fl::expert_id const> now,
                                     std::span<fl::expert_id> next, fl::workspace& ws) {
  return mapper.map(cluster, now, next, ws);
}
template <class Planner>
[[gnu::noinline]] fl::report hot_copies(Planner const& planner, fl::topology const& cluster, fl::load_estimate const& load,
                                        fl::placement const& base, fl::copy_list& out, fl::workspace& ws) {
  return planner.copies(cluster, load, base, out, ws);
}

namespace {

template <class Planner>
void plan(char const* name, Planner const& planner, problem& p, tally& all) {
  all.run(name, planner.workspace_bytes(p.cluster, problem::experts),
          [&](fl::workspace& ws) { return hot_plan(planner, p.cluster, p.estimate(), p.now, p.next, ws); });
}
template <class Rule>
void apportion(char const* name, Rule const& rule, problem& p, tally& all) {
  std::vector<index_t> replicas(problem::experts);
  all.run(name, rule.workspace_bytes(problem::experts, p.cluster.slots()), [&](fl::workspace& ws) {
    return hot_apportion(rule, p.totals, p.cluster.slots(), p.cluster.nodes(), replicas, ws);
  });
}
template <class Mapper>
void map(char const* name, Mapper const& mapper, problem& p, tally& all) {
  all.run(name, mapper.workspace_bytes(p.cluster, problem::experts),
          [&](fl::workspace& ws) { return hot_map(mapper, p.cluster, p.now, p.next, ws); });
}
template <class Planner>
void copies(char const* name, Planner const& planner, problem& p, tally& all) {
  fl::placement const base = p.where();
  std::vector<fl::replica_copy> storage(static_cast<std::size_t>(planner.most_copies(p.cluster, problem::experts)));
  all.run(name, planner.workspace_bytes(p.cluster, problem::experts), [&](fl::workspace& ws) {
    fl::copy_list list{.storage = storage};
    return hot_copies(planner, p.cluster, p.estimate(), base, list, ws);
  });
}

}  // namespace

int main(int count, char** arguments) {
  problem p;
  tally all;
  plan("global_pack", fl::global_pack{}, p, all);
  plan("hierarchical_pack", fl::hierarchical_pack{.groups = 8}, p, all);
  plan("balanced_hierarchy", fl::balanced_hierarchy{.groups = 8}, p, all);
  using rules = std::tuple<fl::largest_remainder, fl::greedy_max_replicas, fl::even_replicas>;
  plan("layout_tuner", fl::layout_tuner<rules>{.rules = {}, .changes = 2}, p, all);
  plan("flow_search", fl::flow_search<>{}, p, all);
  plan("bounded_swaps", fl::bounded_swaps{}, p, all);
  plan("budgeted", fl::budgeted<fl::global_pack>{.planner = {}, .max_moves = 6}, p, all);
  plan("keep_or_plan", fl::keep_or_plan<fl::global_pack>{}, p, all);
  apportion("largest_remainder", fl::largest_remainder{}, p, all);
  apportion("greedy_max_replicas", fl::greedy_max_replicas{}, p, all);
  apportion("node_symmetric_greedy", fl::node_symmetric_greedy{}, p, all);
  apportion("sequential_quota", fl::sequential_quota{}, p, all);
  apportion("webster_replicas", fl::webster_replicas{}, p, all);
  map("greedy_mapping", fl::greedy_mapping{}, p, all);
  map("min_cost_mapping", fl::min_cost_mapping{}, p, all);
  copies("prefix_shadow", fl::prefix_shadow{.times = fl::presets::fastermoe_default}, p, all);
  copies("subset_copy", fl::subset_copy<>{.network = {10e9}, .row_bytes = 8192.0, .weight_bytes = 1e6, .gradient_bytes = 1e6, .seconds_per_copy = 1e-5}, p, all);
  copies("sparse_copies", fl::sparse_copies{.degree = 4, .memory_slots = 2, .row_bytes = 8192.0, .bytes_per_s = 10e9, .seconds_per_copy = 1e-5}, p, all);
  return all.finish(count, arguments);
}
