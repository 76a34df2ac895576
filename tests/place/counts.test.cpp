// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rules for numbers of replicas: against the loops that define them, against exhaustive search, and their laws.
#include <fairlead/place/divisor_rules.hpp>
#include <fairlead/place/even_replicas.hpp>
#include <fairlead/place/greedy_max_replicas.hpp>
#include <fairlead/place/largest_remainder.hpp>
#include <fairlead/place/node_symmetric_greedy.hpp>
#include <fairlead/place/sequential_quota.hpp>
#include <fairlead/place/top_load_slots.hpp>

#include <fairlead/core/philox.hpp>
#include <fairlead/laws/apportionment.hpp>

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;
using numbers = std::vector<index_t>;

namespace {

__extension__ typedef __int128 wide;

template <class Rule>
numbers apportion(Rule const& rule, numbers const& load, index_t slots, index_t nodes = 1) {
  fl::arena<> memory(rule.workspace_bytes(static_cast<index_t>(load.size()), slots));
  fl::workspace ws = memory.view();
  numbers replicas(load.size(), -7);
  fl::report const ended = rule.apportion(load, slots, nodes, replicas, ws);
  REQUIRE(ended.status == fl::status::ok);
  return replicas;
}

// The loops of the paper on distances scaled by the total, word for word.
numbers remainder_loops(numbers const& load, index_t slots) {
  wide const total = std::accumulate(load.begin(), load.end(), index_t{0});
  numbers count(load.size());
  std::vector<wide> diff(load.size());
  index_t sum = 0;
  for (std::size_t e = 0; e < load.size(); ++e) {
    wide const goal = static_cast<wide>(load[e]) * slots;
    count[e] = std::max<index_t>(1, static_cast<index_t>(goal / total));
    diff[e] = count[e] * total - goal;
    sum += count[e];
  }
  while (sum > slots) {
    auto const i = static_cast<std::size_t>(std::max_element(diff.begin(), diff.end()) - diff.begin());
    if (count[i] > 1) {
      --count[i];
      --sum;
    }
    diff[i] -= total;
  }
  while (sum < slots) {
    auto const i = static_cast<std::size_t>(std::min_element(diff.begin(), diff.end()) - diff.begin());
    ++count[i];
    ++sum;
    diff[i] += total;
  }
  return count;
}

// One replica at a time to the largest quotient; before(load, r, load, r): whether the first quotient is larger.
template <class Before>
numbers one_by_one(numbers const& load, index_t slots, Before before) {
  numbers r(load.size(), 1);
  for (auto sum = static_cast<index_t>(load.size()); sum < slots; ++sum) {
    std::size_t best = 0;
    for (std::size_t e = 1; e < load.size(); ++e) {
      if (before(load[e], r[e], load[best], r[best])) { best = e; }
    }
    ++r[best];
  }
  return r;
}
bool more_per_replica(index_t a, index_t r, index_t b, index_t s) {
  if (a == 0 && b == 0) { return r < s; }  // experts without load take turns
  return static_cast<wide>(a) * s > static_cast<wide>(b) * r;
}
bool more_by_half(index_t a, index_t r, index_t b, index_t s) {
  return static_cast<wide>(a) * (2 * s + 1) > static_cast<wide>(b) * (2 * r + 1);
}
bool more_by_mean(index_t a, index_t r, index_t b, index_t s) {  // loads below 2^40, replicas below 2^20
  return static_cast<wide>(a) * a * (s * (s + 1)) > static_cast<wide>(b) * b * (r * (r + 1));
}

// The allocator that steps by node, as published, and then its leftover slots one by one.
numbers by_node_loops(numbers const& load, index_t slots, index_t nodes) {
  auto const experts = static_cast<index_t>(load.size());
  index_t const base = nodes * experts <= slots ? nodes : 1;
  numbers r(load.size(), base);
  std::vector<bool> frozen(load.size(), false);
  index_t used = base * experts;
  while (used < slots && std::count(frozen.begin(), frozen.end(), false) > 0) {
    std::size_t best = load.size();
    for (std::size_t e = 0; e < load.size(); ++e) {
      if (!frozen[e] && (best == load.size() || more_per_replica(load[e], r[e], load[best], r[best]))) { best = e; }
    }
    index_t const step = r[best] >= nodes ? nodes : 1;
    if (used + step > slots) {
      frozen[best] = true;
    } else {
      r[best] += step;
      used += step;
    }
  }
  for (; used < slots; ++used) {
    std::size_t best = 0;
    for (std::size_t e = 1; e < load.size(); ++e) {
      if (more_per_replica(load[e], r[e], load[best], r[best])) { best = e; }
    }
    ++r[best];
  }
  return r;
}

// Busiest first: one by one inside the group, then among the others, then beyond the limit.
numbers busiest_first_loops(numbers const& load, index_t slots, index_t most, index_t limit) {
  std::vector<std::size_t> order(load.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return load[a] > load[b]; });
  std::size_t const first = std::min(static_cast<std::size_t>(most), load.size());
  numbers r(load.size(), 1);
  auto used = static_cast<index_t>(load.size());
  for (int group = 0; group < 3; ++group) {
    std::vector<bool> member(load.size(), group == 2);
    for (std::size_t i = 0; i < order.size() && group < 2; ++i) { member[order[i]] = (i < first) == (group == 0); }
    index_t const cap = group < 2 && limit > 0 ? limit : std::numeric_limits<index_t>::max();
    while (used < slots) {
      std::size_t best = load.size();
      for (std::size_t e = 0; e < load.size(); ++e) {
        if (member[e] && r[e] < cap && (best == load.size() || more_per_replica(load[e], r[e], load[best], r[best]))) { best = e; }
      }
      if (best == load.size()) { break; }
      ++r[best];
      ++used;
    }
  }
  return r;
}

// Loads of many kinds; never none at all.
numbers draw_load(std::uint64_t number, index_t most_experts, index_t largest) {
  fl::laws::detail::whole_numbers draw(77, number);
  numbers load(static_cast<std::size_t>(1 + draw.below(most_experts)));
  fl::laws::detail::planning_load(static_cast<int>(number % 8) + 1, largest, index_t{1} << 40U, load, draw);
  if (std::all_of(load.begin(), load.end(), [](index_t value) { return value == 0; })) { load.back() = 1; }
  if (number % 11 == 0) { load.front() = 1000 * largest; }  // few with nearly everything
  if (number % 13 == 0 && load.size() > 2) { load[1] = load[2] = 300 * largest; }
  return load;
}
index_t draw_slots(std::uint64_t number, numbers const& load) {
  fl::laws::detail::whole_numbers draw(78, number);
  auto const experts = static_cast<index_t>(load.size());
  return experts + draw.below(number % 3 == 0 ? 4 * experts : number % 3 == 1 ? 500 : 3);
}

// Every way to write `slots` as a sum of counts >= 1.
void each_split(std::size_t experts, index_t slots, std::function<void(numbers const&)> const& f) {
  numbers r(experts, 1);
  std::function<void(std::size_t, index_t)> const go = [&](std::size_t e, index_t left) {
    if (e + 1 == experts) {
      r[e] = left;
      f(r);
      return;
    }
    for (index_t take = 1; take + static_cast<index_t>(experts - e - 1) <= left; ++take) {
      r[e] = take;
      go(e + 1, left - take);
    }
  };
  go(0, slots);
}

}  // namespace

TEST_CASE("rules for numbers of replicas keep the laws", "[place][laws]") {
  CHECK(fl::laws::check_apportionment(fl::largest_remainder{}));
  CHECK(fl::laws::check_apportionment(fl::greedy_max_replicas{}));
  CHECK(fl::laws::check_apportionment(fl::node_symmetric_greedy{}));
  CHECK(fl::laws::check_apportionment(fl::even_replicas{}));
  CHECK(fl::laws::check_apportionment(fl::sequential_quota{}));
  CHECK(fl::laws::check_apportionment(fl::sequential_quota{.least = 1}));
  CHECK(fl::laws::check_apportionment(fl::sequential_quota{.least = 5}));
  CHECK(fl::laws::check_apportionment(fl::webster_replicas{}));
  CHECK(fl::laws::check_apportionment(fl::huntington_hill_replicas{}));
  CHECK(fl::laws::check_apportionment(fl::top_load_slots{}));
  CHECK(fl::laws::check_apportionment(fl::top_load_slots{.most = 3, .per_expert = 4}));
  CHECK(fl::laws::check_apportionment(fl::top_load_slots{.most = 0, .per_expert = 1}));
  fl::laws::apportionment_problem const large{.experts = 100, .extra_slots = 3000, .nodes = 9, .seed = 5, .cases = 108};
  CHECK(fl::laws::check_apportionment(fl::largest_remainder{}, large));
  CHECK(fl::laws::check_apportionment(fl::greedy_max_replicas{}, large));
  CHECK(fl::laws::check_apportionment(fl::node_symmetric_greedy{}, large));
  CHECK(fl::laws::check_apportionment(fl::webster_replicas{}, large));
  CHECK(fl::laws::check_apportionment(fl::huntington_hill_replicas{}, large));
}

TEST_CASE("largest_remainder ends like the loops of the paper", "[place]") {
  index_t over = 0;
  for (std::uint64_t number = 0; number < 3000; ++number) {
    numbers const load = draw_load(number, number % 2 == 0 ? 9 : 80, 1000);
    index_t const slots = draw_slots(number, load);
    INFO("case " << number << ", " << load.size() << " experts, " << slots << " slots");
    numbers const expected = remainder_loops(load, slots);
    REQUIRE(apportion(fl::largest_remainder{}, load, slots) == expected);
    index_t floors = 0;
    index_t const total = std::accumulate(load.begin(), load.end(), index_t{0});
    for (index_t const value : load) { floors += std::max<index_t>(1, static_cast<index_t>(static_cast<wide>(value) * slots / total)); }
    over += floors > slots ? 1 : 0;
  }
  CHECK(over > 200);  // both loops were met
  CHECK(over < 2800);
}

TEST_CASE("largest_remainder never divides by what it cannot count", "[place]") {
  index_t const huge = std::numeric_limits<index_t>::max() / 4;
  for (numbers const& load : {numbers{huge, huge, huge}, numbers{huge, 1, 1}, numbers{huge, huge - 1, huge - 2}, numbers{1, huge, 0}}) {
    for (index_t const slots : {3, 4, 7, 1000}) { REQUIRE(apportion(fl::largest_remainder{}, load, slots) == remainder_loops(load, slots)); }
  }
}

TEST_CASE("divisor rules end as if replicas were handed out one by one", "[place]") {
  for (std::uint64_t number = 0; number < 2000; ++number) {
    numbers const load = draw_load(number, number % 2 == 0 ? 9 : 60, 1000);
    index_t const slots = draw_slots(number, load);
    INFO("case " << number << ", " << load.size() << " experts, " << slots << " slots");
    REQUIRE(apportion(fl::greedy_max_replicas{}, load, slots) == one_by_one(load, slots, more_per_replica));
    REQUIRE(apportion(fl::webster_replicas{}, load, slots) == one_by_one(load, slots, more_by_half));
    REQUIRE(apportion(fl::huntington_hill_replicas{}, load, slots) == one_by_one(load, slots, more_by_mean));
  }
}

TEST_CASE("divisor rules compare loads near 2^62 exactly", "[place]") {
  index_t const huge = (index_t{1} << 61U) - 1;
  numbers const load{huge, huge - 1, huge - 2};
  REQUIRE(apportion(fl::greedy_max_replicas{}, load, 7) == one_by_one(load, 7, more_per_replica));
  REQUIRE(apportion(fl::greedy_max_replicas{}, load, 4) == numbers{2, 1, 1});
  REQUIRE(apportion(fl::webster_replicas{}, load, 8) == numbers{3, 3, 2});
  REQUIRE(apportion(fl::huntington_hill_replicas{}, load, 8) == numbers{3, 3, 2});
  REQUIRE(apportion(fl::huntington_hill_replicas{}, {huge - 2, huge, huge - 1}, 8) == numbers{2, 3, 3});
}

TEST_CASE("quotients compare without products", "[place]") {
  using fl::detail::replica_counts::compare_quotients;
  for (unsigned a = 0; a < 14; ++a) {
    for (unsigned b = 1; b < 14; ++b) {
      for (unsigned c = 0; c < 14; ++c) {
        for (unsigned d = 1; d < 14; ++d) {
          REQUIRE(compare_quotients(a, b, c, d) == (a * d > c * b ? 1 : 0) - (a * d < c * b ? 1 : 0));
        }
      }
    }
  }
}

TEST_CASE("greedy_max_replicas has the smallest largest share of all counts", "[place]") {
  for (std::uint64_t number = 0; number < 300; ++number) {
    numbers const load = draw_load(number, 5, 30);
    index_t const slots = static_cast<index_t>(load.size()) + static_cast<index_t>(number % 8);
    double best = std::numeric_limits<double>::infinity();
    each_split(load.size(), slots, [&](numbers const& r) { best = std::min(best, fl::detail::replica_counts::largest_share(load, r)); });
    numbers const r = apportion(fl::greedy_max_replicas{}, load, slots);
    REQUIRE(fl::detail::replica_counts::largest_share(load, r) == best);
  }
}

TEST_CASE("greedy_max_replicas reports its largest share as value and bound", "[place]") {
  fl::greedy_max_replicas const rule;
  fl::arena<> memory(rule.workspace_bytes(4, 8));
  fl::workspace ws = memory.view();
  numbers r(4);
  auto const ended = rule.apportion(numbers{27, 10, 6, 5}, 8, 2, r, ws);
  CHECK(ended.value == 6.75);
  CHECK(ended.bound == 6.75);
}

TEST_CASE("huntington_hill_replicas leaves no move that makes shares more alike", "[place]") {
  for (std::uint64_t number = 0; number < 400; ++number) {
    numbers load = draw_load(number, 5, 300);
    for (index_t& value : load) { ++value; }
    index_t const slots = static_cast<index_t>(load.size()) * 3;
    numbers const r = apportion(fl::huntington_hill_replicas{}, load, slots);
    auto const ratio = [](double x, double y) { return std::max(x, y) / std::min(x, y); };
    for (std::size_t a = 0; a < load.size(); ++a) {
      for (std::size_t b = 0; b < load.size(); ++b) {
        if (a == b || r[b] == 1) { continue; }
        double const now = ratio(static_cast<double>(load[a]) / static_cast<double>(r[a]), static_cast<double>(load[b]) / static_cast<double>(r[b]));
        double const then = ratio(static_cast<double>(load[a]) / static_cast<double>(r[a] + 1), static_cast<double>(load[b]) / static_cast<double>(r[b] - 1));
        REQUIRE(now <= then * (1.0 + 1e-12));
      }
    }
  }
}

TEST_CASE("largest_remainder stays within one of the goal of experts above the floor when there is no overflow", "[place]") {
  for (std::uint64_t number = 0; number < 500; ++number) {
    numbers const load = draw_load(number, 6, 100);
    index_t const slots = 200;
    index_t const total = std::accumulate(load.begin(), load.end(), index_t{0});
    if (std::any_of(load.begin(), load.end(), [&](index_t value) { return static_cast<wide>(value) * slots < total; })) { continue; }
    numbers const r = apportion(fl::largest_remainder{}, load, slots);
    for (std::size_t e = 0; e < r.size(); ++e) {
      auto const floor = static_cast<index_t>(static_cast<wide>(load[e]) * slots / total);
      REQUIRE((r[e] == floor || r[e] == floor + 1));
    }
  }
}

TEST_CASE("node_symmetric_greedy ends like the published loop, and fills what that leaves over", "[place]") {
  index_t left_over = 0;
  for (std::uint64_t number = 0; number < 3000; ++number) {
    numbers const load = draw_load(number, 12, 500);
    index_t const nodes = 1 + static_cast<index_t>(number % 7);
    index_t const slots = draw_slots(number, load);
    INFO("case " << number << ", " << load.size() << " experts, " << slots << " slots, " << nodes << " nodes");
    numbers const r = apportion(fl::node_symmetric_greedy{}, load, slots, nodes);
    REQUIRE(r == by_node_loops(load, slots, nodes));
    bool const symmetric = nodes * static_cast<index_t>(load.size()) <= slots;
    index_t off = 0;
    for (index_t const count : r) { off += symmetric ? count % nodes : 0; }
    REQUIRE(off == (symmetric ? slots % nodes : 0));
    left_over += off > 0 ? 1 : 0;
  }
  CHECK(left_over > 300);
}

TEST_CASE("node_symmetric_greedy takes fewer than one node for one node", "[place]") {
  CHECK(apportion(fl::node_symmetric_greedy{}, {27, 10, 6, 5}, 8, 0) == numbers{4, 2, 1, 1});
}

TEST_CASE("even_replicas gives what is left over to the experts with the most load", "[place]") {
  CHECK(apportion(fl::even_replicas{}, {1, 9, 3, 5}, 8) == numbers{2, 2, 2, 2});
  CHECK(apportion(fl::even_replicas{}, {1, 9, 3, 5}, 10) == numbers{2, 3, 2, 3});
  CHECK(apportion(fl::even_replicas{}, {4, 4, 4, 4}, 11) == numbers{3, 3, 3, 2});
  CHECK(apportion(fl::even_replicas{}, {0, 0, 0, 1}, 6) == numbers{2, 1, 1, 2});
}

TEST_CASE("sequential_quota keeps its floor, or what slots allow of it, and ascends with the load", "[place]") {
  for (std::uint64_t number = 0; number < 2000; ++number) {
    numbers const load = draw_load(number, 12, 500);
    index_t const slots = draw_slots(number, load);
    fl::sequential_quota const rule{.least = 1 + static_cast<index_t>(number % 4)};
    numbers const r = apportion(rule, load, slots);
    index_t const floor = rule.floor_of(static_cast<index_t>(load.size()), slots);
    REQUIRE(floor >= 1);
    REQUIRE((floor == rule.least || floor == slots / static_cast<index_t>(load.size())));
    REQUIRE(std::accumulate(r.begin(), r.end(), index_t{0}) == slots);
    for (std::size_t a = 0; a < r.size(); ++a) {
      REQUIRE(r[a] >= floor);
      for (std::size_t b = 0; b < r.size(); ++b) { REQUIRE((load[a] <= load[b] || r[a] >= r[b])); }
    }
  }
  CHECK_THROWS_AS(apportion(fl::sequential_quota{.least = 0}, {1, 2}, 4), fl::contract_violation);
}

TEST_CASE("top_load_slots copies the busiest experts to every rank if they fit", "[place]") {
  // Four ranks, three slots more on each: experts 1 and 3 everywhere, and what is left for the next in load.
  CHECK(apportion(fl::top_load_slots{.most = 2, .per_expert = 4}, {5, 50, 10, 40}, 4 + 6) == numbers{1, 4, 1, 4});
  CHECK(apportion(fl::top_load_slots{.most = 2, .per_expert = 4}, {4, 50, 10, 40}, 4 + 8) == numbers{1, 4, 3, 4});
  CHECK(apportion(fl::top_load_slots{.most = 2, .per_expert = 4}, {5, 50, 10, 40}, 4 + 4) == numbers{1, 3, 1, 3});
  CHECK(apportion(fl::top_load_slots{.most = 1}, {5, 50, 10, 40}, 9) == numbers{1, 6, 1, 1});
  CHECK(apportion(fl::top_load_slots{.most = 4, .per_expert = 2}, {5, 50, 10, 40}, 8) == numbers{2, 2, 2, 2});
  CHECK(apportion(fl::top_load_slots{.most = 1, .per_expert = 2}, {0, 9, 0, 0}, 7) == numbers{2, 2, 2, 1});
  CHECK(apportion(fl::top_load_slots{.most = 4, .per_expert = 2}, {1, 1, 1, 9}, 11) == numbers{2, 2, 2, 5});
  CHECK_THROWS_AS(apportion(fl::top_load_slots{.most = -1}, {1, 2}, 4), fl::contract_violation);
}

TEST_CASE("top_load_slots ends as if replicas were handed out one by one", "[place]") {
  for (std::uint64_t number = 0; number < 3000; ++number) {
    numbers const load = draw_load(number, number % 2 == 0 ? 9 : 50, 1000);
    index_t const slots = draw_slots(number, load);
    auto const most = static_cast<index_t>(number % 12);
    auto const limit = static_cast<index_t>(number % 5 == 0 ? 0 : 1 + number % 17);
    INFO("case " << number << ", " << load.size() << " experts, " << slots << " slots, " << most << " at most " << limit);
    REQUIRE(apportion(fl::top_load_slots{.most = most, .per_expert = limit}, load, slots) == busiest_first_loops(load, slots, most, limit));
  }
}

TEST_CASE("counts of a million slots come as fast as those of ten", "[place]") {
  numbers const load{900, 90, 9, 1};
  index_t const slots = 1000000;
  CHECK(apportion(fl::greedy_max_replicas{}, load, slots) == one_by_one(load, slots, more_per_replica));
  CHECK(apportion(fl::largest_remainder{}, load, slots) == numbers{900000, 90000, 9000, 1000});
  CHECK(apportion(fl::webster_replicas{}, load, slots) == numbers{900000, 90000, 9000, 1000});
  CHECK(apportion(fl::huntington_hill_replicas{}, load, slots) == numbers{900000, 90000, 9000, 1000});
  CHECK(apportion(fl::node_symmetric_greedy{}, load, slots, 8) == numbers{900000, 90000, 9000, 1000});
}

TEST_CASE("rules refuse counts and slots that do not fit the loads", "[place][contract]") {
  fl::workspace ws;
  numbers r(2);
  CHECK_THROWS_AS(fl::even_replicas{}.apportion(numbers{1, 2, 3}, 4, 1, r, ws), fl::contract_violation);
  CHECK_THROWS_AS(fl::even_replicas{}.apportion(numbers{1, 2}, -1, 1, r, ws), fl::contract_violation);
  CHECK_THROWS_AS(fl::even_replicas{}.apportion(numbers{1, 2}, index_t{1} << 31U, 1, r, ws), fl::contract_violation);
  CHECK_THROWS_AS(fl::even_replicas{}.apportion(numbers{1, -2}, 4, 1, r, ws), fl::contract_violation);
  CHECK_THROWS_AS(fl::even_replicas{}.apportion(numbers{std::numeric_limits<index_t>::max(), 1}, 4, 1, r, ws), fl::contract_violation);
  CHECK(fl::even_replicas{}.apportion(numbers{1, 2}, 1, 1, r, ws).status == fl::status::infeasible);
}

namespace {

enum class flaw {
  none,
  sum_off,
  below_one,
  zero_load_uneven,
  prefers_low_ids,
  less_for_more,
  scale,
  keeps_old,
  reads_scratch,
  keeps_scratch,
  takes_more,
  writes_beside,
  not_infeasible,
  dirty_infeasible,
  refuses_nothing
};

template <flaw Flaw>
struct flawed {
  fl::report apportion(std::span<index_t const> load, index_t slots, index_t nodes, std::span<index_t> replicas, fl::workspace& ws) const {
    auto const mark = ws.used();
    auto const scratch = ws.take<index_t>(static_cast<index_t>(load.size()) + (Flaw == flaw::takes_more ? 100 : 0));
    index_t const dirt = load.empty() || replicas.empty() ? 0 : Flaw == flaw::reads_scratch ? scratch[0] : Flaw == flaw::keeps_old ? replicas[0] : 0;
    fl::report ended;
    if (Flaw == flaw::refuses_nothing && load.empty()) { return {.status = fl::status::infeasible}; }
    if (slots < static_cast<index_t>(load.size()) && Flaw == flaw::not_infeasible) {
      std::fill(replicas.begin(), replicas.end(), index_t{0});
      ws.rewind(mark);
      return {};
    }
    ended = fl::greedy_max_replicas{}.apportion(load, slots, nodes, replicas, ws_of(load.size()));
    index_t const total = std::accumulate(load.begin(), load.end(), index_t{0});
    if (ended.status == fl::status::infeasible) {
      if (Flaw == flaw::dirty_infeasible) { replicas[0] = 1; }
    } else if (load.size() > 1) {
      auto const last = replicas.size() - 1;
      if (Flaw == flaw::sum_off && slots % 3 == 0) { ++replicas[last]; }
      if (Flaw == flaw::below_one && replicas[last] == 1) { --replicas[last], ++replicas[0]; }
      if (Flaw == flaw::zero_load_uneven && total == 0 && replicas[0] > 2) { --replicas[0], ++replicas[1]; }
      if (Flaw == flaw::prefers_low_ids && total > 0 && replicas[last] > 1) { --replicas[last], ++replicas[0]; }
      if (Flaw == flaw::less_for_more) {
        auto const [least, most] = std::minmax_element(load.begin(), load.end());
        if (*least < *most) { std::swap(replicas[static_cast<std::size_t>(least - load.begin())], replicas[static_cast<std::size_t>(most - load.begin())]); }
      }
      if (Flaw == flaw::scale && total < 5000) { (void)fl::even_replicas{}.apportion(load, slots, nodes, replicas, ws); }
      if ((Flaw == flaw::keeps_old || Flaw == flaw::reads_scratch) && dirt != 0 && replicas[last] > 1) { --replicas[last], ++replicas[0]; }
      if (Flaw == flaw::writes_beside) { *(replicas.data() + replicas.size()) = 3; }
    }
    if (Flaw != flaw::keeps_scratch) { ws.rewind(mark); }
    return ended;
  }
  std::size_t workspace_bytes(index_t experts, index_t) const { return fl::workspace_bytes<index_t>(experts); }

 private:
  static fl::workspace& ws_of(std::size_t experts) {
    static fl::arena<> memory;
    static fl::workspace view;
    memory.reserve(fl::greedy_max_replicas{}.workspace_bytes(static_cast<index_t>(experts), 0));
    view = memory.view();
    return view;
  }
};

template <flaw Flaw>
bool finds(char const* law) {
  auto const verdict = fl::laws::check_apportionment(flawed<Flaw>{});
  INFO(law << ": " << verdict.reason());
  CHECK(verdict.reason().find(law) < verdict.reason().size());
  return !verdict;
}

}  // namespace

TEST_CASE("the apportionment laws find one planted violation each", "[place][laws]") {
  CHECK(fl::laws::check_apportionment(flawed<flaw::none>{}));
  CHECK(finds<flaw::sum_off>("add up to the slots"));
  CHECK(finds<flaw::below_one>("at least one replica"));
  CHECK(finds<flaw::zero_load_uneven>("without any load"));
  CHECK(finds<flaw::prefers_low_ids>("renaming experts renames"));
  CHECK(finds<flaw::less_for_more>("more load never means fewer"));
  CHECK(finds<flaw::scale>("times three"));
  CHECK(finds<flaw::keeps_old>("equal arguments"));
  CHECK(finds<flaw::reads_scratch>("equal arguments"));
  CHECK(finds<flaw::keeps_scratch>("scratch is given back"));
  CHECK(finds<flaw::takes_more>("workspace_bytes() suffices"));
  CHECK(finds<flaw::writes_beside>("nothing beside the counts"));
  CHECK(finds<flaw::not_infeasible>("too few slots"));
  CHECK(finds<flaw::dirty_infeasible>("too few slots"));
  CHECK(finds<flaw::refuses_nothing>("no experts on no slots"));
}
