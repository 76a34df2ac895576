// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Placements of MicroMoE (arXiv 2511.16947): its graphs, what their structure is worth, and where a static one ends.
#include <fairlead/core/plan.hpp>
#include <fairlead/metrics/induced_density.hpp>
#include <fairlead/place/cayley.hpp>
#include <fairlead/place/greedy_max_replicas.hpp>
#include <fairlead/place/row_partition.hpp>
#include <fairlead/workload/zipf.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;

namespace {

template <class Planner>
std::vector<std::uint64_t> hosts_of(Planner const& planner, fl::topology const& cluster, std::vector<index_t> const& loads) {
  auto const experts = static_cast<index_t>(loads.size());
  std::vector<expert_id> slots(static_cast<std::size_t>(cluster.slots()));
  fl::arena<> memory(planner.workspace_bytes(cluster, experts));
  fl::workspace ws = memory.view();
  fl::report const ended = planner.plan(cluster, {loads}, {}, slots, ws);
  REQUIRE((ended.status == fl::status::ok || ended.status == fl::status::iteration_limit));
  std::vector<std::uint64_t> hosts(loads.size());
  fl::metrics::host_masks(cluster.slot_offsets(), slots, hosts);
  return hosts;
}

double rho(std::vector<std::uint64_t> const& hosts, std::vector<index_t> const& loads, index_t ranks) {
  static fl::arena<> memory(fl::metrics::enumerated_density::workspace_bytes(4096));
  fl::workspace ws = memory.view();
  index_t sum = 0;
  for (index_t const one : loads) { sum += one; }
  return fl::metrics::enumerated_density{}.evaluate(hosts, loads, ws).value() * static_cast<double>(ranks) / static_cast<double>(sum);
}

std::vector<index_t> lognormal(index_t experts, double sigma, std::uint64_t draw) {
  std::vector<index_t> loads(static_cast<std::size_t>(experts));
  for (std::size_t e = 0; e < loads.size(); ++e) {
    loads[e] = 1 + static_cast<index_t>(1e5 * std::exp(sigma * fl::philox::normal(5, draw, e)));
  }
  return loads;
}

/// Largest number of edges inside a set of each size, from size 1.
std::vector<int> densest_by_size(std::vector<std::uint64_t> const& hosts, int ranks) {
  std::vector<int> most(static_cast<std::size_t>(ranks), 0);
  for (std::uint64_t set = 1; set < (std::uint64_t{1} << static_cast<unsigned>(ranks)); ++set) {
    int inside = 0;
    for (std::uint64_t const edge : hosts) { inside += (edge & ~set) == 0 ? 1 : 0; }
    int& entry = most[static_cast<std::size_t>(std::popcount(set) - 1)];
    entry = std::max(entry, inside);
  }
  return most;
}

}  // namespace

TEST_CASE("eight ranks of degree four form K4,4, whose sets hold as few edges as possible", "[micromoe]") {
  auto const hosts = hosts_of(fl::cayley_placement{}, fl::topology(8, 4), std::vector<index_t>(16, 1));
  CHECK(densest_by_size(hosts, 8) == std::vector<int>{0, 1, 2, 4, 6, 9, 12, 16});
}

TEST_CASE("the four graphs of the paper come out", "[micromoe]") {
  // Cycle: connected, so that the only closed set is everything; sets of k < 8 hold k - 1 edges.
  CHECK(densest_by_size(hosts_of(fl::cayley_placement{}, fl::topology(8, 2), std::vector<index_t>(8, 1)), 8) ==
        std::vector<int>{0, 1, 2, 3, 4, 5, 6, 8});
  // K8 and a perfect matching on top: k (k - 1) / 2 edges and one for each pair.
  CHECK(densest_by_size(hosts_of(fl::cayley_placement{}, fl::topology(8, 8), std::vector<index_t>(32, 1)), 8) ==
        std::vector<int>{0, 2, 4, 8, 12, 18, 24, 32});
  // The 4 x 4 torus, which is also the four-dimensional cube: the fullest sets are subcubes.
  auto const torus = hosts_of(fl::cayley_placement{}, fl::topology(16, 4), std::vector<index_t>(32, 1));
  auto const most = densest_by_size(torus, 16);
  CHECK(std::vector<int>(most.begin(), most.begin() + 8) == std::vector<int>{0, 1, 2, 4, 5, 7, 9, 12});
  CHECK(most.back() == 32);
}

TEST_CASE("structure is worth what was measured", "[micromoe]") {
  struct row {
    index_t ranks;
    index_t slots;
    double sigma;
    double structured;
    double random;
    double tolerance;
    int draws;
  };
  // Means of 2000 lognormal draws; fewer here, with room for their noise.
  for (row const& one : {row{8, 2, 0.3, 1.007, 1.064, 0.008, 600}, row{8, 4, 0.6, 1.0075, 1.035, 0.006, 600},
                         row{8, 8, 1.0, 1.045, 1.070, 0.015, 600}, row{16, 4, 0.6, 1.028, 1.060, 0.015, 60}}) {
    fl::topology const cluster(one.ranks, one.slots);
    index_t const experts = one.ranks * one.slots / 2;
    auto const symmetric = hosts_of(fl::cayley_placement{}, cluster, std::vector<index_t>(static_cast<std::size_t>(experts), 1));
    double structured = 0.0;
    double random = 0.0;
    for (int draw = 0; draw < one.draws; ++draw) {
      auto const loads = lognormal(experts, one.sigma, static_cast<std::uint64_t>(draw));
      structured += rho(symmetric, loads, one.ranks) / one.draws;
      random += rho(hosts_of(fl::row_partition{.seed = 2, .draw = static_cast<std::uint64_t>(draw)}, cluster, loads), loads, one.ranks) / one.draws;
    }
    INFO(one.ranks << " ranks, " << one.slots << " slots: " << structured << " against " << random);
    CHECK(structured == Approx(one.structured).margin(one.tolerance));
    CHECK(random == Approx(one.random).margin(one.tolerance));
    CHECK(structured < random);
  }
}
