// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/source_router.hpp>
#include <fairlead/laws/token_scheduler.hpp>
#include <fairlead/schedule/equal_shares.hpp>
#include <fairlead/schedule/equal_split.hpp>
#include <fairlead/schedule/local_node_even.hpp>
#include <fairlead/schedule/nearest_copy.hpp>
#include <fairlead/schedule/proportional.hpp>
#include <fairlead/schedule/same_ratio.hpp>
#include <fairlead/schedule/split_then_route.hpp>
#include <fairlead/schedule/staircase.hpp>
#include <fairlead/schedule/tiered.hpp>
#include <fairlead/schedule/water_fill.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::expert_id;
using fl::index_t;

namespace {

// Ragged nodes: the last one is smaller.
fl::topology cluster_of(index_t ranks, index_t per_node) { return {ranks, 0, per_node}; }

struct routed {
  fl::placement where;
  fl::matrix<count_t> load;
  std::vector<count_t> shares;
  fl::matrix<count_t> out;
};

template <class Router>
routed route_random(Router const& rule, fl::laws::source_router_problem const& problem, int number) {
  fl::laws::token_scheduler_problem const shape{.ranks = problem.ranks, .experts = problem.experts, .extra_slots = problem.extra_slots, .seed = problem.seed};
  routed result{fl::laws::detail::random_placement(shape, static_cast<std::uint64_t>(number)), fl::matrix<count_t>(problem.ranks, problem.experts), {}, {}};
  result.shares.assign(static_cast<std::size_t>(result.where.replicas()), 0);
  fl::laws::detail::random_load_and_shares(problem, number, result.where, result.load, result.shares);
  result.out = fl::matrix<count_t>(problem.ranks, result.where.replicas());
  fl::arena<> memory(rule.workspace_bytes(result.where));
  auto ws = memory.view();
  REQUIRE(rule.route(std::as_const(result.load).view(), result.where, result.shares, result.out.view(), ws));
  return result;
}

}  // namespace

TEST_CASE("routers keep the laws at many sizes", "[schedule][laws]") {
  fl::laws::source_router_problem problem;
  for (index_t const ranks : {1, 2, 3, 8}) {
    for (index_t const experts : {1, 3, 16}) {
      for (index_t const extra : {0, 1, 9, 40}) {
        problem.ranks = ranks;
        problem.experts = experts;
        problem.extra_slots = extra;
        problem.seed = static_cast<std::uint64_t>(100 * ranks + 10 * experts + extra);
        CHECK(fl::laws::check_source_router(fl::proportional{}, problem));
        for (index_t const per_node : {0, 1, 2, 3}) {
          CHECK(fl::laws::check_source_router(fl::tiered{cluster_of(ranks, per_node)}, problem));
          CHECK(fl::laws::check_source_router(fl::tiered{cluster_of(ranks, per_node), true}, problem));
        }
      }
    }
  }
}

TEST_CASE("token schedulers of this module keep the laws at many sizes", "[schedule][laws]") {
  fl::laws::token_scheduler_problem problem;
  for (index_t const ranks : {1, 2, 3, 8}) {
    for (index_t const experts : {1, 3, 16}) {
      for (index_t const extra : {0, 1, 9}) {
        problem.ranks = ranks;
        problem.experts = experts;
        problem.extra_slots = extra;
        problem.seed = static_cast<std::uint64_t>(100 * ranks + 10 * experts + extra);
        CHECK(fl::laws::check_token_scheduler(fl::split_then_route<fl::water_fill>{}, problem));
        CHECK(fl::laws::check_token_scheduler(fl::split_then_route<fl::equal_shares, fl::proportional>{}, problem));
        CHECK(fl::laws::check_token_scheduler(fl::same_ratio<fl::water_fill>{}, problem));
        for (index_t const per_node : {0, 2, 3}) {
          fl::topology const cluster = cluster_of(ranks, per_node);
          CHECK(fl::laws::check_token_scheduler(fl::split_then_route<fl::water_fill, fl::tiered>{.router = {cluster}}, problem));
          CHECK(fl::laws::check_token_scheduler(fl::local_node_even{cluster}, problem));
          CHECK(fl::laws::check_token_scheduler(fl::local_node_even{cluster, false}, problem));
          CHECK(fl::laws::check_token_scheduler(fl::nearest_copy{cluster}, problem));
          CHECK(fl::laws::check_token_scheduler(fl::nearest_copy{cluster, false}, problem));
        }
      }
    }
  }
}

TEST_CASE("a staircase has few fragments, rotated or not", "[schedule]") {
  fl::laws::source_router_problem const problem{.ranks = 9, .experts = 12, .extra_slots = 30, .seed = 4};
  for (bool const rotate : {false, true}) {
    for (int number = 3; number < 40; ++number) {
      routed const r = route_random(fl::staircase{rotate}, problem, number);
      for (index_t e = 0; e < 12; ++e) {
        auto const replicas = r.where.replicas(expert_id{static_cast<std::int32_t>(e)});
        index_t const first = r.where.replica_offset(expert_id{static_cast<std::int32_t>(e)});
        index_t fragments = 0;
        for (std::size_t k = 0; k < replicas.size(); ++k) {
          for (index_t source = 0; source < 9; ++source) {
            fragments += source != fl::to_index(replicas[k].rank) && r.out(source, first + static_cast<index_t>(k)) > 0 ? 1 : 0;
          }
        }
        // A walk that starts in the middle may meet its first source again at the end.
        CHECK(fragments <= 9 + static_cast<index_t>(replicas.size()) - 1 + (rotate ? 1 : 0));
      }
    }
  }
}

TEST_CASE("a rotated staircase starts at another source for each expert", "[schedule]") {
  std::vector<index_t> const offsets{0, 0, 0, 0, 2, 4};
  std::vector<expert_id> const slots{expert_id{0}, expert_id{1}, expert_id{0}, expert_id{1}};
  fl::placement const where(2, offsets, slots);
  fl::matrix<count_t> load(5, 2), out(5, 4);
  for (index_t source = 0; source < 3; ++source) {
    load(source, 0) = 2;
    load(source, 1) = 2;
  }
  std::vector<count_t> const shares{2, 4, 2, 4};
  fl::staircase const rule{.rotate = true};
  fl::arena<> memory(rule.workspace_bytes(where));
  auto ws = memory.view();
  REQUIRE(rule.route(std::as_const(load).view(), where, shares, out.view(), ws));
  CHECK(out(0, 0) == 2);
  CHECK(out(1, 2) == 2);
  CHECK(out(0, 3) == 2);
}

TEST_CASE("tiered keeps as many copies on their node as shares and load allow", "[schedule]") {
  for (index_t const per_node : {1, 2, 3, 5}) {
    fl::topology const cluster = cluster_of(7, per_node);
    fl::laws::source_router_problem const problem{.ranks = 7, .experts = 6, .extra_slots = 20, .seed = 9};
    for (int number = 3; number < 40; ++number) {
      routed const r = route_random(fl::tiered{cluster}, problem, number);
      for (index_t e = 0; e < 6; ++e) {
        auto const replicas = r.where.replicas(expert_id{static_cast<std::int32_t>(e)});
        index_t const first = r.where.replica_offset(expert_id{static_cast<std::int32_t>(e)});
        std::vector<index_t> from(static_cast<std::size_t>(cluster.nodes())), to(from), kept(from);
        for (index_t source = 0; source < 7; ++source) {
          from[static_cast<std::size_t>(cluster.node_of(source))] += r.load(source, e);
          for (std::size_t k = 0; k < replicas.size(); ++k) {
            index_t const count = r.out(source, first + static_cast<index_t>(k));
            index_t const node = cluster.node_of(fl::to_index(replicas[k].rank));
            to[static_cast<std::size_t>(node)] += count;
            kept[static_cast<std::size_t>(node)] += node == cluster.node_of(source) ? count : 0;
          }
        }
        for (std::size_t node = 0; node < from.size(); ++node) { CHECK(kept[node] == std::min(from[node], to[node])); }
      }
    }
  }
}

TEST_CASE("proportional rounds every fraction to a neighbour and keeps all sums", "[schedule]") {
  for (index_t const ranks : {3, 6, 16}) {
    fl::laws::source_router_problem const problem{.ranks = ranks, .experts = 10, .extra_slots = 50, .largest_load = 9, .seed = 77};
    for (int number = 0; number < 60; ++number) {
      routed const r = route_random(fl::proportional{}, problem, number);  // sums are the law kit's
      for (index_t e = 0; e < 10; ++e) {
        auto const replicas = r.where.replicas(expert_id{static_cast<std::int32_t>(e)});
        index_t const first = r.where.replica_offset(expert_id{static_cast<std::int32_t>(e)});
        // The fractional dispatch of the paper's listing, with the whole shares as capacities.
        std::vector<index_t> local(replicas.size(), 0), room(replicas.size()), rest(static_cast<std::size_t>(ranks));
        for (index_t source = 0; source < ranks; ++source) { rest[static_cast<std::size_t>(source)] = r.load(source, e); }
        index_t sum = 0;
        for (std::size_t k = 0; k < replicas.size(); ++k) {
          auto const home = static_cast<std::size_t>(replicas[k].rank);
          index_t const share = r.shares[static_cast<std::size_t>(first) + k];
          local[k] = std::min(share, rest[home]);
          rest[home] -= local[k];
          room[k] = share - local[k];
          sum += room[k];
        }
        for (std::size_t k = 0; k < replicas.size(); ++k) {
          for (index_t source = 0; source < ranks; ++source) {
            index_t const got = r.out(source, first + static_cast<index_t>(k)) - (source == fl::to_index(replicas[k].rank) ? local[k] : 0);
            index_t const exact = rest[static_cast<std::size_t>(source)] * room[k];
            index_t const down = sum == 0 ? 0 : exact / sum;
            bool const whole = sum == 0 || exact % sum == 0;
            CHECK(got >= down);
            CHECK(got <= down + (whole ? 0 : 1));
          }
        }
      }
    }
  }
}

TEST_CASE("proportional repairs roundings along paths", "[schedule]") {
  // Many sources with few copies and many receivers: greedy rounding alone runs into full columns.
  index_t const ranks = 40;
  std::vector<index_t> offsets(1, 0);
  std::vector<expert_id> slots;
  for (index_t rank = 0; rank < ranks; ++rank) {
    if (rank >= 20 && rank < 33) { slots.push_back(expert_id{0}); }
    offsets.push_back(static_cast<index_t>(slots.size()));
  }
  fl::placement const where(1, offsets, slots);
  std::uint64_t index = 0;
  for (int number = 0; number < 200; ++number) {
    fl::matrix<count_t> load(ranks, 1);
    index_t total = 0;
    for (index_t source = 0; source < 20; ++source) {
      load(source, 0) = static_cast<count_t>(fl::philox::below(fl::philox::draw(3, 1, index++)[0], 8));
      total += load(source, 0);
    }
    std::vector<count_t> shares(13, 0);
    for (index_t copy = 0; copy < total; ++copy) {
      auto const at = fl::philox::below(fl::philox::draw(3, 2, index++)[0], 13);
      ++shares[number % 2 == 0 ? at : at * at / 13];
    }
    CHECK(fl::laws::check_source_router_on(fl::proportional{}, load.view(), where, shares));
  }
}

TEST_CASE("local_node_even stays on the node when it can and nearest_copy on the rank", "[schedule]") {
  fl::topology const cluster(5, 0, 2);
  fl::laws::token_scheduler_problem const shape{.ranks = 5, .experts = 6, .extra_slots = 12, .seed = 3};
  for (std::uint64_t number = 1; number < 20; ++number) {
    fl::placement const where = fl::laws::detail::random_placement(shape, number);
    fl::matrix<count_t> load(5, 6), lite(5, where.replicas()), near(5, where.replicas());
    for (std::size_t i = 0; i < load.span().size(); ++i) { load.span()[i] = static_cast<count_t>(fl::philox::below(fl::philox::draw(3, number, i)[0], 30)); }
    fl::local_node_even const even{cluster};
    fl::nearest_copy const nearest{cluster};
    fl::arena<> memory(even.workspace_bytes(where));
    auto ws = memory.view();
    REQUIRE(even.schedule(std::as_const(load).view(), where, lite.view(), ws));
    REQUIRE(nearest.schedule(std::as_const(load).view(), where, near.view(), ws));
    for (index_t source = 0; source < 5; ++source) {
      for (index_t e = 0; e < 6; ++e) {
        auto const replicas = where.replicas(expert_id{static_cast<std::int32_t>(e)});
        index_t const first = where.replica_offset(expert_id{static_cast<std::int32_t>(e)});
        bool here = false, on_node = false;
        for (fl::replica const& copy : replicas) {
          here = here || fl::to_index(copy.rank) == source;
          on_node = on_node || cluster.node_of(fl::to_index(copy.rank)) == cluster.node_of(source);
        }
        for (std::size_t k = 0; k < replicas.size(); ++k) {
          bool const mine = fl::to_index(replicas[k].rank) == source;
          bool const nodes = cluster.node_of(fl::to_index(replicas[k].rank)) == cluster.node_of(source);
          if (here && !mine) { CHECK(near(source, first + static_cast<index_t>(k)) == 0); }
          if (on_node && !nodes) {
            CHECK(lite(source, first + static_cast<index_t>(k)) == 0);
            CHECK(near(source, first + static_cast<index_t>(k)) == 0);
          }
        }
      }
      // A row alone is the row of the whole.
      std::vector<count_t> quota(static_cast<std::size_t>(where.replicas()), -1);
      std::span<count_t const> const own(load.view().row(source), 6);
      REQUIRE(even.row(own, static_cast<fl::rank_id>(source), where, quota));
      CHECK(std::equal(quota.begin(), quota.end(), lite.view().row(source)));
      REQUIRE(nearest.row(own, static_cast<fl::rank_id>(source), where, quota));
      CHECK(std::equal(quota.begin(), quota.end(), near.view().row(source)));
    }
  }
}

TEST_CASE("without nodes local_node_even is equal_split", "[schedule]") {
  fl::placement const where = fl::laws::detail::random_placement({.ranks = 4, .experts = 5, .extra_slots = 9, .seed = 8}, 2);
  fl::matrix<count_t> load(4, 5), even(4, where.replicas()), equal(4, where.replicas());
  for (std::size_t i = 0; i < load.span().size(); ++i) { load.span()[i] = static_cast<count_t>(3 * i + 1); }
  fl::arena<> memory(fl::local_node_even{}.workspace_bytes(where));
  auto ws = memory.view();
  fl::report const a = fl::local_node_even{fl::topology(4, 0)}.schedule(std::as_const(load).view(), where, even.view(), ws);
  fl::report const b = fl::equal_split{}.schedule(std::as_const(load).view(), where, equal.view(), ws);
  CHECK(a.value == b.value);
  CHECK(std::equal(even.span().begin(), even.span().end(), equal.span().begin()));
}

TEST_CASE("starting every remainder at the first replica favours it, rotation does not", "[schedule]") {
  // Eight sources, eight experts on two ranks, odd counts: the first rank gets one more from each.
  std::vector<index_t> offsets{0, 8, 16, 16, 16, 16, 16, 16, 16};
  std::vector<expert_id> slots;
  for (int twice = 0; twice < 2; ++twice) {
    for (int e = 0; e < 8; ++e) { slots.push_back(expert_id{e}); }
  }
  fl::placement const where(8, offsets, slots);
  fl::matrix<count_t> load(8, 8), out(8, 16);
  for (count_t& copies : load.span()) { copies = 3; }
  fl::topology const cluster(8, 0);
  fl::arena<> memory(fl::local_node_even{}.workspace_bytes(where));
  auto ws = memory.view();
  CHECK(fl::local_node_even{cluster, false}.schedule(std::as_const(load).view(), where, out.view(), ws).value == 128.0);
  CHECK(fl::local_node_even{cluster, true}.schedule(std::as_const(load).view(), where, out.view(), ws).value == 96.0);
}

TEST_CASE("rules that need a cluster say so when it is missing", "[schedule][contract]") {
  fl::placement const where = fl::laws::detail::random_placement({.ranks = 3, .experts = 2, .extra_slots = 2}, 1);
  fl::matrix<count_t> load(3, 2), out(3, where.replicas());
  std::vector<count_t> shares(static_cast<std::size_t>(where.replicas()), 0);
  fl::arena<> memory(fl::tiered{}.workspace_bytes(where));
  auto ws = memory.view();
  CHECK_THROWS_AS(fl::local_node_even{}.schedule(std::as_const(load).view(), where, out.view(), ws), fl::contract_violation);
  CHECK_THROWS_AS(fl::nearest_copy{}.schedule(std::as_const(load).view(), where, out.view(), ws), fl::contract_violation);
  CHECK_THROWS_AS(fl::tiered{}.route(std::as_const(load).view(), where, shares, out.view(), ws), fl::contract_violation);
#if FAIRLEAD_CONTRACT_LEVEL >= 2
  shares[0] = 1;
  CHECK_THROWS_AS(fl::staircase{}.route(std::as_const(load).view(), where, shares, out.view(), ws), fl::contract_violation);
#endif
}

TEST_CASE("split_then_route reports its split and accepts nothing at all", "[schedule]") {
  fl::placement const nothing;
  fl::matrix<count_t> none(0, 0), out(0, 0);
  fl::split_then_route<fl::water_fill, fl::proportional> const scheduler;
  fl::arena<> memory(scheduler.workspace_bytes(nothing));
  auto ws = memory.view();
  CHECK(scheduler.schedule(std::as_const(none).view(), nothing, out.view(), ws));
}

TEST_CASE("same_ratio rounds each source for itself: floor of the ratio with two hosts, sums off by less than one a source", "[schedule]") {
  fl::laws::source_router_problem const problem{.ranks = 6, .experts = 5, .extra_slots = 20, .seed = 12};
  for (int number = 3; number < 40; ++number) {
    routed const r = route_random(fl::staircase{}, problem, number);
    fl::same_ratio<fl::water_fill> const rule;
    fl::matrix<count_t> out(6, r.where.replicas());
    fl::arena<> memory(rule.workspace_bytes(r.where));
    auto ws = memory.view();
    REQUIRE(rule.schedule(r.load.view(), r.where, out.view(), ws));
    std::vector<index_t> totals(5);
    fl::sum_over_ranks(r.load.view(), totals);
    std::vector<count_t> shares(static_cast<std::size_t>(r.where.replicas()));
    auto again = memory.view();
    REQUIRE(fl::water_fill{}.split(totals, r.where, shares, again));
    for (index_t e = 0; e < 5; ++e) {
      index_t const first = r.where.replica_offset(expert_id{static_cast<std::int32_t>(e)});
      auto const count = static_cast<index_t>(r.where.replicas(expert_id{static_cast<std::int32_t>(e)}).size());
      for (index_t c = first; c < first + count; ++c) {
        index_t sum = 0;
        for (index_t source = 0; source < 6; ++source) {
          index_t const exact = index_t{shares[static_cast<std::size_t>(c)]} * r.load(source, e);
          index_t const total = std::max<index_t>(totals[static_cast<std::size_t>(e)], 1);
          CHECK(out(source, c) >= exact / total);
          CHECK(out(source, c) <= (exact + total - 1) / total);
          sum += out(source, c);
          if (count == 2 && c == first) { CHECK(out(source, c) == exact / total); }
        }
        CHECK(std::abs(sum - shares[static_cast<std::size_t>(c)]) < 6);
      }
    }
  }
}
