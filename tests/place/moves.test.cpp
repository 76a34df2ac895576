// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/place/moves.hpp>

#include <fairlead/laws/detail/copy_cases.hpp>
#include <fairlead/laws/slot_mapper.hpp>
#include <fairlead/place/slot_mapping.hpp>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;
using fl::rank_id;
using fl::laws::detail::case_numbers;
using fl::laws::detail::fetched_pairs;

namespace {

using table = std::vector<expert_id>;

table ids(std::vector<int> const& numbers) {
  table made;
  for (int const number : numbers) { made.push_back(static_cast<expert_id>(number)); }
  return made;
}

template <class Mapper>
std::pair<table, index_t> mapped(Mapper const& mapper, fl::topology const& cluster, table const& now, table next) {
  fl::arena<> memory(mapper.workspace_bytes(cluster, 16));
  fl::workspace ws = memory.view();
  fl::report const ended = mapper.map(cluster, now, next, ws);
  return {next, static_cast<index_t>(ended.value)};
}

// Fewest fetches over all permutations of ranks with equally many slots (and on one node, if asked for).
index_t fewest_fetches(fl::topology const& cluster, table const& now, table const& next, bool inside_nodes) {
  std::vector<index_t> target(static_cast<std::size_t>(cluster.ranks()));
  std::iota(target.begin(), target.end(), index_t{0});
  index_t best = 1000000;
  do {
    bool legal = true;
    for (index_t r = 0; r < cluster.ranks(); ++r) {
      index_t const to = target[static_cast<std::size_t>(r)];
      legal = legal && cluster.slots(r) == cluster.slots(to) &&
              (!inside_nodes || cluster.node_of(r) == cluster.node_of(to));
    }
    if (!legal) { continue; }
    table moved(next.size());
    for (index_t r = 0; r < cluster.ranks(); ++r) {
      for (index_t slot = 0; slot < cluster.slots(r); ++slot) {
        auto const to = static_cast<std::size_t>(
            cluster.slot_offsets()[static_cast<std::size_t>(target[static_cast<std::size_t>(r)])] + slot);
        moved[to] = next[static_cast<std::size_t>(cluster.slot_offsets()[static_cast<std::size_t>(r)] + slot)];
      }
    }
    best = std::min(best, fetched_pairs(cluster, now, moved));
  } while (std::next_permutation(target.begin(), target.end()));
  return best;
}

}  // namespace

TEST_CASE("the matching has the least cost of all permutations", "[place][moves]") {
  for (std::uint64_t number = 0; number < 300; ++number) {
    case_numbers draw(3, number);
    auto const n = static_cast<std::size_t>(1 + draw.below(7));
    index_t const range = 1 + draw.below(number % 3 == 0 ? 2 : 30);
    std::vector<std::int32_t> cost(n * n);
    for (std::int32_t& one : cost) { one = static_cast<std::int32_t>(draw.below(range)) - (number % 2 == 0 ? 10 : 0); }
    std::vector<std::int32_t> column(n);
    fl::arena<> memory(fl::detail::min_cost_matching_bytes(static_cast<index_t>(n)));
    fl::workspace ws = memory.view();
    fl::detail::min_cost_matching(cost.data(), static_cast<index_t>(n), column, ws);
    CHECK(ws.used() == 0);
    index_t sum = 0;
    for (std::size_t i = 0; i < n; ++i) { sum += cost[i * n + static_cast<std::size_t>(column[i])]; }
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    index_t best = 1000000;
    do {
      index_t value = 0;
      for (std::size_t i = 0; i < n; ++i) { value += cost[i * n + order[i]]; }
      best = std::min(best, value);
    } while (std::next_permutation(order.begin(), order.end()));
    CHECK(sum == best);
    std::sort(column.begin(), column.end());
    for (std::size_t i = 0; i < n; ++i) { CHECK(column[i] == static_cast<std::int32_t>(i)); }
  }
}

TEST_CASE("the matching of a large matrix finds a permutation that was hidden in it", "[place][moves]") {
  for (std::size_t const n : {64U, 150U}) {
    case_numbers draw(4, n);
    std::vector<std::size_t> hidden(n);
    std::iota(hidden.begin(), hidden.end(), std::size_t{0});
    for (std::size_t i = n; i > 1; --i) {
      std::swap(hidden[i - 1], hidden[static_cast<std::size_t>(draw.below(static_cast<index_t>(i)))]);
    }
    // Reduced costs are 0 on the hidden permutation and positive elsewhere; prices of rows and columns cover it up.
    std::vector<std::int32_t> rows(n), columns(n), cost(n * n);
    for (std::int32_t& price : rows) { price = static_cast<std::int32_t>(draw.below(1000)); }
    for (std::int32_t& price : columns) { price = static_cast<std::int32_t>(draw.below(1000)); }
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        cost[i * n + j] = rows[i] + columns[j] + (hidden[i] == j ? 0 : 1 + static_cast<std::int32_t>(draw.below(50)));
      }
    }
    std::vector<std::int32_t> found(n);
    fl::arena<> memory(fl::detail::min_cost_matching_bytes(static_cast<index_t>(n)));
    fl::workspace ws = memory.view();
    fl::detail::min_cost_matching(cost.data(), static_cast<index_t>(n), found, ws);
    for (std::size_t i = 0; i < n; ++i) { CHECK(found[i] == static_cast<std::int32_t>(hidden[i])); }
  }
}

TEST_CASE("min_cost_mapping needs the fewest fetches of all ways to exchange ranks", "[place][moves]") {
  int better = 0;
  for (std::uint64_t number = 0; number < 250; ++number) {
    case_numbers draw(9, number);
    index_t const ranks = 1 + draw.below(6);
    fl::topology const cluster = fl::laws::detail::random_cluster(draw, ranks, 1, 3);
    index_t const experts = 2 + draw.below(8);
    table const now = fl::laws::detail::random_table(draw, cluster.slots(), experts);
    table const next = fl::laws::detail::random_table(draw, cluster.slots(), experts);
    for (bool const inside : {false, true}) {
      fl::exchange_scope const scope = inside ? fl::exchange_scope::node : fl::exchange_scope::cluster;
      auto const [best, fetched] = mapped(fl::min_cost_mapping{scope}, cluster, now, next);
      CHECK(fetched == fewest_fetches(cluster, now, next, inside));
      CHECK(fetched == fetched_pairs(cluster, now, best));
      auto const [greedy, greedy_fetched] = mapped(fl::greedy_mapping{scope}, cluster, now, next);
      CHECK(greedy_fetched == fetched_pairs(cluster, now, greedy));
      CHECK(greedy_fetched >= fetched);
      auto const [plain, plain_fetched] = mapped(fl::identity_mapping{}, cluster, now, next);
      CHECK(plain_fetched == fetched_pairs(cluster, now, next));
      CHECK(greedy_fetched <= plain_fetched);
      better += fetched < greedy_fetched ? 1 : 0;
    }
  }
  CHECK(better > 0);  // greedy is not always best
}

TEST_CASE("a renamed table is recognised: nothing has to be fetched", "[place][moves]") {
  fl::topology const cluster(5, 3, 5);
  table const now = ids({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14});
  table const next = ids({5, 3, 4, 12, 14, 13, 2, 1, 0, 11, 9, 10, 8, 7, 6});
  CHECK(mapped(fl::identity_mapping{}, cluster, now, next).second == 12);  // rank 3 keeps its three
  CHECK(mapped(fl::greedy_mapping{}, cluster, now, next) == std::pair<table, index_t>{now, 0});
  CHECK(mapped(fl::min_cost_mapping{}, cluster, now, next) == std::pair<table, index_t>{now, 0});
}

TEST_CASE("experts keep their slots as often as their numbers allow", "[place][moves]") {
  for (std::uint64_t number = 0; number < 120; ++number) {
    case_numbers draw(21, number);
    fl::topology const cluster = fl::laws::detail::random_cluster(draw, 3, 1, 6);
    table const now = fl::laws::detail::random_table(draw, cluster.slots(), 4);
    table const next = fl::laws::detail::random_table(draw, cluster.slots(), 4);
    auto const [kept, fetched] = mapped(fl::identity_mapping{}, cluster, now, next);
    for (index_t r = 0; r < cluster.ranks(); ++r) {
      auto const first = static_cast<std::ptrdiff_t>(cluster.slot_offsets()[static_cast<std::size_t>(r)]);
      auto const end = first + static_cast<std::ptrdiff_t>(cluster.slots(r));
      index_t in_place = 0;
      index_t possible = 0;
      for (std::ptrdiff_t s = first; s < end; ++s) {
        auto const slot = static_cast<std::size_t>(s);
        in_place += kept[slot] != expert_id::none && kept[slot] == now[slot] ? 1 : 0;
      }
      for (int e = 0; e < 4; ++e) {
        auto const expert = static_cast<expert_id>(e);
        possible += std::min(std::count(now.begin() + first, now.begin() + end, expert),
                             std::count(next.begin() + first, next.begin() + end, expert));
      }
      CHECK(in_place == possible);
    }
  }
}

TEST_CASE("every slot mapper keeps the laws", "[place][laws]") {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    fl::laws::slot_mapper_problem const wanted{.seed = seed};
    fl::laws::slot_mapper_problem const inside{.inside_nodes = true, .seed = seed};
    CHECK(fl::laws::check_slot_mapper(fl::identity_mapping{}, inside));
    CHECK(fl::laws::check_slot_mapper(fl::greedy_mapping{}, wanted));
    CHECK(fl::laws::check_slot_mapper(fl::min_cost_mapping{}, wanted));
    CHECK(fl::laws::check_slot_mapper(fl::greedy_mapping{fl::exchange_scope::node}, inside));
    CHECK(fl::laws::check_slot_mapper(fl::min_cost_mapping{fl::exchange_scope::node}, inside));
    CHECK(
        fl::laws::check_slot_mapper(fl::min_cost_mapping{}, {.ranks = 1, .experts = 1, .most_slots = 1, .seed = seed}));
  }
}

namespace {

struct faulty {
  int fault = 0;
  mutable int calls = 0;
  fl::report map(fl::topology const& cluster, std::span<expert_id const> now, std::span<expert_id> next,
                 fl::workspace& ws) const {
    ++calls;
    if (fault == 1) { return {.status = fl::status::infeasible}; }
    fl::report ended = fl::identity_mapping{}.map(cluster, now, next, ws);
    if (fault == 2 && calls % 2 == 0 && next.size() > 1) { std::swap(next[0], next[1]); }
    if (fault == 3) { next[0] = next[0] == expert_id{0} ? expert_id{1} : expert_id{0}; }
    if (fault == 4) { ended.value += 1.0; }
    if (fault == 5 || fault == 6) {  // exchange the first two ranks of equally many slots, whatever it costs
      for (index_t a = 0; a < cluster.ranks(); ++a) {
        for (index_t b = a + 1; b < cluster.ranks(); ++b) {
          if (cluster.slots(a) != cluster.slots(b) || cluster.slots(a) == 0 ||
              (fault == 6 && cluster.node_of(a) == cluster.node_of(b))) {
            continue;
          }
          std::swap_ranges(next.begin() + cluster.slot_offsets()[static_cast<std::size_t>(a)],
                           next.begin() + cluster.slot_offsets()[static_cast<std::size_t>(a) + 1],
                           next.begin() + cluster.slot_offsets()[static_cast<std::size_t>(b)]);
          ended.value = static_cast<double>(
              fetched_pairs(cluster, table(now.begin(), now.end()), table(next.begin(), next.end())));
          return ended;
        }
      }
    }
    if (fault == 7 && next.size() > 1) {  // slots of the first rank in another order
      auto const slots = static_cast<std::ptrdiff_t>(cluster.slots(0));
      std::reverse(next.begin(), next.begin() + slots);
    }
    return ended;
  }
  [[nodiscard]] std::size_t workspace_bytes(fl::topology const& cluster, index_t experts) const {
    return fault == 8 ? 0 : fl::identity_mapping{}.workspace_bytes(cluster, experts);
  }
};

std::string reason_of(int fault) {
  return fl::laws::check_slot_mapper(faulty{fault}, {.inside_nodes = fault == 6}).reason();
}

}  // namespace

TEST_CASE("the slot mapper laws find one planted violation each", "[place][laws]") {
  CHECK(reason_of(0).empty());
  CHECK(reason_of(1).find("can be mapped") != std::string::npos);
  CHECK(reason_of(2).find("equal table") != std::string::npos);
  CHECK(reason_of(3).find("change places") != std::string::npos);
  CHECK(reason_of(4).find("value is the number") != std::string::npos);
  CHECK(reason_of(5).find("more to fetch") != std::string::npos);
  CHECK(reason_of(6).find("change places") != std::string::npos);
  CHECK(reason_of(7).find("stays as it is") != std::string::npos);
  CHECK(reason_of(8).find("workspace_bytes") != std::string::npos);
}

namespace {

struct listed {
  fl::move_report told;
  std::vector<fl::replica_move> moves;
};
listed list(fl::topology const& before, table const& was, fl::topology const& after, table const& becomes,
            fl::move_options options = {}) {
  listed result;
  result.moves.resize(becomes.size());
  fl::arena<> memory(fl::list_moves_bytes(before, after, 16));
  fl::workspace ws = memory.view();
  result.told = fl::list_moves(before, was, after, becomes, options, result.moves, ws);
  result.moves.resize(static_cast<std::size_t>(result.told.moves));
  return result;
}
std::set<index_t> owners_of(fl::topology const& before, table const& was, fl::topology const& after, expert_id expert,
                            bool emptied) {
  std::set<index_t> owners;
  for (index_t r = 0; !was.empty() && r < before.ranks(); ++r) {
    for (index_t slot = before.slot_offsets()[static_cast<std::size_t>(r)];
         slot < before.slot_offsets()[static_cast<std::size_t>(r) + 1]; ++slot) {
      if (was[static_cast<std::size_t>(slot)] == expert && (emptied || after.slots(r) > 0)) { owners.insert(r); }
    }
  }
  return owners;
}

}  // namespace

TEST_CASE("the transfer list is minimal, from living owners, and even over the owners of an expert", "[place][moves]") {
  index_t lost = 0;
  index_t local = 0;
  for (std::uint64_t number = 0; number < 300; ++number) {
    case_numbers draw(31, number);
    index_t const ranks = 2 + draw.below(7);
    index_t const experts = 3 + draw.below(8);
    fl::topology const before = fl::laws::detail::random_cluster(draw, ranks, 1, 4);
    table const was = number == 0 ? table{} : fl::laws::detail::random_table(draw, before.slots(), experts);
    std::vector<rank_id> failed;
    for (index_t i = draw.below(3); i > 0; --i) { failed.push_back(static_cast<rank_id>(draw.below(ranks))); }
    // The other ranks may also get more slots or fewer.
    std::vector<index_t> slots(1, 0);
    for (index_t r = 0; r < ranks; ++r) { slots.push_back(slots.back() + 1 + draw.below(4)); }
    fl::topology const after = fl::topology(before.node_offsets(), slots).without(failed);
    table const becomes = fl::laws::detail::random_table(draw, after.slots(), experts);
    for (bool const near : {false, true}) {
      for (bool const emptied : {false, true}) {
        fl::move_options const options{near ? fl::source_rule::same_node_first : fl::source_rule::even, emptied};
        listed const got = list(before, was, after, becomes, options);
        // Exactly the (rank, expert) pairs that are new, each once.
        std::set<std::pair<index_t, index_t>> wanted;
        for (index_t r = 0; r < ranks; ++r) {
          for (index_t slot = 0; slot < after.slots(r); ++slot) {
            expert_id const expert =
                becomes[static_cast<std::size_t>(after.slot_offsets()[static_cast<std::size_t>(r)] + slot)];
            if (expert != expert_id::none && owners_of(before, was, before, expert, true).count(r) == 0) {
              wanted.insert({r, fl::to_index(expert)});
            }
          }
        }
        std::set<std::pair<index_t, index_t>> found;
        std::map<index_t, std::map<index_t, index_t>> given;  // expert -> owner -> moves
        std::map<index_t, index_t> sent;
        index_t without = 0, remote = 0;
        for (fl::replica_move const& move : got.moves) {
          CHECK(found.insert({fl::to_index(move.to), fl::to_index(move.expert)}).second);
          auto const slot = static_cast<std::size_t>(after.slot_offsets()[static_cast<std::size_t>(move.to)] +
                                                     fl::to_index(move.slot));
          CHECK(becomes[slot] == move.expert);
          auto const owners = owners_of(before, was, after, move.expert, emptied);
          if (move.from == rank_id::none) {
            CHECK(owners.empty());
            ++without;
            continue;
          }
          CHECK(owners.count(fl::to_index(move.from)) == 1);
          CHECK(move.from != move.to);
          ++given[fl::to_index(move.expert)][fl::to_index(move.from)];
          ++sent[fl::to_index(move.from)];
          bool const crosses = after.node_of(fl::to_index(move.from)) != after.node_of(fl::to_index(move.to));
          remote += crosses ? 1 : 0;
          if (near && crosses) {  // no owner on the node of the receiver
            for (index_t const owner : owners) { CHECK(after.node_of(owner) != after.node_of(fl::to_index(move.to))); }
          }
        }
        CHECK(found == wanted);
        CHECK(std::is_sorted(got.moves.begin(), got.moves.end(),
                             [](fl::replica_move const& a, fl::replica_move const& b) {
                               return std::pair(a.to, a.slot) < std::pair(b.to, b.slot);
                             }));
        for (auto const& [expert, by_owner] : given) {
          auto const owners = owners_of(before, was, after, static_cast<expert_id>(expert), emptied);
          index_t least = 1000, most = 0;
          for (index_t const owner : owners) {
            auto const at = by_owner.find(owner);
            index_t const count = at == by_owner.end() ? 0 : at->second;
            least = std::min(least, count);
            most = std::max(most, count);
          }
          if (!near) { CHECK(most - least <= 1); }
        }
        index_t busiest = 0;
        for (auto const& [rank, count] : sent) { busiest = std::max(busiest, count); }
        CHECK(got.told.moves == static_cast<index_t>(got.moves.size()));
        CHECK(got.told.lost == without);
        CHECK(got.told.remote == remote);
        CHECK(got.told.largest_sender == busiest);
        CHECK(got.told.status == (without > 0 ? fl::status::lost_expert : fl::status::ok));
        fl::expert_size const size{.parameters = 1000};
        CHECK(got.told.bytes(size) == (got.told.moves - without) * 18000);
        CHECK(got.told.checkpoint_bytes(size) == without * 18000);
        lost += without;
        local += got.told.local_copies;
      }
    }
  }
  CHECK(lost > 0);
  CHECK(local > 0);
}

TEST_CASE("who has the choice sends what others cannot", "[place][moves]") {
  // Expert 0 is on rank 0 only, expert 1 on ranks 0 and 1: rank 1 sends expert 1.
  fl::topology const cluster(4, 2, 2);
  listed const got = list(cluster, ids({0, 1, 1, -1, -1, -1, -1, -1}), cluster, ids({0, 1, 1, -1, 0, 1, -1, -1}));
  CHECK(got.moves == std::vector<fl::replica_move>{{expert_id{0}, rank_id{0}, rank_id{2}, fl::local_slot_id{0}},
                                                   {expert_id{1}, rank_id{1}, rank_id{2}, fl::local_slot_id{1}}});
  CHECK(got.told.largest_sender == 1);
  CHECK(got.told.remote == 2);
}

TEST_CASE("a rank that has the expert fetches nothing, nor does it fetch one expert twice", "[place][moves]") {
  fl::topology const cluster(2, 3);
  listed const got = list(cluster, ids({0, 1, -1, 2, 2, -1}), cluster, ids({1, 0, 1, 0, 0, 2}));
  CHECK(got.moves == std::vector<fl::replica_move>{{expert_id{0}, rank_id{0}, rank_id{1}, fl::local_slot_id{0}}});
  CHECK(got.told.local_copies == 5);
  CHECK(got.told.status == fl::status::ok);
}

TEST_CASE("retired ranks send if they are said to live", "[place][moves]") {
  fl::topology const before(2, 1);
  std::vector<rank_id> const gone{rank_id{0}};
  fl::topology const after(std::vector<index_t>{0, 2}, std::vector<index_t>{0, 0, 2});
  CHECK(before.without(gone).slots() == 1);
  listed const failed = list(before, ids({0, 1}), after, ids({0, 1}));
  CHECK(failed.told.status == fl::status::lost_expert);
  CHECK(failed.moves[0].from == rank_id::none);
  listed const retired = list(before, ids({0, 1}), after, ids({0, 1}), {.emptied_ranks_send = true});
  CHECK(retired.told.status == fl::status::ok);
  CHECK(retired.moves[0].from == rank_id{0});
}

TEST_CASE("a plan holds the placement, the copies and the moves", "[place][moves]") {
  fl::topology const cluster(3, 2, 2);
  fl::placement const now = fl::make_placement(cluster, 4, ids({0, 1, 2, 3, 0, 1}));
  std::vector<fl::replica_copy> const copies{{expert_id{3}, rank_id{0}}};
  fl::plan const made =
      fl::make_plan(cluster, 4, now, ids({0, 2, 2, 3, 0, 1}), copies,
                    {.meaning = fl::replica_meaning::equal_share, .version = 7, .modelled_gain = 0.25});
  CHECK(made.version() == 7);
  CHECK(made.base.meaning() == fl::replica_meaning::equal_share);
  CHECK(made.moves == std::vector<fl::replica_move>{{expert_id{2}, rank_id{1}, rank_id{0}, fl::local_slot_id{1}}});
  CHECK(made.where.replicas(expert_id{3}).size() == 2);
  CHECK(made.where.slots(rank_id{0}) == 3);
  CHECK(made.copies == copies);
  CHECK(made.modelled_gain == 0.25);
  CHECK(made.fingerprint() != made.base.fingerprint());
  fl::plan const first = fl::make_plan(cluster, 4, fl::placement(), ids({0, 1, 2, 3, 0, 1}));
  CHECK(first.moves.size() == 6);
  for (fl::replica_move const& move : first.moves) { CHECK(move.from == rank_id::none); }
}

TEST_CASE("transfer lists refuse tables that do not fit", "[place][contract]") {
  fl::topology const two(2, 1);
  fl::topology const three(3, 1);
  CHECK_THROWS_AS(list(two, ids({0, 1}), three, ids({0, 1, 2})), fl::contract_violation);
  CHECK_THROWS_AS(list(two, ids({0}), two, ids({0, 1})), fl::contract_violation);
  CHECK_THROWS_AS(fl::make_plan(three, 3, fl::make_placement(two, 2, ids({0, 1})), ids({0, 1, 2})),
                  fl::contract_violation);
  CHECK_THROWS_AS(mapped(fl::min_cost_mapping{}, three, ids({0, 1, 2}), ids({0, 1})), fl::contract_violation);
}
