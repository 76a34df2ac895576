// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/metrics/traffic.hpp>

#include <fairlead/core/matrix.hpp>
#include <fairlead/core/plan.hpp>
#include <fairlead/laws/detail/copy_cases.hpp>
#include <fairlead/schedule/equal_split.hpp>

#include <set>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::expert_id;
using fl::index_t;
using fl::rank_id;

namespace {

struct traffic_case {
  fl::topology cluster;
  fl::placement where;
  std::vector<fl::routing<>> tokens;  // of each rank
  fl::matrix<count_t> load;
  fl::matrix<count_t> schedule;
};

traffic_case random_case(std::uint64_t number) {
  fl::laws::detail::case_numbers draw(61, number);
  index_t const experts = 6;
  index_t const ranks = 3 + draw.below(4);
  traffic_case made;
  made.cluster = fl::laws::detail::random_cluster(draw, ranks, 3, 4);
  made.where =
      fl::make_placement(made.cluster, experts, fl::laws::detail::random_table(draw, made.cluster.slots(), experts));
  made.load = fl::matrix<count_t>(ranks, experts);
  for (index_t r = 0; r < ranks; ++r) {
    fl::routing<> rows(draw.below(40), 3);
    for (index_t t = 0; t < rows.tokens(); ++t) {
      index_t const first = draw.below(experts);
      for (index_t k = 0; k < 3; ++k) {  // distinct experts, at times none
        bool const none = draw.below(8) == 0;
        auto const expert = none ? expert_id::none : static_cast<expert_id>((first + 2 * k) % experts);
        rows.view().experts(t, k) = expert;
        if (!none) { ++made.load(r, fl::to_index(expert)); }
      }
    }
    made.tokens.push_back(std::move(rows));
  }
  made.schedule = fl::matrix<count_t>(ranks, made.where.replicas());
  fl::workspace none;
  REQUIRE(fl::equal_split{}.schedule(made.load.view(), made.where, made.schedule.view(), none).status ==
          fl::status::ok);
  return made;
}

}  // namespace

TEST_CASE("copies are counted by distance, and rows once per token and target", "[metrics]") {
  index_t saved = 0;
  for (std::uint64_t number = 0; number < 60; ++number) {
    traffic_case const c = random_case(number);
    index_t const ranks = c.cluster.ranks();
    fl::metrics::copy_traffic const counted = fl::metrics::count_copies(c.cluster, c.where, c.schedule.view());
    index_t load = 0;
    for (count_t const one : c.load.span()) { load += one; }
    CHECK(counted.total() == load);
    CHECK(counted.crossing_bytes(10) == 10 * (counted.node + counted.remote));
    CHECK(counted.remote_bytes(10) == 10 * counted.remote);
    fl::metrics::copy_traffic sum;
    for (index_t source = 0; source < ranks; ++source) {
      fl::arena<> memory(fl::metrics::count_rows_bytes(c.cluster, c.where));
      fl::workspace ws = memory.view();
      auto const tokens = c.tokens[static_cast<std::size_t>(source)].view();
      fl::metrics::row_traffic const rows =
          fl::metrics::count_rows(c.cluster, c.where, c.schedule.view(), static_cast<rank_id>(source), tokens, ws);
      CHECK(ws.used() == 0);
      sum.local += rows.copies.local;
      sum.node += rows.copies.node;
      sum.remote += rows.copies.remote;
      // Replay: the list of replicas that an expert's copies go to, one after the other.
      std::vector<std::vector<index_t>> queue(6);
      for (index_t e = 0; e < 6; ++e) {
        auto const replicas = c.where.replicas(static_cast<expert_id>(e));
        for (std::size_t r = 0; r < replicas.size(); ++r) {
          index_t const column = c.where.replica_offset(static_cast<expert_id>(e)) + static_cast<index_t>(r);
          queue[static_cast<std::size_t>(e)].insert(queue[static_cast<std::size_t>(e)].end(),
                                                    static_cast<std::size_t>(c.schedule(source, column)),
                                                    fl::to_index(replicas[r].rank));
        }
      }
      std::vector<std::size_t> next(6, 0);
      std::set<std::pair<index_t, index_t>> to_ranks, to_nodes;
      for (index_t t = 0; t < tokens.tokens(); ++t) {
        for (index_t k = 0; k < 3; ++k) {
          if (tokens.experts(t, k) == expert_id::none) { continue; }
          auto const e = static_cast<std::size_t>(tokens.experts(t, k));
          index_t const rank = queue[e][next[e]++];
          if (rank != source) { to_ranks.insert({t, rank}); }
          if (c.cluster.node_of(rank) != c.cluster.node_of(source)) { to_nodes.insert({t, c.cluster.node_of(rank)}); }
        }
      }
      CHECK(rows.rank_rows == static_cast<index_t>(to_ranks.size()));
      CHECK(rows.node_rows == static_cast<index_t>(to_nodes.size()));
      CHECK(rows.node_rows <= rows.copies.remote);
      saved += rows.copies.remote - rows.node_rows;
    }
    CHECK(sum == counted);
  }
  CHECK(saved > 0);
}

TEST_CASE("copies that the schedule does not hold are not counted", "[metrics]") {
  fl::topology const cluster(2, 1);
  fl::placement const where = fl::make_placement(cluster, 2, std::vector<expert_id>{expert_id{0}, expert_id{1}});
  fl::matrix<count_t> schedule(2, 2);
  schedule(0, 1) = 2;  // of three copies for expert 1, one is dropped
  fl::routing<> tokens(3, 1);
  for (index_t t = 0; t < 3; ++t) { tokens.view().experts(t, 0) = expert_id{1}; }
  fl::arena<> memory(fl::metrics::count_rows_bytes(cluster, where));
  fl::workspace ws = memory.view();
  auto const rows =
      fl::metrics::count_rows(cluster, where, schedule.view(), rank_id{0}, std::as_const(tokens).view(), ws);
  CHECK(rows.copies == fl::metrics::copy_traffic{.local = 0, .node = 2, .remote = 0});
  CHECK(rows.rank_rows == 2);
  CHECK(rows.node_rows == 0);
  CHECK_THROWS_AS(
      fl::metrics::count_rows(cluster, where, schedule.view(), rank_id{2}, std::as_const(tokens).view(), ws),
      fl::contract_violation);
  CHECK_THROWS_AS(fl::metrics::count_copies(fl::topology(3, 1), where, schedule.view()), fl::contract_violation);
}
