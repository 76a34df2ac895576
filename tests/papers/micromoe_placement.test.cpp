// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Placements of MicroMoE (arXiv 2511.16947): its graphs, what their structure is worth, and where a static one ends.
#include <fairlead/metrics/induced_density.hpp>
#include <fairlead/place/cayley.hpp>
#include <fairlead/place/fixed_graph.hpp>
#include <fairlead/place/monte_carlo_placement.hpp>
#include <fairlead/place/row_partition.hpp>

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

namespace {

double zipf_share(double exponent, index_t experts) {
  double sum = 0.0;
  for (index_t e = 1; e <= experts; ++e) { sum += std::pow(static_cast<double>(e), -exponent); }
  return 1.0 / sum;
}

/// Loads of one batch of 262144 copies around a Zipf law, popular experts at random places.
std::vector<index_t> zipf_batch(double exponent, std::size_t experts, std::uint64_t draw) {
  std::vector<index_t> loads(experts);
  double const first = zipf_share(exponent, static_cast<index_t>(experts));
  for (std::size_t e = 0; e < experts; ++e) {
    double const mean = 262144.0 * first * std::pow(static_cast<double>(e + 1), -exponent);
    loads[e] = std::max<index_t>(0, static_cast<index_t>(std::lround(mean + std::sqrt(mean) * fl::philox::normal(8, draw, e))));
  }
  fl::detail::random_words words(8, draw);
  words.shuffle(std::span(loads));
  return loads;
}

}  // namespace

TEST_CASE("a static placement is perfect until the hottest expert exceeds its hosts' share", "[micromoe]") {
  struct row {
    index_t ranks, replicas, experts;
    double threshold;
  };
  for (row const& one : {row{8, 2, 32, 1.01}, row{64, 2, 256, 0.49}, row{64, 4, 256, 0.68}}) {
    double low = 0.0;
    double high = 3.0;
    for (int step = 0; step < 50; ++step) {
      double const middle = (low + high) / 2.0;
      (zipf_share(middle, one.experts) * static_cast<double>(one.ranks) <= static_cast<double>(one.replicas) ? low : high) = middle;
    }
    CHECK(low == Approx(one.threshold).margin(0.006));
  }
}

TEST_CASE("symmetric placements degrade beyond the threshold and placements that follow the load do not", "[micromoe]") {
  // Mean of max / mean over batches: complete graph and matching, random rows; the last column: known mean loads.
  struct row {
    double exponent, symmetric, random, margin;
  };
  fl::topology const cluster(8, 8);
  auto const graph = hosts_of(fl::cayley_placement{}, cluster, std::vector<index_t>(32, 1));
  for (row const& one : {row{0.5, 1.0, 1.0, 0.002}, row{0.75, 1.001, 1.006, 0.008}, row{1.0, 1.077, 1.142, 0.05}, row{1.5, 1.785, 1.845, 0.08}}) {
    double symmetric = 0.0;
    double random = 0.0;
    double following = 0.0;
    constexpr int draws = 60;
    for (int draw = 0; draw < draws; ++draw) {
      auto const loads = zipf_batch(one.exponent, 32, static_cast<std::uint64_t>(draw));
      symmetric += rho(graph, loads, 8) / draws;
      random += rho(hosts_of(fl::row_partition{.seed = 6, .draw = static_cast<std::uint64_t>(draw)}, cluster, loads), loads, 8) / draws;
      following += rho(hosts_of(fl::monte_carlo_placement<>{.draws = 64}, cluster, loads), loads, 8) / draws;
    }
    INFO("exponent " << one.exponent << ": " << symmetric << ", " << random << ", " << following);
    CHECK(symmetric == Approx(one.symmetric).margin(one.margin));
    CHECK(random == Approx(one.random).margin(one.margin));
    CHECK(symmetric <= random + 1e-9);
    CHECK(following == Approx(1.0).margin(0.001));
  }
}

TEST_CASE("optimal splits on the graphs of LPLB stay below the bounds of its tests", "[lplb]") {
  // 256 experts with loads N(1, 0.3) that the placement does not know; bounds on max / mean. The ring needs bundles: one
  // expert an edge of it is worth too little when loads are unknown (1.10).
  auto const worst = [](auto const& planner, index_t ranks, index_t group) {
    fl::topology const cluster(ranks, 256 / ranks + planner.combined * planner.graph.columns());
    auto const hosts = hosts_of(planner, cluster, std::vector<index_t>(256, 1));
    double sum = 0.0;
    constexpr int draws = 40;
    for (int draw = 0; draw < draws; ++draw) {
      std::vector<index_t> loads(256);
      index_t total = 0;
      for (std::size_t e = 0; e < 256; ++e) {
        loads[e] = std::max<index_t>(0, static_cast<index_t>(1e4 * (1.0 + 0.3 * fl::philox::normal(12, static_cast<std::uint64_t>(draw), e))));
        total += loads[e];
      }
      double most = 0.0;
      for (index_t first = 0; first < ranks; first += group) {  // groups do not help each other
        std::uint64_t const mine = ((std::uint64_t{1} << static_cast<unsigned>(group)) - 1) << static_cast<unsigned>(first);
        std::vector<index_t> inside(loads);
        index_t part = 0;
        for (std::size_t e = 0; e < 256; ++e) {
          inside[e] = (hosts[e] & mine) != 0 ? loads[e] : 0;
          part += inside[e];
        }
        most = std::max(most, rho(hosts, inside, group) * static_cast<double>(part) / static_cast<double>(group));
      }
      sum += most * static_cast<double>(ranks) / static_cast<double>(total) / draws;
    }
    return sum;
  };
  CHECK(worst(fl::fixed_graph_duplicate<fl::cube_graph>{}, 32, 8) < 1.07);
  CHECK(worst(fl::fixed_graph_duplicate<fl::cube_graph>{.combined = 2}, 32, 8) < 1.07);
  CHECK(worst(fl::fixed_graph_duplicate<fl::cube_graph>{}, 64, 8) < 1.1);
  CHECK(worst(fl::fixed_graph_duplicate<fl::ring_graph>{.graph = {8}, .combined = 4}, 32, 8) < 1.07);
  CHECK(worst(fl::fixed_graph_duplicate<fl::hypercube_graph>{}, 16, 16) < 1.03);
}
