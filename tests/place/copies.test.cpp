// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/cluster/cost_presets.hpp>
#include <fairlead/laws/copy_planner.hpp>
#include <fairlead/place/prefix_shadow.hpp>
#include <fairlead/place/sparse_copies.hpp>
#include <fairlead/place/subset_copy.hpp>

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;
using fl::rank_id;

namespace {

// A case of a planner: everything that the call needs.
struct planning {
  fl::topology cluster;
  fl::placement base;
  fl::matrix<index_t> by_source;
  std::vector<index_t> totals;

  [[nodiscard]] fl::load_estimate load() const { return {.totals = totals, .by_source = by_source.view()}; }
};

planning with_load(fl::topology cluster, fl::placement base, std::vector<std::vector<index_t>> const& rows) {
  planning made{std::move(cluster), std::move(base),
                fl::matrix<index_t>(static_cast<index_t>(rows.size()), static_cast<index_t>(rows[0].size())),
                std::vector<index_t>(rows[0].size(), 0)};
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t e = 0; e < rows[r].size(); ++e) {
      made.by_source(static_cast<index_t>(r), static_cast<index_t>(e)) = rows[r][e];
      made.totals[e] += rows[r][e];
    }
  }
  return made;
}

// Ragged nodes, a rank without slots at times, replicated experts, loads of different heat.
planning random_planning(std::uint64_t number, index_t experts, bool one_replica = false) {
  fl::laws::detail::case_numbers draw(5, number);
  index_t const ranks = 2 + draw.below(4);
  index_t const least = (experts + ranks - 1) / ranks;
  std::vector<std::vector<index_t>> rows(static_cast<std::size_t>(ranks),
                                         std::vector<index_t>(static_cast<std::size_t>(experts)));
  for (std::size_t e = 0; e < static_cast<std::size_t>(experts); ++e) {
    index_t const heat = draw.below(3) == 0 ? 8 : 1;
    for (auto& row : rows) { row[e] = heat * draw.below(300); }
  }
  for (;;) {
    fl::topology const cluster = fl::laws::detail::random_cluster(draw, ranks, least, least + 1);
    if (cluster.slots() < experts) { continue; }
    auto table = fl::laws::detail::random_table(draw, cluster.slots(), experts);
    if (one_replica) {
      std::vector<bool> seen(static_cast<std::size_t>(experts), false);
      for (expert_id& expert : table) {
        if (expert == expert_id::none) { continue; }
        if (seen[static_cast<std::size_t>(expert)]) {
          expert = expert_id::none;
        } else {
          seen[static_cast<std::size_t>(expert)] = true;
        }
      }
    }
    return with_load(cluster, fl::make_placement(cluster, experts, table), rows);
  }
}

struct outcome {
  fl::report ended;
  std::vector<fl::replica_copy> copies;
  // Copied experts in the order of the list.
  [[nodiscard]] std::vector<index_t> experts() const {
    std::vector<index_t> found;
    for (fl::replica_copy const copy : copies) {
      if (found.empty() || found.back() != fl::to_index(copy.expert)) { found.push_back(fl::to_index(copy.expert)); }
    }
    return found;
  }
};

template <class Planner>
outcome run(Planner const& planner, planning const& p) {
  outcome result;
  result.copies.resize(static_cast<std::size_t>(planner.most_copies(p.cluster, p.base.experts())));
  fl::copy_list list{result.copies};
  fl::arena<> memory(planner.workspace_bytes(p.cluster, p.base.experts()));
  fl::workspace ws = memory.view();
  result.ended = planner.copies(p.cluster, p.load(), p.base, list, ws);
  result.copies.resize(static_cast<std::size_t>(list.size));
  return result;
}

index_t home_of(planning const& p, index_t expert) {
  return fl::to_index(p.base.replicas(static_cast<expert_id>(expert)).front().rank);
}
bool hosted(planning const& p, index_t rank, index_t expert) {
  for (fl::replica const& one : p.base.replicas(static_cast<expert_id>(expert))) {
    if (fl::to_index(one.rank) == rank) { return true; }
  }
  return false;
}
// Load descending, then expert ascending.
struct hotter_in {
  std::vector<index_t> const* totals;
  explicit hotter_in(planning const& p) : totals(&p.totals) {}
  bool operator()(index_t a, index_t b) const {
    index_t const x = (*totals)[static_cast<std::size_t>(a)];
    index_t const y = (*totals)[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  }
};
// Experts that some rank with slots lacks, hottest first.
std::vector<index_t> by_heat(planning const& p) {
  std::vector<index_t> order;
  for (index_t e = 0; e < p.base.experts(); ++e) {
    for (index_t rank = 0; rank < p.cluster.ranks(); ++rank) {
      if (p.cluster.slots(rank) > 0 && !hosted(p, rank, e)) {
        order.push_back(e);
        break;
      }
    }
  }
  std::sort(order.begin(), order.end(), hotter_in(p));
  return order;
}

// The formulas of both forms, for the first `copied` of an order.
double shadow_time(planning const& p, std::vector<index_t> const& order, std::size_t copied, fl::expert_times const& m,
                   bool revised) {
  index_t const hottest = order[copied];
  auto computed = static_cast<double>(p.totals[static_cast<std::size_t>(hottest)]);
  double received = computed;
  double transfer = 2.0 * m.hidden_ratio * m.width * m.width * m.bytes_per_element / m.net_bytes_per_s;
  if (revised) {
    index_t const home = home_of(p, hottest);
    received -= static_cast<double>(p.by_source(home, hottest));
    for (std::size_t i = 0; i < copied; ++i) { computed += static_cast<double>(p.by_source(home, order[i])); }
    transfer *= 8.0;
  }
  return 3.0 * 4.0 * m.hidden_ratio * m.width * m.width / m.flops_per_s * computed +
         4.0 * m.width * m.bytes_per_element / m.net_bytes_per_s * received + static_cast<double>(copied) * transfer;
}

// Small experts, so that shadowing pays in some cases and not in others.
fl::expert_times small_experts(std::uint64_t number) {
  fl::expert_times times = fl::presets::fastermoe_default;
  times.width = 32.0 * static_cast<double>(1 + number % 7);
  return times;
}

}  // namespace

TEST_CASE("prefix_shadow finds the prefix of least modelled time", "[place][copies]") {
  int copied = 0;
  int declined = 0;
  for (std::uint64_t number = 0; number < 200; ++number) {
    planning const p = random_planning(number, 6, number % 2 == 0);
    auto const order = by_heat(p);
    fl::expert_times const times = small_experts(number);
    for (bool const revised : {false, true}) {
      fl::shadow_work const work = revised ? fl::shadow_work::hottest_owner : fl::shadow_work::hottest_expert;
      outcome const got = run(fl::prefix_shadow{times, work, fl::shadow_search::best_prefix}, p);
      if (order.empty()) {
        CHECK(got.copies.empty());
        continue;
      }
      std::size_t best = 0;
      for (std::size_t n = 1; n < order.size(); ++n) {
        if (shadow_time(p, order, n, times, revised) < shadow_time(p, order, best, times, revised)) { best = n; }
      }
      CHECK(got.ended.bound == Approx(shadow_time(p, order, 0, times, revised)).epsilon(1e-12));
      CHECK(got.ended.value == Approx(shadow_time(p, order, best, times, revised)).epsilon(1e-12));
      CHECK(got.experts() == std::vector<index_t>(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(best)));
      CHECK((got.ended.status == fl::status::ok) == (best > 0));
      ++(best > 0 ? copied : declined);

      // The published searches: never better, a prefix too, and each where its own rule stops.
      outcome const first = run(fl::prefix_shadow{times, work, fl::shadow_search::stop_at_first_failure}, p);
      std::size_t stop = 0;
      double least = shadow_time(p, order, 0, times, revised);
      while (stop + 1 < order.size() && shadow_time(p, order, stop + 1, times, revised) < least) {
        least = shadow_time(p, order, ++stop, times, revised);
      }
      CHECK(first.experts() == std::vector<index_t>(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(stop)));
      CHECK(first.ended.value >= got.ended.value);
      outcome const patient = run(fl::prefix_shadow{times, work, fl::shadow_search::while_better_than_none}, p);
      std::size_t kept = 0;
      for (std::size_t n = 1;
           n < order.size() && shadow_time(p, order, n, times, revised) < shadow_time(p, order, 0, times, revised);
           ++n) {
        if (shadow_time(p, order, n, times, revised) < shadow_time(p, order, kept, times, revised)) { kept = n; }
      }
      CHECK(patient.experts() ==
            std::vector<index_t>(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept)));
      CHECK(patient.ended.value <= first.ended.value);
    }
  }
  CHECK(copied > 40);
  CHECK(declined > 40);
}

TEST_CASE("prefix_shadow copies to every rank with slots that lacks the expert", "[place][copies]") {
  fl::topology const whole(4, 1, 2);
  std::vector<expert_id> const table{expert_id{0}, expert_id{1}, expert_id{2}};
  std::vector<rank_id> const lost{rank_id{1}};
  fl::topology const cluster = whole.without(lost);
  planning const p =
      with_load(cluster, fl::make_placement(cluster, 3, table), {{900, 1, 1}, {900, 1, 1}, {900, 1, 1}, {900, 1, 1}});
  outcome const got = run(fl::prefix_shadow{small_experts(0)}, p);
  CHECK(got.copies == std::vector<fl::replica_copy>{{expert_id{0}, rank_id{2}}, {expert_id{0}, rank_id{3}}});
}

TEST_CASE("the search that stops at the first failure misses a pair of equally hot experts", "[place][copies]") {
  // Copying one of two hot experts alone gains nothing and costs a broadcast; copying both gains.
  fl::topology const cluster(4, 1);
  std::vector<expert_id> const table{expert_id{0}, expert_id{1}, expert_id{2}, expert_id{3}};
  planning const p = with_load(cluster, fl::make_placement(cluster, 4, table),
                               {{500, 500, 1, 1}, {500, 500, 1, 1}, {500, 500, 1, 1}, {500, 500, 1, 1}});
  CHECK(run(fl::prefix_shadow{small_experts(0)}, p).ended.status == fl::status::no_improvement);
  CHECK(run(fl::prefix_shadow{.times = small_experts(0), .search = fl::shadow_search::while_better_than_none}, p)
            .copies.empty());
  outcome const best = run(fl::prefix_shadow{.times = small_experts(0), .search = fl::shadow_search::best_prefix}, p);
  CHECK(best.experts() == std::vector<index_t>{0, 1});
  CHECK(best.ended.value < best.ended.bound);
}

TEST_CASE("sums over the wrong axis are equal when all ranks have equally many tokens, and copy nothing",
          "[place][copies]") {
  // The released code's defect: sums per source rank in place of sums per expert.
  fl::topology const cluster(4, 1);
  std::vector<expert_id> const table{expert_id{0}, expert_id{1}, expert_id{2}, expert_id{3}};
  planning p = with_load(cluster, fl::make_placement(cluster, 4, table),
                         {{970, 10, 10, 10}, {970, 10, 10, 10}, {970, 10, 10, 10}, {970, 10, 10, 10}});
  CHECK(run(fl::prefix_shadow{small_experts(0)}, p).experts() == std::vector<index_t>{0});
  for (std::size_t rank = 0; rank < 4; ++rank) {
    p.totals[rank] = 0;
    for (index_t e = 0; e < 4; ++e) { p.totals[rank] += p.by_source(static_cast<index_t>(rank), e); }
  }
  CHECK(run(fl::prefix_shadow{small_experts(0)}, p).copies.empty());
}

namespace {

// The loads of all ranks when `sets[e]` are the ranks that have e: (most computed, most received).
std::pair<index_t, index_t> loads_with(planning const& p, std::vector<std::set<index_t>> const& sets) {
  std::vector<index_t> computed(static_cast<std::size_t>(p.cluster.ranks()), 0);
  std::vector<index_t> received(computed);
  for (index_t e = 0; e < p.base.experts(); ++e) {
    for (index_t source = 0; source < p.cluster.ranks(); ++source) {
      bool const stays = sets[static_cast<std::size_t>(e)].count(source) != 0;
      index_t const at = stays ? source : home_of(p, e);
      computed[static_cast<std::size_t>(at)] += p.by_source(source, e);
      if (!stays) { received[static_cast<std::size_t>(at)] += p.by_source(source, e); }
    }
  }
  return {*std::max_element(computed.begin(), computed.end()), *std::max_element(received.begin(), received.end())};
}
std::vector<std::set<index_t>> base_sets(planning const& p) {
  std::vector<std::set<index_t>> sets(static_cast<std::size_t>(p.base.experts()));
  for (index_t e = 0; e < p.base.experts(); ++e) {
    for (fl::replica const& one : p.base.replicas(static_cast<expert_id>(e))) {
      sets[static_cast<std::size_t>(e)].insert(fl::to_index(one.rank));
    }
  }
  return sets;
}

fl::subset_copy<> const flat{.network = {12.5e9},
                             .row_bytes = 2048.0,
                             .weight_bytes = 2.0e5,
                             .gradient_bytes = 2.0e5,
                             .seconds_per_copy = 0.4e-6,
                             .tolerance = 0.5};

template <class Planner>
double subset_time(Planner const& c, planning const& p, std::vector<std::set<index_t>> const& sets,
                   std::size_t copied) {
  auto const [computed, received] = loads_with(p, sets);
  double const bytes = static_cast<double>(received) * c.row_bytes;
  auto const ranks = static_cast<double>(p.cluster.hosting_ranks());
  double const share = static_cast<double>(copied) * std::max(0.0, ranks - static_cast<double>(c.excluded)) / ranks;
  double time = 3.0 * static_cast<double>(computed) * c.seconds_per_copy;
  if (received > 0) { time += 4.0 * bytes / c.network.bytes_per_s(bytes); }
  if (copied > 0) {
    time += std::max(0.0, share * c.weight_bytes / c.network.bytes_per_s(c.weight_bytes) - c.hidden_weights_s);
    time += std::max(0.0, share * c.gradient_bytes / c.network.bytes_per_s(c.gradient_bytes) - c.hidden_gradients_s);
  }
  return time;
}

// The order in which the paper's loop copies, replayed on sets: busiest rank, its heaviest expert not yet tried.
template <class Planner>
std::vector<std::pair<index_t, std::set<index_t>>> copy_sequence(Planner const& c, planning const& p) {
  auto sets = base_sets(p);
  std::vector<std::pair<index_t, std::set<index_t>>> sequence;
  std::set<index_t> tried;
  index_t rows = 0;
  for (index_t const total : p.totals) { rows += total; }
  for (;;) {
    std::vector<index_t> computed(static_cast<std::size_t>(p.cluster.ranks()), 0);
    for (index_t e = 0; e < p.base.experts(); ++e) {
      for (index_t source = 0; source < p.cluster.ranks(); ++source) {
        index_t const at = sets[static_cast<std::size_t>(e)].count(source) != 0 ? source : home_of(p, e);
        computed[static_cast<std::size_t>(at)] += p.by_source(source, e);
      }
    }
    index_t busiest = -1, least = -1;
    for (index_t r = 0; r < p.cluster.ranks(); ++r) {
      if (p.cluster.slots(r) == 0) { continue; }
      if (busiest < 0 || computed[static_cast<std::size_t>(r)] > computed[static_cast<std::size_t>(busiest)]) {
        busiest = r;
      }
      if (least < 0 || computed[static_cast<std::size_t>(r)] < computed[static_cast<std::size_t>(least)]) { least = r; }
    }
    index_t const spread = computed[static_cast<std::size_t>(busiest)] - computed[static_cast<std::size_t>(least)];
    if (static_cast<double>(spread) < c.tolerance * static_cast<double>(rows) / static_cast<double>(p.base.experts())) {
      return sequence;
    }
    index_t chosen = -1;
    for (index_t e = 0; e < p.base.experts(); ++e) {
      if (home_of(p, e) != busiest || tried.count(e) != 0) { continue; }
      if (chosen < 0 || p.totals[static_cast<std::size_t>(e)] > p.totals[static_cast<std::size_t>(chosen)]) {
        chosen = e;
      }
    }
    if (chosen < 0) { return sequence; }
    tried.insert(chosen);
    std::vector<std::pair<index_t, index_t>> others;  // (tokens, rank)
    for (index_t r = 0; r < p.cluster.ranks(); ++r) {
      if (p.cluster.slots(r) > 0 && !hosted(p, r, chosen)) { others.emplace_back(p.by_source(r, chosen), r); }
    }
    std::sort(others.begin(), others.end());
    if (static_cast<index_t>(others.size()) <= c.excluded) { return sequence; }
    std::set<index_t> targets;
    for (std::size_t i = static_cast<std::size_t>(c.excluded); i < others.size(); ++i) {
      targets.insert(others[i].second);
    }
    sets[static_cast<std::size_t>(chosen)].insert(targets.begin(), targets.end());
    sequence.emplace_back(chosen, targets);
  }
}

template <class Planner>
void check_subset(Planner planner, std::uint64_t number, int& copied) {
  planning const p = random_planning(number, 5, number % 2 == 1);
  auto const sequence = copy_sequence(planner, p);
  auto sets = base_sets(p);
  std::vector<double> times{subset_time(planner, p, sets, 0)};
  for (auto const& [expert, targets] : sequence) {
    sets[static_cast<std::size_t>(expert)].insert(targets.begin(), targets.end());
    times.push_back(subset_time(planner, p, sets, times.size()));
  }
  std::size_t best = 0;
  std::size_t counted = 0;
  double least = times[0];
  for (std::size_t n = 1; n < times.size(); ++n) {
    if (times[n] < least) {
      least = times[n];
      best = n;
      ++counted;
    }
  }
  auto const copies_of = [&](std::size_t steps) {
    std::vector<fl::replica_copy> copies;
    for (std::size_t i = 0; i < steps; ++i) {
      for (index_t const rank : sequence[i].second) {
        copies.push_back({static_cast<expert_id>(sequence[i].first), static_cast<rank_id>(rank)});
      }
    }
    return copies;
  };
  outcome const got = run(planner, p);
  CHECK(got.copies == copies_of(best));
  CHECK(got.ended.value == Approx(times[best]).epsilon(1e-12));
  CHECK(got.ended.bound == Approx(times[0]).epsilon(1e-12));
  copied += best > 0 ? 1 : 0;

  planner.keep = fl::kept_copies::counted_steps;
  outcome const slipped = run(planner, p);
  CHECK(slipped.copies == copies_of(times[counted] < times[0] ? counted : 0));
  CHECK(slipped.ended.value >= got.ended.value);

  // No set of experts copied in full can be better than the best of all sets.
  double best_set = times[0];
  for (unsigned mask = 0; mask < (1U << 5U); ++mask) {
    auto chosen = base_sets(p);
    std::size_t count = 0;
    for (index_t e = 0; e < 5; ++e) {
      if ((mask >> static_cast<unsigned>(e) & 1U) == 0U) { continue; }
      ++count;
      for (index_t r = 0; r < p.cluster.ranks(); ++r) {
        if (p.cluster.slots(r) > 0) { chosen[static_cast<std::size_t>(e)].insert(r); }
      }
    }
    best_set = std::min(best_set, subset_time(planner, p, chosen, count));
  }
  if (planner.excluded == 0) { CHECK(got.ended.value >= best_set * (1.0 - 1e-12)); }
}

}  // namespace

TEST_CASE("subset_copy keeps the prefix of its sequence with the least modelled time", "[place][copies]") {
  int copied = 0;
  for (std::uint64_t number = 0; number < 150; ++number) {
    fl::subset_copy<> planner = flat;
    planner.excluded = static_cast<index_t>(number % 3);
    planner.weight_bytes = planner.gradient_bytes = 1e5 * static_cast<double>(1 + number % 5);
    check_subset(planner, number, copied);
  }
  CHECK(copied > 30);
}

TEST_CASE("subset_copy weighs transfers that hide under computation, and bandwidth by size", "[place][copies]") {
  int copied = 0;
  for (std::uint64_t number = 200; number < 280; ++number) {
    fl::subset_copy<fl::step_bandwidth> const stepped{.network = fl::presets::prophet_steps,
                                                      .row_bytes = 2048.0,
                                                      .weight_bytes = 3.0e5,
                                                      .gradient_bytes = 1.0e5,
                                                      .seconds_per_copy = 0.4e-6,
                                                      .tolerance = 0.2,
                                                      .hidden_weights_s = 1e-4 * static_cast<double>(number % 3),
                                                      .hidden_gradients_s = 5e-5};
    check_subset(stepped, number, copied);
  }
  CHECK(copied > 15);
}

TEST_CASE("counting improving steps keeps too few copies after a step that did not improve", "[place][copies]") {
  bool slipped = false;
  for (std::uint64_t number = 0; number < 400 && !slipped; ++number) {
    planning const p = random_planning(number, 5, true);
    fl::subset_copy<> planner = flat;
    planner.tolerance = 0.0;
    outcome const good = run(planner, p);
    planner.keep = fl::kept_copies::counted_steps;
    outcome const bad = run(planner, p);
    slipped = bad.ended.iterations < good.ended.iterations && bad.ended.value > good.ended.value;
  }
  CHECK(slipped);
}

TEST_CASE("subset_copy leaves even loads alone and excludes the ranks with the fewest tokens", "[place][copies]") {
  fl::topology const cluster(3, 1);
  std::vector<expert_id> const table{expert_id{0}, expert_id{1}, expert_id{2}};
  fl::placement const base = fl::make_placement(cluster, 3, table);
  planning const even = with_load(cluster, base, {{100, 90, 110}, {100, 110, 90}, {110, 90, 100}});
  CHECK(run(flat, even).ended.status == fl::status::no_improvement);
  planning const hot = with_load(cluster, base, {{900, 10, 10}, {900, 10, 10}, {800, 10, 10}});
  CHECK(run(flat, hot).copies == std::vector<fl::replica_copy>{{expert_id{0}, rank_id{1}}, {expert_id{0}, rank_id{2}}});
  fl::subset_copy<> planner = flat;
  planner.excluded = 1;
  CHECK(run(planner, hot).copies == std::vector<fl::replica_copy>{{expert_id{0}, rank_id{1}}});
  planner.excluded = 2;  // nobody is left to copy to
  CHECK(run(planner, hot).copies.empty());
}

TEST_CASE("sparse_copies sends the hottest experts everywhere when they fit", "[place][copies]") {
  fl::topology const cluster(4, 1, 2);
  std::vector<expert_id> const table{expert_id{0}, expert_id{1}, expert_id{2}, expert_id{3}};
  planning const p = with_load(cluster, fl::make_placement(cluster, 4, table),
                               {{900, 500, 10, 10}, {900, 500, 10, 10}, {900, 500, 10, 10}, {900, 500, 10, 10}});
  fl::sparse_copies const planner{
      .degree = 2, .memory_slots = 2, .row_bytes = 2048, .bytes_per_s = 12.5e9, .seconds_per_copy = 1e-6};
  outcome const got = run(planner, p);
  CHECK(got.ended.status == fl::status::ok);
  CHECK(got.experts() == std::vector<index_t>{0, 1});
  CHECK(got.copies.size() == 6);
  // Before: rank 0 computes 3600 rows and receives 2700. After: everyone has 900 + 500, rank 2 also its own 40.
  CHECK(got.ended.bound == Approx(4.0 * 2700 * 2048 / 12.5e9 + 3.0 * 3600e-6));
  CHECK(got.ended.value == Approx(4.0 * 30 * 2048 / 12.5e9 + 3.0 * 1440e-6));
}

TEST_CASE("sparse_copies shares scarce memory by load, over nodes first", "[place][copies]") {
  for (std::uint64_t number = 0; number < 80; ++number) {
    planning const p = random_planning(number, 7);
    fl::sparse_copies const planner{.degree = 3 + static_cast<index_t>(number % 4),
                                    .memory_slots = 1 + static_cast<index_t>(number % 3),
                                    .row_bytes = 2048,
                                    .bytes_per_s = 12.5e9,
                                    .seconds_per_copy = 1e-6};
    outcome const got = run(planner, p);
    if (got.copies.empty()) { continue; }
    std::vector<index_t> used(static_cast<std::size_t>(p.cluster.ranks()), 0);
    auto sets = base_sets(p);
    std::vector<index_t> order;
    for (index_t e = 0; e < 7; ++e) { order.push_back(e); }
    std::sort(order.begin(), order.end(), hotter_in(p));
    std::set<index_t> const top(order.begin(), order.begin() + planner.degree);
    for (fl::replica_copy const copy : got.copies) {
      auto& set = sets[static_cast<std::size_t>(copy.expert)];
      CHECK(top.count(fl::to_index(copy.expert)) == 1);
      CHECK(++used[static_cast<std::size_t>(copy.rank)] <= planner.memory_slots);
      if (planner.degree > planner.memory_slots) {
        // No node with room had fewer replicas of the expert than the one that got it.
        auto const on = [&](index_t rank) {
          index_t count = 0;
          for (index_t const other : set) { count += p.cluster.node_of(other) == p.cluster.node_of(rank) ? 1 : 0; }
          return count;
        };
        for (index_t r = 0; r < p.cluster.ranks(); ++r) {
          bool const room =
              p.cluster.slots(r) > 0 && set.count(r) == 0 && used[static_cast<std::size_t>(r)] < planner.memory_slots;
          if (room) { CHECK(on(r) >= on(fl::to_index(copy.rank))); }
        }
      }
      CHECK(set.insert(fl::to_index(copy.rank)).second);
    }
    if (planner.degree > planner.memory_slots) {  // no slot is left that an expert of the top could use
      for (index_t r = 0; r < p.cluster.ranks(); ++r) {
        for (index_t const e : top) {
          bool const usable = p.cluster.slots(r) > 0 && sets[static_cast<std::size_t>(e)].count(r) == 0 &&
                              p.totals[static_cast<std::size_t>(e)] > 0;
          CHECK_FALSE((usable && used[static_cast<std::size_t>(r)] < planner.memory_slots));
        }
      }
    }
  }
}

TEST_CASE("sparse_copies copies nothing without room, without time, and where it would not help", "[place][copies]") {
  planning const p = random_planning(1, 6);
  CHECK(run(fl::sparse_copies{.degree = 4, .memory_slots = 0, .bytes_per_s = 1, .seconds_per_copy = 1}, p)
            .copies.empty());
  CHECK(run(fl::sparse_copies{.degree = 0, .memory_slots = 4, .bytes_per_s = 1, .seconds_per_copy = 1}, p)
            .copies.empty());
  // Nothing costs anything: no copy is an improvement.
  CHECK(run(fl::sparse_copies{.degree = 2, .memory_slots = 4, .bytes_per_s = 1}, p).ended.status ==
        fl::status::no_improvement);
}

TEST_CASE("every copy planner keeps the laws", "[place][laws]") {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    fl::laws::copy_planner_problem const wanted{.seed = seed};
    for (fl::shadow_work const work : {fl::shadow_work::hottest_expert, fl::shadow_work::hottest_owner}) {
      for (fl::shadow_search const search :
           {fl::shadow_search::stop_at_first_failure, fl::shadow_search::while_better_than_none,
            fl::shadow_search::best_prefix}) {
        CHECK(fl::laws::check_copy_planner(fl::prefix_shadow{small_experts(seed), work, search}, wanted));
      }
    }
    CHECK(fl::laws::check_copy_planner(flat, wanted));
    fl::subset_copy<> excluding = flat;
    excluding.excluded = 2;
    excluding.keep = fl::kept_copies::counted_steps;
    CHECK(fl::laws::check_copy_planner(excluding, wanted));
    fl::subset_copy<fl::step_bandwidth> const stepped{.network = fl::presets::prophet_steps,
                                                      .row_bytes = 4096,
                                                      .weight_bytes = 1e6,
                                                      .gradient_bytes = 1e6,
                                                      .seconds_per_copy = 1e-6};
    CHECK(fl::laws::check_copy_planner(stepped, wanted));
    for (index_t const degree : {0, 2, 5}) {
      fl::sparse_copies const planner{
          .degree = degree, .memory_slots = 2, .row_bytes = 2048, .bytes_per_s = 12.5e9, .seconds_per_copy = 1e-6};
      CHECK(fl::laws::check_copy_planner(planner, wanted));
    }
  }
}

TEST_CASE("copy planners refuse what makes no sense", "[place][contract]") {
  planning p = random_planning(2, 6);
  CHECK_THROWS_AS(run(fl::prefix_shadow{}, p), fl::contract_violation);  // no machine
  fl::subset_copy<> negative = flat;
  negative.excluded = -1;
  CHECK_THROWS_AS(run(negative, p), fl::contract_violation);
  CHECK_THROWS_AS(run(fl::sparse_copies{.degree = 1, .memory_slots = 1}, p), fl::contract_violation);
  p.by_source = fl::matrix<index_t>(0, 0);
  CHECK_THROWS_AS(run(flat, p), fl::contract_violation);
  CHECK_NOTHROW(run(fl::prefix_shadow{small_experts(0)}, p));  // the published form reads totals only
}

namespace {

// A correct planner with one law broken, chosen by `fault`.
struct faulty {
  int fault = 0;
  mutable int calls = 0;
  fl::report copies(fl::topology const& cluster, fl::load_estimate const& load, fl::placement const& base,
                    fl::copy_list& out, fl::workspace& ws) const {
    ++calls;
    fl::prefix_shadow const good{small_experts(0)};
    fl::report ended = good.copies(cluster, load, base, out, ws);
    if (ended.status == fl::status::lost_expert) {
      if (fault == 1) { ended.status = fl::status::ok; }
      return ended;
    }
    if (fault == 2 && !base.replicas(expert_id{0}).empty()) {
      out.add({expert_id{0}, base.replicas(expert_id{0}).front().rank});
    }
    if (fault == 3 && out.size > 1) { out.add(out.storage[1]); }
    if (fault == 4 && out.size > 1) { ended.value = 2.0 * ended.bound; }
    if (fault == 5 && calls % 2 == 0 && out.size > 1) { --out.size; }
    if (fault == 6) { out.size = 0; }
    if (fault == 7) {
      for (index_t r = 0; r < cluster.ranks(); ++r) {
        if (cluster.slots(r) == 0) { out.add({expert_id{0}, static_cast<rank_id>(r)}); }
      }
    }
    if (fault == 8) { out.add({static_cast<expert_id>(base.experts()), rank_id{0}}); }
    if (fault == 9 && out.size == 1) { ended.value = ended.bound - 1.0; }
    return ended;
  }
  [[nodiscard]] index_t most_copies(fl::topology const& cluster, index_t experts) const {
    return experts * cluster.ranks() + 1;
  }
  [[nodiscard]] std::size_t workspace_bytes(fl::topology const& cluster, index_t experts) const {
    return fault == 10 ? 0 : fl::prefix_shadow{}.workspace_bytes(cluster, experts);
  }
};

std::string reason_of(int fault) { return fl::laws::check_copy_planner(faulty{fault}).reason(); }

}  // namespace

TEST_CASE("the copy planner laws find one planted violation each", "[place][laws]") {
  CHECK(reason_of(0).empty());
  CHECK(reason_of(1).find("lost expert") != std::string::npos);
  CHECK(reason_of(2).find("hosts the expert") != std::string::npos);
  CHECK(reason_of(3).find("twice") != std::string::npos);
  CHECK(reason_of(4).find("at most that without") != std::string::npos);
  CHECK(reason_of(5).find("equal copies") != std::string::npos);
  CHECK(reason_of(6).find("appended") != std::string::npos);
  CHECK(reason_of(7).find("ranks without slots") != std::string::npos);
  CHECK(reason_of(8).find("exist") != std::string::npos);
  CHECK(reason_of(9).find("value equals bound") != std::string::npos);
  CHECK(reason_of(10).find("workspace_bytes") != std::string::npos);
}
