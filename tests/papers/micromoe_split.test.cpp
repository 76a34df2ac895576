// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// MicroMoE (arXiv 2511.16947), LPP 1 and equation 3: optima of worked placements, and where perfect balance ends.
#include <fairlead/core/buffer.hpp>
#include <fairlead/schedule/min_max_flow.hpp>
#include <fairlead/workload/micro_batches.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::expert_id;
using fl::index_t;

namespace {

struct answer {
  double value;
  std::vector<std::int32_t> cut;
};

answer split(std::vector<std::vector<int>> const& ranks, std::vector<index_t> const& totals) {
  std::vector<index_t> offsets{0};
  std::vector<expert_id> slots;
  for (auto const& rank : ranks) {
    for (int const expert : rank) { slots.push_back(static_cast<expert_id>(expert)); }
    offsets.push_back(static_cast<index_t>(slots.size()));
  }
  fl::host_graph const graph(fl::placement(static_cast<index_t>(totals.size()), offsets, slots));
  fl::min_max_flow const solver;
  fl::arena<> memory(solver.workspace_bytes(graph.view()));
  fl::workspace ws = memory.view();
  std::vector<count_t> shares(slots.size());
  auto const report = solver.solve(graph.view(), totals, {}, fl::split_start::cold, shares, ws);
  return {report.summary.value, {report.cut.begin(), report.cut.end()}};
}

}  // namespace

TEST_CASE("the two layouts of four ranks: 12 with all ranks as certificate, 16 with ranks 0 and 2") {
  std::vector<index_t> const load{27, 10, 6, 5};
  auto const spread = split({{0, 2}, {0, 1}, {0, 1}, {0, 3}}, load);
  CHECK(spread.value == 12.0);
  CHECK(spread.cut == std::vector<std::int32_t>{0, 1, 2, 3});
  auto const even = split({{0, 3}, {1, 2}, {0, 3}, {1, 2}}, load);
  CHECK(even.value == 16.0);
  CHECK(even.cut == std::vector<std::int32_t>{0, 2});
}

TEST_CASE("EPLB's placement of FlashLB's example carries 200 with an exact split, where equal shares carry 232") {
  auto const best = split({{0, 1}, {2, 1}, {3, 1}, {0, 4}, {0, 5}, {0, 6}, {0, 7}, {1, 1}}, {600, 560, 120, 120, 20, 10, 10, 10});
  CHECK(best.value == 200.0);
  CHECK(best.cut == std::vector<std::int32_t>{0, 1, 2, 7});
}

TEST_CASE("with two hosts an expert balance is perfect only while the hottest expert has at most two ranks' share") {
  // p1 <= d / N is necessary, so a hotter expert fixes the optimum at half of its load.
  fl::host_graph const graph(fl::workload::random_hosts(8, 32, 2, 3));
  fl::min_max_flow const solver;
  fl::arena<> memory(solver.workspace_bytes(graph.view()));
  std::vector<count_t> shares(64);
  for (double const skew : {0.25, 1.5, 2.0}) {
    auto const totals = fl::workload::micro_batches{.experts = 32, .copies = 262144, .skew = skew, .seed = 4}.at(0);
    index_t hottest = 0;
    for (index_t const total : totals) { hottest = std::max(hottest, total); }
    fl::workspace ws = memory.view();
    auto const report = solver.solve(graph.view(), totals, {}, fl::split_start::cold, shares, ws);
    double const mean = 262144.0 / 8.0;
    INFO("skew " << skew);
    if (skew < 1.0) {
      CHECK(report.summary.value <= 1.001 * mean);
    } else {
      CHECK(static_cast<double>(hottest) > 2.0 * mean);
      CHECK(report.summary.value >= std::ceil(static_cast<double>(hottest) / 2.0));
      CHECK(report.summary.value <= 1.05 * static_cast<double>(hottest) / 2.0);
    }
  }
}
