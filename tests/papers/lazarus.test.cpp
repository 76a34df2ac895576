// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Resilient placement of Lazarus (arXiv 2407.04656): equation 1, maximum rank overlap, and where its proof fails.
#include <fairlead/core/plan.hpp>
#include <fairlead/metrics/placement_recovery.hpp>
#include <fairlead/place/grouped_overlap.hpp>
#include <fairlead/place/resilient_search.hpp>
#include <fairlead/place/sequential_quota.hpp>
#include <fairlead/place/spread_nodes.hpp>

#include <algorithm>
#include <functional>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;

namespace {

template <class Assigner>
double recovers(Assigner const& assigner, index_t nodes, index_t slots, std::vector<index_t> const& replicas, index_t alive) {
  fl::topology const cluster(nodes, slots);
  auto const experts = static_cast<index_t>(replicas.size());
  std::vector<index_t> loads(replicas);  // popularity in the order of the counts
  std::vector<expert_id> table(static_cast<std::size_t>(cluster.slots()));
  fl::arena<> memory(assigner.workspace_bytes(cluster, experts));
  fl::workspace ws = memory.view();
  fl::report const ended = assigner.assign(cluster, loads, replicas, table, ws);
  REQUIRE((ended.status == fl::status::ok || ended.status == fl::status::iteration_limit));
  fl::placement const where = fl::make_placement(cluster, experts, table, fl::replica_meaning::equal_share);
  for (std::size_t e = 0; e < replicas.size(); ++e) {
    REQUIRE(static_cast<index_t>(where.replicas(static_cast<expert_id>(e)).size()) == replicas[e]);
  }
  fl::arena<> scratch(fl::metrics::recovery_bytes(where));
  fl::workspace more = scratch.view();
  return fl::metrics::recovery_probability(where, alive, more).probability;
}

/// Best probability over all layouts, by trying every set of nodes for every expert.
double optimum(index_t nodes, index_t slots, std::vector<index_t> const& replicas, index_t alive) {
  std::vector<index_t> free(static_cast<std::size_t>(nodes), slots);
  std::vector<std::uint32_t> sets(replicas.size());
  auto const all = std::uint32_t{1} << static_cast<unsigned>(nodes);
  double best = 0.0;
  std::function<void(std::size_t)> const place = [&](std::size_t e) {
    if (e == replicas.size()) {
      double good = 0.0;
      double count = 0.0;
      for (std::uint32_t living = 0; living < all; ++living) {
        if (std::popcount(living) != alive) { continue; }
        count += 1.0;
        good += std::all_of(sets.begin(), sets.end(), [living](std::uint32_t set) { return (set & living) != 0; }) ? 1.0 : 0.0;
      }
      best = std::max(best, good / count);
      return;
    }
    // Fewer distinct nodes than replicas are tried too; the replicas that remain find room somewhere and never hurt.
    for (std::uint32_t set = 1; set < all; ++set) {
      if (std::popcount(set) > replicas[e]) { continue; }
      if (e > 0 && replicas[e] == replicas[e - 1] && set < sets[e - 1]) { continue; }  // equal counts may change places
      bool fits = true;
      for (std::size_t n = 0; n < free.size(); ++n) { fits = fits && (((set >> n) & 1U) == 0 || free[n] > 0); }
      if (!fits) { continue; }
      for (std::size_t n = 0; n < free.size(); ++n) { free[n] -= static_cast<index_t>((set >> n) & 1U); }
      sets[e] = set;
      place(e + 1);
      for (std::size_t n = 0; n < free.size(); ++n) { free[n] += static_cast<index_t>((set >> n) & 1U); }
    }
  };
  place(0);
  return best;
}

/// Ascending counts that fill the slots, from `least` to the number of nodes.
void each_count(index_t experts, index_t slots, index_t least, index_t most, std::vector<index_t>& counts,
                std::function<void(std::vector<index_t> const&)> const& visit) {
  if (experts == 0) {
    if (slots == 0) { visit(counts); }
    return;
  }
  for (index_t count = least; count <= most && count * experts <= slots; ++count) {
    counts.push_back(count);
    each_count(experts - 1, slots - count, count, most, counts, visit);
    counts.pop_back();
  }
}

}  // namespace

TEST_CASE("at most as many experts as slots are nested: only the rarest decides", "[lazarus]") {
  CHECK(recovers(fl::grouped_overlap{}, 5, 2, {2, 8}, 2) == Approx(0.7));  // 1 - C(3,2) / C(5,2)
  CHECK(recovers(fl::grouped_overlap{}, 6, 3, {3, 6, 9}, 2) == Approx(1.0 - 3.0 / 15.0));
}

TEST_CASE("the counterexamples to the optimality of maximum rank overlap", "[lazarus]") {
  struct row {
    index_t nodes, slots;
    std::vector<index_t> replicas;
    index_t alive;
    double overlap, best;
  };
  for (row const& one : {row{3, 2, {2, 2, 2}, 2, 2.0 / 3.0, 1.0}, row{4, 3, {3, 3, 3, 3}, 3, 0.75, 1.0},
                         row{5, 2, {2, 2, 2, 2, 2}, 4, 0.8, 1.0}, row{5, 2, {3, 3, 4}, 2, 0.6, 0.8},
                         row{6, 2, {4, 4, 4}, 2, 8.0 / 15.0, 0.8}, row{10, 6, {7, 7, 7, 7, 8, 8, 8, 8}, 6, 203.0 / 210.0, 1.0}}) {
    INFO(one.nodes << " nodes, " << one.slots << " slots");
    CHECK(recovers(fl::grouped_overlap{}, one.nodes, one.slots, one.replicas, one.alive) == Approx(one.overlap));
    if (one.nodes < 10) { CHECK(optimum(one.nodes, one.slots, one.replicas, one.alive) == Approx(one.best)); }
    CHECK(recovers(fl::resilient_search<>{.alive = one.alive}, one.nodes, one.slots, one.replicas, one.alive) == Approx(one.best));
  }
}

TEST_CASE("overlap is right for skewed popularity, spreading for even", "[lazarus]") {
  std::vector<index_t> skewed(15, 2);
  skewed.push_back(30);
  CHECK(recovers(fl::grouped_overlap{}, 10, 6, skewed, 6) == Approx(129.0 / 210.0));
  CHECK(recovers(fl::spread_nodes{}, 10, 6, skewed, 6) == Approx(80.0 / 210.0));
  CHECK(recovers(fl::resilient_search<>{.alive = 6}, 10, 6, skewed, 6) >= 129.0 / 210.0 - 1e-12);
  CHECK(recovers(fl::spread_nodes{}, 10, 6, {7, 7, 7, 7, 8, 8, 8, 8}, 6) == 1.0);
}

TEST_CASE("uneven quotas of equation 1 feed the placements", "[lazarus]") {
  fl::sequential_quota const rule{.least = 2};
  std::vector<index_t> const loads{5, 5, 15, 30, 50, 900};
  std::vector<index_t> replicas(6);
  fl::arena<> memory(rule.workspace_bytes(6, 16));
  fl::workspace ws = memory.view();
  REQUIRE(rule.apportion(loads, 16, 1, replicas, ws).status == fl::status::ok);
  CHECK(replicas == std::vector<index_t>{2, 2, 2, 2, 2, 6});
  // Four nodes: experts 0 to 3 on one pair of nodes, the others on the other.
  CHECK(recovers(fl::grouped_overlap{}, 4, 4, replicas, 2) == Approx(4.0 / 6.0));
  CHECK(recovers(fl::grouped_overlap{}, 4, 4, replicas, 3) == 1.0);
}

TEST_CASE("maximum rank overlap is optimal when the slots divide the experts", "[lazarus]") {
  int cases = 0;
  struct shape {
    index_t nodes, slots, experts;
  };
  for (shape const& one : {shape{3, 2, 2}, shape{4, 2, 2}, shape{5, 2, 2}, shape{3, 2, 4}, shape{4, 2, 4}, shape{5, 2, 4}, shape{4, 3, 3}}) {
    std::vector<index_t> counts;
    each_count(one.experts, one.nodes * one.slots, 1, one.nodes, counts, [&](std::vector<index_t> const& replicas) {
      for (index_t alive = 1; alive < one.nodes; ++alive) {
        ++cases;
        INFO(one.nodes << " nodes, " << one.slots << " slots, " << one.experts << " experts, " << alive << " alive");
        REQUIRE(recovers(fl::grouped_overlap{}, one.nodes, one.slots, replicas, alive) == Approx(optimum(one.nodes, one.slots, replicas, alive)));
      }
    });
  }
  CHECK(cases > 40);
}

TEST_CASE("the search reaches the optimum of small clusters and keeps the promise of the floor", "[lazarus]") {
  int cases = 0;
  int beyond = 0;
  struct shape {
    index_t nodes, slots, experts;
  };
  for (shape const& one : {shape{3, 2, 3}, shape{4, 2, 3}, shape{5, 2, 3}, shape{4, 3, 4}, shape{4, 2, 5}, shape{5, 2, 5}, shape{3, 3, 4}}) {
    std::vector<index_t> counts;
    each_count(one.experts, one.nodes * one.slots, 1, one.nodes, counts, [&](std::vector<index_t> const& replicas) {
      for (index_t alive = 1; alive < one.nodes; ++alive) {
        ++cases;
        double const best = optimum(one.nodes, one.slots, replicas, alive);
        double const start = std::max(recovers(fl::grouped_overlap{}, one.nodes, one.slots, replicas, alive),
                                      recovers(fl::spread_nodes{}, one.nodes, one.slots, replicas, alive));
        INFO(one.nodes << " nodes, " << one.slots << " slots, " << one.experts << " experts, " << alive << " alive");
        double const found = recovers(fl::resilient_search<>{.alive = alive}, one.nodes, one.slots, replicas, alive);
        REQUIRE(found <= best + 1e-12);
        REQUIRE(found >= start - 1e-12);
        CHECK(found == Approx(best));
        beyond += start < best - 1e-12 ? 1 : 0;
        if (replicas.front() >= 2) { REQUIRE(recovers(fl::resilient_search<>{.alive = alive}, one.nodes, one.slots, replicas, one.nodes - 1) == 1.0); }
      }
    });
  }
  CHECK(cases > 30);
  CHECK(beyond > 0);  // the exchanges were needed
}
