// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Numbers of replicas: worked examples of the papers and codes that the rules come from.
#include <fairlead/place/even_replicas.hpp>
#include <fairlead/place/greedy_max_replicas.hpp>
#include <fairlead/place/largest_remainder.hpp>
#include <fairlead/place/node_symmetric_greedy.hpp>
#include <fairlead/place/replicate_then_place.hpp>
#include <fairlead/place/sequential_quota.hpp>

#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;
using integers = std::vector<index_t>;

namespace {

template <class Rule>
integers apportion(Rule const& rule, integers const& load, index_t slots, index_t nodes = 1) {
  fl::arena<> memory(rule.workspace_bytes(static_cast<index_t>(load.size()), slots));
  fl::workspace ws = memory.view();
  integers replicas(load.size());
  REQUIRE(rule.apportion(load, slots, nodes, replicas, ws).status == fl::status::ok);
  return replicas;
}

// How often each of `experts` experts stands in a list of physical experts.
integers count(std::vector<int> const& physical, std::size_t experts) {
  integers result(experts, 0);
  for (int const expert : physical) { ++result[static_cast<std::size_t>(expert)]; }
  return result;
}

integers const eplb_weights_1{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86};
integers const eplb_weights_2{20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27};

}  // namespace

TEST_CASE("SYMI, algorithm 1: shares of popularity with a floor of one", "[papers][symi]") {
  CHECK(apportion(fl::largest_remainder{}, {50, 30, 15, 5}, 8) == integers{4, 2, 1, 1});
  CHECK(apportion(fl::largest_remainder{}, {90, 5, 3, 2}, 8) == integers{5, 1, 1, 1});  // refused decrements
  CHECK(apportion(fl::largest_remainder{}, {10, 10, 10}, 8) == integers{3, 3, 2});
  CHECK(apportion(fl::largest_remainder{}, {7, 5, 2, 0}, 10) == integers{5, 3, 1, 1});
  CHECK(apportion(fl::largest_remainder{}, {27, 10, 6, 5}, 8) == integers{4, 2, 1, 1});
}

TEST_CASE("SYMI, placement: replicas of a class side by side, any number on a rank", "[papers][symi]") {
  fl::topology const cluster(4, 2);
  fl::proportional_in_order const planner;
  fl::arena<> memory(planner.workspace_bytes(cluster, 4));
  fl::workspace ws = memory.view();
  std::vector<fl::expert_id> slots(8);
  integers const popularity{90, 5, 3, 2};
  fl::report const ended = planner.plan(cluster, {.totals = popularity}, {}, slots, ws);
  CHECK(ended.status == fl::status::ok);
  integers found;
  for (fl::expert_id const expert : slots) { found.push_back(fl::to_index(expert)); }
  CHECK(found == integers{0, 0, 0, 0, 0, 1, 2, 3});
  CHECK(ended.value == Approx(36.0));  // two of five replicas of the first class
}

TEST_CASE("Lazarus, equation 1: quotas from the least loaded expert upwards", "[papers][lazarus]") {
  CHECK(apportion(fl::sequential_quota{.least = 2}, {100, 200, 300, 400}, 14) == integers{2, 2, 4, 6});
  CHECK(apportion(fl::sequential_quota{.least = 2}, {1, 1, 1, 1}, 12) == integers{3, 3, 3, 3});
  CHECK(apportion(fl::sequential_quota{.least = 2}, {5, 5, 15, 30, 50, 900}, 16) == integers{2, 2, 2, 2, 2, 6});
  CHECK(apportion(fl::sequential_quota{.least = 2}, {4, 4, 4, 4, 4, 4, 4, 4}, 60) == integers{7, 7, 7, 7, 8, 8, 8, 8});
}

TEST_CASE("Lazarus, equation 1: where slots do not hold the floor, the published formula takes too many, so it is lowered", "[papers][lazarus]") {
  // Three nodes, two slots each, four experts, floor two: the formula as it stands gives 8 replicas on 6 slots.
  fl::sequential_quota const rule{.least = 2};
  CHECK(rule.floor_of(4, 6) == 1);
  CHECK(rule.floor_of(4, 8) == 2);
  integers const counts = apportion(rule, {1, 2, 3, 4}, 6);
  CHECK(counts[0] + counts[1] + counts[2] + counts[3] == 6);
  CHECK(counts == integers{1, 1, 1, 3});
}

TEST_CASE("LAER-MoE, the three candidates on one example", "[papers][laer]") {
  // Four ranks on two nodes, two slots each; loads of four experts summed over the ranks.
  integers const load{8 + 6 + 9 + 4, 2 + 3 + 1 + 4, 1 + 2 + 1 + 2, 1 + 1 + 1 + 2};
  CHECK(apportion(fl::greedy_max_replicas{}, load, 8, 2) == integers{4, 2, 1, 1});
  CHECK(apportion(fl::node_symmetric_greedy{}, load, 8, 2) == integers{2, 2, 2, 2});
  CHECK(apportion(fl::even_replicas{}, load, 8, 2) == integers{2, 2, 2, 2});
}

TEST_CASE("EPLB, replicate_experts: numbers of copies of its global examples", "[papers][eplb]") {
  CHECK(apportion(fl::greedy_max_replicas{}, eplb_weights_1, 16) == count({10, 6, 10, 7, 0, 2, 11, 4, 5, 9, 5, 4, 8, 3, 1, 1}, 12));
  CHECK(apportion(fl::greedy_max_replicas{}, eplb_weights_2, 16) == count({1, 10, 2, 4, 5, 11, 5, 0, 6, 7, 6, 3, 8, 8, 9, 7}, 12));
  CHECK(apportion(fl::greedy_max_replicas{}, {600, 560, 120, 120, 20, 10, 10, 10}, 16) ==
        count({0, 1, 2, 1, 3, 1, 0, 4, 0, 5, 0, 6, 0, 7, 1, 1}, 8));
}

TEST_CASE("EPLB, replicate_experts inside nodes: numbers of copies of the example of its README", "[papers][eplb]") {
  // Two nodes of eight slots; each packs two groups of three experts, which the published table shows.
  auto const check = [](integers const& weights, std::vector<int> const& physical) {
    for (std::size_t node = 0; node < 2; ++node) {
      std::vector<int> const here(physical.begin() + static_cast<std::ptrdiff_t>(8 * node), physical.begin() + static_cast<std::ptrdiff_t>(8 * node + 8));
      integers const copies = count(here, 12);
      integers ids;
      integers load;
      for (std::size_t e = 0; e < 12; ++e) {
        if (copies[e] > 0) {
          ids.push_back(static_cast<index_t>(e));
          load.push_back(weights[e]);
        }
      }
      REQUIRE(ids.size() == 6);
      integers const counts = apportion(fl::greedy_max_replicas{}, load, 8);
      for (std::size_t i = 0; i < ids.size(); ++i) { CHECK(counts[i] == copies[static_cast<std::size_t>(ids[i])]); }
    }
  };
  check(eplb_weights_1, {5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1});
  check(eplb_weights_2, {7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1});
}
