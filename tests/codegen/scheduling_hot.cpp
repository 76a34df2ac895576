// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Schedulers and their halves, each a symbol of its own for no_indirect_calls.py, and one inside of a composed layer; run,
// it counts what they allocate: nothing.
#include <fairlead/assign/least_loaded.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/dense_ffn.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/place/global_pack.hpp>
#include <fairlead/place/replicated.hpp>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/route/top_k.hpp>
#include <fairlead/schedule/equal_split.hpp>
#include <fairlead/schedule/host_graph.hpp>
#include <fairlead/schedule/local_node_even.hpp>
#include <fairlead/schedule/min_max_flow.hpp>
#include <fairlead/schedule/nearest_copy.hpp>
#include <fairlead/schedule/nearest_flow.hpp>
#include <fairlead/schedule/proportional.hpp>
#include <fairlead/schedule/split_then_route.hpp>
#include <fairlead/schedule/staircase.hpp>
#include <fairlead/schedule/tiered.hpp>
#include <fairlead/schedule/tiled_split.hpp>
#include <fairlead/schedule/water_fill.hpp>

#include <utility>

#include "codegen/planning.hpp"

namespace {

// Two replicas of every expert, so that the scheduler has something to decide.
auto const layer = fl::moe_layer{.gate = fl::linear_gate<>{.width = 16, .experts = 8},
                                 .router = fl::top_k{.experts = 8, .k = 2},
                                 .planner = fl::replicated<fl::global_pack>{.slots_per_rank = 16},
                                 .scheduler = fl::split_then_route<fl::min_max_flow, fl::staircase>{},
                                 .expert = fl::dense_ffn<>{.width = 16, .hidden = 16}};
using layer_type = std::remove_const_t<decltype(layer)>;
using layer_state = layer_type::state_type<fl::serial, fl::alone>;
using layer_record = layer_type::record_type<fl::serial, fl::alone>;

}  // namespace

template <class Scheduler>
[[gnu::noinline]] fl::report hot_schedule(Scheduler const& scheduler, fl::load_view load, fl::placement const& where,
                                          fl::token_schedule_view out, fl::workspace& ws) {
  return scheduler.schedule(load, where, out, ws);
}
template <class Split>
[[gnu::noinline]] fl::report hot_split(Split const& split, std::span<index_t const> totals, fl::placement const& where,
                                       std::span<fl::count_t> shares, fl::workspace& ws) {
  return split.split(totals, where, shares, ws);
}
template <class Router>
[[gnu::noinline]] fl::report hot_source_route(Router const& router, fl::load_view load, fl::placement const& where,
                                              std::span<fl::count_t const> shares, fl::token_schedule_view out, fl::workspace& ws) {
  return router.route(load, where, shares, out, ws);
}
[[gnu::noinline]] fl::report hot_solve(fl::min_max_flow const& flow, fl::host_graph_view const& graph, std::span<index_t const> totals,
                                       fl::split_start start, std::span<fl::count_t> shares, fl::workspace& ws) {
  return flow.solve(graph, totals, {}, start, shares, ws).summary;
}
[[gnu::noinline]] fl::report hot_reroute(fl::least_loaded<> const& planner, std::span<index_t const> totals, fl::placement const& where,
                                         fl::rerouting& out, fl::workspace& ws) {
  return planner.plan(totals, where, out, ws);
}
[[gnu::noinline]] fl::step_report hot_forward(layer_state& state, layer_record& record, fl::matrix_view<float const> tokens,
                                              fl::matrix_view<float> output) {
  return layer.forward(state, tokens, output, record);
}

namespace {

template <class Scheduler>
void schedule(char const* name, Scheduler const& scheduler, problem& p, tally& all) {
  fl::placement const where = p.where();
  fl::matrix<fl::count_t> out(problem::ranks, where.replicas());
  all.run(name, scheduler.workspace_bytes(where),
          [&](fl::workspace& ws) { return hot_schedule(scheduler, std::as_const(p.load).view(), where, out.view(), ws); });
}
template <class Split>
void split(char const* name, Split const& how, problem& p, tally& all) {
  fl::placement const where = p.where();
  std::vector<fl::count_t> shares(static_cast<std::size_t>(where.replicas()));
  all.run(name, how.workspace_bytes(where), [&](fl::workspace& ws) { return hot_split(how, p.totals, where, shares, ws); });
}
template <class Router>
void route(char const* name, Router const& router, problem& p, tally& all) {
  fl::placement const where = p.where();
  fl::matrix<fl::count_t> out(problem::ranks, where.replicas());
  std::vector<fl::count_t> shares(static_cast<std::size_t>(where.replicas()));
  fl::arena<> memory(fl::water_fill{}.workspace_bytes(where));
  fl::workspace ws = memory.view();
  (void)fl::water_fill{}.split(p.totals, where, shares, ws);
  all.run(name, router.workspace_bytes(where), [&](fl::workspace& scratch) {
    return hot_source_route(router, std::as_const(p.load).view(), where, shares, out.view(), scratch);
  });
}

}  // namespace

int main(int count, char** arguments) {
  problem p;
  tally all;
  schedule("equal_split", fl::equal_split{}, p, all);
  schedule("local_node_even", fl::local_node_even{.cluster = p.cluster}, p, all);
  schedule("nearest_copy", fl::nearest_copy{.cluster = p.cluster}, p, all);
  schedule("nearest_flow", fl::nearest_flow<>{.cluster = p.cluster}, p, all);
  schedule("min_max_flow, tiered", fl::split_then_route<fl::min_max_flow, fl::tiered>{.router = {.cluster = p.cluster}}, p, all);
  split("water_fill", fl::water_fill{}, p, all);
  split("min_max_flow", fl::min_max_flow{}, p, all);
  split("tiled_split", fl::tiled_split<fl::min_max_flow>{.tile = 64}, p, all);
  route("staircase", fl::staircase{}, p, all);
  route("proportional", fl::proportional{}, p, all);

  fl::placement const where = p.where();
  fl::host_graph const graph(where);
  std::vector<fl::count_t> shares(static_cast<std::size_t>(where.replicas()));
  for (fl::split_start const start : {fl::split_start::cold, fl::split_start::warm}) {
    all.run("min_max_flow::solve", fl::min_max_flow{}.workspace_bytes(graph.view()),
            [&](fl::workspace& ws) { return hot_solve({}, graph.view(), p.totals, start, shares, ws); });
  }
  fl::rerouting_memory memory(problem::experts, problem::ranks);
  fl::rerouting rerouted = memory.view();
  all.run("least_loaded", fl::least_loaded<>{}.workspace_bytes(problem::experts, problem::ranks),
          [&](fl::workspace& ws) { return hot_reroute({}, p.totals, where, rerouted, ws); });

  auto state = layer.make_state(fl::serial{}, fl::alone{}, {.max_tokens = 32});
  auto record = layer.make_record(state);
  fl::matrix<float> tokens(32, 16), output(32, 16);
  for (index_t i = 0; i < 32 * 16; ++i) { tokens.data()[i] = static_cast<float>(i % 13) - 6.0F; }
  (void)hot_forward(state, record, std::as_const(tokens).view(), output.view());  // warm-up
  all.run("layer", 0, [&](fl::workspace&) {
    return fl::report{.value = hot_forward(state, record, std::as_const(tokens).view(), output.view()).imbalance()};
  });
  return all.finish(count, arguments);
}
