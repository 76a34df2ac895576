// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/place/budgeted.hpp>

#include <fairlead/laws/detail/copy_cases.hpp>
#include <fairlead/laws/load_planner.hpp>
#include <fairlead/laws/slot_mapper.hpp>
#include <fairlead/place/global_pack.hpp>
#include <fairlead/place/greedy_max_replicas.hpp>
#include <fairlead/place/lpt_permutation.hpp>
#include <fairlead/place/replicate_then_place.hpp>
#include <fairlead/place/spread_greedy.hpp>

#include <algorithm>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;
using fl::laws::detail::case_numbers;
using fl::laws::detail::fetched_pairs;

namespace {

using table = std::vector<expert_id>;

// Proposes a random table that depends on the load: as unlike the one in use as can be.
struct at_random {
  static constexpr fl::replica_meaning meaning = fl::replica_meaning::equal_share;
  fl::report plan(fl::topology const& cluster, fl::load_estimate const& load, std::span<expert_id const>,
                  std::span<expert_id> next, fl::workspace&) const {
    auto const experts = static_cast<index_t>(load.totals.size());
    std::fill(next.begin(), next.end(), expert_id::none);
    if (experts > cluster.slots()) { return {.status = fl::status::infeasible}; }
    index_t sum = 0;
    for (index_t const one : load.totals) { sum += one; }
    case_numbers draw(77, static_cast<std::uint64_t>(sum));
    if (experts > 0) {
      table const made = fl::laws::detail::random_table(draw, cluster.slots(), experts);
      std::copy(made.begin(), made.end(), next.begin());
    }
    return {};
  }
  [[nodiscard]] std::size_t workspace_bytes(fl::topology const&, index_t) const { return 0; }
};
static_assert(fl::load_planner<at_random>);

using spread = fl::replicate_then_place<fl::greedy_max_replicas, fl::spread_greedy>;

struct result {
  fl::report ended;
  table next;
};
template <class Planner>
result plan(Planner const& planner, fl::topology const& cluster, std::vector<index_t> const& load, table const& now) {
  result made{{}, table(static_cast<std::size_t>(cluster.slots()), expert_id{12345})};
  fl::arena<> memory(planner.workspace_bytes(cluster, static_cast<index_t>(load.size())));
  fl::workspace ws = memory.view();
  made.ended = planner.plan(cluster, {.totals = load}, now, made.next, ws);
  return made;
}
bool hosts_all(table const& slots, index_t experts) {
  for (index_t e = 0; e < experts; ++e) {
    if (std::find(slots.begin(), slots.end(), static_cast<expert_id>(e)) == slots.end()) { return false; }
  }
  return true;
}
// (largest load of a rank, sum of squares) with equal shares.
std::pair<double, double> unevenness(fl::topology const& cluster, std::vector<index_t> const& load,
                                     table const& slots) {
  std::vector<double> ranks;
  for (index_t r = 0; r < cluster.ranks(); ++r) {
    double sum = 0.0;
    for (index_t s = 0; s < cluster.slots(r); ++s) {
      expert_id const expert = slots[static_cast<std::size_t>(cluster.slot_offsets()[static_cast<std::size_t>(r)] + s)];
      if (expert == expert_id::none) { continue; }
      sum += static_cast<double>(load[static_cast<std::size_t>(expert)]) /
             static_cast<double>(std::count(slots.begin(), slots.end(), expert));
    }
    ranks.push_back(sum);
  }
  double squares = 0.0;
  for (double const one : ranks) { squares += one * one; }
  return {*std::max_element(ranks.begin(), ranks.end()), squares};
}

struct setting {
  fl::topology cluster;
  std::vector<index_t> load;
  table now;
};
setting random_setting(std::uint64_t number) {
  case_numbers draw(41, number);
  setting made;
  index_t const ranks = 3 + draw.below(4);
  index_t const experts = 2 + draw.below(2 * ranks - 3);
  do { made.cluster = fl::laws::detail::random_cluster(draw, ranks, 2, 4); } while (made.cluster.slots() < experts);
  for (index_t e = 0; e < experts; ++e) {
    made.load.push_back(draw.below(4) == 0 ? draw.below(2000) : draw.below(200));
  }
  made.now = fl::laws::detail::random_table(draw, made.cluster.slots(), experts);
  return made;
}

template <class Planner>
void check_budget(Planner const& planner, std::uint64_t number, int& improved, int& stayed) {
  setting const s = random_setting(number);
  auto const experts = static_cast<index_t>(s.load.size());
  auto const before = unevenness(s.cluster, s.load, s.now);
  for (index_t const budget : {0, 1, 2, 3, 5, 100}) {
    result const got = plan(fl::budgeted<Planner>{planner, budget}, s.cluster, s.load, s.now);
    INFO("case " << number << ", budget " << budget);
    CHECK(hosts_all(got.next, experts));
    index_t const fetched = fetched_pairs(s.cluster, s.now, got.next);
    CHECK(fetched <= budget);
    CHECK(got.ended.iterations == fetched);
    auto const after = unevenness(s.cluster, s.load, got.next);
    CHECK(got.ended.value == Approx(after.first).epsilon(1e-9));
    CHECK(got.ended.bound <= got.ended.value * (1.0 + 1e-9));
    if (got.ended.status == fl::status::no_improvement) {
      CHECK(got.next == s.now);
      ++stayed;
    } else {
      CHECK(got.ended.status == fl::status::ok);
      CHECK(after.first <= before.first * (1.0 + 1e-9));
      if (after.first >= before.first * (1.0 - 1e-9)) { CHECK(after.second < before.second); }
      ++improved;
    }
  }
}

}  // namespace

static_assert(fl::load_planner<fl::budgeted<fl::global_pack>>);
static_assert(fl::budgets_moves<fl::budgeted<fl::global_pack>> && !fl::budgets_moves<fl::global_pack>);
static_assert(fl::incremental<fl::budgeted<fl::global_pack>>);
struct state_beside_replicas {};  // a carrier that moves optimizer state with the weights
static_assert(fl::planner_fits_state<fl::budgeted<fl::global_pack>, state_beside_replicas, true>);
static_assert(!fl::planner_fits_state<fl::global_pack, state_beside_replicas, true>);
static_assert(fl::budgeted<fl::global_pack>::meaning == fl::global_pack::meaning);

TEST_CASE("budgeted plans host every expert, stay in the budget and never get less even", "[place][budget]") {
  int improved = 0;
  int stayed = 0;
  for (std::uint64_t number = 0; number < 120; ++number) {
    check_budget(at_random{}, number, improved, stayed);
    check_budget(spread{}, number, improved, stayed);
  }
  CHECK(improved > 100);
  CHECK(stayed > 50);
}

TEST_CASE("with a budget that suffices the plan is the proposal, fitted to the table in use", "[place][budget]") {
  int taken = 0;
  for (std::uint64_t number = 0; number < 80; ++number) {
    setting const s = random_setting(number);
    result proposal = plan(spread{}, s.cluster, s.load, s.now);
    fl::min_cost_mapping const mapper;
    fl::arena<> memory(mapper.workspace_bytes(s.cluster, static_cast<index_t>(s.load.size())));
    fl::workspace ws = memory.view();
    fl::report const fitted = mapper.map(s.cluster, s.now, proposal.next, ws);
    auto const budget = static_cast<index_t>(fitted.value);
    result const got = plan(fl::budgeted<spread>{{}, budget}, s.cluster, s.load, s.now);
    auto const wanted = unevenness(s.cluster, s.load, proposal.next);
    if (wanted.first < unevenness(s.cluster, s.load, s.now).first * (1.0 - 1e-9)) {
      CHECK(got.next == proposal.next);
      CHECK(got.ended.iterations == budget);
      ++taken;
    }
  }
  CHECK(taken > 40);
}

TEST_CASE("when a budget of one stays with the table in use, no single change towards the proposal was better",
          "[place][budget]") {
  int seen = 0;
  for (std::uint64_t number = 0; number < 200; ++number) {
    setting const s = random_setting(number);
    result proposal = plan(spread{}, s.cluster, s.load, s.now);
    fl::min_cost_mapping const mapper;
    fl::arena<> memory(mapper.workspace_bytes(s.cluster, static_cast<index_t>(s.load.size())));
    fl::workspace ws = memory.view();
    (void)mapper.map(s.cluster, s.now, proposal.next, ws);
    result const got = plan(fl::budgeted<spread>{{}, 1}, s.cluster, s.load, s.now);
    auto const reached = unevenness(s.cluster, s.load, got.next);
    if (got.ended.status == fl::status::no_improvement) { ++seen; }
    for (std::size_t slot = 0; slot < s.now.size(); ++slot) {
      table changed = s.now;
      changed[slot] = proposal.next[slot];
      if (changed[slot] == expert_id::none || !hosts_all(changed, static_cast<index_t>(s.load.size()))) { continue; }
      auto const other = unevenness(s.cluster, s.load, changed);
      if (got.ended.status == fl::status::no_improvement) {
        auto const before = unevenness(s.cluster, s.load, s.now);
        // Neither the largest load nor the sum of squares falls together.
        CHECK_FALSE((other.first <= before.first && other.second < before.second * (1.0 - 1e-9)));
      }
    }
    CHECK(reached.first <= unevenness(s.cluster, s.load, s.now).first * (1.0 + 1e-9));
  }
  CHECK(seen > 0);
}

TEST_CASE("plan after plan gets as even as the proposal when nothing holds it up", "[place][budget]") {
  // Eight ranks with one hot expert each two ranks apart: three of four replicas have to move.
  fl::topology const cluster(8, 2, 4);
  std::vector<index_t> const load{4000, 100, 100, 100, 100, 100, 100, 100};
  table now;
  for (int slot = 0; slot < 16; ++slot) { now.push_back(static_cast<expert_id>(slot % 8)); }
  double last = unevenness(cluster, load, now).first;
  result const goal = plan(spread{}, cluster, load, {});
  for (int turn = 0; turn < 12; ++turn) {
    result const got = plan(fl::budgeted<spread>{{}, 1}, cluster, load, now);
    CHECK(fetched_pairs(cluster, now, got.next) <= 1);
    CHECK(got.ended.value <= last * (1.0 + 1e-12));
    last = got.ended.value;
    now = got.next;
  }
  CHECK(last <= 1.35 * unevenness(cluster, load, goal.next).first);
  CHECK(last < 0.5 * 2000.0);  // two replicas had 2000 each
}

TEST_CASE("swaps carry a permutation planner, which has no second replica to give up", "[place][budget]") {
  fl::topology const cluster(4, 2);
  std::vector<index_t> const load{100, 90, 10, 10, 10, 10, 10, 10};
  table now;
  for (int e = 0; e < 8; ++e) { now.push_back(static_cast<expert_id>(e)); }
  for (index_t const budget : {2, 4}) {
    result const got = plan(fl::budgeted<fl::lpt_permutation>{{}, budget}, cluster, load, now);
    CHECK(got.ended.status == fl::status::ok);
    CHECK(got.ended.value == Approx(110.0));
    CHECK(fetched_pairs(cluster, now, got.next) <= budget);
    CHECK(hosts_all(got.next, 8));
  }
  CHECK(plan(fl::budgeted<fl::lpt_permutation>{{}, 1}, cluster, load, now).ended.status == fl::status::no_improvement);
}

TEST_CASE("lost experts are placed first, and beyond the budget if they have to be", "[place][budget]") {
  for (std::uint64_t number = 0; number < 100; ++number) {
    setting s = random_setting(number);
    auto const experts = static_cast<index_t>(s.load.size());
    case_numbers draw(51, number);
    index_t missing = 0;
    for (index_t i = 0; i < 2; ++i) {
      auto const gone = static_cast<expert_id>(draw.below(experts));
      missing += std::count(s.now.begin(), s.now.end(), gone) > 0 ? 1 : 0;
      // Its slots hold other experts, or nothing.
      for (expert_id& slot : s.now) {
        if (slot == gone) {
          slot = draw.below(2) == 0 ? expert_id::none : static_cast<expert_id>((fl::to_index(gone) + 1) % experts);
        }
      }
    }
    missing = 0;
    for (index_t e = 0; e < experts; ++e) {
      missing += std::count(s.now.begin(), s.now.end(), static_cast<expert_id>(e)) == 0 ? 1 : 0;
    }
    for (index_t const budget : {0, 1, 4}) {
      result const got = plan(fl::budgeted<spread>{{}, budget}, s.cluster, s.load, s.now);
      CHECK(hosts_all(got.next, experts));
      CHECK(fetched_pairs(s.cluster, s.now, got.next) <= std::max(budget, missing));
      if (missing > 0) { CHECK(got.ended.status == fl::status::ok); }
    }
  }
}

TEST_CASE("budgeted planners keep the laws of load planners", "[place][laws]") {
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    fl::laws::load_planner_problem const wanted{.seed = seed, .value_is_largest_share = true};
    CHECK(fl::laws::check_load_planner(fl::budgeted<at_random>{{}, 3}, wanted));
    CHECK(fl::laws::check_load_planner(fl::budgeted<spread>{{}, 3}, wanted));
    CHECK(fl::laws::check_load_planner(fl::budgeted<spread, fl::identity_mapping>{{}, 0}, wanted));
  }
}

TEST_CASE("budgeted refuses a negative budget and tables that do not fit, and passes failures on",
          "[place][contract]") {
  setting const s = random_setting(1);
  CHECK_THROWS_AS(plan(fl::budgeted<spread>{{}, -1}, s.cluster, s.load, s.now), fl::contract_violation);
  CHECK_THROWS_AS(plan(fl::budgeted<spread>{{}, 1}, s.cluster, s.load, table(1)), fl::contract_violation);
  fl::topology const small(2, 1);
  result const got = plan(fl::budgeted<spread>{{}, 1}, small, {1, 2, 3}, {});
  CHECK(got.ended.status == fl::status::infeasible);
  CHECK(got.next == table(2, expert_id::none));
}
