// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/place/cayley.hpp>
#include <fairlead/place/fixed_graph.hpp>
#include <fairlead/place/monte_carlo_placement.hpp>
#include <fairlead/place/row_partition.hpp>

#include <fairlead/laws/load_planner.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <set>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;

namespace {

struct answer {
  fl::report ended;
  std::vector<expert_id> slots;
};

template <class Planner>
answer plan(Planner const& planner, fl::topology const& cluster, std::vector<index_t> const& loads) {
  answer out;
  out.slots.assign(static_cast<std::size_t>(cluster.slots()), static_cast<expert_id>(77));
  fl::arena<> memory(planner.workspace_bytes(cluster, static_cast<index_t>(loads.size())));
  fl::workspace ws = memory.view();
  out.ended = planner.plan(cluster, {loads}, {}, out.slots, ws);
  return out;
}

bool all_none(std::vector<expert_id> const& slots) {
  return std::all_of(slots.begin(), slots.end(), [](expert_id e) { return e == expert_id::none; });
}

/// Replicas of each expert as (rank, local slot).
std::vector<std::vector<std::pair<index_t, index_t>>> replicas_of(fl::topology const& cluster, std::vector<expert_id> const& slots, index_t experts) {
  std::vector<std::vector<std::pair<index_t, index_t>>> found(static_cast<std::size_t>(experts));
  for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
    for (index_t slot = 0; slot < cluster.slots(rank); ++slot) {
      expert_id const e = slots[static_cast<std::size_t>(cluster.slot_offsets()[static_cast<std::size_t>(rank)] + slot)];
      if (e != expert_id::none) { found[static_cast<std::size_t>(e)].emplace_back(rank, slot); }
    }
  }
  return found;
}

std::vector<index_t> uniform(index_t experts) { return std::vector<index_t>(static_cast<std::size_t>(experts), 1); }

}  // namespace

TEST_CASE("cayley_placement puts two replicas of every expert into one row, on two ranks", "[place][graphs]") {
  for (index_t ranks = 2; ranks <= 40; ++ranks) {
    for (index_t slots = 1; slots <= 44; slots += ranks < 12 ? 1 : 5) {
      fl::topology const cluster(ranks, slots);
      index_t const experts = ranks / 2 * slots;
      answer const made = plan(fl::cayley_placement{}, cluster, uniform(experts));
      INFO(ranks << " ranks, " << slots << " slots");
      REQUIRE(made.ended.status == fl::status::ok);
      for (auto const& replicas : replicas_of(cluster, made.slots, experts)) {
        REQUIRE(replicas.size() == 2);
        REQUIRE(replicas[0].first != replicas[1].first);
        REQUIRE(replicas[0].second == replicas[1].second);
      }
    }
  }
}

TEST_CASE("cayley_placement uses no pair of ranks twice before it must", "[place][graphs]") {
  for (index_t ranks = 2; ranks <= 24; ranks += 2) {
    for (index_t degree = 1; degree < 2 * ranks; ++degree) {
      index_t const experts = ranks / 2 * degree;
      fl::topology const cluster(ranks, degree);
      answer const made = plan(fl::cayley_placement{}, cluster, uniform(experts));
      std::multiset<std::pair<index_t, index_t>> pairs;
      for (auto const& replicas : replicas_of(cluster, made.slots, experts)) {
        REQUIRE(replicas.size() == 2);
        pairs.emplace(replicas[0].first, replicas[1].first);
      }
      std::size_t most = 0;
      for (auto const& pair : pairs) { most = std::max(most, pairs.count(pair)); }
      INFO(ranks << " ranks of degree " << degree);
      REQUIRE(most == static_cast<std::size_t>((degree + ranks - 2) / (ranks - 1)));
    }
  }
}

TEST_CASE("cayley_placement refuses odd cycles and clusters without two hosting ranks", "[place][graphs]") {
  for (index_t ranks = 3; ranks <= 9; ranks += 2) {
    answer const odd = plan(fl::cayley_placement{}, fl::topology(ranks, 2), uniform(ranks));
    CHECK(odd.ended.status == fl::status::infeasible);
    CHECK(all_none(odd.slots));
    // With one slot more each, every rank can rest once a row.
    CHECK(plan(fl::cayley_placement{}, fl::topology(ranks, 3), uniform(ranks)).ended.status == fl::status::ok);
  }
  CHECK(plan(fl::cayley_placement{}, fl::topology(1, 4), uniform(2)).ended.status == fl::status::infeasible);
  std::vector<fl::rank_id> const lost{fl::rank_id{0}, fl::rank_id{2}};
  fl::topology const after = fl::topology(4, 3).without(lost);
  answer const rest = plan(fl::cayley_placement{}, after, uniform(3));
  REQUIRE(rest.ended.status == fl::status::ok);
  for (auto const& replicas : replicas_of(after, rest.slots, 3)) {
    REQUIRE(replicas.size() == 2);
    CHECK(replicas[0].first == 1);
    CHECK(replicas[1].first == 3);
  }
}

TEST_CASE("graphs between complete ones have few dense parts", "[place][graphs]") {
  // Sixteen ranks of degree three: shifts 0, 1, 3 repeat no difference, so that no cycle has four edges.
  fl::topology const cluster(16, 3);
  answer const made = plan(fl::cayley_placement{}, cluster, uniform(24));
  std::vector<std::uint64_t> hosts(24);
  fl::metrics::host_masks(cluster.slot_offsets(), made.slots, hosts);
  int fullest = 0;
  for (std::uint64_t set = 0; set < 65536; ++set) {
    if (std::popcount(set) != 5) { continue; }
    int inside = 0;
    for (std::uint64_t const edge : hosts) { inside += (edge & ~set) == 0 ? 1 : 0; }
    fullest = std::max(fullest, inside);
  }
  CHECK(fullest == 4);  // any five ranks hold a tree at the most: the shortest cycle has six
}

TEST_CASE("row_partition cuts every row into blocks of distinct ranks", "[place][graphs]") {
  for (index_t ranks = 1; ranks <= 12; ++ranks) {
    for (index_t replicas = 1; replicas <= ranks; ++replicas) {
      index_t const slots = 5;
      index_t const experts = slots * (ranks / replicas);
      fl::topology const cluster(ranks, slots);
      answer const made = plan(fl::row_partition{.replicas = replicas, .seed = 4}, cluster, uniform(experts));
      REQUIRE(made.ended.status == fl::status::ok);
      for (auto const& found : replicas_of(cluster, made.slots, experts)) {
        REQUIRE(static_cast<index_t>(found.size()) == replicas);
        for (std::size_t i = 1; i < found.size(); ++i) {
          REQUIRE(found[i].second == found[0].second);
          REQUIRE(found[i].first > found[i - 1].first);
        }
      }
    }
  }
  CHECK(plan(fl::row_partition{.replicas = 3}, fl::topology(4, 2), uniform(3)).ended.status == fl::status::infeasible);
  CHECK(plan(fl::row_partition{.replicas = 5}, fl::topology(4, 2), uniform(1)).ended.status == fl::status::infeasible);
  CHECK_THROWS_AS(plan(fl::row_partition{.replicas = 0}, fl::topology(4, 2), uniform(1)), fl::contract_violation);
  // Different draws of a seed are different placements.
  CHECK(plan(fl::row_partition{.draw = 0}, fl::topology(16, 4), uniform(32)).slots !=
        plan(fl::row_partition{.draw = 1}, fl::topology(16, 4), uniform(32)).slots);
}

TEST_CASE("monte_carlo_placement follows the load and is never better than its bound", "[place][graphs]") {
  std::vector<index_t> const skewed{900, 300, 100, 50, 25, 13, 6, 3, 1, 0};
  for (index_t draws : {1, 10, 200}) {
    fl::monte_carlo_placement<> const planner{.draws = draws, .seed = 1};
    fl::topology const cluster(6, 4);
    answer const made = plan(planner, cluster, skewed);
    REQUIRE((made.ended.status == fl::status::ok || made.ended.status == fl::status::iteration_limit));
    CHECK((made.ended.status == fl::status::ok) == (made.ended.value == made.ended.bound));
    CHECK(made.ended.iterations <= draws);
    fl::placement const where(10, cluster.slot_offsets(), made.slots);
    fl::arena<> memory(fl::metrics::induced_density_bytes(10));
    fl::workspace ws = memory.view();
    CHECK(fl::metrics::induced_density(where, skewed, ws).ceiling() == static_cast<index_t>(made.ended.value));
    for (auto const& found : replicas_of(cluster, made.slots, 10)) {
      std::set<index_t> ranks;
      for (auto const& one : found) { ranks.insert(one.first); }
      CHECK(ranks.size() == found.size());  // a second replica on one rank is no host
    }
  }
  // More draws are never worse, and the hottest expert sits on every rank.
  double last = 1e18;
  for (index_t draws = 1; draws <= 64; draws *= 2) {
    double const value = plan(fl::monte_carlo_placement<>{.draws = draws}, fl::topology(6, 4), skewed).ended.value;
    CHECK(value <= last);
    last = value;
  }
  CHECK(replicas_of(fl::topology(6, 4), plan(fl::monte_carlo_placement<>{}, fl::topology(6, 4), skewed).slots, 10)[0].size() == 6);
}

TEST_CASE("a flow and all sets of ranks judge placements alike", "[place][graphs]") {
  for (std::uint64_t number = 0; number < 200; ++number) {
    fl::topology const cluster(1 + static_cast<index_t>(number % 9), 3);
    std::vector<expert_id> slots;
    for (index_t s = 0; s < cluster.slots(); ++s) { slots.push_back(static_cast<expert_id>(fl::philox::draw(31, number, static_cast<std::uint64_t>(s))[0] % 12U)); }
    std::vector<index_t> loads(12, 0);
    for (expert_id const e : slots) { loads[static_cast<std::size_t>(e)] = fl::philox::draw(32, number, static_cast<std::uint64_t>(e))[0] % 500; }
    fl::flow_score const flow;
    fl::enumerated_score const sets;
    fl::arena<> memory(std::max(flow.workspace_bytes(cluster, 12), sets.workspace_bytes(cluster, 12)));
    fl::workspace ws = memory.view();
    auto const exact = sets.evaluate(cluster, slots, loads, nullptr, ws);
    REQUIRE(flow.evaluate(cluster, slots, loads, nullptr, ws).load == exact.ceiling());
  }
  std::vector<expert_id> const lost{expert_id{0}, expert_id{0}};
  std::vector<index_t> const loads{1, 1};
  fl::arena<> memory(4096);
  fl::workspace ws = memory.view();
  CHECK(fl::flow_score{}.evaluate(fl::topology(2, 1), lost, loads, nullptr, ws).status == fl::status::lost_expert);
  // More ranks than all sets can be looked at.
  std::vector<index_t> many;
  for (std::uint64_t e = 0; e < 256; ++e) { many.push_back(1 + fl::philox::draw(33, 0, e)[0] % 1000); }
  answer const large = plan(fl::monte_carlo_placement<>{.draws = 3}, fl::topology(128, 4), many);
  CHECK((large.ended.status == fl::status::ok || large.ended.status == fl::status::iteration_limit));
  CHECK(plan(fl::monte_carlo_placement<fl::greedy_max_replicas, fl::enumerated_score>{}, fl::topology(128, 4), many).ended.status == fl::status::unsupported);
}

TEST_CASE("monte_carlo_placement in rows keeps replicas in one local slot, or says that the counts do not fit", "[place][graphs]") {
  using in_rows = fl::monte_carlo_placement<fl::greedy_max_replicas, fl::flow_score, fl::slot_rule::same_local_slot>;
  static_assert(fl::replicas_share_local_slot<in_rows>);
  static_assert(!fl::replicas_share_local_slot<fl::monte_carlo_placement<>>);
  int placed = 0;
  for (std::uint64_t number = 0; number < 60; ++number) {
    std::vector<index_t> loads;
    for (std::uint64_t e = 0; e < 11; ++e) { loads.push_back(fl::philox::draw(3, number, e)[0] % 1000); }
    fl::topology const cluster(6, 4);
    answer const made = plan(in_rows{.draws = 8}, cluster, loads);
    if (made.ended.status == fl::status::infeasible) {
      REQUIRE(all_none(made.slots));
      continue;
    }
    ++placed;
    for (auto const& found : replicas_of(cluster, made.slots, 11)) {
      REQUIRE_FALSE(found.empty());
      for (auto const& one : found) { REQUIRE(one.second == found[0].second); }
    }
    REQUIRE(std::count(made.slots.begin(), made.slots.end(), expert_id::none) == 0);
  }
  CHECK(placed > 50);
  // Counts 2, 2 and 2 on three ranks of two slots: a row holds three, so that no two fit.
  answer const refused = plan(in_rows{}, fl::topology(3, 2), {5, 5, 5});
  CHECK(refused.ended.status == fl::status::infeasible);
  CHECK(all_none(refused.slots));
  CHECK(plan(fl::monte_carlo_placement<>{}, fl::topology(3, 2), {5, 5, 5}).ended.status == fl::status::ok);
}

TEST_CASE("the search for a packing into rows finds one whenever there is one", "[place][graphs]") {
  int found_some = 0;
  int refused_some = 0;
  for (std::uint64_t number = 0; number < 400; ++number) {
    auto const words = fl::philox::draw(9, number, 0);
    std::size_t const experts = 3 + words[0] % 5;
    std::size_t const rows = 1 + words[1] % 3;
    index_t const width = 3 + static_cast<index_t>(words[2] % 4);
    std::vector<index_t> counts;
    std::vector<std::int32_t> order;
    for (std::size_t e = 0; e < experts; ++e) {
      counts.push_back(1 + static_cast<index_t>(fl::philox::draw(9, number, 1 + e)[0] % 4));
      order.push_back(static_cast<std::int32_t>(e));
    }
    std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return counts[static_cast<std::size_t>(a)] > counts[static_cast<std::size_t>(b)]; });
    bool possible = false;
    std::size_t ways = 1;
    for (std::size_t e = 0; e < experts; ++e) { ways *= rows; }
    for (std::size_t way = 0; way < ways && !possible; ++way) {
      std::vector<index_t> room(rows, width);
      std::size_t left = way;
      for (std::size_t e = 0; e < experts; ++e, left /= rows) { room[left % rows] -= counts[e]; }
      possible = *std::min_element(room.begin(), room.end()) >= 0;
    }
    std::vector<index_t> room(rows, width);
    std::vector<std::int32_t> row_of(experts, -1);
    index_t tries = 100000;
    bool const packed = fl::detail::pack_rows(order, counts, room, row_of, tries);
    REQUIRE(packed == possible);
    (packed ? found_some : refused_some) += 1;
    if (packed) {
      std::vector<index_t> left(rows, width);
      for (std::size_t e = 0; e < experts; ++e) { left[static_cast<std::size_t>(row_of[e])] -= counts[e]; }
      REQUIRE(left == room);
      REQUIRE(*std::min_element(left.begin(), left.end()) >= 0);
    }
  }
  CHECK(found_some > 50);
  CHECK(refused_some > 50);
}

TEST_CASE("placements on graphs keep the laws of planners", "[place][graphs][laws]") {
  CHECK(fl::laws::check_load_planner(fl::cayley_placement{}, {.value_is_largest_share = true, .may_refuse = true}));
  CHECK(fl::laws::check_load_planner(fl::cayley_placement{},
                                     {.experts = 9, .extra_slots = 30, .ragged = false, .value_is_largest_share = true, .scale_invariant = true, .may_refuse = true}));
  CHECK(fl::laws::check_load_planner(fl::row_partition{}, {.extra_slots = 20, .value_is_largest_share = true, .scale_invariant = true, .may_refuse = true}));
  CHECK(fl::laws::check_load_planner(fl::row_partition{.replicas = 1}, {.value_is_largest_share = true, .scale_invariant = true}));
  CHECK(fl::laws::check_load_planner(fl::monte_carlo_placement<>{.draws = 20}));
  CHECK(fl::laws::check_load_planner(fl::monte_carlo_placement<fl::greedy_max_replicas, fl::enumerated_score>{.draws = 20}, {.scale_invariant = true}));
  CHECK(fl::laws::check_load_planner(
      fl::monte_carlo_placement<fl::greedy_max_replicas, fl::enumerated_score, fl::slot_rule::same_local_slot>{.draws = 20},
      {.scale_invariant = true, .may_refuse = true}));
}

TEST_CASE("fixed graphs permute the ranks in every column and hypercubes step along edges", "[place][graphs]") {
  for (index_t size = 2; size <= 9; ++size) { CHECK(fl::permutes_columns(fl::ring_graph{size})); }
  for (index_t rows = 2; rows <= 5; ++rows) {
    for (index_t width = 2; width <= 5; ++width) { CHECK(fl::permutes_columns(fl::torus_graph{rows, width})); }
  }
  std::set<std::pair<index_t, index_t>> edges;
  for (index_t rank = 0; rank < 16; ++rank) {
    for (index_t column = 0; column < 2; ++column) {
      index_t const other = fl::hypercube_graph::source(rank, column);
      CHECK(std::popcount(static_cast<unsigned>(rank ^ other)) == 1);
      edges.emplace(std::min(rank, other), std::max(rank, other));
    }
  }
  CHECK(edges.size() == 32);
  std::vector<std::int32_t> const twice{1, 0, 1};
  std::vector<std::int32_t> const stays{0, 2, 1};
  CHECK_FALSE(fl::permutes_columns(fl::table_graph{twice, 1}));
  CHECK_FALSE(fl::permutes_columns(fl::table_graph{stays, 1}));
}

TEST_CASE("fixed_graph_duplicate gives the hottest experts of each rank the host that the graph names", "[place][graphs]") {
  fl::topology const cluster(16, 6);  // two cubes, four homes and two spare slots a rank
  std::vector<index_t> loads;
  for (std::uint64_t e = 0; e < 64; ++e) { loads.push_back(fl::philox::draw(6, 1, e)[0] % 10000); }
  answer const made = plan(fl::fixed_graph_duplicate<>{}, cluster, loads);
  REQUIRE(made.ended.status == fl::status::ok);
  std::vector<index_t> homes(64, -1);
  for (index_t rank = 0; rank < 16; ++rank) {
    index_t last = index_t{1} << 40U;
    for (index_t slot = 0; slot < 4; ++slot) {
      auto const e = static_cast<std::size_t>(made.slots[static_cast<std::size_t>(6 * rank + slot)]);
      CHECK(homes[e] == -1);
      homes[e] = rank;
      CHECK(loads[e] <= last);  // by descending load
      last = loads[e];
    }
  }
  for (index_t rank = 0; rank < 16; ++rank) {
    for (index_t k = 0; k < 2; ++k) {
      index_t const from = rank / 8 * 8 + fl::cube_graph::source(rank % 8, k);
      CHECK(made.slots[static_cast<std::size_t>(6 * rank + 4 + k)] == made.slots[static_cast<std::size_t>(6 * from + k)]);
    }
  }
  for (auto const& found : replicas_of(cluster, made.slots, 64)) {
    CHECK(found.size() <= 2);
    CHECK((found.size() < 2 || found[0].first != found[1].first));
  }
}

TEST_CASE("fixed_graph_duplicate combines experts, duplicates all on demand, and refuses what does not fit", "[place][graphs]") {
  using all = fl::fixed_graph_duplicate<fl::ring_graph, fl::duplicated::all>;
  static_assert(fl::two_hosts_an_expert<all>);
  static_assert(!fl::two_hosts_an_expert<fl::fixed_graph_duplicate<>>);
  fl::topology const ring(4, 6);
  answer const made = plan(all{.graph = {4}, .combined = 3}, ring, {9, 8, 7, 6, 5, 4, 3, 2, 1, 1, 1, 1});
  REQUIRE(made.ended.status == fl::status::ok);
  for (auto const& found : replicas_of(ring, made.slots, 12)) {
    REQUIRE(found.size() == 2);
    CHECK((found[1].first - found[0].first == 1 || found[1].first - found[0].first == 3));
  }
  CHECK(plan(all{.graph = {4}, .combined = 2}, ring, uniform(12)).ended.status == fl::status::infeasible);   // 3 homes, 2 duplicated
  CHECK(plan(all{.graph = {3}, .combined = 3}, ring, uniform(12)).ended.status == fl::status::infeasible);   // groups of 3 in 4
  CHECK(plan(all{.graph = {4}, .combined = 7}, ring, uniform(12)).ended.status == fl::status::infeasible);   // 7 spare slots of 6
  CHECK(plan(all{.graph = {4}, .combined = 3}, ring, uniform(13)).ended.status == fl::status::infeasible);   // 12 homes
  std::vector<std::int32_t> const stays{0, 1};
  CHECK_THROWS_AS(plan(fl::fixed_graph_duplicate<fl::table_graph>{.graph = {stays, 1}}, fl::topology(2, 3), uniform(2)), fl::contract_violation);
}

TEST_CASE("fixed_graph_duplicate keeps the laws of planners", "[place][graphs][laws]") {
  CHECK(fl::laws::check_load_planner(fl::fixed_graph_duplicate<fl::ring_graph>{.graph = {3}},
                                     {.extra_slots = 14, .value_is_largest_share = true, .scale_invariant = true, .may_refuse = true}));
  CHECK(fl::laws::check_load_planner(fl::fixed_graph_duplicate<fl::torus_graph>{.graph = {2, 3}, .combined = 2},
                                     {.extra_slots = 40, .ragged = false, .value_is_largest_share = true, .scale_invariant = true, .may_refuse = true}));
}

namespace {

struct no_columns {
  [[nodiscard]] index_t ranks() const { return 2; }
  [[nodiscard]] index_t source(index_t rank, index_t) const { return 1 - rank; }
};
struct pair_graph : no_columns {
  [[nodiscard]] index_t columns() const { return 1; }
};
struct no_memory {
  [[nodiscard]] fl::metrics::density evaluate(fl::topology const&, std::span<expert_id const> slots, std::span<index_t const>, fl::metrics::density const*, fl::workspace&) const {
    return {.load = 1000 + fl::to_index(slots[0])};  // the lower the first expert's id, the better; far above any bound
  }
};
struct first_slot_score : no_memory {
  [[nodiscard]] std::size_t workspace_bytes(fl::topology const&, index_t) const { return 0; }
};
struct says_a_number : first_slot_score {
  [[nodiscard]] double evaluate(fl::topology const&, std::span<expert_id const>, std::span<index_t const>, fl::metrics::density const*, fl::workspace&) const { return 0.0; }
};
static_assert(fl::rank_graph<pair_graph> && !fl::rank_graph<no_columns>);
static_assert(fl::density_score<first_slot_score> && !fl::density_score<no_memory> && !fl::density_score<says_a_number>);

}  // namespace

TEST_CASE("graphs and scores of the user take part", "[place][graphs]") {
  answer const made = plan(fl::fixed_graph_duplicate<pair_graph>{}, fl::topology(2, 3), {4, 3, 2, 1});
  REQUIRE(made.ended.status == fl::status::ok);
  CHECK(made.slots[2] == made.slots[3]);  // the hottest of the other rank
  CHECK(made.slots[5] == made.slots[0]);
  answer const chosen = plan(fl::monte_carlo_placement<fl::greedy_max_replicas, first_slot_score>{.draws = 100}, fl::topology(3, 4), uniform(12));
  CHECK(chosen.slots[0] == expert_id{0});  // 1 - (11 / 12)^100 of all seeds
}

TEST_CASE("a flow judges placements of loads that fill 62 bits", "[place][graphs]") {
  // Expert 0 on the last of 8 ranks only, expert 1 on all of them: the first says what the busiest rank has.
  fl::topology const cluster(8, 2);
  std::vector<expert_id> slots(16, expert_id::none);
  for (std::size_t rank = 0; rank < 8; ++rank) { slots[2 * rank] = expert_id{1}; }
  slots[15] = expert_id{0};
  index_t const half = index_t{1} << 61U;
  fl::arena<> memory(fl::flow_score::workspace_bytes(cluster, 2));
  fl::workspace ws = memory.view();
  CHECK(fl::flow_score{}.evaluate(cluster, slots, std::vector<index_t>{half, half - 8}, nullptr, ws).load == half);
  CHECK(fl::flow_score{}.evaluate(cluster, slots, std::vector<index_t>{0, half}, nullptr, ws).load == half / 8);
  std::vector<index_t> const loads{half, half - 1};
  answer const made = plan(fl::monte_carlo_placement<>{.draws = 4}, cluster, loads);
  REQUIRE(made.ended.status == fl::status::ok);
  CHECK(made.ended.value == static_cast<double>(half / 4));
}

namespace {
// Only for clusters of one node.
struct one_node_rule {
  fl::report apportion(std::span<index_t const> load, index_t slots, index_t nodes, std::span<index_t> replicas, fl::workspace& ws) const {
    if (nodes != 1) { return {.status = fl::status::infeasible}; }
    return fl::greedy_max_replicas{}.apportion(load, slots, nodes, replicas, ws);
  }
  std::size_t workspace_bytes(index_t experts, index_t slots) const { return fl::greedy_max_replicas{}.workspace_bytes(experts, slots); }
};
}  // namespace

TEST_CASE("monte_carlo_placement tells its rule the nodes that have slots", "[place][graphs]") {
  std::vector<fl::rank_id> const lost{fl::rank_id{2}, fl::rank_id{3}};
  fl::topology const cluster = fl::topology(4, 2, 2).without(lost);
  fl::monte_carlo_placement<one_node_rule> const planner{.draws = 4};
  CHECK(plan(planner, cluster, uniform(3)).ended.status != fl::status::infeasible);
  CHECK(plan(planner, fl::topology(4, 2, 2), uniform(3)).ended.status == fl::status::infeasible);
}
