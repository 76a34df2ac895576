// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The exact min-max split against the linear program in Clp and GLPK, and the flow in LEMON, where they are installed.
#include <fairlead/core/buffer.hpp>
#include <fairlead/schedule/min_max_flow.hpp>
#include <fairlead/workload/micro_batches.hpp>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "support/catch.hpp"
#include "support/peers/lp_min_max.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::index_t;

#if defined(FAIRLEAD_BENCH_CLP) || defined(FAIRLEAD_BENCH_GLPK) || defined(FAIRLEAD_BENCH_LEMON_FLOW)

TEST_CASE("the integral optimum is the linear program's, rounded up, and the max-flow's") {
  struct sizes {
    index_t ranks, experts, replicas;
    double skew;
  };
  int checked = 0;
  int above_mean = 0;
  for (auto const& size : {sizes{8, 32, 2, 0.5}, sizes{8, 32, 2, 1.0}, sizes{16, 64, 2, 1.0}, sizes{64, 256, 2, 0.5}, sizes{64, 256, 4, 0.5},
                           sizes{70, 140, 3, 0.8}, sizes{5, 40, 5, 1.2}}) {
    auto const where = fl::workload::random_hosts(size.ranks, size.experts, size.replicas, 11);
    fl::host_graph const graph(where);
    fl::min_max_flow const solver;
    fl::arena<> memory(solver.workspace_bytes(graph.view()));
    std::vector<count_t> shares(static_cast<std::size_t>(where.replicas()));
#  if defined(FAIRLEAD_BENCH_CLP)
    fl_bench::clp_min_max clp(graph.view());
#  endif
#  if defined(FAIRLEAD_BENCH_GLPK)
    fl_bench::glpk_min_max glpk(graph.view());
#  endif
#  if defined(FAIRLEAD_BENCH_LEMON_FLOW)
    fl_bench::lemon_min_max lemon(graph.view());
#  endif
    for (bool const redraw : {false, true}) {
      fl::workload::micro_batches const batches{.experts = size.experts, .copies = size.ranks * 997, .skew = size.skew, .redraw = redraw, .seed = 6};
      for (index_t i = 0; i < 8; ++i) {
        auto const totals = batches.at(i);
        fl::workspace ws = memory.view();
        double const value = solver.solve(graph.view(), totals, {}, fl::split_start::cold, shares, ws).summary.value;
        INFO(size.ranks << " ranks, " << size.experts << " experts, skew " << size.skew << ", micro-batch " << i);
        above_mean += value > 998.0 ? 1 : 0;
#  if defined(FAIRLEAD_BENCH_CLP)
        CHECK(std::ceil(clp.solve(totals) - 1e-4) == value);
#  endif
#  if defined(FAIRLEAD_BENCH_GLPK)
        CHECK(std::ceil(glpk.solve(totals) - 1e-4) == value);
#  endif
#  if defined(FAIRLEAD_BENCH_LEMON_FLOW)
        CHECK(static_cast<double>(lemon.solve(totals)) == value);
        CHECK(static_cast<double>(lemon.solve(totals, true)) == value);
#  endif
        ++checked;
      }
    }
  }
  CHECK(checked == 112);
  CHECK(above_mean > 20);
}

#else

TEST_CASE("the optimum of linear programs is not compared") { std::puts("no LP solver and no LEMON"); }

#endif
